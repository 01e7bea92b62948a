"""Modality Performed Procedure Step as SCP (PS3.4 Annex F), reported with pynetdicom; and what it is evidence of."""

import time
from collections.abc import Iterator

import making
import pausing
import pytest
from dimse.door import Door, opened, stored
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import ModalityPerformedProcedureStep, ModalityPerformedProcedureStepRetrieve
from workflow.orders import item

from pacs.dimse import contexts, requestor, scu
from pacs.model.peer import USUAL, Peer
from pacs.workflow.worklist import Worklist

STUDY = "1.2.840.70.1"


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door, and a modality CT1 that may report."""
    with making.archive(tmp_path_factory.mktemp("home"), dicom__port=0) as archive, opened(archive) as door:
        archive.index.peers.add(Peer("CT1", "127.0.0.1", 104, may=frozenset({*USUAL, "worklist"})))
        yield door


def begun(study: str = STUDY, **changed: object) -> Dataset:
    """Return the attributes of an N-CREATE; `changed` by keyword, None deletes."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Größenberg^Ida", "PID-7731", "19610704", "F"
    ds.PerformedProcedureStepID, ds.PerformedStationAETitle = "PPS-1", "CT1"
    ds.PerformedProcedureStepStartDate, ds.PerformedProcedureStepStartTime = "20261122", "103000"
    ds.PerformedProcedureStepStatus, ds.Modality = "IN PROGRESS", "CT"
    step = Dataset()
    step.StudyInstanceUID, step.ScheduledProcedureStepID, step.AccessionNumber = study, "SPS-1", "ACC-1"
    ds.ScheduledStepAttributesSequence = Sequence([step])
    ds.PerformedSeriesSequence = Sequence()
    for keyword, value in changed.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def ended(status: str = "COMPLETED", series: dict[str, list[str]] | None = None) -> Dataset:
    """Return the attributes of a last N-SET."""
    ds = Dataset()
    ds.PerformedProcedureStepStatus = status
    ds.PerformedProcedureStepEndDate, ds.PerformedProcedureStepEndTime = "20261122", "104500"
    ds.PerformedSeriesSequence = Sequence()
    for uid, instances in (series or {"1.2.840.70.9": ["1.2.840.70.9.1"]}).items():
        one = Dataset()
        one.SeriesInstanceUID, one.ProtocolName = uid, "Thorax"
        one.ReferencedImageSequence = Sequence()
        for instance in instances:
            reference = Dataset()
            reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", instance
            one.ReferencedImageSequence.append(reference)
        ds.PerformedSeriesSequence.append(one)
    return ds


def associate(door: Door, calling: str = "CT1") -> Association:
    """Open an association for steps."""
    ae = AE(ae_title=calling)
    ae.add_requested_context(ModalityPerformedProcedureStep)
    ae.add_requested_context(ModalityPerformedProcedureStepRetrieve)
    association = pausing.associate(ae, "127.0.0.1", door.port, ae_title="MINIPACS")
    assert association.is_established
    return association


def create(door: Door, uid: str | None, ds: Dataset, calling: str = "CT1") -> Dataset:
    """N-CREATE; returns the status data set."""
    association = associate(door, calling)
    status, _ = association.send_n_create(ds, ModalityPerformedProcedureStep, uid)
    association.release()
    return status


def change(door: Door, uid: str, ds: Dataset) -> Dataset:
    """N-SET; returns the status data set."""
    association = associate(door)
    status, _ = association.send_n_set(ds, ModalityPerformedProcedureStep, uid)
    association.release()
    return status


def test_a_step_is_begun_changed_ended_and_read_back(ward: Door) -> None:
    """0000 each time; N-GET of the retrieve class gives back what was told, or what of it was asked for."""
    assert create(ward, "1.2.840.70.100", begun()).Status == 0
    assert change(ward, "1.2.840.70.100", ended("IN PROGRESS")).Status == 0
    assert change(ward, "1.2.840.70.100", ended()).Status == 0

    association = associate(ward)
    status, whole = association.send_n_get([], ModalityPerformedProcedureStepRetrieve, "1.2.840.70.100")
    _, part = association.send_n_get([0x00400252], ModalityPerformedProcedureStepRetrieve, "1.2.840.70.100")
    association.release()
    assert (status.Status, whole.PatientName, whole.PerformedProcedureStepStatus) == (0, "Größenberg^Ida", "COMPLETED")
    assert whole.PerformedSeriesSequence[0].ProtocolName == "Thorax"
    assert [one.keyword for one in part] == ["PerformedProcedureStepStatus"]


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"PerformedProcedureStepStatus": "COMPLETED"}, 0x0106),
        ({"PerformedProcedureStepStatus": None}, 0x0120),
        ({"PerformedStationAETitle": ""}, 0x0121),
        ({"ScheduledStepAttributesSequence": Sequence()}, 0x0121),
        ({"ScheduledStepAttributesSequence": Sequence([Dataset()])}, 0x0120),
    ],
)
def test_a_step_that_lacks_something_is_not_begun(ward: Door, changed: dict[str, object], code: int) -> None:
    """Statuses of PS3.7 10.1.5; the comment names the attribute."""
    status = create(ward, "1.2.840.70.101", begun(**changed))

    assert status.Status == code
    assert change(ward, "1.2.840.70.101", ended()).Status == 0x0112


def test_the_same_uid_twice_is_0111_and_none_is_given_one(ward: Door) -> None:
    """The first stays as it is; without a UID the archive makes one and says it."""
    assert create(ward, "1.2.840.70.102", begun()).Status == 0
    assert create(ward, "1.2.840.70.102", begun()).Status == 0x0111
    answered: list[str] = []
    association = associate(ward)
    association.bind(evt.EVT_DIMSE_RECV, lambda event: answered.append(str(event.message.command_set.AffectedSOPInstanceUID)))
    status, _ = association.send_n_create(begun(), ModalityPerformedProcedureStep, None)
    association.release()
    assert (status.Status, answered[0][:5]) == (0, "2.25.")
    assert change(ward, answered[0], ended()).Status == 0


