"""Sealed records: what is sealed comes back, and nothing else ever does."""

import json
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
import sealing
from hypothesis import given, settings
from hypothesis import strategies as some

from pacs.model.errors import IntegrityError, NotFound, NotTranscodable
from pacs.model.instance import IndexEntry, InstanceKey, Location, Origin, Stored
from pacs.store import envelope, record
from pacs.store.envelope import Sealer

NOW = 1_795_000_000.5
GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture(scope="module")
def sealer(tmp_path_factory: pytest.TempPathFactory) -> Sealer:
    """A sealer with keys of its own, and a clock that stands: equal contents make records of equal length."""
    return Sealer(sealing.ring(tmp_path_factory.mktemp("keys")), clock=lambda: NOW)


@settings(max_examples=60, deadline=None)
@given(
    header=some.binary(max_size=3000),
    frames=some.lists(some.binary(max_size=400), max_size=5),
    native=some.booleans(),
    pixel_vr=some.sampled_from(["OB", "OW"]),
)
def test_open_undoes_seal(sealer: Sealer, header: bytes, frames: list[bytes], native: bool, pixel_vr: str) -> None:
    """Whatever header and frames are sealed, the same come back: all together, the header alone, and each frame alone."""
    syntax = sealing.EXPLICIT if native else sealing.HTJ2K
    one = sealing.encoded(header=header, frames=tuple(frames), syntax=syntax, pixel_vr=pixel_vr)
    objects, stored = sealing.held(sealer, one)

    opened, pixels = sealer.open(stored, objects)

    assert (opened, pixels.frames, pixels.pixel_vr) == (header, tuple(frames), pixel_vr)
    assert sealer.open_header(stored, objects) == header
    for number, frame in enumerate(frames, 1):
        assert sealer.open_frame(stored, objects, number) == (header, frame)


def test_large_items_are_cut_into_parts(sealer: Sealer) -> None:
    """A header and frames of several megabytes come back, and small frames beside them too."""
    frames = (bytes(range(256)) * 10_000, b"small", b"", bytes(3 << 20))
    one = sealing.encoded(header=b"\x5a" * (2 << 20), frames=frames)
    objects, stored = sealing.held(sealer, one)

    assert sealer.open(stored, objects)[1].frames == frames
    assert sealer.open_frame(stored, objects, 2)[1] == b"small"


def test_a_frame_is_read_without_its_neighbours(sealer: Sealer) -> None:
    """Opening one frame of many reads the beginning of the record and that frame, nothing else."""

    class Counting(sealing.Held):
        read = 0

        def get(self, location: Location, span: tuple[int, int] | None = None) -> bytes:
            data = super().get(location, span)
            self.read += len(data)
            return data

    one = sealing.encoded(frames=tuple(bytes([number]) * 100_000 for number in range(20)))
    objects = Counting()
    sealed = sealing.seal(sealer, one)
    stored = sealing.stored(one, sealed, objects.put([sealed])[0])

    assert sealer.open_frame(stored, objects, 18)[1] == bytes([17]) * 100_000
    assert objects.read < 120_000


def test_there_is_no_frame_beyond_the_last(sealer: Sealer) -> None:
    """Frame 0, and one more than there are, are not found."""
    objects, stored = sealing.held(sealer, sealing.encoded())

    for number in (-1, 0, 3):
        with pytest.raises(NotFound):
            sealer.open_frame(stored, objects, number)


def test_packed_one_bit_frames_are_cut_out(sealer: Sealer) -> None:
    """Frames that do not begin on a byte come out aligned, least significant bit first (PS3.5 8.1.1)."""
    # Three frames of 5 bits: 10101, 00111, 11000, first pixel in the lowest bit.
    packed = (0b10101 | 0b00111 << 5 | 0b11000 << 10).to_bytes(2, "little")
    one = sealing.encoded(frames=(packed,), syntax=sealing.EXPLICIT, packed=True, number_of_frames=3, frame_bits=5)
    objects, stored = sealing.held(sealer, one)

    assert [sealer.open_frame(stored, objects, number)[1] for number in (1, 2, 3)] == [b"\x15", b"\x07", b"\x18"]
    assert sealer.open(stored, objects)[1].packed


def test_frames_that_cannot_be_told_apart_are_not_guessed(sealer: Sealer) -> None:
    """A packed item stream of several frames has no single frames to give."""
    one = sealing.encoded(frames=(b"items",), packed=True, number_of_frames=7)
    objects, stored = sealing.held(sealer, one)

    with pytest.raises(NotTranscodable):
        sealer.open_frame(stored, objects, 1)


