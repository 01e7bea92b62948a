"""De-identification undone, for those who may have it: original elements spliced back into a data set. Pure.

What the vault holds of an instance stands again where it stood; an element that de-identification had added is gone. An object
that a processor made never had an original: it gets the patient's and the study's elements, and its references point to the
instances by the UIDs that the hospital knows.
"""

from collections.abc import Mapping, Sequence

from pacs.dicom.elements import element, items, sequence, walk
from pacs.model.instance import Element


def restored(elements: Sequence[Element], taken: Mapping[int, bytes]) -> list[Element]:
    """Return the elements with those of `taken` (tag -> encoded element, b"" for none) in their place, in tag order."""
    kept = [one for one in elements if one.tag not in taken]
    for encoded in taken.values():
        if encoded:
            kept += walk(encoded)
    kept.sort(key=lambda one: one.tag)
    return kept


def with_uids(elements: Sequence[Element], originals: Mapping[str, str]) -> list[Element]:
    """Return the elements with every UID that is a key of `originals` replaced by its original, at every depth."""
    return [_mapped(one, originals) for one in elements]


def _mapped(one: Element, originals: Mapping[str, str]) -> Element:
    if one.vr == "UI":
        parts = bytes(one.value).decode("latin-1").split("\\")
        mapped = [originals.get(part.strip("\0 "), part) for part in parts]
        return one if mapped == parts else element(one.tag, "UI", "\\".join(mapped).encode("ascii"))
    if one.vr == "SQ" and b"2.25." in bytes(one.value):
        return sequence(one.tag, [with_uids(item, originals) for item in items(one.value)])
    return one
