"""Seal and open records (docs/format.md): AES-256-GCM in chunks, each readable alone and bound to its place in its record.

Sealing takes an `Encoded`, which only `codec` makes, and gives a `Sealed`, which only this makes. Opening authenticates every
byte it returns; what does not authenticate is an `IntegrityError`. Files are not known here.
"""

import json
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pacs.model.bulk import LazyFrames
from pacs.model.errors import IntegrityError, NotFound, NotTranscodable
from pacs.model.instance import Buffer, Encoded, IndexEntry, InstanceKey, Location, Origin, Sealed, Stored, StoredFrames
from pacs.ports import Clock, ObjectStore
from pacs.store import record as layout
from pacs.store.keys import KeyRing, derive

_NATIVE = "1.2.840.10008.1.2.1"
_FIRST_READ = 16 << 10
_SAMPLE_BYTES = 16 << 10


class Packing(Protocol):
    """A quick form for native frames that are to be compressed later."""

    def pack(self, frame: Buffer, sample_bytes: int) -> bytes | None:
        """Return a frame packed and proven, or None if that does not pay."""

    def unpack(self, packed: Buffer) -> bytes:
        """Return what was packed. Raises `ValueError`."""


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
            at=entry.at,
        )

    def open_header(self, stored: Stored, objects: ObjectStore) -> bytes:
        """Return the data set without Pixel Data, Explicit VR Little Endian, reading only its chunks."""
        return _Reader(stored, objects, self._ring, self._packing).item(1)

    def open(self, stored: Stored, objects: ObjectStore) -> tuple[bytes, StoredFrames]:
        """Return header and Pixel Data; the frames of a large record are opened when they are asked for."""
        large = stored.location.size_bytes > layout.LARGE_BYTES
        reader = _Reader(stored, objects, self._ring, self._packing, whole=not large)
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
        reader = _Reader(stored, objects, self._ring, self._packing)
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
        return reader.item(1), _cut(covering, (number - 1) * head.frame_bits % 8, head.frame_bits, number)

    def beginning(self, location: Location, objects: ObjectStore) -> bytes:
        """Return a record up to and with its index entry; enough for `open_entry`."""
        start = objects.get(location, (0, min(location.size_bytes, _FIRST_READ)))
        needed = layout.head_bytes(start)
        if needed > len(start):
            start = objects.get(location, (0, needed))
        needed = layout.opening_bytes(layout.parse_head(start))
        return start if needed <= len(start) else objects.get(location, (0, needed))

    def open_entry(self, record: Buffer) -> IndexEntry:
        """Return what a record says of itself; everything that its index rows need."""
        head = layout.parse_head(record)
        return _entry(head, _open_item(head, _cipher(self._ring.key(head.study_key_id), head.object_id.bytes), record, 0))


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
        native = encoded.transfer_syntax_uid == _NATIVE
        items += [_coded(layout.FRAME, frame, native and _pays(frame)) for frame in encoded.frames]
    parts, plain = _parts(items)
    head = _head_of(encoded, object_id, study_key_id, parts)
    parsed = layout.parse_head(head)
    cipher = _cipher(study_key, object_id.bytes)
    record = bytearray(parsed.length)
    record[: len(head)] = head
    with memoryview(record) as view:
        for index, piece in enumerate(plain):
            chunk = parsed.row(index)
            cipher.encrypt_into(_nonce(index), piece, _bound(parsed, index), view[chunk.offset : chunk.offset + chunk.length])
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
    pays = encoded.transfer_syntax_uid == _NATIVE and not encoded.packed and _pays(frames[count // 2])
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
    cipher = _cipher(study_key, object_id.bytes)

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
            sealed = self._cipher.encrypt(_nonce(index), piece, _bound(self._parsed, index))
            checksum = zlib.crc32(sealed, checksum)
            yield sealed
        yield layout.trailer(checksum)


def _cut(covering: bytes, shift: int, frame_bits: int, number: int) -> bytes:
    """Return one frame of packed native Pixel Data, beginning on a byte and padded with zero bits.

    Source: PS3.5 8.1.1: 1-bit pixels follow one another without a gap, the first in the least significant bit; so do frames.
    Raises `NotTranscodable` if Pixel Data ends before this frame does.
    """
    if shift + frame_bits > len(covering) * 8:
        raise NotTranscodable(f"Pixel Data ends before frame {number} does")
    if shift == 0 and frame_bits % 8 == 0:
        return covering
    value = int.from_bytes(covering, "little") >> shift
    return (value & ((1 << frame_bits) - 1)).to_bytes((frame_bits + 7) // 8, "little")


class _Reader:
    """One record being opened; reads the beginning once, and then only the chunks that are asked for."""

    def __init__(
        self, stored: Stored, objects: ObjectStore, ring: KeyRing, packing: Packing | None, *, whole: bool = False
    ) -> None:
        self._objects = objects
        self._packing = packing
        self._location = stored.location
        size = stored.location.size_bytes
        self._start = objects.get(stored.location, None if whole else (0, min(size, _FIRST_READ)))
        needed = layout.head_bytes(self._start)
        if needed > len(self._start) and needed < size:
            self._start = objects.get(stored.location, (0, needed))
        self.head = layout.parse_head(self._start)
        if self.head.length != size or self.head.study_key_id != stored.study_key_id:
            raise IntegrityError("the record is not the one that the index names")
        self._cipher = _cipher(ring.key(self.head.study_key_id), self.head.object_id.bytes)
        # A whole and genuine record in the wrong place would be another instance: its entry says which it is.
        entry = _entry(self.head, self.item(0))
        if entry.key != stored.key or entry.digest != stored.digest:
            raise IntegrityError("the record belongs to another instance than the one that the index names")

    def item(self, number: int) -> bytes:
        return _open_item(self.head, self._cipher, self._start, number, self._more, self._packing)

    def span(self, number: int, begin: int, end: int) -> bytes:
        """Return bytes `begin` to `end` of an item, fewer where it ends before; reads only the parts they lie in."""
        chunks = self.head.item(number)
        if chunks[0].coding != layout.AS_IS:
            return self.item(number)[begin:end]
        first = begin // layout.PART_BYTES
        wanted = chunks[first : -(-end // layout.PART_BYTES)]
        opened = _open_chunks(self.head, self._cipher, self._start, wanted, self._more) if wanted else b""
        return opened[begin - first * layout.PART_BYTES : end - first * layout.PART_BYTES]

    def lazily(self) -> LazyFrames:
        """Return the frames, or the parts of packed Pixel Data, each opened when it is asked for."""
        head = self.head
        starts = [0, *(index + 1 for index, last in enumerate(head.table[2 :: layout.ROW.size]) if last)]
        if head.packed and head.row(starts[2]).coding == layout.AS_IS:
            first = starts[2]
            return LazyFrames(
                head.chunks - first,
                lambda index: _open_chunks(head, self._cipher, self._start, [head.row(first + index)], self._more),
                lambda index: head.row(first + index).length - layout.TAG_BYTES,
            )

        def rows(index: int) -> list[layout.Chunk]:
            return [head.row(at) for at in range(starts[index + 2], starts[index + 3])]

        def read(index: int) -> bytes:
            return _decoded(
                rows(index)[0], _open_chunks(head, self._cipher, self._start, rows(index), self._more), self._packing
            )

        def size_of(index: int) -> int:
            chunks = rows(index)
            if chunks[0].coding != layout.AS_IS:
                return len(read(index))
            return sum(chunk.length for chunk in chunks) - layout.TAG_BYTES * len(chunks)

        return LazyFrames(len(starts) - 3, read, size_of)

    def _more(self, offset: int, length: int) -> bytes:
        return self._objects.get(self._location, (offset, length))


def _open_item(
    head: layout.Head,
    cipher: AESGCM,
    start: Buffer,
    number: int,
    more: Callable[[int, int], bytes] | None = None,
    packing: Packing | None = None,
) -> bytes:
    chunks = head.item(number)
    return _decoded(chunks[0], _open_chunks(head, cipher, start, chunks, more), packing)


def _open_chunks(
    head: layout.Head,
    cipher: AESGCM,
    start: Buffer,
    chunks: Sequence[layout.Chunk],
    more: Callable[[int, int], bytes] | None,
) -> bytes:
    begin, end = chunks[0].offset, chunks[-1].offset + chunks[-1].length
    if end <= len(start):
        base, sealed = 0, memoryview(start)
    elif more is not None:
        base, sealed = begin, memoryview(more(begin, end - begin))
    else:
        raise IntegrityError("the record is cut short")
    try:
        plain = [
            cipher.decrypt(
                _nonce(chunk.index), sealed[chunk.offset - base : chunk.offset - base + chunk.length], _bound(head, chunk.index)
            )
            for chunk in chunks
        ]
    except InvalidTag as error:
        raise IntegrityError("a sealed chunk does not authenticate: it was changed, or its key is another") from error
    return plain[0] if len(plain) == 1 else b"".join(plain)


def _decoded(chunk: layout.Chunk, whole: bytes, packing: Packing | None) -> bytes:
    if chunk.coding == layout.AS_IS:
        return whole
    if chunk.coding == layout.ZLIB:
        return zlib.decompress(whole)
    if chunk.coding == layout.PACKED_BITS and packing is not None:
        try:
            return packing.unpack(whole)
        except ValueError as error:
            raise IntegrityError("a packed chunk cannot be unpacked") from error
    raise IntegrityError(f"a chunk has the coding {chunk.coding}, which this release does not know")


def _entry(head: layout.Head, text: bytes) -> IndexEntry:
    entry = json.loads(text)
    return IndexEntry(
        object_id=head.object_id,
        study_key_id=head.study_key_id,
        key=InstanceKey(entry["study"], entry["series"], entry["instance"]),
        sop_class_uid=entry["class"],
        transfer_syntax_uid=entry["syntax"],
        digest=bytes.fromhex(entry["digest"]),
        number_of_frames=entry["frames"],
        origin=Origin(entry["origin"]),
        policy=entry["policy"],
        attributes=entry["attributes"],
        pending=tuple(entry.get("pending", ())),
        received_digest=bytes.fromhex(entry["received"]) if "received" in entry else None,
        report=entry.get("report", {}),
        repeatable=entry.get("repeatable", False),
        deferred=entry.get("deferred", False),
        source=entry.get("source", ""),
        at=entry.get("at", 0.0),
    )


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


def _cipher(study_key: bytes, object_id: bytes) -> AESGCM:
    return AESGCM(derive(study_key, b"mini-pacs record 1" + object_id))


def _nonce(index: int) -> bytes:
    return index.to_bytes(4, "little") + bytes(8)


def _bound(head: layout.Head, index: int) -> bytes:
    return b"mini-pacs chunk 1" + head.digest + index.to_bytes(4, "little")
