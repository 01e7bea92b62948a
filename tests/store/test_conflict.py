"""Other content under a known SOP Instance UID: kept beside, refused, or shown instead, as `store.conflict` says."""

import threading
from pathlib import Path

import making
import pytest

from pacs import retrieve
from pacs.archive import Archive
from pacs.ingest import ingest
from pacs.model.errors import InstanceConflict
from pacs.upkeep.verify import verify

EXPLICIT = "1.2.840.10008.1.2.1"


def send(archive: Archive, seed: int, instance: int = 1) -> None:
    """Put an image in; the seed is its content."""
    ingest(archive, making.received(making.dataset(instance=instance, frame=making.pixels(seed=seed))))


def shown(archive: Archive) -> bytes:
    """Return the pixels that a door would send."""
    (study,) = archive.index.studies()
    (stored,) = archive.index.locate(study_instance_uids=[study.study_instance_uid])
    whole = b"".join(bytes(one) for one in retrieve.part10_file(archive, stored, [EXPLICIT]))
    return whole[-making.pixels().nbytes :]


def pixels(seed: int) -> bytes:
    """Return the pixels of a seed."""
    return making.pixels(seed=seed).tobytes()


def test_a_further_version_is_kept_beside_the_first(tmp_path: Path) -> None:
    """The first is shown; administrators see both, with their digests; an event tells of it."""
    with making.archive(tmp_path / "home") as archive:
        send(archive, 1)
        send(archive, 2)
        send(archive, 1)

        assert shown(archive) == pixels(1)
        rows = archive.index.upkeep.versions()
        assert [(one.version, one.current) for one in rows] == [(1, True), (2, False)]
        assert len({one.digest for one in rows}) == 2
        assert archive.index.upkeep.versions(rows[0].sop_instance_uid) == rows
        assert archive.index.upkeep.versions("1.2.3") == []
        assert [one.kind for one in archive.index.events() if "instance" in one.kind] == ["instance_conflict"]


def test_it_is_refused_where_policy_says_so(tmp_path: Path) -> None:
    """The sender hears it, others of the same group do not suffer, an equal resend is no conflict, and nothing is kept."""
    with making.archive(tmp_path / "home", store__conflict="reject") as archive:
        send(archive, 1)
        send(archive, 1)
        refused: list[InstanceConflict] = []

        def conflicting() -> None:
            try:
                send(archive, 2)
            except InstanceConflict as error:
                refused.append(error)

        threads = [threading.Thread(target=conflicting) for _ in range(3)]
        threads += [threading.Thread(target=send, args=(archive, 1, number)) for number in range(2, 8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(refused) == 3
        assert archive.index.upkeep.versions() == []
        assert archive.index.summary()["instances"] == 7
        assert list(verify(archive, deep=True)) == []


def test_it_takes_the_place_where_policy_says_so(tmp_path: Path) -> None:
    """The newest is shown and counted; the older ones stay for administrators; its series becomes due again."""
    with making.archive(tmp_path / "home", store__conflict="replace") as archive:
        send(archive, 1)
        (study,) = archive.index.studies()
        (series,) = archive.index.series_of(study.study_instance_uid)
        send(archive, 2)
        send(archive, 3)

        assert shown(archive) == pixels(3)
        assert [(one.version, one.current) for one in archive.index.upkeep.versions()] == [(1, False), (2, False), (3, True)]
        summary = archive.index.summary()
        (current,) = archive.index.locate(study_instance_uids=[study.study_instance_uid])
        assert (summary["instances"], summary["size_bytes"]) == (1, current.location.size_bytes)
        assert [one.kind for one in archive.index.events() if "instance" in one.kind] == ["instance_replaced"] * 2
        (after,) = archive.index.series_of(study.study_instance_uid)
        assert after.last_arrival > series.last_arrival


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_each_policy_holds_on_both_databases(tmp_path: Path, kind: str) -> None:
    """Version, reject and replace, over the index alone."""
    import arrivals
    import services
    from arrivals import placed

    from pacs.index import schema
    from pacs.index.database import Index

    for policy in ("version", "reject", "replace"):
        folder = tmp_path / policy
        folder.mkdir()
        with services.database(kind, folder) as url:
            schema.upgrade(url)
            index = Index.open(url, clock=arrivals.Clock(), conflict=policy)
            try:
                first, second = placed(1), placed(1, content="other")
                index.add([first])
                if policy == "reject":
                    with pytest.raises(InstanceConflict):
                        index.add([second])
                    assert len(index.upkeep.rows_of("1.1.1.1")) == 1
                    continue
                (answer,) = index.add([second])
                assert (answer.fresh, answer.version) == (True, 2)
                (shown,) = index.locate(sop_instance_uids=["1.1.1.1"])
                assert shown.digest == (second if policy == "replace" else first)[0].encoded.digest
                assert index.summary()["instances"] == 1
            finally:
                index.close()
