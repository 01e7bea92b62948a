"""De-identification on arrival: Received ▶ Deidentified (PS3.15 Annex E).

`Deidentifier` chooses the policy by who sent the object, and puts the room's parts in order: refuse what cannot be made safe,
gather whom the object names, treat every element by the tables, search once more for what may have been left, and write down
what was done. The same input gives the same output in every process; nothing here has a clock or a counter. Attribute rules
are in `policy.py`, the engine in `walk.py`.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from pacs.deid import graphics, holding, markers, people, risk, streams, walk
from pacs.deid.actions import Subject
from pacs.deid.attest import attest
from pacs.deid.choice import Choice
from pacs.deid.devices import LASTING, Device, rectangles
from pacs.deid.policy import BASIC_PROFILE, METHODS, POLICIES, Policy, Rules, digest
from pacs.deid.pseudonym import Pseudonyms
from pacs.deid.residue import Needles, search
from pacs.deid.taken import collect
from pacs.deid.text import identity
from pacs.dicom import values
from pacs.dicom.building import BY_TAG
from pacs.dicom.elements import EXPLICIT_BIG_ENDIAN, EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN, element
from pacs.dicom.large import read
from pacs.model.errors import ConfigurationError, NotUnderstood, SOPClassNotSupported
from pacs.model.instance import BulkElement, Deidentified, Element, InstanceKey, Origin, Received
from pacs.standard import tables

_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_UIDS = (_STUDY, _SERIES, _SOP_INSTANCE)
_BIRTH_DATE = 0x00100030
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
    """De-identifies under one identity key; safe to share between threads.

    Parameters
    ----------
    policy, by_source, rules
        Which policy is for what; see `pacs.deid.choice.Choice`.
    identity_key : bytes
        The secret that pseudonyms and date shifts hang on; another key makes unrelated ones.
    site : str
        Divides one key among several archives.
    policies : mapping of str to Policy
        What there is to choose from; see `pacs.deid.policy.with_own`.
    clinical_trial : mapping of str to str
        Keyword -> value for the Clinical Trial modules; see `pacs.deid.markers.clinical_trial`.
    collect_taken : bool
        Say what was taken away, too, for the identity vault.
    devices : sequence of Device
        Their images show text, whatever their class and Burned In Annotation say.
    words : frozenset of str
        May stand in descriptors beside those of the vocabulary; for who judges what was made here, see `pacs.processing.words`.
    """

    def __init__(
        self,
        policy: str,
        identity_key: bytes,
        site: str = "",
        *,
        policies: Mapping[str, Policy] = POLICIES,
        by_source: Mapping[str, str] | None = None,
        rules: Iterable[Mapping[str, Any]] = (),
        clinical_trial: Mapping[str, str] | None = None,
        collect_taken: bool = False,
        devices: Sequence[Device] = (),
        words: frozenset[str] = frozenset(),
    ) -> None:
        self.policies = policies
        self._choice = Choice(policies, policy, by_source, rules)
        self.policy = self._choice.default
        self.policy_digest = digest(self.policy)
        self._trial = markers.clinical_trial(clinical_trial or {})
        self._keeps_uids = any("retain_uids" in one.options for one in self._choice.possible)
        self._pseudonyms = Pseudonyms(identity_key + site.encode())
        self._collect_taken = collect_taken
        self._words = words
        self._devices = tuple(devices)
        self._rules: dict[tuple[str, str], Rules] = {}
        self._patients: OrderedDict[tuple[str, str, str, str], _Patient] = OrderedDict()
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
        policy = self._choice.of(received, elements)
        sop_class_uid, uids, may_show_text = self._checked(received, by_tag, policy)
        patient = self._patient(policy, by_tag, uids["Study Instance UID (0020,000D)"])
        memory, needles = self._memory(policy, patient, elements, by_tag, sop_class_uid)
        planes = graphics.embedded_planes(elements) if any(0x60000102 <= tag <= 0x60FF0102 for tag in by_tag) else []
        walked = walk.deidentify(elements, memory)
        kept = walked.kept
        keeps_uids = memory.subject.keep_uids
        originals = (
            []
            if keeps_uids
            else [
                uid
                for uid in (*uids.values(), _text(by_tag, _FRAME_OF_REFERENCE))
                if self._pseudonyms.uid(uid) != uid and len(uid) > 8
            ]
        )
        search(kept, needles, memory.harmless, originals, foreign_uids=keeps_uids)
        methods = _methods(policy, walked, by_tag, planes)
        if 0x7FE00010 in by_tag:
            kept = _with_tidy_pixels(kept, elements, planes, received.transfer_syntax_uid)
        kept = self._finished(kept, by_tag, patient.patient_id, policy, methods)
        by_kept = {one.tag: one for one in kept} if keeps_uids else {}
        study, series, instance = (
            _text(by_kept, tag) if keeps_uids else self._pseudonyms.uid(uid)
            for tag, uid in zip(_UIDS, uids.values(), strict=True)
        )
        pending, named = holding.pending(policy, sop_class_uid, by_tag, may_show_text)
        return Deidentified(
            key=InstanceKey(study, series, instance),
            sop_class_uid=sop_class_uid,
            elements=tuple(kept),
            transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN
            if received.transfer_syntax_uid in _NATIVE
            else received.transfer_syntax_uid,
            methods=methods,
            policy=policy.name,
            pending=pending,
            report={**walked.report, **named},
            taken=collect(elements, kept, patient.patient_id) if self._collect_taken else None,
        )

    def under(self, policy: str) -> "Deidentifier":
        """Return a de-identifier of the same pseudonyms and one policy for every source. Raises `ConfigurationError`."""
        if policy not in self.policies:
            raise ConfigurationError(f"there is no policy of this name; there are {', '.join(sorted(self.policies))}")
        other = copy(self)
        other._choice = Choice(self.policies, policy)
        other.policy = other._choice.default
        other.policy_digest = digest(other.policy)
        other._rules, other._patients, other._lock = {}, OrderedDict(), threading.Lock()
        return other

    def treated(self, received: Received) -> tuple[list[Element], list[Element], Rules]:
        """Return the elements before and after their treatment, and its rules; nothing is refused or added, for `explain`."""
        elements = read(received.data_set, received.transfer_syntax_uid)
        by_tag = {one.tag: one for one in elements}
        policy = self._choice.of(received, elements)
        patient = self._patient(policy, by_tag, _text(by_tag, _STUDY))
        memory, _ = self._memory(policy, patient, elements, by_tag, _text(by_tag, _SOP_CLASS))
        return elements, walk.deidentify(elements, memory).kept, memory.rules

    def attest(self, received: Received) -> Deidentified:
        """Return an object that a processor made from instances of this archive; see `pacs.deid.attest`."""
        return attest(received, self.policy.name, foreign_uids=self._keeps_uids)

    def policy_for(self, received: Received) -> Policy:
        """Return the policy for an object; of one that cannot be read, what would hold without a look into it."""
        try:
            elements = read(received.data_set, received.transfer_syntax_uid)
        except NotUnderstood:
            elements = []
        return self._choice.of(received, elements)

    def usual_policy(self, source: str, origin: Origin) -> Policy:
        """Return the policy for what `source` sends by this door, where no rule of `deid.rules` says otherwise."""
        return self._choice.by_source(source, origin)

    def pseudonymous_uid(self, uid: str) -> str:
        """Return the UID by which this archive knows the instance, series or study `uid`."""
        return self._pseudonyms.uid(uid.strip("\0 "))

    def pseudonymous_patient_id(self, patient_id: str, issuer: str = "") -> str:
        """Return the Patient ID by which this archive knows a patient."""
        return self._pseudonyms.patient_id(patient_id.strip("\0 "), issuer.strip("\0 "))

    def _checked(self, received: Received, by_tag: Mapping[int, Element], policy: Policy) -> tuple[str, dict[str, str], bool]:
        """Return SOP class, UIDs, and whether the pixels must be searched for text before anybody sees them."""
        sop_class_uid = _text(by_tag, _SOP_CLASS)
        uids = {
            "Study Instance UID (0020,000D)": _text(by_tag, _STUDY),
            "Series Instance UID (0020,000E)": _text(by_tag, _SERIES),
            "SOP Instance UID (0008,0018)": _text(by_tag, _SOP_INSTANCE),
        }
        risk.check_uids(received.sop_class_uid, received.sop_instance_uid, sop_class_uid, uids)
        risk.check_class(sop_class_uid)
        tags = {tag: _text(by_tag, tag) for tag in (_IMAGE_TYPE, _BURNED_IN)}
        pixel_data = by_tag.get(0x7FE00010)
        may_show_text = risk.check_pixels(
            sop_class_uid,
            received.transfer_syntax_uid,
            tags,
            clean_pixel_data=policy.clean_pixel_data,
            has_pixels=isinstance(pixel_data, BulkElement) or (pixel_data is not None and len(pixel_data.value) > 0),
            known_device=bool(self._devices) and bool(rectangles(self._devices, values.attributes(by_tag.values(), LASTING))),
        )
        if pixel_data is not None and pixel_data.undefined_length is (received.transfer_syntax_uid in _NATIVE):
            raise NotUnderstood("Pixel Data is not encoded as its transfer syntax says")
        return sop_class_uid, uids, may_show_text

    def _patient(self, policy: Policy, by_tag: Mapping[int, Element], study_instance_uid: str) -> _Patient:
        """Return the memory of this object's patient, and of nobody else."""
        patient_id, issuer = _text(by_tag, _PATIENT_ID), _text(by_tag, _ISSUER)
        key = (patient_id, issuer, "" if patient_id else study_instance_uid, policy.name)
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
        self,
        policy: Policy,
        patient: _Patient,
        elements: Sequence[Element],
        by_tag: Mapping[int, Element],
        sop_class_uid: str,
    ) -> tuple[walk.Memory, Needles]:
        """Return what to remember by, for this patient, IOD, character set and everybody this object names."""
        declared = by_tag.get(_CHARSET)
        charsets = values.charsets_of(bytes(declared.value)) if declared is not None else values.DEFAULT_CHARSETS
        naming: list[object] = [sop_class_uid, charsets]
        nested = patient.nested
        codes = people.codes_for(policy.options)
        dated = policy.temporal != "UNMODIFIED"
        days: set[str] = set()
        for one in elements:
            if one.vr == "PN" or one.tag in codes:
                naming.append((one.tag, bytes(one.value)))
            elif (one.vr == "DA" or one.vr == "DT") and (dated or one.tag == _BIRTH_DATE):
                days.add(bytes(one.value[:8]).decode("latin-1"))
            elif one.vr == "SQ":
                if isinstance(one.value, bytes):
                    found = nested.get((one.tag, one.value))
                    if found is None:
                        if len(nested) >= _SEQUENCES_REMEMBERED:
                            nested.clear()
                        found = nested[one.tag, one.value] = people.named_within(one, charsets, 0, codes)
                else:
                    found = people.named_within(one, charsets, 0, codes)
                if found != people.NOBODY:
                    naming.append(found)
        naming.append(frozenset(days))
        key = tuple(naming)
        known = patient.memories.get(key)
        if known is None:
            names, identifiers = people.named_in(elements, charsets, 0, codes)
            who = identity(names, identifiers, days)
            subject = Subject(
                self._pseudonyms,
                patient.patient_id,
                self._pseudonyms.shift_days(patient.patient_id) if policy.temporal == "MODIFIED" else 0,
                who,
                charsets,
                keep_uids="retain_uids" in policy.options,
                words=self._words,
            )
            known = (walk.Memory(self._rules_of(policy, sop_class_uid), subject), Needles(who, charsets))
            if len(patient.memories) >= _SUBJECTS_REMEMBERED:
                patient.memories.clear()
            patient.memories[key] = known
        return known

    def _rules_of(self, policy: Policy, sop_class_uid: str) -> Rules:
        iod = tables.iod_of(sop_class_uid)
        rules = self._rules.get((policy.name, iod))
        if rules is None:
            rules = self._rules[policy.name, iod] = Rules(policy, iod)
        return rules

    def _finished(
        self,
        kept: list[Element],
        by_tag: Mapping[int, Element],
        patient_id: str,
        policy: Policy,
        methods: tuple[str, ...],
    ) -> list[Element]:
        """Add the patient's pseudonym where the sender left the element out, and the markers."""
        added = list(markers.of(policy, methods))
        added += markers.of_subject(self._trial, patient_id)
        if 0x00100010 not in by_tag:
            added.append(element(0x00100010, "PN", patient_id.encode("ascii")))
        if 0x00100020 not in by_tag:
            added.append(element(0x00100020, "LO", patient_id.encode("ascii")))
        kept += markers.merged(added, kept)
        kept.sort(key=BY_TAG)
        return kept