@pytest.mark.parametrize("final", ["COMPLETED", "DISCONTINUED"])
def test_what_has_ended_may_no_longer_be_updated(ward: Door, final: str) -> None:
    """0110 with Error ID A710 (PS3.4 Table F.7.2-2)."""
    uid = f"1.2.840.70.103.{len(final)}"
    assert create(ward, uid, begun()).Status == 0
    assert change(ward, uid, ended(final)).Status == 0

    status = change(ward, uid, ended("COMPLETED"))

    assert (status.Status, status.ErrorID, "no longer" in status.ErrorComment) == (0x0110, 0xA710, True)


def test_a_step_is_not_completed_without_its_end_and_series(ward: Door) -> None:
    """0120 and 0121; an unknown status is 0106; the step goes on."""
    assert create(ward, "1.2.840.70.104", begun()).Status == 0
    bare, empty = Dataset(), ended()
    bare.PerformedProcedureStepStatus = "COMPLETED"
    empty.PerformedSeriesSequence = Sequence()

    codes = [change(ward, "1.2.840.70.104", ds).Status for ds in (bare, empty, ended("PAUSED"), ended())]

    assert codes == [0x0120, 0x0121, 0x0106, 0]


def test_only_a_peer_that_may_reports(ward: Door) -> None:
    """0124 for a stranger."""
    assert create(ward, "1.2.840.70.105", begun(), calling="STRANGER").Status == 0x0124


def test_nothing_of_it_lies_in_the_clear(ward: Door) -> None:
    """Neither name nor number nor a UID of the modality's is in the database's files."""
    assert create(ward, "1.2.840.70.977106", begun("1.2.840.70.977107")).Status == 0
    assert change(ward, "1.2.840.70.977106", ended(series={"1.2.840.70.977108": ["1.2.840.70.977109"]})).Status == 0

    content = b"".join(path.read_bytes() for path in ward.archive.settings.home.glob("index.db*"))
    assert len(content) > 100_000
    assert not any(word in content for word in (b"9771", b"PID-7731", b"enberg", b"Thorax", b"20261122"))


def test_the_worklist_follows_the_step(ward: Door) -> None:
    """Started, then gone when it is completed; a discontinued one is no longer offered either."""
    worklist = Worklist(ward.archive)
    for number in (1, 2):
        worklist.add(
            item(StudyInstanceUID=f"1.2.840.70.20{number}", AccessionNumber=f"A-{number}", ScheduledProcedureStepID="SPS-1")
        )
    states = []
    for number, final in ((1, "COMPLETED"), (2, "DISCONTINUED")):
        uid = f"1.2.840.70.300.{number}"
        assert create(ward, uid, begun(f"1.2.840.70.20{number}")).Status == 0
        states.append(len([one for one in worklist.items() if one.state == "started"]))
        assert change(ward, uid, ended(final)).Status == 0

    assert states == [1, 1]
    assert sorted(one.state for one in worklist.items()) == ["completed", "discontinued"]
    assert list(worklist.find({})) == []


def test_a_completed_step_settles_its_series_once_all_its_instances_are_here(ward: Door) -> None:
    """Although the association is still open; the last image is waited for, and the evidence is the step."""
    index = ward.archive.index
    images = making.ct_series(3, study_uid=STUDY, series_uid=f"{STUDY}.5", frame=making.pixels(16, 16))
    uids = [str(ds.SOPInstanceUID) for ds in images]
    assert create(ward, "1.2.840.70.400", begun()).Status == 0
    assert change(ward, "1.2.840.70.400", ended(series={f"{STUDY}.5": uids})).Status == 0

    def due() -> list[str]:
        index.performed.settle()
        found = index.settled(time.time() + 5, settle_s=2, quiet_s=3600, study_settle_s=3600)
        return [one.completion for one in found if one.series_instance_uid]

    proposals = [(str(images[0].SOPClassUID), (contexts.EXPLICIT_LITTLE_ENDIAN,))]
    with scu._open("127.0.0.1", ward.port, "MINIPACS", "CT1", proposals, 20) as association:
        seen = []
        for number, ds in enumerate(images):
            code = requestor.store(
                association,
                1,
                sop_class_uid=str(ds.SOPClassUID),
                sop_instance_uid=str(ds.SOPInstanceUID),
                data_set=[making.encode(ds)],
                message_id=number + 1,
            )
            seen.append((code, due()))

    assert seen == [(0, []), (0, []), (0, ["performed procedure step completed"])]


def test_images_first_and_the_step_later_settle_too(ward: Door) -> None:
    """A discontinued step is the end of what it acquired as well, and says so."""
    index = ward.archive.index
    ds = making.dataset(study_uid="1.2.840.70.6", series_uid="1.2.840.70.6.1", frame=making.pixels(16, 16))
    assert stored(ward, ds) == [0]
    assert create(ward, "1.2.840.70.401", begun("1.2.840.70.6")).Status == 0
    series = {"1.2.840.70.6.1": [str(ds.SOPInstanceUID)]}
    assert change(ward, "1.2.840.70.401", ended("DISCONTINUED", series)).Status == 0

    index.performed.settle()

    found = index.settled(time.time() + 5, settle_s=2, quiet_s=3600, study_settle_s=3600)
    assert "performed procedure step discontinued" in [one.completion for one in found]
    assert index.performed.settle() == 0
