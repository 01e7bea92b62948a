"""De-identification on arrival: Received ▶ Deidentified (PS3.15 Annex E).

`Deidentifier` puts the rooms' parts in order: refuse what cannot be made safe, gather whom the object names, treat every
element by the tables, search once more for what may have been left, and write down what was done. The same input gives the same
output in every process; nothing here has a clock or a counter. Attribute rules are in `policy.py`, the engine in `walk.py`.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pacs.deid import graphics, people, policy, risk, walk
from pacs.deid.actions import Subject
from pacs.deid.attest import attest
from pacs.deid.policy import POLICIES, Rules
from pacs.deid.pseudonym import Pseudonyms
from pacs.deid.residue import Needles, search
from pacs.deid.taken import collect
from pacs.deid.text import identity
from pacs.dicom import part10, values
from pacs.dicom.elements import EXPLICIT_BIG_ENDIAN, EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN, element, read, sequence
from pacs.model.errors import ConfigurationError, NotUnderstood, SOPClassNotSupported
from pacs.model.instance import Deidentified, Element, InstanceKey, Received
from pacs.standard import tables

_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_PATIENT_ID, _ISSUER, _CHARSET, _FRAME_OF_REFERENCE = 0x00100020, 0x00100021, 0x00080005, 0x00200052
_IMAGE_TYPE, _BURNED_IN = 0x00080008, 0x00280301
_NATIVE = frozenset({IMPLICIT_LITTLE_ENDIAN, EXPLICIT_LITTLE_ENDIAN, EXPLICIT_BIG_ENDIAN, "1.2.840.10008.1.2.1.99"})
_PATIENTS_REMEMBERED = 32
_SUBJECTS_REMEMBERED = 8
_SEQUENCES_REMEMBERED = 512


@dataclass(slots=True)
class _Patient:
    """What is remembered of one patient: nested names by sequence, and a memory for each identity set, IOD and character
    set."""

    patient_id: str
    nested: dict[tuple[int, bytes], people.Found] = field(default_factory=dict, repr=False)
    memories: dict[object, tuple[walk.Memory, Needles]] = field(default_factory=dict, repr=False)


class Deidentifier:
    """De-identifies by one policy under one identity key; safe to share between threads.

    Parameters
    ----------
    policy : str
        A name in `POLICIES`: "basic" or "research".
    identity_key : bytes
        The secret that pseudonyms and date shifts hang on; another key makes unrelated ones.
    site : str
        Divides one key among several archives.
    collect_taken : bool
        Say what was taken away, too, for the identity vault.
    """

    def __init__(self, policy: str, identity_key: bytes, site: str = "", *, collect_taken: bool = False) -> None:
        if policy not in POLICIES:
            raise ConfigurationError(f"deid.policy must be one of {', '.join(sorted(POLICIES))}")
        self.policy = POLICIES[policy]
        self.policy_digest = _digest(policy)
        self._pseudonyms = Pseudonyms(identity_key + site.encode())
        self._collect_taken = collect_taken
        self._rules: dict[str, Rules] = {}
        self._patients: OrderedDict[tuple[str, str, str], _Patient] = OrderedDict()
        self._lock = threading.Lock()

    def deidentify(self, received: Received) -> Deidentified:
        """Return the instance without identity.

        Raises
        ------
        NotUnderstood
            The data set cannot be parsed to its end.
        DataSetMismatch
            UIDs are missing, or are not the announced ones.
        SOPClassNotSupported
            A media directory, or a class that no table knows.
        Quarantined
            The object may show or hold identity that this version cannot take out.
        """
        if received.sop_class_uid == risk.MEDIA_STORAGE_DIRECTORY:
            risk.check_class(received.sop_class_uid)
        elements = read(received.data_set, received.transfer_syntax_uid)
        by_tag = {one.tag: one for one in elements}
        if 0x00041220 in by_tag:
            raise SOPClassNotSupported("a media directory is not an instance; send the files that it names")
        sop_class_uid, uids = self._checked(received, by_tag)
        patient = self._patient(by_tag, uids["Study Instance UID (0020,000D)"])
        memory, needles = self._memory(patient, elements, by_tag, sop_class_uid)
        planes = graphics.embedded_planes(elements) if any(0x60000102 <= tag <= 0x60FF0102 for tag in by_tag) else []
        kept = walk.deidentify(elements, memory)
        originals = [
            uid
            for uid in (*uids.values(), _text(by_tag, _FRAME_OF_REFERENCE))
            if self._pseudonyms.uid(uid) != uid and len(uid) > 8
        ]
        search(kept, needles, memory.harmless, originals)
        kept = self._finished(kept, by_tag, received.transfer_syntax_uid, elements, planes, patient.patient_id)
        study, series, instance = (self._pseudonyms.uid(uid) for uid in uids.values())
        return Deidentified(
            key=InstanceKey(study, series, instance),
            sop_class_uid=sop_class_uid,
            elements=tuple(kept),
            transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN
            if received.transfer_syntax_uid in _NATIVE
            else received.transfer_syntax_uid,
            methods=self._methods(by_tag),
            policy=self.policy.name,
            taken=collect(elements, kept, patient.patient_id) if self._collect_taken else None,
        )

    def attest(self, received: Received) -> Deidentified:
        """Return an object that a processor made from instances of this archive; see `pacs.deid.attest`."""
        return attest(received, self.policy.name)

    def pseudonymous_uid(self, uid: str) -> str:
        """Return the UID by which this archive knows the instance, series or study `uid`."""
        return self._pseudonyms.uid(uid.strip("\0 "))

    def pseudonymous_patient_id(self, patient_id: str, issuer: str = "") -> str:
        """Return the Patient ID by which this archive knows a patient."""
        return self._pseudonyms.patient_id(patient_id.strip("\0 "), issuer.strip("\0 "))

    def _checked(self, received: Received, by_tag: Mapping[int, Element]) -> tuple[str, dict[str, str]]:
        sop_class_uid = _text(by_tag, _SOP_CLASS)
        uids = {
            "Study Instance UID (0020,000D)": _text(by_tag, _STUDY),
            "Series Instance UID (0020,000E)": _text(by_tag, _SERIES),
            "SOP Instance UID (0008,0018)": _text(by_tag, _SOP_INSTANCE),
        }
        risk.check_uids(received.sop_class_uid, received.sop_instance_uid, sop_class_uid, uids)
        risk.check_class(sop_class_uid)
        tags = {tag: _text(by_tag, tag) for tag in (_IMAGE_TYPE, _BURNED_IN)}
        risk.check_pixels(sop_class_uid, received.transfer_syntax_uid, tags)
        pixel_data = by_tag.get(0x7FE00010)
        if pixel_data is not None and pixel_data.undefined_length is (received.transfer_syntax_uid in _NATIVE):
            raise NotUnderstood("Pixel Data is not encoded as its transfer syntax says")
        return sop_class_uid, uids

    def _patient(self, by_tag: Mapping[int, Element], study_instance_uid: str) -> _Patient:
        """Return the memory of this object's patient, and of nobody else."""
        patient_id, issuer = _text(by_tag, _PATIENT_ID), _text(by_tag, _ISSUER)
        key = (patient_id, issuer, "" if patient_id else study_instance_uid)
        with self._lock:
            known = self._patients.get(key)
            if known is None:
                pseudonym = (
                    self._pseudonyms.patient_id(patient_id, issuer)
                    if patient_id
                    else self._pseudonyms.patient_without_id(study_instance_uid)
                )
                known = self._patients[key] = _Patient(pseudonym)
                if len(self._patients) > _PATIENTS_REMEMBERED:
                    self._patients.popitem(last=False)
            else:
                self._patients.move_to_end(key)
        return known

    def _memory(
        self, patient: _Patient, elements: Sequence[Element], by_tag: Mapping[int, Element], sop_class_uid: str
    ) -> tuple[walk.Memory, Needles]:
        """Return what to remember by, for this patient, IOD, character set and everybody this object names."""
        declared = by_tag.get(_CHARSET)
        charsets = values.charsets_of(bytes(declared.value)) if declared is not None else values.DEFAULT_CHARSETS
        naming: list[object] = [sop_class_uid, charsets]
        nested = patient.nested
        codes = people.CODES
        for one in elements:
            if one.vr == "PN" or one.tag in codes:
                naming.append((one.tag, bytes(one.value)))
            elif one.vr == "SQ":
                if isinstance(one.value, bytes):
                    found = nested.get((one.tag, one.value))
                    if found is None:
                        if len(nested) >= _SEQUENCES_REMEMBERED:
                            nested.clear()
                        found = nested[one.tag, one.value] = people.named_within(one, charsets, 0)
                else:
                    found = people.named_within(one, charsets, 0)
                if found != people.NOBODY:
                    naming.append(found)
        key = tuple(naming)
        known = patient.memories.get(key)
        if known is None:
            names, identifiers = people.named_in(elements, charsets)
            who = identity(names, identifiers)
            subject = Subject(
                self._pseudonyms, patient.patient_id, self._pseudonyms.shift_days(patient.patient_id), who, charsets
            )
            known = (walk.Memory(self._rules_of(sop_class_uid), subject), Needles(who))
            if len(patient.memories) >= _SUBJECTS_REMEMBERED:
                patient.memories.clear()
            patient.memories[key] = known
        return known

    def _rules_of(self, sop_class_uid: str) -> Rules:
        iod = tables.iod_of(sop_class_uid)
        rules = self._rules.get(iod)
        if rules is None:
            rules = self._rules[iod] = Rules(self.policy, iod)
        return rules

    def _finished(
        self,
        kept: list[Element],
        by_tag: Mapping[int, Element],
        transfer_syntax_uid: str,
        elements: Sequence[Element],
        planes: Sequence[int],
        patient_id: str,
    ) -> list[Element]:
        """Add the patient's pseudonym where the sender left the element out, the markers, and tidy Pixel Data."""
        added = list(_markers(self.policy.name, self._methods(by_tag)))
        if 0x00100010 not in by_tag:
            added.append(element(0x00100010, "PN", patient_id.encode("ascii")))
        if 0x00100020 not in by_tag:
            added.append(element(0x00100020, "LO", patient_id.encode("ascii")))
        pixel_data = by_tag.get(0x7FE00010)
        if pixel_data is not None:
            tidied = graphics.tidy(pixel_data, elements, planes)
            if tidied is not pixel_data:
                kept = [tidied if one.tag == 0x7FE00010 else one for one in kept]
        kept += added
        kept.sort(key=_tag)
        return kept

    def _methods(self, by_tag: Mapping[int, Element]) -> tuple[str, ...]:
        """Return the codes of CID 7050 that hold for this object; 113103 only where no vector graphics are left to doubt."""
        if "clean_graphics" in self.policy.options and 0x00700001 not in by_tag:
            return tuple(sorted((*self.policy.methods, "113103")))
        return self.policy.methods