def _with_tidy_pixels(
    kept: list[Element], elements: Sequence[Element], planes: Sequence[int], transfer_syntax_uid: str
) -> list[Element]:
    """Return the elements with Pixel Data that holds nothing but image; offset tables go where they are no longer right."""
    (pixel_data,) = (one for one in elements if one.tag == 0x7FE00010)
    tidied = graphics.tidy(pixel_data, elements, planes)
    tidied = streams.stripped(tidied, elements, transfer_syntax_uid)
    if tidied is pixel_data:
        return kept
    gone = streams.OFFSET_TABLES if tidied.undefined_length else frozenset()
    return [tidied if one.tag == 0x7FE00010 else one for one in kept if one.tag not in gone]


def _methods(policy: Policy, walked: walk.Walked, by_tag: Mapping[int, Element], planes: Sequence[int]) -> tuple[str, ...]:
    """Return the codes of CID 7050 for what was done on this object: an option that found nothing here is not claimed.

    113103 only where no drawn lines are kept (0070,0001) that may be handwriting. 113101 and 113102 are for those who clean
    pixels to add.
    """
    done = set(walked.options)
    if "clean_graphics" in policy.options and (planes or walked.report.get(walk.GRAPHICS_REMOVED)):
        done.add("clean_graphics")
    if 0x00700001 in by_tag and graphics.may_be_written([by_tag[0x00700001]]):
        done.discard("clean_graphics")
    return (BASIC_PROFILE, *sorted(METHODS[option] for option in done))


def _text(by_tag: Mapping[int, Element], tag: int) -> str:
    one = by_tag.get(tag)
    return bytes(one.value).decode("latin-1").strip("\0 ") if one is not None and one.vr != "SQ" else ""
