"""Compression after the answer: what came in a hurry becomes HTJ2K, and nothing is lost on the way."""

import threading
import time
from pathlib import Path
from typing import Any

import making
import numpy as np
import pytest

from pacs import retrieve
from pacs.archive import Archive
from pacs.ingest import ingest
from pacs.model.errors import Unavailable
from pacs.model.instance import Stored
from pacs.store import record as layout
from pacs.sweep import recover
from pacs.upkeep.compress import compress
from pacs.upkeep.rebuild import rebuild
from pacs.upkeep.verify import verify

EXPLICIT, HTJ2K = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.202"


def later(home: Path) -> Any:
    """Return an archive that compresses everything later."""
    return making.archive(home, store__compress="later")


def work(archive: Archive) -> int:
    """Compress all that waits."""
    return compress(archive, until=time.monotonic() + 60, rest_s=-1)


def now(archive: Archive) -> list[Stored]:
    """Return every instance of the archive."""
    return archive.index.locate(study_instance_uids=[one.study_instance_uid for one in archive.index.studies()])


def pixels(archive: Archive, stored: Stored) -> bytes:
    """Return the end of an instance as it goes out uncompressed: its pixels."""
    return b"".join(bytes(one) for one in retrieve.part10_file(archive, stored, [EXPLICIT]))


def smooth(instance: int, **overrides: Any) -> Any:
    """Return an image that compresses."""
    values = np.add.outer(np.arange(64), np.arange(64)).astype("<u2") + instance
    ds = making.dataset(instance=instance, **overrides)
    ds.PixelData = values.tobytes()
    return ds


def test_what_is_deferred_is_whole_at_once_and_compressed_later(tmp_path: Path) -> None:
    """Native, packed and readable after the answer; HTJ2K and smaller afterwards, with equal digest, pixels and times."""
    data_sets = [smooth(number) for number in (1, 2, 3)]
    with later(tmp_path / "home") as archive:
        for ds in data_sets:
            ingest(archive, making.received(ds))
        before = now(archive)
        assert {one.transfer_syntax_uid for one in before} == {EXPLICIT}
        record = archive.objects.get(before[0].location)
        assert layout.parse_head(record).item(2)[0].coding == layout.PACKED_BITS
        assert all(pixels(archive, one).endswith(ds.PixelData) for one, ds in zip(before, data_sets, strict=True))
        entries = [archive.sealer.open_entry(archive.objects.get(one.location)) for one in before]

        assert work(archive) == 3

        after = now(archive)
        assert {one.transfer_syntax_uid for one in after} == {HTJ2K}
        assert [one.digest for one in after] == [one.digest for one in before]
        assert all(pixels(archive, one).endswith(ds.PixelData) for one, ds in zip(after, data_sets, strict=True))
        again = [archive.sealer.open_entry(archive.objects.get(one.location)) for one in after]
        assert [(one.at, one.report, one.source) for one in again] == [(one.at, one.report, one.source) for one in entries]
        assert archive.index.upkeep.count_deferred() == 0 and work(archive) == 0
        assert [one for one in verify(archive, deep=True) if one.kind != "orphan"] == []
        size = sum(one.location.size_bytes for one in after)
        assert archive.index.summary()["size_bytes"] == size < sum(one.location.size_bytes for one in before)
        assert ingest(archive, making.received(data_sets[0])).fresh is False, "an equal resend is known in either form"


def test_colour_says_how_it_is_compressed(tmp_path: Path) -> None:
    """RGB becomes YBR_RCT in header and index, and comes back as RGB."""
    ds = making.dataset(instance=1)
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    ds.PixelData = np.repeat(np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)[..., None], 3, axis=2).tobytes()
    with later(tmp_path / "home") as archive:
        ingest(archive, making.received(ds))

        assert work(archive) == 1

        (stored,) = now(archive)
        assert stored.transfer_syntax_uid == HTJ2K
        assert stored.attributes.get("PhotometricInterpretation", "YBR_RCT") == "YBR_RCT"
        assert pixels(archive, stored).endswith(ds.PixelData)
        assert list(verify(archive, deep=True)) == [] or all(one.kind == "orphan" for one in verify(archive, deep=True))


