"""Objects that our own processors made from instances of this archive: looked at, not changed.

Their sources have no identity any more, so a second pseudonymisation would only tear them from their study. What a processor
could nevertheless have brought in from elsewhere is refused: private elements but the safe ones, file meta or directory
groups, overlays and curves, a patient or study that is not one of ours.
"""

import re
from collections.abc import Mapping

from pacs.deid import private, risk
from pacs.deid.actions import REMOVED
from pacs.dicom.elements import EXPLICIT_BIG_ENDIAN, EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN, items
from pacs.dicom.large import read
from pacs.dicom.values import text
from pacs.model.errors import Quarantined
from pacs.model.instance import Deidentified, Element, InstanceKey, Received

_PATIENT = re.compile(r"(MP-[A-Z2-9]{13})?\Z")
_OURS = re.compile(r"2\.25\.[1-9][0-9]{0,38}\Z")
_CODE_VALUE = 0x00080100
_METHODS = 0x00120064
_REBUILT = frozenset({IMPLICIT_LITTLE_ENDIAN, EXPLICIT_BIG_ENDIAN, "1.2.840.10008.1.2.1.99"})


def attest(received: Received, policy: str, *, foreign_uids: bool = False) -> Deidentified:
    """Return a derived object as de-identified, element for element as it came; group lengths are left out.

    With `foreign_uids` a study may have kept the UID it came with (a policy retains UIDs).

    Raises
    ------
    Quarantined
        It holds what nothing made here from de-identified sources can hold.
    DataSetMismatch, SOPClassNotSupported, NotUnderstood
        As for what arrives from outside.
    """
    elements = [one for one in read(received.data_set, received.transfer_syntax_uid) if one.tag & 0xFFFF]
    by_tag = {one.tag: one for one in elements}
    sop_class_uid, study, series, instance = (
        _first(by_tag.get(tag)) for tag in (0x00080016, 0x0020000D, 0x0020000E, 0x00080018)
    )
    uids = {
        "Study Instance UID (0020,000D)": study,
        "Series Instance UID (0020,000E)": series,
        "SOP Instance UID (0008,0018)": instance,
    }
    risk.check_uids(received.sop_class_uid, received.sop_instance_uid, sop_class_uid, uids)
    risk.check_class(sop_class_uid)
    if not foreign_uids and not _OURS.match(study):
        raise Quarantined("the derived object belongs to no study of this archive")
    patient_id, patient_name = _first(by_tag.get(0x00100020)), _first(by_tag.get(0x00100010))
    if not _PATIENT.match(patient_id) or patient_name.rstrip("^") not in ("", patient_id, REMOVED):
        raise Quarantined("the derived object names a patient that is not a pseudonym of this archive")
    _check(elements)
    return Deidentified(
        key=InstanceKey(study, series, instance),
        sop_class_uid=sop_class_uid,
        elements=tuple(elements),
        transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN
        if received.transfer_syntax_uid in _REBUILT
        else received.transfer_syntax_uid,
        methods=_methods(by_tag.get(_METHODS)),
        policy=f"{policy} (attested)",
    )


def _check(elements: list[Element]) -> None:
    blocks = private.blocks(elements)
    for one in elements:
        group = one.tag >> 16
        if group & 1 and not _is_safe(one, blocks):
            raise Quarantined("the derived object holds private elements")
        if group in (0x0000, 0x0002, 0x0004, 0xFFFA, 0xFFFC) or 0x5000 <= group <= 0x50FF or 0x6000 <= group <= 0x60FF:
            raise Quarantined("the derived object holds overlays, signatures or groups that no data set has")
        if one.vr == "SQ":
            for item in items(one.value):
                _check(item)


def _is_safe(one: Element, blocks: Mapping[int, str]) -> bool:
    """Say whether a private element is one that de-identification left in the source."""
    if one.tag & 0xFFFF <= 0xFF:
        return (one.tag >> 16 << 8 | one.tag & 0xFF) in blocks
    creator = blocks.get(one.tag >> 8)
    return creator is not None and private.safe(one, creator) is not None


def _methods(one: Element | None) -> tuple[str, ...]:
    """Return the codes that the sources were de-identified by, if the processor carried them over."""
    if one is None or one.vr != "SQ":
        return ()
    return tuple(_first(code) for item in items(one.value) for code in item if code.tag == _CODE_VALUE)


def _first(one: Element | None) -> str:
    found = text(one) if one is not None and one.vr != "SQ" else []
    return found[0] if found else ""
