"""The de-identifier as a whole: what it refuses, keeps, and says it did."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import making
import pytest
from deid.deidentifying import KEY, after, deidentifier, encoded, read_back
from pydicom.dataset import Dataset

from pacs.deid.policy import POLICIES, Action, Rules
from pacs.deid.profile import Deidentifier
from pacs.model.errors import ConfigurationError, DataSetMismatch, NotUnderstood, Quarantined, SOPClassNotSupported
from pacs.model.instance import Origin, Received


def test_research_keeps_what_research_needs() -> None:
    """Geometry, patient characteristics, descriptors and body part stay."""
    ds = making.dataset()
    found = after(ds)

    for keyword in (
        "SeriesDescription",
        "StudyDescription",
        "BodyPartExamined",
        "PatientSex",
        "PatientAge",
        "PatientWeight",
        "ImagePositionPatient",
    ):
        assert found[keyword] == ds[keyword], keyword
    assert found.PatientID == found.PatientName and found.PatientID.startswith("MP-")
    assert found.AccessionNumber and found.AccessionNumber != ds.AccessionNumber
    assert not found.PatientBirthDate


def test_basic_keeps_neither_dates_nor_descriptors() -> None:
    """Without options the Basic Profile's own actions hold, and only they are claimed."""
    found = after(making.dataset(), "basic")

    assert "SeriesDescription" not in found and "PatientAge" not in found and not found.StudyDate
    assert [item.CodeValue for item in found.DeidentificationMethodCodeSequence] == ["113100"]
    assert found.LongitudinalTemporalInformationModified == "REMOVED"


def test_the_key_is_in_the_data_set() -> None:
    """The UIDs that the archive files it under are those that it holds."""
    one = deidentifier()
    ds = making.dataset()

    result = one.deidentify(making.received(ds))
    found = read_back(result)

    assert result.key.study_instance_uid == found.StudyInstanceUID == one.pseudonymous_uid(ds.StudyInstanceUID)
    assert result.key.series_instance_uid == found.SeriesInstanceUID
    assert result.key.sop_instance_uid == found.SOPInstanceUID
    assert result.sop_class_uid == ds.SOPClassUID


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
def test_missing_uids_are_a_mismatch(keyword: str) -> None:
    """An instance that does not say where it belongs is not filed."""
    with pytest.raises(DataSetMismatch):
        after(making.dataset(**{keyword: ""}))


@pytest.mark.parametrize("announced", [("1.2.840.10008.5.1.4.1.1.4", ""), ("", "1.2.3.4")])
def test_another_object_than_announced_is_a_mismatch(announced: tuple[str, str]) -> None:
    """The C-STORE command and the data set have to agree (PS3.4 B.2.3)."""
    data = making.encode(making.dataset())

    with pytest.raises(DataSetMismatch):
        deidentifier().deidentify(Received(data, "1.2.840.10008.1.2.1", Origin.STORAGE_SCU, "x", *announced))


@pytest.mark.parametrize("uid", ["1.2.276.0.7230010.3.1.0.1", "1.2.840.10008.5.1.4.1.1.999", "1.2.840.10008.1.1"])
def test_unknown_classes_are_not_supported(uid: str) -> None:
    """What no table knows could not be de-identified."""
    with pytest.raises(SOPClassNotSupported):
        after(making.dataset(SOPClassUID=uid))


def test_pixels_that_contradict_their_syntax_are_not_understood() -> None:
    """Native pixels in a compressed syntax are nobody's code stream."""
    received = making.received(making.dataset())

    with pytest.raises(NotUnderstood):
        deidentifier().deidentify(Received(received.data_set, "1.2.840.10008.1.2.4.80", Origin.IMPORT, "x"))


def test_an_unknown_policy_is_a_configuration_error() -> None:
    """The message names what there is."""
    with pytest.raises(ConfigurationError, match="basic, research"):
        Deidentifier("secret", KEY)


def test_the_digest_tells_policies_apart() -> None:
    """Each policy has its own, the same every time."""
    assert deidentifier().policy_digest == deidentifier().policy_digest != deidentifier("basic").policy_digest


def test_every_row_of_the_table_has_an_action_in_every_policy() -> None:
    """No attribute of Table E.1-1 is left to chance, and identifying ones are never kept as they are."""
    from pacs.deid.policy import table

    for policy in POLICIES.values():
        rules = Rules(policy, "ct-image")
        for tag, row in table().items():
            action = rules.rule("", tag).action
            if row.basic in ("X", "Z", "D") and not row.options:
                assert action not in (Action.KEEP, Action.SCRUB, Action.KEEP_UID), f"{tag:08X}"
            if row.basic == "U" and tag >> 16 not in (0, 2, 4, 0x0012):
                assert action in (Action.UID, Action.KEEP_UID, Action.REMOVE), f"{tag:08X}"


def test_two_processes_agree() -> None:
    """Neither hash seeds nor history change a byte."""
    script = (
        "import sys, hashlib; sys.path.insert(0, 'tests'); import making; from deid.deidentifying import deidentifier, encoded;"
        "print(hashlib.sha256(encoded(deidentifier().deidentify(making.received("
        "making.dataset(ImageComments='Quillfeather Zebulon Octavian CT chest'))))).hexdigest())"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
        ).stdout
        for seed in ("1", "2")
    }

    assert len(answers) == 1


def test_threads_share_a_deidentifier() -> None:
    """Many associations at once give what one after another gives."""
    shared = deidentifier()
    work = [
        making.received(making.dataset(instance=n, patient_id=f"P-{n % 5}000", patient_name=f"Family{n % 5}^X"))
        for n in range(60)
    ]

    with ThreadPoolExecutor(8) as pool:
        together = [encoded(result) for result in pool.map(shared.deidentify, work)]

    assert together == [encoded(deidentifier().deidentify(received)) for received in work]


class TestAttest:
    """Objects that processors made of our own instances."""

    def derived(self, **overrides: object) -> Dataset:
        """A derived image of a de-identified source."""
        ds = after(making.dataset())
        ds.SOPInstanceUID = "2.25.1234567"
        for keyword, value in overrides.items():
            setattr(ds, keyword, value)
        return ds

    def test_a_derived_object_passes_unchanged(self) -> None:
        """No second pseudonymisation, no added element."""
        ds = self.derived()
        received = making.received(ds, origin=Origin.PROCESSOR)

        result = deidentifier().attest(received)

        assert encoded(result) == received.data_set
        assert result.key.study_instance_uid == ds.StudyInstanceUID
        assert "113100" in result.methods

    @pytest.mark.parametrize(
        "overrides",
        [{"PatientID": making.PATIENT_ID}, {"PatientName": making.PATIENT_NAME}, {"StudyInstanceUID": making.STUDY_UID}],
    )
    def test_what_is_not_of_this_archive_is_refused(self, overrides: dict[str, str]) -> None:
        """A processor cannot bring a patient in."""
        with pytest.raises(Quarantined):
            deidentifier().attest(making.received(self.derived(**overrides)))

    def test_private_elements_are_refused(self) -> None:
        """Nobody could say what is in them."""
        ds = self.derived()
        ds.private_block(0x0009, "SOMEBODY", create=True).add_new(0x01, "LO", "text")

        with pytest.raises(Quarantined):
            deidentifier().attest(making.received(ds))