def test_what_does_not_become_smaller_stays_and_is_not_tried_again(tmp_path: Path) -> None:
    """Noise waits once."""
    ds = making.dataset(instance=1)
    ds.PixelRepresentation, ds.BitsStored, ds.HighBit = 0, 16, 15
    ds.PixelData = np.random.default_rng(1).integers(0, 1 << 16, 64 * 64, dtype=np.uint16).tobytes()
    with later(tmp_path / "home") as archive:
        ingest(archive, making.received(ds))
        assert archive.index.upkeep.count_deferred() == 1

        assert work(archive) == 0

        assert archive.index.upkeep.count_deferred() == 0
        assert pixels(archive, now(archive)[0]).endswith(ds.PixelData)


class Cut(BaseException):
    """Nothing after this line happens any more."""


@pytest.mark.parametrize("step", ["put", "row"])
def test_a_cut_at_any_step_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Cut behind the new record or behind its row: after a start, and after a rebuild, the instance is there once and whole."""
    ds = smooth(1)
    home = tmp_path / "home"
    with later(home) as archive:
        ingest(archive, making.received(ds))
        moved = archive.index.upkeep.compressed

        def dark(*arguments: Any) -> None:
            if step == "row":
                moved(*arguments)
            raise Cut

        monkeypatch.setattr(archive.index.upkeep, "compressed", dark)
        with pytest.raises(Cut):
            work(archive)

    def check(archive: Archive) -> None:
        (stored,) = now(archive)
        assert stored.version == 1 and pixels(archive, stored).endswith(ds.PixelData)
        work(archive)
        (stored,) = now(archive)
        assert stored.transfer_syntax_uid == HTJ2K and pixels(archive, stored).endswith(ds.PixelData)
        assert [one for one in verify(archive, deep=True) if one.kind != "orphan"] == []

    with later(home) as archive:
        recover(archive)
        check(archive)
    for path in home.glob("index.db*"):
        path.unlink()
    with later(home) as archive:
        rebuild(archive)
        check(archive)


def test_who_changed_a_row_meanwhile_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that points elsewhere by now stays, and the new record is given up; so it is for a study that was forgotten."""
    with later(tmp_path / "home") as archive:
        ingest(archive, making.received(smooth(1)))
        (row,) = archive.index.upkeep.deferred(time.time() + 1, 9)
        put = archive.objects.put

        once = threading.Event()

        def slow(group: Any) -> Any:
            found = put(group)
            (copy,) = archive.objects.copy([row.stored.location])
            assert archive.index.upkeep.move([(row, copy)]) == [True]
            # One batch: what was moved would be found again, at its new place.
            once.set()
            return found

        monkeypatch.setattr(archive.committer, "_objects", archive.objects)
        monkeypatch.setattr(archive.objects, "put", slow)
        assert compress(archive, until=time.monotonic() + 60, rest_s=-1, stop=once) == 0
        monkeypatch.undo()

        assert pixels(archive, now(archive)[0]).endswith(smooth(1).PixelData)
        archive.ring.forget(now(archive)[0].key.study_instance_uid)
        assert work(archive) == 0
        assert archive.ring.size() == 0, "no new key for a forgotten study"


def test_a_database_that_is_full_keeps_the_old_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the index leaves the instance as it was."""
    with later(tmp_path / "home") as archive:
        ingest(archive, making.received(smooth(1)))

        def busy(*_: Any) -> None:
            raise Unavailable("busy")

        monkeypatch.setattr(archive.index.upkeep, "compressed", busy)
        with pytest.raises(Unavailable):
            work(archive)
        monkeypatch.undo()

        assert now(archive)[0].transfer_syntax_uid == EXPLICIT
        assert work(archive) == 1
