"""Which series may show a face, as far as a header tells (PS3.15 E.3.2); the pixels decide, in `face.py`."""

from collections.abc import Container, Mapping
from enum import StrEnum

METHOD = "113102"
"""Clean Recognizable Visual Features Option, CID 7050."""

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_PIXEL_DATA = 0x7FE00010
VOLUMES = frozenset(_STORAGE + suffix for suffix in ("2", "2.1", "2.2", "4", "4.1", "4.3", "4.4"))
"""CT, Enhanced and Legacy Converted Enhanced CT; MR, Enhanced MR, Enhanced MR Color, Legacy Converted Enhanced MR."""

SEGMENTATIONS = frozenset(_STORAGE + suffix for suffix in ("66.4", "66.7"))
"""Segmentation and Label Map Segmentation."""

AMOUNTS = frozenset(_STORAGE + suffix for suffix in ("128", "128.1", "130", "481.2"))
"""PET, Legacy Converted Enhanced and Enhanced PET, RT Dose: images of an amount, and where there is nothing, it is zero."""

MASKED = SEGMENTATIONS | AMOUNTS | {_STORAGE + "30"}
"""These and Parametric Map: not made of a face, but able to show one. Where a head of their frame of reference came, they are
cut as it was."""

_ROI_CONTOURS = 0x30060039
_SHAPES = MASKED | {_STORAGE + suffix for suffix in ("13.1.1", "13.1.2", "20", "66.5", "481.3")}
"""Also X-Ray 3D Angiographic and Craniofacial, NM, Surface Segmentation, RT Structure Set, out of which nothing here cuts."""


class Verdict(StrEnum):
    """What a header alone can tell."""

    CANDIDATE = "candidate"
    DONE = "done"
    NOT = "not"


class Said(StrEnum):
    """Which part of the body a header names."""

    HEAD = "head"
    OTHER = "other"
    NOTHING = "nothing"


_HEAD_WORDS = frozenset(
    "HEAD BRAIN SKULL FACE FACIAL NECK HEADNECK ORBIT ORBITS EYE EYES SINUS SINUSES IAC IAM EAR EARS MASTOID PITUITARY SELLA "
    "TMJ MANDIBLE MAXILLA MAXILLOFACIAL DENTAL JAW NOSE CRANIUM CEREBRUM CRANIAL CEREBRAL NEURO TEMPORAL WHOLEBODY WB "
    "KOPF SCHADEL SCHAEDEL HIRN GEHIRN CRANE TETE CRANEO CABEZA TESTA ENCEFALO".split()
)
_OTHER_WORDS = frozenset(
    "CHEST THORAX LUNG LUNGS HEART CARDIAC ABDOMEN PELVIS LIVER KIDNEY PROSTATE BREAST KNEE HIP ANKLE FOOT WRIST HAND "
    "ELBOW SHOULDER LEG ARM THIGH EXTREMITY FEMUR LSPINE TSPINE LUMBAR COLON PANCREAS UTERUS RECTUM BLADDER CALF TIBIA "
    "SACRUM".split()
)


SAID = "part_named_"
"""Begins the name under which an instance's report says which part of the body its header named as it came: cleaning leaves
fewer words, and they may name another part."""


def said_of(values: Mapping[str, str]) -> Said:
    """Return which part of the body a header names, from Body Part Examined and the descriptions.

    Parameters
    ----------
    values : mapping of str to str
        Keyword to value, "" or absent where the header does not say: BodyPartExamined, SeriesDescription, ProtocolName,
        StudyDescription.
    """
    named = " ".join(values.get(k, "") for k in ("BodyPartExamined", "SeriesDescription", "ProtocolName", "StudyDescription"))
    words = set("".join(c if c.isalpha() else " " for c in named.upper()).split())
    if words & _HEAD_WORDS or {"WHOLE", "BODY"} <= words:
        return Said.HEAD
    return Said.OTHER if words & _OTHER_WORDS else Said.NOTHING


def can_be_masked(sop_class_uid: str, tags: Container[int]) -> bool:
    """Tell whether an object with these elements is one that a mask takes a face out of: what it shows is in Pixel Data.

    A Parametric Map of real numbers keeps them elsewhere (PS3.3 C.7.6.24), and an RT Dose may hold contours beside its grid.
    """
    return sop_class_uid in MASKED and _PIXEL_DATA in tags and _ROI_CONTOURS not in tags


def may_carry_a_face(values: Mapping[str, str]) -> bool:
    """Tell whether an object that no mask helps may carry the shape of one: unless its header names another part."""
    return values.get("SOPClassUID", "") in _SHAPES and said_of(values) is not Said.OTHER


def needs_defacing(values: Mapping[str, str]) -> Verdict:
    """Tell from one header whether its series must be looked at before anybody sees it.

    Every CT and MR image of the tomographic classes is a candidate, whatever its Body Part Examined says: that element is
    often wrong or left over from a protocol, and the pixels decide soon enough. What a sender says of Recognizable Visual
    Features (0028,0302) is not believed; done is what lists the option's code in (0012,0064), from which arrival takes out
    everything that a sender wrote.

    Parameters
    ----------
    values : mapping of str to str
        Keyword to value: SOPClassUID and, as "DeidentificationMethodCodes", the codes joined by a backslash.
    """
    if values.get("SOPClassUID", "") not in VOLUMES:
        return Verdict.NOT
    return Verdict.DONE if METHOD in values.get("DeidentificationMethodCodes", "").split("\\") else Verdict.CANDIDATE
