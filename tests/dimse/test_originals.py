"""A peer marked `identity = original` gets back what was sent, and asks by what the hospital calls it; nobody else does."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import making
import pytest
from dimse.door import Door, answers, read, stored
from dimse.test_retrieve import CT, GET, MOVE, destination
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from pacs.dicom import elements
from pacs.dimse import contexts, scu
from pacs.dimse.messages import Command
from pacs.ingest import ingest_derived
from pacs.model.instance import Origin
from pacs.model.peer import Peer

FIND, FIND_PATIENT = contexts.STUDY_ROOT_FIND, contexts.PATIENT_ROOT_FIND
IDENTITY = {
    "PatientName": making.PATIENT_NAME,
    "PatientID": making.PATIENT_ID,
    "PatientBirthDate": "19580317",
    "StudyDate": "20240229",
    "AccessionNumber": "ACC-5561907",
    "StudyInstanceUID": making.STUDY_UID,
}


@pytest.fixture
def filled(door: Door) -> Door:
    """Two studies of two patients, and a peer ORIGINAL that calls from where it says."""
    rich = making.ct_series(
        3,
        PatientComments="Call Mrs Quillfeather",
        InstitutionAddress="17 Larkspur Crescent",
        RequestAttributesSequence=[making.dataset().group_dataset(0x0010)],
    )
    assert set(stored(door, *rich)) == {0}
    stored(
        door,
        making.dataset(study_uid="1.2.840.99.7", series_uid="1.2.840.99.7.1", patient_id="OTHER", patient_name="Other^One"),
    )
    door.archive.index.peers.add(Peer("ORIGINAL", "127.0.0.1", 104, identity="original"))
    return door


def matches(door: Door, calling: str = "ORIGINAL", sop_class_uid: str = FIND, **keys: str) -> list[dict[str, str]]:
    """Return what a C-FIND finds."""
    found = answers(door, Command.C_FIND_RQ, sop_class_uid, keys, calling=calling)
    assert found[-1].status == 0
    return [read(one) for one in found[:-1]]


def plain(data: bytes) -> dict[int, bytes]:
    """Return the elements of a data set, without what a receiver may encode otherwise."""
    return {one.tag: bytes(one.value) for one in elements.walk(data)}


@contextmanager
def sink(door: Door, identity: str) -> Iterator[list[bytes]]:
    """A C-MOVE destination; yields what it received."""
    with destination(ExplicitVRLittleEndian) as receiver:
        door.archive.index.peers.add(Peer("SINK", "127.0.0.1", receiver.port, identity=identity))
        yield receiver.data


def moved(door: Door, to: str, calling: str, **keys: str) -> list[bytes]:
    """Return what a destination of identity `to` gets when `calling` asks."""
    with sink(door, to) as data:
        final = answers(door, Command.C_MOVE_RQ, MOVE, keys, destination="SINK", calling=calling)[-1]
        assert final.status == 0
        return list(data)


def identifying(data: Sequence[bytes]) -> list[str]:
    """Return the planted strings that stand in `data`."""
    return [word for word in making.PLANTED if any(word.encode() in one for one in data)]


def test_a_move_to_an_original_peer_gives_back_what_was_sent(filled: Door) -> None:
    """Element by element, byte for byte, nested ones and pixels too."""
    sent = {
        str(ds.SOPInstanceUID): plain(making.encode(ds))
        for ds in making.ct_series(
            3,
            PatientComments="Call Mrs Quillfeather",
            InstitutionAddress="17 Larkspur Crescent",
            RequestAttributesSequence=[making.dataset().group_dataset(0x0010)],
        )
    }

    data = moved(filled, "original", "ORIGINAL", QueryRetrieveLevel="STUDY", StudyInstanceUID=making.STUDY_UID)

    got = [plain(one) for one in data]
    assert {one[0x00080018].decode().strip("\0 ") for one in got} == sent.keys()
    for one in got:
        assert one == sent[one[0x00080018].decode().strip("\0 ")]


def test_a_move_to_any_other_peer_gives_pseudonyms(filled: Door) -> None:
    """Even where a peer that may see originals asks for it."""
    data = moved(filled, "pseudonym", "ORIGINAL", QueryRetrieveLevel="STUDY", StudyInstanceUID=making.STUDY_UID)

    assert len(data) == 3
    assert identifying(data) == []


def test_others_do_not_find_what_the_hospital_calls_it(filled: Door) -> None:
    """Queries and retrievals by original values find nothing for them, and no answer tells one."""
    for keyword in ("PatientID", "AccessionNumber", "StudyInstanceUID", "StudyDate"):
        asked = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "", "PatientName": "", "PatientID": ""}
        assert matches(filled, "STRANGER", **{**asked, keyword: IDENTITY[keyword]}) == []
    everything = dict.fromkeys(IDENTITY, "") | {"QueryRetrieveLevel": "STUDY"}
    assert identifying([str(matches(filled, "STRANGER", **everything)).encode()]) == []
    final = answers(filled, Command.C_GET_RQ, GET, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": making.STUDY_UID})[-1]
    assert final.status == 0


def test_the_address_must_be_the_peers(filled: Door) -> None:
    """An AE title is a name that anybody can give: from elsewhere the same title gets pseudonyms."""
    filled.archive.index.peers.add(Peer("ORIGINAL", "192.0.2.7", 104, identity="original"))

    assert matches(filled, QueryRetrieveLevel="STUDY", StudyInstanceUID="", PatientID=making.PATIENT_ID) == []


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        *IDENTITY.items(),
        ("PatientName", "quillfeather^zebulon*"),
        ("PatientID", "MRN*"),
        ("StudyDate", "20240101-20240301"),
        ("StudyDescription", "CT chest"),
        ("ReferringPhysicianName", "Feather*"),
        ("ModalitiesInStudy", "CT"),
    ],
)
def test_an_original_peer_finds_by_what_the_hospital_calls_it(filled: Door, keyword: str, value: str) -> None:
    """Exact, wild card and range; answers hold originals only, and whoever matches nothing is not there."""
    asked = dict.fromkeys(IDENTITY, "") | {"QueryRetrieveLevel": "STUDY", keyword: value}
    found = matches(filled, **asked)

    ours = [one for one in found if one["StudyInstanceUID"] == making.STUDY_UID]
    assert len(ours) == 1
    assert {name: ours[0][name] for name in IDENTITY} == IDENTITY
    shared = keyword in ("StudyDate", "StudyDescription", "ReferringPhysicianName", "AccessionNumber", "PatientBirthDate")
    assert len(found) == (2 if shared or keyword == "ModalitiesInStudy" else 1)


@pytest.mark.parametrize("keyword", ["PatientID", "AccessionNumber", "PatientName", "StudyDate"])
def test_an_original_peer_finds_nobody_by_a_wrong_value(filled: Door, keyword: str) -> None:
    """A value that nobody has matches nothing, rather than everything."""
    asked = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "", keyword: "19000101" if keyword == "StudyDate" else "NOBODY"}

    assert matches(filled, **asked) == []


def test_every_level_answers_with_originals(filled: Door) -> None:
    """Patient, series and image: the unique keys of all levels are those that were sent."""
    (patient,) = matches(
        filled, sop_class_uid=FIND_PATIENT, QueryRetrieveLevel="PATIENT", PatientID="MRN-7734921", PatientName=""
    )
    (series,) = matches(
        filled, QueryRetrieveLevel="SERIES", StudyInstanceUID=making.STUDY_UID, SeriesInstanceUID="", SeriesDate="", Modality=""
    )
    images = matches(
        filled,
        QueryRetrieveLevel="IMAGE",
        StudyInstanceUID=making.STUDY_UID,
        SeriesInstanceUID=making.SERIES_UID,
        SOPInstanceUID="",
    )

    assert (patient["PatientID"], patient["PatientName"]) == (making.PATIENT_ID, making.PATIENT_NAME)
    assert (series["SeriesInstanceUID"], series["SeriesDate"], series["Modality"]) == (making.SERIES_UID, "20240229", "CT")
    assert {one["SOPInstanceUID"] for one in images} == {f"{making.SERIES_UID}.{number}" for number in (1, 2, 3)}


def test_a_get_gives_originals_to_an_original_peer_only(filled: Door, tmp_path: Path) -> None:
    """By the hospital's UID for the one, by the archive's for anybody else; with the pixels that were sent."""
    port, ours = filled.port, filled.archive.deidentifier.pseudonymous_uid(making.STUDY_UID)

    mine = scu.get("127.0.0.1", port, "MINIPACS", making.STUDY_UID, tmp_path / "a", calling="ORIGINAL", sop_classes=[CT])
    others = scu.get("127.0.0.1", port, "MINIPACS", ours, tmp_path / "b", calling="STRANGER", sop_classes=[CT])
    none = scu.get("127.0.0.1", port, "MINIPACS", making.STUDY_UID, tmp_path / "c", calling="STRANGER", sop_classes=[CT])

    assert (mine, others, none) == (3, 3, 0)
    assert {path.stem for path in (tmp_path / "a").iterdir()} == {f"{making.SERIES_UID}.{number}" for number in (1, 2, 3)}
    assert identifying([path.read_bytes() for path in (tmp_path / "b").iterdir()]) == []
    for path in (tmp_path / "a").iterdir():
        ds = dcmread(path)
        assert (ds.PatientName, ds.PatientID, ds.StudyDate) == (making.PATIENT_NAME, making.PATIENT_ID, "20240229")
        assert ds.get("PatientIdentityRemoved") is None


def test_an_object_made_here_goes_home_to_its_patient(filled: Door) -> None:
    """A derived object gets patient and study back, and refers to the hospital's instances; its own UIDs stay ours."""
    source = filled.archive.index.locate(study_instance_uids=[filled.archive.deidentifier.pseudonymous_uid(making.STUDY_UID)])[
        0
    ]
    made = making.dataset(
        study_uid=source.key.study_instance_uid,
        series_uid="2.25.4242",
        patient_id=source.attributes["PatientID"],
        patient_name=source.attributes["PatientName"],
    )
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CT, source.key.sop_instance_uid
    made.SourceImageSequence = [reference]
    made.FrameOfReferenceUID = filled.archive.deidentifier.pseudonymous_uid(f"{making.STUDY_UID}.99")
    made.SOPInstanceUID = "2.25.424242"
    ingest_derived(filled.archive, [making.received(made, origin=Origin.PROCESSOR)], finishing=None)

    data = moved(filled, "original", "ORIGINAL", QueryRetrieveLevel="STUDY", StudyInstanceUID=making.STUDY_UID)

    (derived,) = [one for one in data if b"2.25.424242" in one]
    got = plain(derived)
    assert got[0x00100020].decode().strip() == making.PATIENT_ID
    assert got[0x0020000D].decode().strip("\0") == making.STUDY_UID
    assert got[0x00200052].decode().strip("\0") == f"{making.STUDY_UID}.99"
    original = filled.archive.vault.of_instance(source.key.sop_instance_uid, source.digest) if filled.archive.vault else None
    assert original is not None and original.taken[0x00080018][8:].strip(b"\0") in derived
    assert source.key.sop_instance_uid.encode() not in derived


def test_every_restoring_is_audited(filled: Door) -> None:
    """The feed tells who got how many originals, and no value of them."""
    moved(filled, "original", "ORIGINAL", QueryRetrieveLevel="STUDY", StudyInstanceUID=making.STUDY_UID)

    (event,) = [one for one in filled.archive.index.events(0, 1000) if one.kind == "identity_restored"]

    assert event.detail == {"operation": "C-MOVE", "caller": "ORIGINAL", "receiver": "SINK", "count": 3}
    assert identifying([str(event).encode()]) == []


def test_without_a_vault_nobody_gets_originals(open_door: object) -> None:
    """`deid.vault = false`: nothing is kept, and the marked peer is refused rather than given pseudonyms as originals."""
    door: Door = open_door(deid__vault=False)  # type: ignore[operator]  # the fixture is a function
    stored(door, *making.ct_series(1))
    door.archive.index.peers.add(Peer("ORIGINAL", "127.0.0.1", 104, identity="original"))

    asked = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ""}
    assert answers(door, Command.C_FIND_RQ, FIND, asked, calling="ORIGINAL")[-1].status == 0x0124
    assert not (door.archive.settings.home / "identity").exists()
