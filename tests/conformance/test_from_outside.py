"""What can be judged of a DICOM server by its answers alone, line by line; nothing here looks inside.

A server that de-identifies gives other UIDs back than it was sent, so that what was stored is looked for by what it is now:
the newest study, counted before and after.
"""

import socket
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import making
import pausing
import pytest
from conformance.conftest import Target
from dimse.door import associate_bytes, p_data, read_pdu
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from pacs.dimse import messages

VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
PATIENT_FIND = "1.2.840.10008.5.1.4.1.2.1.1"


@contextmanager
def associated(target: Target, *classes: str, **options: object) -> Iterator[Association]:
    """Open an association and release it."""
    ae = AE(ae_title="JUDGE")
    for one in classes:
        ae.add_requested_context(one, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    association = pausing.associate(ae, target.host, target.port, ae_title=target.ae_title, **options)
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def connected(target: Target) -> socket.socket:
    """Return a bare connection."""
    return socket.create_connection((target.host, target.port), timeout=10)


def fresh(instance: int = 1) -> Dataset:
    """Return an image that no server has seen."""
    uid = f"2.25.{uuid.uuid4().int}"
    ds = making.dataset(instance=instance, study_uid=uid, series_uid=f"2.25.{uuid.uuid4().int}", frame=making.pixels(16, 16))
    ds.SOPInstanceUID = f"2.25.{uuid.uuid4().int}"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def identifier(level: str, **values: object) -> Dataset:
    """Return an identifier."""
    ds = Dataset()
    if level:
        ds.QueryRetrieveLevel = level
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def found(target: Target, keys: Dataset, model: str = FIND) -> tuple[list[int], list[Dataset]]:
    """Query; returns statuses and answers."""
    with associated(target, model) as association:
        answers = list(association.send_c_find(keys, model))
    return [one.Status for one, _ in answers], [ds for _, ds in answers if ds is not None]


def stored(target: Target, *sets: Dataset) -> list[int]:
    """Store; returns statuses."""
    with associated(target, CT) as association:
        return [int(association.send_c_store(ds).Status) for ds in sets]


def test_a14_echo(target: Target) -> None:
    """0000."""
    with associated(target, VERIFICATION) as association:
        assert association.send_c_echo().Status == 0


def test_a1_a_wrong_application_context_is_rejected(target: Target) -> None:
    """Reason 2, permanent, or an abort."""
    with connected(target) as connection:
        connection.sendall(associate_bytes(target.ae_title, context_name="1.2.3.4"))
        kind, body = read_pdu(connection)

    assert (kind, body[3:4]) == (3, b"\2") or kind in (0, 7)


def test_a3_a5_every_context_is_answered(target: Target) -> None:
    """Of 128 the one that is known is accepted, the unknown ones have result 3."""
    ae = AE(ae_title="JUDGE")
    contexts = [build_context(f"1.2.826.0.1.999.{number}") for number in range(127)] + [build_context(VERIFICATION)]

    association = pausing.associate(ae, target.host, target.port, contexts=contexts, ae_title=target.ae_title)

    assert association.is_established
    assert [str(one.abstract_syntax) for one in association.accepted_contexts] == [VERIFICATION]
    assert {one.result for one in association.rejected_contexts} == {3}
    association.release()


def test_a4_exactly_one_transfer_syntax_is_accepted(target: Target) -> None:
    """Of those that were offered."""
    with associated(target, CT) as association:
        (context,) = association.accepted_contexts
        assert [str(one) for one in context.transfer_syntax] in ([ExplicitVRLittleEndian], [ImplicitVRLittleEndian])


def test_a6_a_command_in_small_pieces(target: Target) -> None:
    """Two bytes a fragment: they must be even (PS3.8 E.2)."""
    command = messages.encode(0x0030, {0x0002: VERIFICATION, 0x0110: 9})
    pieces = [p_data(1, 3 if at == len(command) - 2 else 1, command[at : at + 2]) for at in range(0, len(command), 2)]
    with connected(target) as connection:
        connection.sendall(associate_bytes(target.ae_title))
        assert read_pdu(connection)[0] == 2
        connection.sendall(b"".join(pieces))
        assert read_pdu(connection)[0] == 4


def test_a8_role_selection_is_answered_where_proposed(target: Target) -> None:
    """A requestor of C-GET becomes SCP of the class."""
    with associated(target, CT, GET, ext_neg=[build_role(CT, scp_role=True)]) as association:
        assert [str(uid) for uid in association.acceptor.role_selection] == [CT]
        assert next(one for one in association.accepted_contexts if one.abstract_syntax == CT).as_scp


@pytest.mark.parametrize(
    "noise",
    [
        b"\x55\0\0\0\0\4abcd",
        b"\4\0\xff\xff\xff\xff",
        struct.pack(">BBIIBB", 4, 0, 10, 4000, 1, 3) + b"abcd",
        struct.pack(">BBIIBB", 4, 0, 6, 0, 1, 3),
        p_data(1, 3, b"\0\0\0\1\xff\xff\xff\xff"),
    ],
    ids=["unknown PDU", "4 GB claim", "long PDV", "empty PDV", "broken command"],
)
def test_a13_malformed_bytes_end_their_association_only(target: Target, noise: bytes) -> None:
    """An abort or the end of the connection, within ten seconds; the next caller is served."""
    with connected(target) as connection:
        connection.sendall(associate_bytes(target.ae_title))
        assert read_pdu(connection)[0] == 2
        connection.sendall(noise)
        connection.shutdown(socket.SHUT_WR)
        assert read_pdu(connection)[0] in (0, 7)

    test_a14_echo(target)


def test_s1_s10_an_instance_and_its_resend_are_taken(target: Target) -> None:
    """0000 (or a warning) twice, and one study more than before."""
    before = len(found(target, identifier("STUDY", StudyInstanceUID=""))[1])
    ds = fresh()

    codes = stored(target, ds, ds)

    assert all(code == 0 or code >> 12 == 0xB for code in codes)
    assert len(found(target, identifier("STUDY", StudyInstanceUID=""))[1]) == before + 1


def test_s5_a_data_set_that_contradicts_its_command_is_not_stored(target: Target) -> None:
    """A9xx or Cxxx."""
    ds = fresh()
    request = C_STORE()
    request.MessageID, request.Priority = 1, 0
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CT, "1.2.3.4"
    ae = AE(ae_title="JUDGE")
    ae.add_requested_context(CT, ImplicitVRLittleEndian)
    association = pausing.associate(ae, target.host, target.port, ae_title=target.ae_title)
    request.DataSet = BytesIO(making.encode(ds, ImplicitVRLittleEndian))
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
    _, answer = association.dimse.get_msg(block=True)
    association.release()

    assert answer.Status >> 8 == 0xA9 or answer.Status >> 12 == 0xC


@pytest.mark.parametrize("level", ["", "NOWHERE", "PATIENT"])
def test_f1_a_level_that_is_not_in_the_model_is_refused(target: Target, level: str) -> None:
    """A900 or Cxxx, and no answers."""
    statuses, answers = found(target, identifier(level, StudyInstanceUID=""))

    assert answers == [] and (statuses[-1] >> 8 == 0xA9 or statuses[-1] >> 12 == 0xC)


def test_f2_below_the_top_the_key_above_is_needed(target: Target) -> None:
    """Series without their study, not negotiated."""
    statuses, answers = found(target, identifier("SERIES", SeriesInstanceUID=""))

    assert answers == [] and (statuses[-1] >> 8 == 0xA9 or statuses[-1] >> 12 == 0xC)


def test_f3_no_match_is_only_success(target: Target) -> None:
    """0000 and nothing before it."""
    assert found(target, identifier("STUDY", StudyInstanceUID="2.25.1"))[0] == [0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("date", ["20241301", "20240201-20240101", "yesterday"])
def test_f10_malformed_and_reversed_ranges_are_refused(target: Target, date: str) -> None:
    """Not an empty success."""
    keys = identifier("STUDY", StudyInstanceUID="")
    keys.add_new(0x00080020, "LO", date)

    status = found(target, keys)[0][-1]

    assert status >> 8 == 0xA9 or status >> 12 == 0xC


def test_m1_an_unknown_destination_is_a801(target: Target) -> None:
    """And nothing is moved."""
    stored(target, fresh())
    (study, *_) = found(target, identifier("STUDY", StudyInstanceUID=""))[1]
    with associated(target, MOVE) as association:
        keys = identifier("STUDY", StudyInstanceUID=study.StudyInstanceUID)
        statuses = [one.Status for one, _ in association.send_c_move(keys, "NOBODY-KNOWS", MOVE)]

    assert statuses == [0xA801]


@pytest.mark.parametrize("values", [{}, {"StudyInstanceUID": ""}], ids=["missing", "empty"])
def test_m3_a_missing_unique_key_is_a900(target: Target, values: dict[str, str]) -> None:
    """Of C-GET; A9xx or Cxxx."""
    with associated(target, GET, CT, ext_neg=[build_role(CT, scp_role=True)]) as association:
        status = [one.Status for one, _ in association.send_c_get(identifier("STUDY", **values), GET)][-1]

    assert status >> 8 == 0xA9 or status >> 12 == 0xC


def test_m5_m15_get_counts_what_it_sends(target: Target) -> None:
    """All of a study comes back on the same association; the final response has no Remaining."""
    stored(target, fresh(), fresh())
    study = found(target, identifier("STUDY", StudyInstanceUID="", NumberOfStudyRelatedInstances=""))[1][0]
    came: list[str] = []
    handlers = [(evt.EVT_C_STORE, lambda event: came.append(event.request.AffectedSOPInstanceUID) or 0)]
    with associated(target, GET, CT, ext_neg=[build_role(CT, scp_role=True)], evt_handlers=handlers) as association:
        keys = identifier("STUDY", StudyInstanceUID=study.StudyInstanceUID)
        final = [one for one, _ in association.send_c_get(keys, GET)][-1]

    assert final.Status == 0 and "NumberOfRemainingSuboperations" not in final
    # The number is an optional key.
    expected = int(study.get("NumberOfStudyRelatedInstances") or len(came))
    assert len(came) == final.NumberOfCompletedSuboperations == expected > 0


def test_f7_a_star_alone_is_universal(target: Target) -> None:
    """It brings what zero length brings."""
    stored(target, fresh())
    every = found(target, identifier("STUDY", StudyInstanceUID=""))[1]

    assert len(found(target, identifier("STUDY", StudyInstanceUID="", StudyDescription="*"))[1]) == len(every) > 0


@pytest.mark.parametrize("literal", ["CT_chest", "CT%", "CT[ ]chest"])
def test_f8_other_characters_than_star_and_question_mark_are_literal(target: Target, literal: str) -> None:
    """The description is "CT chest": SQL's and a shell's wild cards do not find it."""
    stored(target, fresh())

    assert found(target, identifier("STUDY", StudyInstanceUID="", StudyDescription=literal))[0] == [0]


def test_f8_a_question_mark_is_one_character(target: Target) -> None:
    """ "CT?chest" finds it, "CT??chest" does not."""
    stored(target, fresh())

    assert found(target, identifier("STUDY", StudyInstanceUID="", StudyDescription="CT?chest"))[1]
    assert not found(target, identifier("STUDY", StudyInstanceUID="", StudyDescription="CT??chest"))[1]


def test_f11_a_list_of_uids_is_any_of_them(target: Target) -> None:
    """The study's own and a thousand others."""
    stored(target, fresh())
    (study, *_) = found(target, identifier("STUDY", StudyInstanceUID=""))[1]
    wanted = [f"2.25.{number}" for number in range(1, 1001)]

    statuses, answers = found(target, identifier("STUDY", StudyInstanceUID=[*wanted, study.StudyInstanceUID]))

    assert statuses[-1] == 0
    assert [one.StudyInstanceUID for one in answers] == [study.StudyInstanceUID]


def test_f14_extended_negotiation_claims_what_is_done(target: Target) -> None:
    """A server that claims timezone adjustment answers in the timezone that was asked for; one that does not claims 0."""
    item = SOPClassExtendedNegotiation()
    item.sop_class_uid, item.service_class_application_information = FIND, b"\0\0\0\1"
    stored(target, fresh())
    keys = identifier("STUDY", StudyInstanceUID="", TimezoneOffsetFromUTC="-0100")
    with associated(target, FIND, ext_neg=[item]) as association:
        claimed = association.acceptor.sop_class_extended.get(FIND, b"")[3:4] == b"\1"
        answers = [ds for _, ds in association.send_c_find(keys, FIND) if ds is not None]

    assert answers
    assert not claimed or {one.get("TimezoneOffsetFromUTC") for one in answers} == {"-0100"}


def test_m6_m9_a_store_that_is_refused_is_counted_and_listed(target: Target) -> None:
    """C-GET to a requestor that answers A700: A702 with the failed one in (0008,0058)."""
    stored(target, fresh())
    study = found(target, identifier("STUDY", StudyInstanceUID=""))[1][0]
    refuse = [(evt.EVT_C_STORE, lambda event: 0xA700)]
    with associated(target, GET, CT, ext_neg=[build_role(CT, scp_role=True)], evt_handlers=refuse) as association:
        final, failed = list(association.send_c_get(identifier("STUDY", StudyInstanceUID=study.StudyInstanceUID), GET))[-1]

    assert final.Status == 0xA702
    assert final.NumberOfFailedSuboperations >= 1
    assert failed is not None and failed.FailedSOPInstanceUIDList