def test_a_changed_bit_is_found_wherever_it_is(sealer: Sealer) -> None:
    """A bit flipped in any byte of a record is found: by opening it or, in the commit mark, without any key."""
    objects, stored = sealing.held(sealer, sealing.encoded())
    genuine = objects.records[0]

    for position in range(len(genuine)):
        damaged = bytearray(genuine)
        damaged[position] ^= 1 << position % 8
        objects.records[0] = bytes(damaged)
        if position >= len(genuine) - record.TRAILER.size:
            assert not record.is_complete(damaged)
        else:
            with pytest.raises(IntegrityError):
                sealer.open(stored, objects)


def test_damage_is_seen_without_a_key(sealer: Sealer) -> None:
    """A changed byte anywhere but in the state makes the checksum fail."""
    objects, _ = sealing.held(sealer, sealing.encoded())
    genuine = objects.records[0]

    assert record.is_complete(genuine)
    for position in set(range(len(genuine))) - {record.STATE_OFFSET}:
        damaged = bytearray(genuine)
        damaged[position] ^= 0x40
        assert not record.is_complete(damaged)


def test_a_truncated_record_does_not_open(sealer: Sealer) -> None:
    """A record that ends early, at any byte, does not open, whatever length the index believes."""
    objects, stored = sealing.held(sealer, sealing.encoded())
    genuine = objects.records[0]

    for length in range(len(genuine) - record.TRAILER.size):
        objects.records[0] = genuine[:length]
        for claimed in (length, len(genuine)):
            row = replace(stored, location=replace(stored.location, size_bytes=claimed))
            with pytest.raises(IntegrityError):
                sealer.open(row, objects)


def test_chunks_cannot_be_exchanged(sealer: Sealer) -> None:
    """A frame of another record of the same study, or another frame of the same record, does not open in its place."""
    one = sealing.encoded(frames=(b"A" * 100, b"B" * 100))
    objects, stored = sealing.held(sealer, one)
    other, _ = sealing.held(sealer, one)
    genuine = objects.records[0]
    head = record.parse_head(genuine)
    first, second = head.item(2)[0], head.item(3)[0]

    def with_first(chunk: bytes) -> bytes:
        return genuine[: first.offset] + chunk + genuine[first.offset + first.length :]

    for foreign in (
        other.records[0][first.offset : first.offset + first.length],
        genuine[second.offset : second.offset + second.length],
    ):
        objects.records[0] = with_first(foreign)
        with pytest.raises(IntegrityError):
            sealer.open_frame(stored, objects, 1)
    assert other.records[0][:24] == genuine[:24]


def test_a_genuine_record_in_another_place_does_not_open(sealer: Sealer) -> None:
    """A record of the same study, moved to where the index expects another instance, is refused."""
    objects, stored = sealing.held(sealer, sealing.encoded())
    other, _ = sealing.held(sealer, sealing.encoded(key=InstanceKey("2.25.1", "2.25.2", "2.25.4")))
    objects.records[0] = other.records[0]

    with pytest.raises(IntegrityError):
        sealer.open_header(stored, objects)


def test_another_study_key_opens_nothing(sealer: Sealer, tmp_path: Path) -> None:
    """A ring with other keys under the same ids cannot open a record."""
    objects, stored = sealing.held(sealer, sealing.encoded())
    other = sealing.ring(tmp_path)
    for study in range(stored.study_key_id):
        other.for_study(f"2.25.{study}")

    with pytest.raises(IntegrityError):
        Sealer(other).open(stored, objects)


def test_a_forgotten_study_cannot_be_read(tmp_path: Path) -> None:
    """When a study's key is forgotten, its records stay shut; those of others open."""
    ring = sealing.ring(tmp_path)
    sealer = Sealer(ring)
    gone, gone_row = sealing.held(sealer, sealing.encoded())
    kept, kept_row = sealing.held(sealer, sealing.encoded(key=InstanceKey("2.25.8", "2.25.2", "2.25.3")))

    assert ring.forget("2.25.1")

    with pytest.raises(IntegrityError):
        sealer.open(gone_row, gone)
    assert sealer.open_header(kept_row, kept)


