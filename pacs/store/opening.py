"""Opening sealed records: items chunk by chunk, frames by number, the index entry (docs/format.md)."""

import json
import zlib
from collections.abc import Callable, Sequence
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pacs.model.bulk import LazyFrames
from pacs.model.errors import IntegrityError, NotTranscodable
from pacs.model.instance import Buffer, IndexEntry, InstanceKey, Origin, Stored
from pacs.model.job import MadeBy
from pacs.ports import ObjectStore
from pacs.store import record as layout
from pacs.store.keys import KeyRing, derive

NATIVE = "1.2.840.10008.1.2.1"
FIRST_READ = 16 << 10


class Packing(Protocol):
    """A quick form for native frames that are to be compressed later."""

    def pack(self, frame: Buffer, sample_bytes: int) -> bytes | None:
        """Return a frame packed and proven, or None if that does not pay."""

    def unpack(self, packed: Buffer) -> bytes:
        """Return what was packed. Raises `ValueError`."""


def cut(covering: bytes, shift: int, frame_bits: int, number: int) -> bytes:
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


class Reader:
    """One record being opened; reads the beginning once, and then only the chunks that are asked for."""

    def __init__(
        self, stored: Stored, objects: ObjectStore, ring: KeyRing, packing: Packing | None, *, whole: bool = False
    ) -> None:
        self._objects = objects
        self._packing = packing
        self._location = stored.location
        size = stored.location.size_bytes
        self._start = objects.get(stored.location, None if whole else (0, min(size, FIRST_READ)))
        needed = layout.head_bytes(self._start)
        if needed > len(self._start) and needed < size:
            self._start = objects.get(stored.location, (0, needed))
        self.head = layout.parse_head(self._start)
        if self.head.length != size or self.head.study_key_id != stored.study_key_id:
            raise IntegrityError("the record is not the one that the index names")
        self._cipher = cipher_of(ring.key(self.head.study_key_id), self.head.object_id.bytes)
        # A whole and genuine record in the wrong place would be another instance: its entry says which it is.
        entry = entry_of(self.head, self.item(0))
        if entry.key != stored.key or entry.digest != stored.digest:
            raise IntegrityError("the record belongs to another instance than the one that the index names")

    def item(self, number: int) -> bytes:
        return open_item(self.head, self._cipher, self._start, number, self._more, self._packing)

    def span(self, number: int, begin: int, end: int) -> bytes:
        """Return bytes `begin` to `end` of an item, fewer where it ends before; reads only the parts they lie in."""
        chunks = self.head.item(number)
        if chunks[0].coding != layout.AS_IS:
            return self.item(number)[begin:end]
        first = begin // layout.PART_BYTES
        wanted = chunks[first : -(-end // layout.PART_BYTES)]
        opened = open_chunks(self.head, self._cipher, self._start, wanted, self._more) if wanted else b""
        return opened[begin - first * layout.PART_BYTES : end - first * layout.PART_BYTES]

    def lazily(self) -> LazyFrames:
        """Return the frames, or the parts of packed Pixel Data, each opened when it is asked for."""
        head = self.head
        starts = [0, *(index + 1 for index, last in enumerate(head.table[2 :: layout.ROW.size]) if last)]
        if head.packed and head.row(starts[2]).coding == layout.AS_IS:
            first = starts[2]
            return LazyFrames(
                head.chunks - first,
                lambda index: open_chunks(head, self._cipher, self._start, [head.row(first + index)], self._more),
                lambda index: head.row(first + index).length - layout.TAG_BYTES,
            )

        def rows(index: int) -> list[layout.Chunk]:
            return [head.row(at) for at in range(starts[index + 2], starts[index + 3])]

        def read(index: int) -> bytes:
            return decoded(rows(index)[0], open_chunks(head, self._cipher, self._start, rows(index), self._more), self._packing)

        def size_of(index: int) -> int:
            chunks = rows(index)
            if chunks[0].coding != layout.AS_IS:
                return len(read(index))
            return sum(chunk.length for chunk in chunks) - layout.TAG_BYTES * len(chunks)

        return LazyFrames(len(starts) - 3, read, size_of)

    def _more(self, offset: int, length: int) -> bytes:
        return self._objects.get(self._location, (offset, length))


def open_item(
    head: layout.Head,
    cipher: AESGCM,
    start: Buffer,
    number: int,
    more: Callable[[int, int], bytes] | None = None,
    packing: Packing | None = None,
) -> bytes:
    chunks = head.item(number)
    return decoded(chunks[0], open_chunks(head, cipher, start, chunks, more), packing)


def open_chunks(
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
                nonce(chunk.index), sealed[chunk.offset - base : chunk.offset - base + chunk.length], bound(head, chunk.index)
            )
            for chunk in chunks
        ]
    except InvalidTag as error:
        raise IntegrityError("a sealed chunk does not authenticate: it was changed, or its key is another") from error
    return plain[0] if len(plain) == 1 else b"".join(plain)


def decoded(chunk: layout.Chunk, whole: bytes, packing: Packing | None) -> bytes:
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


def entry_of(head: layout.Head, text: bytes) -> IndexEntry:
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
        made_by=MadeBy(**{**entry["job"], "inputs": tuple(entry["job"]["inputs"])}) if "job" in entry else None,
    )


def cipher_of(study_key: bytes, object_id: bytes) -> AESGCM:
    return AESGCM(derive(study_key, b"mini-pacs record 1" + object_id))


def nonce(index: int) -> bytes:
    return index.to_bytes(4, "little") + bytes(8)


def bound(head: layout.Head, index: int) -> bytes:
    return b"mini-pacs chunk 1" + head.digest + index.to_bytes(4, "little")
