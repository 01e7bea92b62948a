"""What this version cannot make safe, and so does not take (PS3.15 E.3.1): burned-in text, documents, label images.

Classes whose pixels usually bear text pass only where the sender declares them free of it. Everything else that is unknown
stays out.
"""

from collections.abc import Mapping

from pydicom._uid_dict import UID_dictionary

from pacs.model.errors import DataSetMismatch, NotUnderstood, Quarantined, SOPClassNotSupported
from pacs.standard import tables

MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_DOCUMENTS = _STORAGE + "104."
_AT_RISK = frozenset(
    _STORAGE + suffix
    for suffix in (
        *("3", "3.1", "6", "6.1", "6.2", "6.3", "7", "7.1", "7.2", "7.3", "7.4", "77.1", "77.2"),
        *("77.1.1", "77.1.1.1", "77.1.2", "77.1.2.1", "77.1.3", "77.1.4", "77.1.4.1", "77.1.7"),
        *(f"77.1.5.{number}" for number in range(1, 9)),
    )
)
"""Ultrasound, Secondary Capture, visible light photographs and video, ophthalmic images: text is usual in their pixels."""

_VOICES = frozenset({_STORAGE + "9.4.1", _STORAGE + "9.4.2"})
"""Basic Voice Audio and General Audio Waveform: people say names."""

_REFERENCED_PIXELS = frozenset(
    {"1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.204", "1.2.840.10008.1.2.4.205"}
)


def check_class(sop_class_uid: str) -> None:
    """Raise `SOPClassNotSupported` for directories, private classes and what the tables do not know."""
    if sop_class_uid == MEDIA_STORAGE_DIRECTORY:
        raise SOPClassNotSupported("a media directory is not an instance; send the files that it names")
    if tables.iod_of(sop_class_uid):
        return
    known = UID_dictionary.get(sop_class_uid)
    if known is None or known[1] != "SOP Class" or not sop_class_uid.startswith("1.2.840.10008.5.1.4."):
        raise SOPClassNotSupported("this SOP Class is private or unknown here, so it could not be de-identified")


def check_pixels(sop_class_uid: str, transfer_syntax_uid: str, values: Mapping[int, str]) -> None:
    """Raise `Quarantined` for what may show text that nobody has taken out.

    Parameters
    ----------
    values : mapping of int to str
        The values of Image Type (0008,0008) and Burned In Annotation (0028,0301), "" where absent.
    """
    if sop_class_uid.startswith(_DOCUMENTS):
        raise Quarantined("an encapsulated document cannot be cleaned")
    if sop_class_uid in _VOICES:
        raise Quarantined("a voice recording may name people")
    if transfer_syntax_uid in _REFERENCED_PIXELS:
        raise NotUnderstood("Pixel Data is not in the object but behind a URL")
    burned_in = values.get(0x00280301, "").strip().upper()
    if burned_in == "YES":
        raise Quarantined("Burned In Annotation is YES")
    kinds = {kind.strip().upper() for kind in values.get(0x00080008, "").split("\\")}
    if kinds & {"SCREEN SAVE", "SCREENSHOT", "SCREEN CAPTURE"}:
        raise Quarantined("a screen capture may show text")
    if kinds & {"LABEL", "OVERVIEW"} and sop_class_uid.startswith(_STORAGE + "77."):
        raise Quarantined("the image shows a slide's label")
    if sop_class_uid in _AT_RISK and burned_in != "NO":
        raise Quarantined("the class is at risk of burned-in text, and Burned In Annotation is not NO")


def check_uids(expected_class: str, expected_instance: str, sop_class_uid: str, uids: Mapping[str, str]) -> None:
    """Raise `DataSetMismatch` where UIDs are missing or are not what the command or File Meta Information said."""
    if not sop_class_uid:
        raise DataSetMismatch("SOP Class UID (0008,0016) is missing")
    for name, uid in uids.items():
        if not uid:
            raise DataSetMismatch(f"{name} is missing")
    if expected_class and expected_class != sop_class_uid:
        raise DataSetMismatch("the data set is of another SOP Class than announced")
    if expected_instance and expected_instance != uids["SOP Instance UID (0008,0018)"]:
        raise DataSetMismatch("the data set has another SOP Instance UID than announced")