def test_the_entry_rebuilds_the_row(sealer: Sealer) -> None:
    """A record alone says everything that its index rows need."""
    one = sealing.encoded()
    sealed = sealing.seal(sealer, one)

    entry = sealer.open_entry(b"".join(sealed.record))

    assert entry == IndexEntry(
        object_id=sealed.object_id,
        study_key_id=sealed.study_key_id,
        key=one.key,
        sop_class_uid=one.sop_class_uid,
        transfer_syntax_uid=one.transfer_syntax_uid,
        digest=one.digest,
        number_of_frames=2,
        origin=Origin.STORAGE_SCU,
        policy="research",
        attributes=one.attributes,
        at=NOW,
    )


def test_a_record_shows_nothing(sealer: Sealer) -> None:
    """Neither UIDs, nor attributes, nor pixels, nor header can be read in a sealed record."""
    one = sealing.encoded(frames=(b"a recognisable frame" * 20,), syntax=sealing.EXPLICIT)
    sealed = b"".join(sealing.seal(sealer, one).record)

    for text in (*vars_of(one.key), one.sop_class_uid, one.transfer_syntax_uid, "research", "storage-scu", "Modality"):
        assert text.encode() not in sealed
    assert b"recognisable" not in sealed
    assert b"without its pixels" not in sealed


def vars_of(key: InstanceKey) -> tuple[str, str, str]:
    """Return the three UIDs."""
    return key.study_instance_uid, key.series_instance_uid, key.sop_instance_uid


def test_the_same_instance_is_sealed_differently_each_time(sealer: Sealer) -> None:
    """Equal instances cannot be recognised by their ciphertext."""
    first, second = (b"".join(sealing.seal(sealer, sealing.encoded()).record) for _ in range(2))

    assert first[24:40] != second[24:40]
    assert first[200:] != second[200:]


def test_segmentations_shrink_and_noise_does_not_grow(sealer: Sealer) -> None:
    """Native frames that zlib shrinks well are kept so; others are kept as they are."""
    mask, noise = b"\0" * 40_000 + b"\xff" * 10_000, bytes((i * 7919 >> 3) * 31 & 255 for i in range(50_000))

    sealed = sealing.seal(sealer, sealing.encoded(frames=(mask, noise), syntax=sealing.EXPLICIT))
    head = record.parse_head(b"".join(sealed.record))

    assert head.item(2)[0].coding == record.ZLIB
    assert head.item(2)[0].length < 1000
    assert sealed.size_bytes < 55_000


def test_golden_record_of_version_1_opens() -> None:
    """The record that lies in tests/golden since version 1 opens with its key, and always will (docs/format.md)."""
    about = json.loads((GOLDEN / "record-1.json").read_text(encoding="utf-8"))
    sealed = (GOLDEN / "record-1.bin").read_bytes()

    class Ring:
        def key(self, study_key_id: int) -> bytes:
            assert study_key_id == about["study_key_id"]
            return bytes.fromhex(about["study_key"])

    sealer = Sealer(Ring())  # type: ignore[arg-type]  # of a ring, opening needs only this
    objects = sealing.Held(sealed)
    entry = sealer.open_entry(sealed)
    stored = Stored(
        entry.key,
        entry.sop_class_uid,
        entry.transfer_syntax_uid,
        Location("0", 0, len(sealed)),
        entry.study_key_id,
        entry.digest,
    )

    header, pixels = sealer.open(stored, objects)

    assert record.is_complete(sealed)
    assert entry.object_id == UUID(about["object_id"])
    assert vars_of(entry.key) == tuple(about["key"])
    assert entry.attributes == about["attributes"]
    assert entry.digest.hex() == about["digest"]
    assert header == bytes.fromhex(about["header"])
    assert [frame.hex() for frame in map(bytes, pixels.frames)] == about["frames"]


def test_sealing_is_the_documented_function() -> None:
    """With the same object id and key, every sealed byte but those that zlib chose is the golden record's."""
    about = json.loads((GOLDEN / "record-1.json").read_text(encoding="utf-8"))
    one = sealing.encoded(key=InstanceKey(*about["key"]), header=bytes.fromhex(about["header"]))
    one = replace(one, frames=tuple(bytes.fromhex(frame) for frame in about["frames"]), attributes=about["attributes"])
    sealed = envelope.seal(
        replace(one, digest=bytes.fromhex(about["digest"])),
        UUID(about["object_id"]),
        about["study_key_id"],
        bytes.fromhex(about["study_key"]),
        policy=about["policy"],
        origin=Origin(about["origin"]),
    )

    head = record.parse_head(b"".join(sealed.record))

    assert head.object_id == UUID(about["object_id"])
    assert [head.row(index).kind for index in range(head.chunks)] == [0, 1, 2, 2]
