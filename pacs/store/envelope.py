"""Seal and open records (docs/format.md): AES-256-GCM in chunks, each readable alone and bound to its place in its record.

Sealing takes an `Encoded`, which only `codec` makes, and gives a `Sealed`, which only this makes. Opening authenticates every
byte it returns; what does not authenticate is an `IntegrityError`. Files are not known here.
"""

import json
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pacs.model.bulk import LazyFrames
from pacs.model.errors import NotFound, NotTranscodable
from pacs.model.instance import Buffer, Encoded, IndexEntry, Location, Origin, Sealed, Stored, StoredFrames
from pacs.model.job import MadeBy
from pacs.ports import Clock, ObjectStore
from pacs.store import record as layout
from pacs.store.keys import KeyRing
from pacs.store.opening import FIRST_READ, NATIVE, Packing, Reader, bound, cipher_of, cut, entry_of, nonce, open_item

_SAMPLE_BYTES = 16 << 10


class Sealer:
    """Seals and opens records with the study keys of a ring."""

    def __init__(self, ring: KeyRing, clock: Clock = time.time, packing: Packing | None = None) -> None:
        self._ring = ring
        self._clock = clock
        self._packing = packing

    def seal(
        self,
        encoded: Encoded,
        *,
        policy: str,
        origin: Origin,
        pending: tuple[str, ...] = (),
        received_digest: bytes | None = None,
        report: Mapping[str, int] | None = None,
        source: str = "",
        made_by: MadeBy | None = None,
    ) -> Sealed:
        """Encrypt one instance under its study's key, with a fresh object id."""
        study_key_id, study_key = self._ring.for_study(encoded.key.study_instance_uid)
        return seal(
            encoded,
            uuid.uuid4(),
            study_key_id,
            study_key,
            policy=policy,
            origin=origin,
            pending=pending,
            received_digest=received_digest,
            report=report,
            source=source,
            made_by=made_by,
            at=self._clock(),
            packing=self._packing,
        )

    def reseal(self, encoded: Encoded, study_key_id: int, entry: IndexEntry) -> Sealed:
        """Encrypt what was stored in another form, under the key it had: what `entry` says of its arrival stays.

        Raises `IntegrityError` if that key was forgotten.
        """
        return seal(
            encoded,
            uuid.uuid4(),
            study_key_id,
            self._ring.key(study_key_id),
            policy=entry.policy,
            origin=entry.origin,
            pending=entry.pending,
            received_digest=entry.received_digest,
            report=entry.report,
            source=entry.source,
            made_by=entry.made_by,
            at=entry.at,
        )

    def open_header(self, stored: Stored, objects: ObjectStore) -> bytes:
        """Return the data set without Pixel Data, Explicit VR Little Endian, reading only its chunks."""
        return Reader(stored, objects, self._ring, self._packing).item(1)

    def open(self, stored: Stored, objects: ObjectStore) -> tuple[bytes, StoredFrames]:
        """Return header and Pixel Data; the frames of a large record are opened when they are asked for."""
        large = stored.location.size_bytes > layout.LARGE_BYTES
        reader = Reader(stored, objects, self._ring, self._packing, whole=not large)
        head = reader.head
        if large:
            return reader.item(1), StoredFrames(reader.lazily(), head.frames, head.packed, head.pixel_vr)
        frames = tuple(reader.item(number) for number in range(2, head.items))
        return reader.item(1), StoredFrames(frames, head.frames, head.packed, head.pixel_vr)

    def open_frame(self, stored: Stored, objects: ObjectStore, number: int) -> tuple[bytes, bytes]:
        """Return header and frame `number` (1 is the first), reading only their chunks.

        Raises
        ------
        NotFound
            There is no such frame.
        NotTranscodable
            Frames of this instance cannot be told apart.
        """
        reader = Reader(stored, objects, self._ring, self._packing)
        head = reader.head
        if not 1 <= number <= head.frames:
            raise NotFound(f"there is no frame {number}; the instance has {head.frames}")
        if not head.packed:
            return reader.item(1), reader.item(number + 1)
        if head.frame_bits == 0 and head.frames > 1:
            raise NotTranscodable("the frames of this instance cannot be told apart; ask for the whole instance")
        if head.frame_bits == 0:
            return reader.item(1), reader.item(2)
        first = (number - 1) * head.frame_bits // 8
        covering = reader.span(2, first, (number * head.frame_bits + 7) // 8)
        return reader.item(1), cut(covering, (number - 1) * head.frame_bits % 8, head.frame_bits, number)

    def beginning(self, location: Location, objects: ObjectStore) -> bytes:
        """Return a record up to and with its index entry; enough for `open_entry`."""
        start = objects.get(location, (0, min(location.size_bytes, FIRST_READ)))
        needed = layout.head_bytes(start)
        if needed > len(start):
            start = objects.get(location, (0, needed))
        needed = layout.opening_bytes(layout.parse_head(start))
        return start if needed <= len(start) else objects.get(location, (0, needed))

    def open_entry(self, record: Buffer) -> IndexEntry:
        """Return what a record says of itself; everything that its index rows need."""
        head = layout.parse_head(record)
        return entry_of(head, open_item(head, cipher_of(self._ring.key(head.study_key_id), head.object_id.bytes), record, 0))


def seal(
    encoded: Encoded,
    object_id: uuid.UUID,
    study_key_id: int,
    study_key: bytes,
    *,
    policy: str,
    origin: Origin,
    pending: tuple[str, ...] = (),
    received_digest: bytes | None = None,
    report: Mapping[str, int] | None = None,
    source: str = "",
    made_by: MadeBy | None = None,
    at: float = 0.0,
    packing: Packing | None = None,
) -> Sealed:
    """Encrypt one instance; pure. An object id must never be used for two contents."""
    entry: dict[str, object] = {
        "study": encoded.key.study_instance_uid,
        "series": encoded.key.series_instance_uid,
        "instance": encoded.key.sop_instance_uid,
        "class": encoded.sop_class_uid,
        "syntax": encoded.transfer_syntax_uid,
        "digest": encoded.digest.hex(),
        "frames": encoded.number_of_frames,
        "origin": str(origin),
        "policy": policy,
        "attributes": dict(encoded.attributes),
    }
    if pending:
        entry["pending"] = list(pending)
    if received_digest is not None:
        entry["received"] = received_digest.hex()
    if report:
        entry["report"] = dict(report)
    if encoded.repeatable:
        entry["repeatable"] = True
    if encoded.deferred:
        entry["deferred"] = True
    if source:
        entry["source"] = source
    if made_by is not None:
        entry["job"] = asdict(made_by)
    if at:
        entry["at"] = at
    text = json.dumps(entry, separators=(",", ":"), sort_keys=True).encode("ascii")
    items = [_coded(layout.ENTRY, text, True), _coded(layout.HEADER, encoded.header, True)]
    if isinstance(encoded.frames, LazyFrames):
        return _sealed_lazily(encoded, encoded.frames, items, object_id, study_key_id, study_key)
    if encoded.deferred and packing is not None:
        sample_bytes = 2 if encoded.pixel_vr == "OW" else 1
        items += [_packed(packing, frame, sample_bytes) for frame in encoded.frames]
    else:
        native = encoded.transfer_syntax_uid == NATIVE
        items += [_coded(layout.FRAME, frame, native and _pays(frame)) for frame in encoded.frames]
    parts, plain = _parts(items)
    head = _head_of(encoded, object_id, study_key_id, parts)
    parsed = layout.parse_head(head)
    cipher = cipher_of(study_key, object_id.bytes)
    record = bytearray(parsed.length)
    record[: len(head)] = head
    with memoryview(record) as view:
        for index, piece in enumerate(plain):
            chunk = parsed.row(index)
            cipher.encrypt_into(nonce(index), piece, bound(parsed, index), view[chunk.offset : chunk.offset + chunk.length])
        body = len(record) - layout.TRAILER.size
        view[body:] = layout.trailer(zlib.crc32(view[:body]))
    return Sealed(object_id, study_key_id, encoded.key, (record,), len(record))


def _head_of(encoded: Encoded, object_id: uuid.UUID, study_key_id: int, parts: list[tuple[int, int, bool, int]]) -> bytes:
    return layout.build_head(
        object_id,
        study_key_id,
        parts,
        packed=encoded.packed,
        pixel_vr=encoded.pixel_vr,
        frames=encoded.number_of_frames if encoded.frames else 0,
        frame_bits=encoded.frame_bits,
    )


def _sealed_lazily(
    encoded: Encoded,
    frames: LazyFrames,
    items: Sequence[tuple[int, int, Buffer]],
    object_id: uuid.UUID,
    study_key_id: int,
    study_key: bytes,
) -> Sealed:
    """Seal a large instance while its record is written: frame after frame is read, sealed and forgotten."""
    parts, first = _parts(items)
    count = len(frames)
    # Native frames that shrink (segmentations) are coded twice: to know their lengths, and when they are written.
    pays = encoded.transfer_syntax_uid == NATIVE and not encoded.packed and _pays(frames[count // 2])
    for index in range(count):
        coding, size = layout.AS_IS, frames.size_of(index)
        if pays:
            _, coding, coded = _coded(layout.FRAME, frames[index], True)
            size = len(coded)
        ends = [*range(layout.PART_BYTES, size, layout.PART_BYTES), size]
        # The pieces of packed Pixel Data are parts of one item.
        whole = not encoded.packed or index == count - 1
        parts += [
            (layout.FRAME, coding, whole and end == size, end - begin) for begin, end in zip([0, *ends], ends, strict=False)
        ]
    head = _head_of(encoded, object_id, study_key_id, parts)
    parsed = layout.parse_head(head)
    cipher = cipher_of(study_key, object_id.bytes)

    def plain() -> Iterator[memoryview]:
        yield from first
        for frame in frames:
            content = _coded(layout.FRAME, frame, True)[2] if pays else frame
            view = memoryview(content).cast("B")
            yield from (view[at : at + layout.PART_BYTES] for at in range(0, max(1, len(view)), layout.PART_BYTES))

    return Sealed(object_id, study_key_id, encoded.key, _Sealing(head, parsed, cipher, plain), parsed.length)


class _Sealing:
    """A record that is sealed while it is gone through."""

    def __init__(self, head: bytes, parsed: layout.Head, cipher: AESGCM, plain: Callable[[], Iterator[memoryview]]) -> None:
        self._head = head
        self._parsed = parsed
        self._cipher = cipher
        self._plain = plain

    def __iter__(self) -> Iterator[Buffer]:
        yield self._head
        checksum = zlib.crc32(self._head)
        for index, piece in enumerate(self._plain()):
            sealed = self._cipher.encrypt(nonce(index), piece, bound(self._parsed, index))
            checksum = zlib.crc32(sealed, checksum)
            yield sealed
        yield layout.trailer(checksum)


def _coded(kind: int, content: Buffer, worth_trying: bool) -> tuple[int, int, Buffer]:
    if worth_trying:
        smaller = zlib.compress(content, 1)
        if len(smaller) < len(content):
            return kind, layout.ZLIB, smaller
    return kind, layout.AS_IS, content


def _packed(packing: Packing, frame: Buffer, sample_bytes: int) -> tuple[int, int, Buffer]:
    packed = packing.pack(frame, sample_bytes)
    return (layout.FRAME, layout.AS_IS, frame) if packed is None else (layout.FRAME, layout.PACKED_BITS, packed)


def _pays(frame: Buffer) -> bool:
    """Say whether a sample of a native frame shrinks to less than half: then zlib's time is well spent."""
    with memoryview(frame).cast("B") as view:
        middle = max(0, len(view) // 2 - _SAMPLE_BYTES // 2)
        sample = view[middle : middle + _SAMPLE_BYTES]
        return len(zlib.compress(sample, 1)) * 2 < len(sample)


def _parts(items: Sequence[tuple[int, int, Buffer]]) -> tuple[list[tuple[int, int, bool, int]], list[memoryview]]:
    rows, plain = [], []
    for kind, coding, content in items:
        view = memoryview(content).cast("B")
        count = max(1, -(-len(view) // layout.PART_BYTES))
        for part in range(count):
            piece = view[part * layout.PART_BYTES : (part + 1) * layout.PART_BYTES]
            rows.append((kind, coding, part == count - 1, len(piece)))
            plain.append(piece)
    return rows, plain