def _tag(one: Element) -> int:
    return one.tag


def _text(by_tag: Mapping[int, Element], tag: int) -> str:
    one = by_tag.get(tag)
    return bytes(one.value).decode("latin-1").strip("\0 ") if one is not None and one.vr != "SQ" else ""


_marker_cache: dict[tuple[str, tuple[str, ...]], tuple[Element, ...]] = {}
_digests: dict[str, str] = {}


def _digest(name: str) -> str:
    if name not in _digests:
        _digests[name] = policy.digest(POLICIES[name])
    return _digests[name]


def _markers(name: str, methods: tuple[str, ...]) -> tuple[Element, ...]:
    """Return what says that and how the object was de-identified (PS3.3 C.7.1.1, C.12.1; PS3.15 E.1.1)."""
    known = _marker_cache.get((name, methods))
    if known is None:
        tool = f"mini-pacs {part10.IMPLEMENTATION_VERSION_NAME}\\PS3.15 2026d {name} {_digest(name)}"
        meanings = tables.deidentification_methods()
        codes = [
            [
                element(0x00080100, "SH", code.encode("ascii")),
                element(0x00080102, "SH", b"DCM"),
                element(0x00080104, "LO", meanings[code].encode("ascii")),
            ]
            for code in methods
        ]
        known = _marker_cache[name, methods] = (
            element(0x00120062, "CS", b"YES"),
            element(0x00120063, "LO", tool.encode("ascii")),
            sequence(0x00120064, codes),
            element(0x00280303, "CS", POLICIES[name].temporal.encode("ascii")),
        )
    return known
