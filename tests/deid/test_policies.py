"""Policies of one's own: which options there are, which contradict each other, and who gets which."""

from pathlib import Path

import making
import pytest
from deid.deidentifying import KEY, after, read_back
from pydicom.dataset import Dataset

from pacs.archive import Archive
from pacs.deid.policy import CONTRADICTIONS, METHODS, POLICIES, make, with_own
from pacs.deid.profile import Deidentifier
from pacs.model.errors import ConfigurationError
from pacs.model.instance import Origin, Received
from pacs.settings import as_environment, load
from pacs.standard import tables
from pacs.sweep import prepare

SPONSOR = "ClinicalTrialSponsorName"
OWN = with_own(
    {
        "dated": ["retain_long_full_dates", "clean_descriptors"],
        "device": ["retain_device_identity"],
        "site": ["retain_institution_identity", "retain_uids"],
    }
)


def by(policy: str, ds: Dataset) -> Dataset:
    """Return `ds` after one of these policies."""
    return read_back(Deidentifier(policy, KEY, policies=OWN).deidentify(making.received(ds)))


def test_every_option_of_the_standard_is_there() -> None:
    """The ten columns of Table E.1-1, and the two options about pixels, each with its code of CID 7050."""
    assert set(tables.OPTIONS) | {"clean_pixel_data", "clean_recognizable_visual_features"} == set(METHODS)
    assert set(METHODS.values()) | {"113100"} == set(tables.deidentification_methods())


@pytest.mark.parametrize("option", sorted(METHODS))
def test_every_option_works_alone(option: str) -> None:
    """Each makes a policy that de-identifies the phantom; what it does not keep is gone."""
    policies = with_own({"alone": [option]})
    result = Deidentifier("alone", KEY, policies=policies).deidentify(making.received(making.dataset()))
    found = read_back(result)

    kept = {"retain_uids": {making.STUDY_UID}, "retain_institution_identity": {"St Wilfrid Infirmary"}}.get(option, set())
    assert not [planted for planted in making.PLANTED if planted in str(found) and planted not in kept]
    assert set(result.methods) <= {"113100", METHODS[option]}


def test_full_dates_stay_as_they_are() -> None:
    """Dates and times are unmodified, and it says so; the birth date goes all the same."""
    found = by("dated", making.dataset(AcquisitionDateTime="20240229101502.5", DateOfLastCalibration="20240101"))

    assert found.StudyDate == "20240229" and found.AcquisitionDateTime == "20240229101502.5"
    assert found.DateOfLastCalibration == "20240101"
    assert found.LongitudinalTemporalInformationModified == "UNMODIFIED" and not found.PatientBirthDate
    assert "113106" in [item.CodeValue for item in found.DeidentificationMethodCodeSequence]


def test_device_identity_stays() -> None:
    """Serial number, station and calibration dates stay; the other dates go; AE titles become a dummy."""
    ds = making.dataset(DeviceSerialNumber="SN-998877", DateOfLastCalibration="20240101", StationAETitle="CT_AE")
    found = by("device", ds)

    assert found.DeviceSerialNumber == "SN-998877" and found.StationName == "CTROOM1"
    assert found.DateOfLastCalibration == "20240101" and not found.StudyDate
    assert found.StationAETitle == "REMOVED"
    assert found.LongitudinalTemporalInformationModified == "REMOVED"


def test_institution_and_uids_stay() -> None:
    """Institution names and UIDs stay, referenced ones too; the instance is filed under what it keeps."""
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.5"
    ds = making.dataset(ReferencedImageSequence=[reference])
    result = Deidentifier("site", KEY, policies=OWN).deidentify(making.received(ds))
    found = read_back(result)

    assert found.InstitutionName == "St Wilfrid Infirmary"
    assert found.StudyInstanceUID == making.STUDY_UID == result.key.study_instance_uid
    assert found.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.5"
    assert found.PatientID.startswith("MP-") and "Quillfeather" not in str(found)
    assert {"113110", "113112"} <= set(result.methods)


def test_what_is_no_uid_is_replaced_even_where_uids_stay() -> None:
    """A name in a UID element is no UID; neither is a UID that holds the patient's ID."""
    found = by("site", making.dataset(patient_id="7734921", FrameOfReferenceUID="1.2.7734921.4"))

    assert found.FrameOfReferenceUID.startswith("2.25.")


@pytest.mark.parametrize(("first", "second"), [pair[:2] for pair in CONTRADICTIONS])
def test_trap_65_options_that_contradict_each_other_are_refused(first: str, second: str) -> None:
    """Retain Device with Modified Dates would disclose the shift; the message says so."""
    with pytest.raises(ConfigurationError, match=f"{first} contradicts {second}: .*PS3.15"):
        make("mine", [first, second])


def test_trap_65_a_contradiction_stops_the_start(tmp_path: Path) -> None:
    """An archive with such a policy in its settings does not open."""
    tree = making.settings(tmp_path)
    prepare(tree)
    (tmp_path / "pacs.toml").write_text(
        '[policies.mine]\noptions = ["retain_device_identity", "retain_long_modified_dates"]\n', encoding="utf-8"
    )

    with pytest.raises(ConfigurationError, match="disclose"):
        Archive.open(load(tmp_path, {}), writer="test")


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"basic": []}, "taken"),
        ({"mine": ["retain_everything"]}, "no option"),
        ({"My Policy": []}, "lower-case"),
    ],
)
def test_policies_that_cannot_be_are_refused(own: dict[str, list[str]], said: str) -> None:
    """A known name, an unknown option, a name that cannot stand in a data set."""
    with pytest.raises(ConfigurationError, match=said):
        with_own(own)


