"""The way out: stored instances as data sets, Part 10 files or single frames, in a syntax the receiver accepts.

Every door reads through here. Bytes are authenticated while they are opened; what does not authenticate is an
`IntegrityError` and is never served.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

from pacs.archive import Archive
from pacs.codec.large import Stream
from pacs.codec.outgoing import DataSetParts
from pacs.dicom import elements, part10
from pacs.dicom.elements import EXPLICIT_LITTLE_ENDIAN
from pacs.model.bulk import Content
from pacs.model.errors import NotFound, NotTranscodable
from pacs.model.instance import Buffer, Stored
from pacs.reidentify import Originals


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it goes out."""

    data: bytes = field(repr=False)
    transfer_syntax_uid: str


def header(archive: Archive, stored: Stored, originals: Originals | None = None) -> bytes:
    """Return the data set without Pixel Data, Explicit VR Little Endian: de-identified, or restored by `originals`."""
    head = archive.sealer.open_header(stored, archive.objects)
    return head if originals is None else originals.header(stored, head)


def data_set(
    archive: Archive,
    stored: Stored,
    accepted: Sequence[str] | None = None,
    originals: Originals | None = None,
    prefers: Sequence[str] = (),
) -> DataSetParts:
    """Return the whole data set, encoded in the stored syntax or, where `accepted` lacks it, in the best of `accepted`.

    What the receiver `prefers` goes before that, in this order, as far as it accepts it and it can be made. With `originals`
    the data set is restored; whether the receiver may have that is the door's to know.
    Raises `NotTranscodable` if none of `accepted` can be reached without loss.
    """
    head, frames = archive.sealer.open(stored, archive.objects)
    if originals is not None:
        head = originals.header(stored, head)
    for wanted in prefers:
        if accepted is None or wanted in accepted:
            with contextlib.suppress(NotTranscodable):
                return archive.codec.data_set(head, frames, stored.transfer_syntax_uid, (wanted,))
    return archive.codec.data_set(head, frames, stored.transfer_syntax_uid, accepted)


def part10_file(
    archive: Archive,
    stored: Stored,
    accepted: Sequence[str] | None = None,
    originals: Originals | None = None,
    prefers: Sequence[str] = (),
) -> Sequence[Buffer] | Stream:
    """Return a Part 10 file as buffers to be written one after another; of a large instance a stream. See `data_set`."""
    parts = data_set(archive, stored, accepted, originals, prefers)
    key = stored.key if originals is None else originals.key(stored)
    meta = part10.file_meta(stored.sop_class_uid, key.sop_instance_uid, parts.transfer_syntax_uid)
    found = parts.buffers
    if not isinstance(found, Stream):
        return [meta, *found]
    size = found.size_bytes
    return Stream(lambda: chain([meta], found), None if size is None else len(meta) + size)


def native_pixels(archive: Archive, stored: Stored) -> Content:
    """Return all frames uncompressed, one after another; of a large instance each when it is read.

    Raises `NotFound` without Pixel Data, `NotTranscodable` if they cannot be decoded.
    """
    head, frames = archive.sealer.open(stored, archive.objects)
    lazily = archive.codec.native(head, frames, stored.transfer_syntax_uid) if frames.frames else None
    if lazily is not None:
        return lazily
    parts = archive.codec.data_set(head, frames, stored.transfer_syntax_uid, [EXPLICIT_LITTLE_ENDIAN])
    found = elements.find(elements.walk(b"".join(parts.buffers)), elements.PIXEL_DATA)
    if found is None:
        raise NotFound("this instance has no Pixel Data")
    return bytes(found.value)


def frame(archive: Archive, stored: Stored, number: int, accepted: Sequence[str] | None = None) -> Frame:
    """Return frame `number` (1 is the first), touching only its chunk, as stored or in the best of `accepted`.

    Raises `NotFound` for a frame that is not there, `NotTranscodable` if none of `accepted` can be reached.
    """
    head, data = archive.sealer.open_frame(stored, archive.objects, number)
    transfer_syntax_uid = stored.transfer_syntax_uid
    if accepted is not None and transfer_syntax_uid not in accepted:
        data, transfer_syntax_uid = archive.codec.transcode_frame(head, data, transfer_syntax_uid, accepted)
    return Frame(data, transfer_syntax_uid)
