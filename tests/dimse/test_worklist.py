"""Modality Worklist as SCP: asked by DCMTK's findscu and by pynetdicom, who may ask, character sets, cancel."""

from collections.abc import Iterator
from pathlib import Path

import dcmtk
import making
import pausing
import pytest
from dimse.door import Door, opened
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import ModalityWorklistInformationFind
from workflow.orders import item

from pacs.dimse import contexts, datasets, messages, scu
from pacs.dimse.messages import Command
from pacs.model.peer import USUAL, Peer
from pacs.workflow.worklist import Worklist


@pytest.fixture(scope="module")
def scheduled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door with three items on its worklist, and a modality CT1 that may ask."""
    with making.archive(tmp_path_factory.mktemp("home"), dicom__port=0) as archive, opened(archive) as door:
        worklist = Worklist(archive)
        worklist.add(item(PatientID="1", AccessionNumber="A-1"))
        worklist.add(
            item(PatientID="2", AccessionNumber="A-2", PatientName="Müller^Zoë", ScheduledProcedureStepStartTime="1400")
        )
        worklist.add(
            item(
                PatientID="3",
                AccessionNumber="A-3",
                PatientName="Yamada^Tarou=山田^太郎",
                ScheduledStationAETitle="MR1",
                Modality="MR",
            )
        )
        archive.index.peers.add(Peer("CT1", "127.0.0.1", 104, may=frozenset({*USUAL, "worklist"})))
        archive.index.peers.add(Peer("READER", "127.0.0.1", 104))
        archive.index.peers.add(Peer("ELSEWHERE", "192.0.2.7", 104, may=frozenset({"worklist"})))
        yield door


def keys(character_set: str = "ISO_IR 192", **step: str) -> Dataset:
    """Return a modality's query; `step` are keys within the scheduled step."""
    ds = Dataset()
    ds.SpecificCharacterSet = character_set
    ds.PatientName = ds.PatientID = ds.AccessionNumber = ds.StudyInstanceUID = ds.MedicalAlerts = ""
    inner = Dataset()
    for keyword in (
        "ScheduledStationAETitle",
        "ScheduledProcedureStepStartDate",
        "ScheduledProcedureStepStartTime",
        "Modality",
    ):
        setattr(inner, keyword, step.get(keyword, ""))
    ds.ScheduledProcedureStepSequence = Sequence([inner])
    return ds


def ask(door: Door, asked: Dataset, *, calling: str = "CT1", syntax: str = ImplicitVRLittleEndian) -> tuple[int, list[Dataset]]:
    """Ask with pynetdicom; returns the final status and the answers."""
    ae = AE(ae_title=calling)
    ae.add_requested_context(ModalityWorklistInformationFind, syntax)
    association = pausing.associate(ae, "127.0.0.1", door.port, ae_title="MINIPACS")
    assert association.is_established
    found, code = [], -1
    for status, answer in association.send_c_find(asked, ModalityWorklistInformationFind):
        code = int(status.Status)
        if answer is not None:
            assert code == 0xFF00
            found.append(answer)
    association.release()
    return code, found


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_modality_gets_what_is_scheduled_for_it(scheduled: Door, syntax: str) -> None:
    """Its station and the day; original names, all requested keys, sequences in either VR form."""
    code, found = ask(scheduled, keys(ScheduledStationAETitle="CT1", ScheduledProcedureStepStartDate="20991122"), syntax=syntax)

    assert code == 0
    assert sorted(str(one.PatientID) for one in found) == ["1", "2"]
    first = next(one for one in found if one.PatientID == "1")
    step = first.ScheduledProcedureStepSequence[0]
    assert (first.PatientName, first.AccessionNumber, first.MedicalAlerts) == ("Oberhuber^Zita", "A-1", "")
    assert (step.ScheduledStationAETitle, step.Modality, step.ScheduledProcedureStepStartTime) == ("CT1", "CT", "1030")
    assert len(step) == 4 and first.StudyInstanceUID.startswith("2.25.")


