"""What may show text (PS3.15 E.3.1), and what cannot be made safe and so is not taken: documents, voices, video, label images.

Under a policy that cleans pixels, images at risk are taken in and held until they were searched. Without it, classes whose
pixels usually bear text pass only where the sender declares them free of it. Everything else that is unknown stays out.
"""

from collections.abc import Collection, Mapping

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

_PROJECTION = frozenset(
    _STORAGE + suffix
    for suffix in (
        *("1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1"),
        *("12.1", "12.1.1", "12.2", "12.2.1", "12.3", "481.1"),
    )
)
"""Projection X-ray: digitised films and stations that write a line into the border; RT portal images are among them."""

_SCREENS = frozenset({"SCREEN SAVE", "SCREENSHOT", "SCREEN CAPTURE"})
_VIDEO = "1.2.840.10008.1.2.4.10"
"""MPEG-2, MPEG-4 and HEVC are .100 to .108, and their fragmentable forms."""

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


def check_pixels(
    sop_class_uid: str,
    transfer_syntax_uid: str,
    values: Mapping[int, str],
    *,
    clean_pixel_data: bool = False,
    has_pixels: bool = True,
    known_device: bool = False,
) -> bool:
    """Return whether the pixels must be searched for text before anybody sees them.

    Parameters
    ----------
    values : mapping of int to str
        The values of Image Type (0008,0008) and Burned In Annotation (0028,0301), "" where absent.
    clean_pixel_data : bool
        The policy cleans pixels: what may show text is held for that. Otherwise it raises.
    has_pixels : bool
        There is Pixel Data at all.
    known_device : bool
        The site says that this device writes text into its images.

    Raises
    ------
    Quarantined
        It may show or say what nobody can take out.
    """
    if sop_class_uid.startswith(_DOCUMENTS):
        raise Quarantined("an encapsulated document cannot be cleaned")
    if sop_class_uid in _VOICES:
        raise Quarantined("a voice recording may name people")
    if transfer_syntax_uid in _REFERENCED_PIXELS:
        raise NotUnderstood("Pixel Data is not in the object but behind a URL")
    kinds = {kind.strip().upper() for kind in values.get(0x00080008, "").split("\\")}
    if kinds & {"LABEL", "OVERVIEW"} and sop_class_uid.startswith(_STORAGE + "77."):
        raise Quarantined("the image shows a slide's label")
    reason = _risk(sop_class_uid, kinds, values.get(0x00280301, "").strip().upper(), clean_pixel_data)
    if known_device:
        reason = reason or "this device writes text into its images"
    if not reason or (clean_pixel_data and not has_pixels):
        return False
    if not clean_pixel_data:
        raise Quarantined(reason)
    if transfer_syntax_uid.startswith(_VIDEO):
        raise Quarantined("a video cannot be searched for burned-in text")
    return True


def is_projection(sop_class_uid: str) -> bool:
    """Tell whether a class is projection X-ray, where markers of side and view have to stay."""
    return sop_class_uid in _PROJECTION


def _risk(sop_class_uid: str, kinds: Collection[str], burned_in: str, clean_pixel_data: bool) -> str:
    """Return why the pixels may show text, "" where nothing speaks for it."""
    if burned_in == "YES":
        return "Burned In Annotation is YES"
    if _SCREENS & set(kinds):
        return "a screen capture may show text"
    if sop_class_uid in _AT_RISK and (clean_pixel_data or burned_in != "NO"):
        # Who can look for himself need not believe: "NO" is said of screenshots, too.
        return "the class is at risk of burned-in text, and Burned In Annotation is not NO"
    if clean_pixel_data and sop_class_uid in _PROJECTION and burned_in != "NO":
        return "a projection X-ray does not say whether it shows text"
    return ""


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