def test_the_sender_decides_the_policy() -> None:
    """An AE title goes before a pattern, a pattern before a door, and the rest gets the default."""
    one = Deidentifier("research", KEY, policies=OWN, by_source={"CT1": "basic", "MR*": "device", "import": "dated"})

    def policy(source: str, origin: Origin = Origin.STORAGE_SCU) -> str:
        return one.deidentify(making.received(making.dataset(), origin=origin, source=source)).policy

    assert [policy("CT1"), policy("MR7"), policy("US1")] == ["basic", "device", "research"]
    assert policy("files", Origin.IMPORT) == "dated" and policy("CT1", Origin.IMPORT) == "basic"


def test_one_patients_memory_is_not_shared_between_policies() -> None:
    """What one policy keeps is not remembered for another."""
    one = Deidentifier("research", KEY, by_source={"CT1": "basic"})
    kept = one.deidentify(making.received(making.dataset(), source="CT2"))
    bare = one.deidentify(making.received(making.dataset(), source="CT1"))

    assert "SeriesDescription" in read_back(kept) and "SeriesDescription" not in read_back(bare)
    assert kept.key == bare.key


def test_settings_name_policies_and_senders(tmp_path: Path) -> None:
    """pacs.toml and the environment say the same, children read it again, and nonsense is refused."""
    (tmp_path / "pacs.toml").write_text(
        '[deid]\npolicy = "mine"\nby_source = {CT1 = "basic"}\n[policies.mine]\noptions = ["retain_uids"]\n', encoding="utf-8"
    )
    tree = load(tmp_path, {})

    assert tree.policies == (("mine", ("retain_uids",)),) and tree.deid.by_source == (("CT1", "basic"),)
    assert load(tmp_path / "other", {**as_environment(tree), "PACS_HOME": "x"}).policies == tree.policies
    assert load(tmp_path / "other", as_environment(tree)).deid == tree.deid
    for wrong in (
        "[policies.mine]\noption = 1\n",
        "[policies.mine]\noptions = [1]\n",
        "[deid]\nby_source = 3\n",
        "policies = 3\n",
    ):
        (tmp_path / "pacs.toml").write_text(wrong, encoding="utf-8")
        with pytest.raises(ConfigurationError):
            load(tmp_path, {})


def test_an_archive_takes_its_policies_from_its_settings(tmp_path: Path) -> None:
    """The de-identifier of an opened archive knows them."""
    with making.archive(tmp_path, deid__by_source=(("CT1", "basic"),)) as archive:
        received = Received(making.encode(making.dataset()), "1.2.840.10008.1.2.1", Origin.STORAGE_SCU, "CT1")
        assert archive.deidentifier.policy_for(received).name == "basic"


class TestClinicalTrial:
    """The Clinical Trial modules come from configuration alone."""

    def test_trap_13_configured_values_replace_what_came(self) -> None:
        """Sponsor and protocol are ours, the subject is the pseudonym."""
        trial = {"ClinicalTrialSponsorName": "Phantom Trials", "ClinicalTrialProtocolID": "PT-1"}
        ds = making.dataset(ClinicalTrialSponsorName="Quillfeather Inc", ClinicalTrialSubjectID="SUBJ-0042")
        found = read_back(Deidentifier("research", KEY, clinical_trial=trial).deidentify(making.received(ds)))

        assert found.ClinicalTrialSponsorName == "Phantom Trials" and found.ClinicalTrialProtocolID == "PT-1"
        assert found.ClinicalTrialSubjectID == found.PatientID and found.ClinicalTrialSiteID == ""

    @pytest.mark.parametrize(
        "trial", [{"ClinicalTrialSponsorName": "X"}, {"ClinicalTrialSponsorName": "a\\b"}, {"Nonsense": "x"}]
    )
    def test_half_a_trial_is_refused(self, trial: dict[str, str]) -> None:
        """Sponsor and protocol are of Type 1, and values have to fit."""
        with pytest.raises(ConfigurationError):
            Deidentifier("research", KEY, clinical_trial=trial)


def test_markers_name_only_what_was_done() -> None:
    """No option is claimed that found nothing on the instance; the equipment that did it is named."""
    plain = after(making.dataset())
    graphic = making.dataset()
    graphic.add_new(0x60000022, "LO", "x")
    graphic.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0, "DS", "0.000427")
    done = [item.CodeValue for item in after(graphic).DeidentificationMethodCodeSequence]

    assert [item.CodeValue for item in plain.DeidentificationMethodCodeSequence] == ["113100", "113105", "113107", "113108"]
    assert {"113103", "113111"} <= set(done) and "113104" not in done and "113101" not in done
    equipment = plain.ContributingEquipmentSequence[0]
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109104"
    assert "ContributionDateTime" not in equipment


def test_the_report_counts_and_holds_no_value(tmp_path: Path) -> None:
    """Fates and numbers; the index and the record carry it."""
    from pacs.deid.walk import FATES
    from pacs.ingest import ingest

    ds = making.dataset()
    ds.add_new(0x60000022, "LO", "x")
    ds.private_block(0x0099, "NOBODY", create=True).add_new(0, "LO", "x")
    with making.archive(tmp_path) as archive:
        result = archive.deidentifier.deidentify(making.received(ds))
        stored = ingest(archive, making.received(ds))
        record = archive.objects.get(stored.location)
        entry = archive.sealer.open_entry(record)

    assert set(result.report) <= set(FATES) and all(count > 0 for count in result.report.values())
    assert result.report["private_removed"] == 1 and result.report["graphics_removed"] == 1
    assert result.report["dates_moved"] >= 4 and result.report["uids_replaced"] >= 4
    assert entry.report == result.report
    assert POLICIES["research"].clean_pixel_data