def test_findscu_gets_answers_as_files(scheduled: Door, tmp_path: Path) -> None:
    """DCMTK's `findscu -W`, with a key within the sequence; the character set asked for is the one that comes back."""
    said = dcmtk.run(
        "findscu", "-W", "-aet", "CT1", "-aec", "MINIPACS", "-X", "-od", tmp_path,
        "-k", "SpecificCharacterSet=ISO_IR 100", "-k", "PatientName=m*", "-k", "PatientID",
        "-k", "ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartTime=1300-1500",
        "127.0.0.1", scheduled.port,
    )  # fmt: skip

    (path,) = tmp_path.glob("rsp*")
    answer = dcmread(path, force=True)
    assert said.returncode == 0, said.stdout
    assert (answer.SpecificCharacterSet, answer.PatientName, answer.PatientID) == ("ISO_IR 100", "Müller^Zoë", "2")
    assert answer.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartTime == "1400"


@pytest.mark.parametrize(
    ("asked", "answered"), [("ISO_IR 192", "ISO_IR 192"), ("ISO_IR 100", "ISO_IR 192"), ("GB18030", "GB18030")]
)
def test_names_come_in_the_character_set_asked_for_or_in_utf_8(scheduled: Door, asked: str, answered: str) -> None:
    """An ideographic name survives; a set that cannot hold it is not used."""
    code, (found,) = ask(scheduled, keys(asked, Modality="MR"))

    assert (code, found.SpecificCharacterSet, str(found.PatientName)) == (0, answered, "Yamada^Tarou=山田^太郎")


@pytest.mark.parametrize("calling", ["READER", "STRANGER", "ELSEWHERE"])
def test_only_a_peer_that_may_gets_names(scheduled: Door, calling: str) -> None:
    """0124 without the permission, for a stranger even on loopback, and for an AE title that calls from another address."""
    assert ask(scheduled, keys(), calling=calling) == (0x0124, [])


def test_each_answer_that_names_somebody_is_audited(scheduled: Door) -> None:
    """Who, and how many; no value."""
    before = len(scheduled.archive.index.events(limit=1000))

    ask(scheduled, keys())
    ask(scheduled, keys(Modality="US"))

    (event,) = [one for one in scheduled.archive.index.events(limit=1000)[before:] if one.kind == "worklist_shown"]
    assert dict(event.detail) == {"ae_title": "CT1", "count": 3}


def test_a_malformed_key_is_a900_and_an_unknown_character_set_c000(scheduled: Door) -> None:
    """Never an empty success."""
    assert ask(scheduled, keys(ScheduledProcedureStepStartDate="20991122-20981122"))[0] == 0xA900
    assert ask(scheduled, keys("ISO_IR 999"))[0] == 0xC000


def test_cancel_ends_with_fe00_and_the_association_is_usable(scheduled: Door) -> None:
    """C-CANCEL sent with the request: fewer answers than there are, then FE00; then another query as ever."""
    with scu._open(
        "127.0.0.1", scheduled.port, "MINIPACS", "CT1", [(contexts.WORKLIST_FIND, ("1.2.840.10008.1.2",))], 20
    ) as association:
        body = datasets.encode({"00100020": {"vr": "LO"}}, explicit=False)
        codes = []
        for cancelled in (True, False):
            values: dict[int, int | str] = {
                messages.AFFECTED_SOP_CLASS_UID: contexts.WORKLIST_FIND,
                messages.MESSAGE_ID: 7 + cancelled,
                messages.PRIORITY: 0,
            }
            if cancelled:
                cancel = messages.encode(Command.C_CANCEL_RQ, {messages.MESSAGE_ID_RESPONDED_TO: 8})
                association.dimse.send(1, cancel)
            association.dimse.send(1, messages.encode(Command.C_FIND_RQ, values, data_set=True), [body])
            codes.append([association.dimse.receive(20).status])
            while codes[-1][-1] == 0xFF00:
                codes[-1].append(association.dimse.receive(20).status)

    assert codes == [[0xFE00], [0xFF00, 0xFF00, 0xFF00, 0x0000]]
