"""Seal and open records (docs/format.md): AES-256-GCM in chunks, each readable alone and bound to its place in its record.

Sealing takes an `Encoded`, which only `codec` makes, and gives a `Sealed`, which only this makes. Opening authenticates every
byte it returns; what does not authenticate is an `IntegrityError`. Files are not known here.
"""

import json
import time
import uuid
import zlib
from collections.abc import Callable, Mapping, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pacs.model.errors import IntegrityError, NotFound, NotTranscodable
from pacs.model.instance import Buffer, Encoded, IndexEntry, InstanceKey, Origin, Sealed, Stored, StoredFrames
from pacs.ports import Clock, ObjectStore
from pacs.store import record as layout
from pacs.store.keys import KeyRing, derive

_NATIVE = "1.2.840.10008.1.2.1"
_FIRST_READ = 16 << 10
_SAMPLE_BYTES = 16 << 10


class Sealer:
    """Seals and opens records with the study keys of a ring."""

    def __init__(self, ring: KeyRing, clock: Clock = time.time) -> None:
        self._ring = ring
        self._clock = clock

    def seal(
        self,
        encoded: Encoded,
        *,
        policy: str,
        origin: Origin,
        pending: tuple[str, ...] = (),
        received_digest: bytes | None = None,
        report: Mapping[str, int] | None = None,
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
            at=self._clock(),
        )

    def open_header(self, stored: Stored, objects: ObjectStore) -> bytes:
        """Return the data set without Pixel Data, Explicit VR Little Endian, reading only its chunks."""
        return _Reader(stored, objects, self._ring).item(1)

    def open(self, stored: Stored, objects: ObjectStore) -> tuple[bytes, StoredFrames]:
        """Return header and Pixel Data."""
        reader = _Reader(stored, objects, self._ring, whole=True)
        head = reader.head
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
        reader = _Reader(stored, objects, self._ring)
        head = reader.head
        if not 1 <= number <= head.frames:
            raise NotFound(f"there is no frame {number}; the instance has {head.frames}")
        if not head.packed:
            return reader.item(1), reader.item(number + 1)
        if head.frame_bits == 0 and head.frames > 1:
            raise NotTranscodable("the frames of this instance cannot be told apart; ask for the whole instance")
        packed = reader.item(2)
        return reader.item(1), cut_bits(packed, number, head.frame_bits) if head.frame_bits else packed

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
    at: float = 0.0,
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
    if at:
        entry["at"] = at
    text = json.dumps(entry, separators=(",", ":"), sort_keys=True).encode("ascii")
    items = [_coded(layout.ENTRY, text, True), _coded(layout.HEADER, encoded.header, True)]
    native = encoded.transfer_syntax_uid == _NATIVE
    items += [_coded(layout.FRAME, frame, native and _pays(frame)) for frame in encoded.frames]
    parts, plain = _parts(items)
    head = layout.build_head(
        object_id,
        study_key_id,
        parts,
        packed=encoded.packed,
        pixel_vr=encoded.pixel_vr,
        frames=encoded.number_of_frames if encoded.frames else 0,
        frame_bits=encoded.frame_bits,
    )
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


def cut_bits(packed: Buffer, number: int, frame_bits: int) -> bytes:
    """Return frame `number` of packed native Pixel Data, beginning on a byte and padded with zero bits.

    Source: PS3.5 8.1.1: 1-bit pixels follow one another without a gap, the first in the least significant bit; so do frames.
    Raises `NotTranscodable` if Pixel Data ends before this frame does.
    """
    begin, end = (number - 1) * frame_bits, number * frame_bits
    if end > len(packed) * 8:
        raise NotTranscodable(f"Pixel Data ends before frame {number} does")
    covering = memoryview(packed)[begin // 8 : (end + 7) // 8]
    if begin % 8 == 0 and end % 8 == 0:
        return bytes(covering)
    value = int.from_bytes(covering, "little") >> (begin % 8)
    return (value & ((1 << frame_bits) - 1)).to_bytes((frame_bits + 7) // 8, "little")


class _Reader:
    """One record being opened; reads the beginning once, and then only the chunks that are asked for."""

    def __init__(self, stored: Stored, objects: ObjectStore, ring: KeyRing, *, whole: bool = False) -> None:
        self._objects = objects
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
        return _open_item(self.head, self._cipher, self._start, number, self._more)

    def _more(self, offset: int, length: int) -> bytes:
        return self._objects.get(self._location, (offset, length))


def _open_item(
    head: layout.Head, cipher: AESGCM, start: Buffer, number: int, more: Callable[[int, int], bytes] | None = None
) -> bytes:
    chunks = head.item(number)
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
    whole = plain[0] if len(plain) == 1 else b"".join(plain)
    if chunks[0].coding == layout.AS_IS:
        return whole
    if chunks[0].coding == layout.ZLIB:
        return zlib.decompress(whole)
    raise IntegrityError(f"a chunk has the coding {chunks[0].coding}, which this release does not know")


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
        at=entry.get("at", 0.0),
    )


def _coded(kind: int, content: Buffer, worth_trying: bool) -> tuple[int, int, Buffer]:
    if worth_trying:
        smaller = zlib.compress(content, 1)
        if len(smaller) < len(content):
            return kind, layout.ZLIB, smaller
    return kind, layout.AS_IS, content


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
