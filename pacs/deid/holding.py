"""What an object is held for (PS3.15 E.3.1, E.3.2): text in its pixels, a face, its shape; what none can clean is out."""

from collections.abc import Mapping

from pacs.deid.candidates import SAID, Verdict, can_be_masked, may_carry_a_face, needs_defacing, said_of
from pacs.deid.policy import Policy
from pacs.model.errors import Quarantined
from pacs.model.instance import BulkElement, Element

_PIXEL_DATA = 0x7FE00010
_LARGEST_CLEANED = 512 << 20
"""Bytes of Pixel Data that are searched for text or faces: the worker's child holds all of them."""

_NAMING_THE_PART = {
    "BodyPartExamined": 0x00180015,
    "SeriesDescription": 0x0008103E,
    "ProtocolName": 0x00181030,
    "StudyDescription": 0x00081030,
}


def pending(
    policy: Policy, sop_class_uid: str, by_tag: Mapping[int, Element], may_show_text: bool
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return what must be cleaned, in that order, before anybody may see the object, and what its report says for that.

    Raises `Quarantined` where that cannot be done to objects of its class, or of its size.
    """
    wanted = ["pixels"] if may_show_text else []
    named = {keyword: _text(by_tag, tag) for keyword, tag in _NAMING_THE_PART.items()}
    if policy.clean_recognizable_visual_features:
        told = {"SOPClassUID": sop_class_uid, **named}
        if _PIXEL_DATA in by_tag and needs_defacing(told) is Verdict.CANDIDATE:
            wanted.append("faces")
        elif can_be_masked(sop_class_uid, by_tag):
            wanted.append("shapes")
        elif may_carry_a_face(told):
            raise Quarantined("it may carry the shape of a face, which is not cut out of objects of this class")
    pixel_data = by_tag.get(_PIXEL_DATA)
    if wanted and isinstance(pixel_data, BulkElement) and len(pixel_data.bulk) > _LARGEST_CLEANED:
        raise Quarantined(f"its pixels must be cleaned, and they are more than the {_LARGEST_CLEANED >> 20} MiB that can be")
    return tuple(wanted), {f"{SAID}{said_of(named)}": 1} if {"faces", "shapes"} & set(wanted) else {}


def _text(by_tag: Mapping[int, Element], tag: int) -> str:
    one = by_tag.get(tag)
    return bytes(one.value).decode("latin-1").strip("\0 ") if one is not None and one.vr != "SQ" else ""
