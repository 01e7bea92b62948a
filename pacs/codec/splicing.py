"""Pixel Data in an encoded data set: what stands before and behind it, and what is put in its place."""

import struct
from collections.abc import Callable, Iterator, Sequence

from pacs.codec import frames, large
from pacs.codec import image as syntax
from pacs.codec.image import EXPLICIT_LITTLE_ENDIAN, PIXEL_DATA, Image
from pacs.dicom import elements as dicom
from pacs.model.bulk import LazyFrames, blocks
from pacs.model.errors import NotUnderstood
from pacs.model.instance import Buffer, BulkElement, Element, StoredFrames

ELEMENT = struct.Struct("<HH2sH")
LONG_VRS = frozenset(vr.encode("ascii") for vr in dicom.LONG_VRS)
PIXEL_TAGS = frozenset({PIXEL_DATA, *syntax.ENCAPSULATION})
EMPTY_TABLE = struct.pack("<HHI", 0xFFFE, 0xE000, 0)


def feed(update: Callable[[Buffer], None], elements: Sequence[Element], depth: int) -> None:
    for one in elements:
        if not one.tag & 0xFFFF:
            continue
        if one.vr == "SQ":
            try:
                nested = dicom.items(one.value, depth=depth)
            except NotUnderstood:
                nested = None
            if nested is not None:
                update(b"%08X%s" % (one.tag, b"SQ") + len(nested).to_bytes(8, "little"))
                for item in nested:
                    update(len(item).to_bytes(8, "little"))
                    feed(update, item, depth + 1)
                continue
        if isinstance(one, BulkElement):
            update(named(one.tag, one.vr, len(one.bulk)))
            for block in blocks(one.bulk):
                update(block)
            continue
        update(named(one.tag, one.vr, len(one.value)))
        update(one.value)


def named(tag: int, vr: str, length: int) -> bytes:
    return b"%08X%s" % (tag, vr.encode("ascii")) + length.to_bytes(8, "little")


def parsed(header: Buffer) -> list[Element]:
    return dicom.walk(header)


def around_pixel_data(found: list[Element]) -> tuple[list[Element], list[Element]]:
    after = [one for one in found if one.tag > PIXEL_DATA]
    return (found[: -len(after)], after) if after else (found, [])


def spliced(header: Buffer, element: list[Buffer]) -> list[Buffer]:
    """Put Pixel Data into a header at its place.

    Headers are our own and authenticated, so finding the place needs no full walk: that would cost as much as all the rest of
    sending an instance as it is stored.
    """
    position, end = 0, len(header)
    while position < end:
        group, number, vr, length = ELEMENT.unpack_from(header, position)
        if (group, number) > (0x7FE0, 0x0010):
            break
        if vr in LONG_VRS:
            length = int.from_bytes(header[position + 8 : position + 12], "little")
            if length == 0xFFFFFFFF:
                before, after = around_pixel_data(parsed(header))
                return [*dicom.join(before), *element, *dicom.join(after)]
            position += 4
        position += 8 + length
    view = memoryview(header)
    return [view[:position], *element, view[position:]] if position < end else [header, *element]


def streamed(header: Buffer, stored: StoredFrames, found: LazyFrames, transfer_syntax_uid: str) -> large.Stream:
    """Return a large data set as it is stored."""
    here: Buffer = bytearray()
    around = spliced(header, [here])
    place = next(index for index, one in enumerate(around) if one is here)
    if transfer_syntax_uid == EXPLICIT_LITTLE_ENDIAN:
        (head, end), length = large.native_element(found, stored.pixel_vr)
    elif stored.packed:
        head, end, length = frames.encapsulated_head(), frames.SEQUENCE_END, found.size_bytes
    else:
        head, length = large.encapsulated_element(found)
        end = b""
    split = not stored.packed and transfer_syntax_uid != EXPLICIT_LITTLE_ENDIAN

    def begin() -> Iterator[Buffer]:
        yield from around[:place]
        yield head
        yield from large.fragments_of(iter(found)) if split else found
        yield end
        yield from around[place + 1 :]

    return large.Stream(begin, sum(map(len, around)) + len(head) + length + len(end))


def pixel_element(stored: StoredFrames, transfer_syntax_uid: str, pixel_vr: str) -> list[Buffer]:
    if not stored.frames:
        return []
    if transfer_syntax_uid == EXPLICIT_LITTLE_ENDIAN:
        return frames.native_element(stored.frames, pixel_vr)
    return frames.packed_element(stored.frames) if stored.packed else frames.encapsulated_element(stored.frames)


def vr(image: Image) -> str:
    # PS3.5 A.2: OW beyond 8 bits; up to 8 either is allowed.
    return "OW" if image.bits_allocated > 8 else "OB"


def colour(photometric_interpretation: str) -> dict[int, Element]:
    tag = syntax.PHOTOMETRIC_INTERPRETATION
    return {tag: dicom.element(tag, "CS", photometric_interpretation.encode("ascii"))}


def with_colour(found: list[Element], image: Image) -> list[Element]:
    """Make the attributes say how decoded samples lie."""
    changes = colour(image.photometric_interpretation)
    if image.samples > 1:
        tag = syntax.PLANAR_CONFIGURATION
        changes[tag] = dicom.element(tag, "US", image.planar_configuration.to_bytes(2, "little"))
    return replaced(found, changes)


def replaced(found: list[Element], changes: dict[int, Element]) -> list[Element]:
    others = [one for one in found if one.tag not in changes]
    return sorted([*others, *changes.values()], key=lambda one: one.tag)
