"""A held data set after its pixels were cleaned: what it says of itself then (PS3.15 E.3.1; PS3.3 C.12.1, C.7.6.1.1.5).

Its attributes were de-identified on arrival; nothing but the markers and what describes the pixels changes here.
"""

from collections.abc import Mapping, Sequence

from pacs.dicom.elements import element, find, items, sequence, walk
from pacs.dicom.values import text
from pacs.model.instance import Buffer, Deidentified, Element, InstanceKey
from pacs.standard import tables

_METHODS, _CODE_VALUE = 0x00120064, 0x00080100
_PIXEL_DATA = 0x7FE00010
_EXTREMES = (0x00280106, 0x00280107, 0x00280108, 0x00280109)
"""Smallest and Largest Image Pixel Value, and in Series: no longer known."""


def finished(
    header: Buffer,
    pixel_data: Element | None,
    *,
    key: InstanceKey,
    sop_class_uid: str,
    transfer_syntax_uid: str,
    policy: str,
    methods: Sequence[str],
    changes: Mapping[int, tuple[str, bytes] | None],
    pending: tuple[str, ...],
    report: Mapping[str, int],
) -> Deidentified:
    """Return the data set with the markers of what was done to it.

    Parameters
    ----------
    header : Buffer
        The stored data set without Pixel Data, Explicit VR Little Endian.
    pixel_data : Element or None
        Pixel Data anew; None where not a pixel was changed (then the result has none, and the stored frames stay).
    methods : sequence of str
        Codes of CID 7050 that hold now beside those it has.
    changes : mapping
        Tag -> VR and value of elements to set, None to remove.
    pending : tuple of str
        What must still be cleaned.
    """
    by_tag = {one.tag: one for one in walk(header)}
    if pixel_data is not None:
        for tag in _EXTREMES:
            by_tag.pop(tag, None)
        by_tag[_PIXEL_DATA] = pixel_data
    for tag, change in changes.items():
        by_tag.pop(tag, None)
        if change is not None:
            by_tag[tag] = element(tag, *change)
    known = _codes(by_tag.get(_METHODS))
    new = [code for code in methods if code not in known]
    if new:
        by_tag[_METHODS] = _with_codes(by_tag.get(_METHODS), new)
    return Deidentified(
        key=key,
        sop_class_uid=sop_class_uid,
        elements=tuple(by_tag[tag] for tag in sorted(by_tag)),
        transfer_syntax_uid=transfer_syntax_uid,
        methods=(*known, *new),
        policy=policy,
        pending=pending,
        report=report,
    )


def _codes(one: Element | None) -> tuple[str, ...]:
    if one is None or one.vr != "SQ":
        return ()
    codes = (find(item, _CODE_VALUE) for item in items(one.value))
    return tuple(text(code)[0] for code in codes if code is not None and text(code))


def _with_codes(one: Element | None, codes: Sequence[str]) -> Element:
    meanings = tables.deidentification_methods()
    already = items(one.value) if one is not None and one.vr == "SQ" else []
    added = [
        [
            element(0x00080100, "SH", code.encode("ascii")),
            element(0x00080102, "SH", b"DCM"),
            element(0x00080104, "LO", meanings[code].encode("ascii")),
        ]
        for code in codes
    ]
    return sequence(_METHODS, [*already, *added])
