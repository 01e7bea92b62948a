"""DIMSE command sets."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.dimse import messages
from pacs.dimse.messages import Command, Message
from pacs.model.errors import NotUnderstood


def test_a_command_set_survives_encoding_and_decoding() -> None:
    """What is encoded comes back, numbers and texts."""
    encoded = messages.encode(
        Command.C_STORE_RQ,
        {
            messages.AFFECTED_SOP_CLASS_UID: "1.2.3",
            messages.MESSAGE_ID: 7,
            messages.PRIORITY: 2,
            messages.AFFECTED_SOP_INSTANCE_UID: "1.2.3.4",
            messages.MOVE_ORIGINATOR: "ASKING",
            messages.MOVE_ORIGINATOR_MESSAGE_ID: 65535,
        },
        data_set=True,
    )

    message = Message(1, messages.decode(encoded))

    assert message.command_field == Command.C_STORE_RQ
    assert (message.sop_class_uid, message.sop_instance_uid, message.message_id) == ("1.2.3", "1.2.3.4", 7)
    assert message.text(messages.MOVE_ORIGINATOR) == "ASKING"
    assert message.number(messages.MOVE_ORIGINATOR_MESSAGE_ID) == 65535
    assert message.number(messages.DATA_SET_TYPE) != messages.NO_DATA_SET


def test_a_command_set_is_read_by_pydicom() -> None:
    """Another implementation reads our bytes: Implicit VR Little Endian with a right group length (PS3.7 6.3.1)."""
    from io import BytesIO

    from pynetdicom.dsutils import decode  # the library's own reader of command sets

    encoded = messages.encode(Command.C_ECHO_RSP, {messages.MESSAGE_ID_RESPONDED_TO: 3, messages.STATUS: 0xC0FF})

    command = decode(BytesIO(encoded), True, True)

    assert command.CommandGroupLength == len(encoded) - 12
    assert (command.CommandField, command.Status, command.MessageIDBeingRespondedTo) == (0x8030, 0xC0FF, 3)


@given(st.binary(max_size=64))
def test_a13_any_bytes_are_a_command_set_or_not_understood(noise: bytes) -> None:
    """Garbage raises NotUnderstood and nothing else."""
    with suppress(NotUnderstood):
        messages.decode(noise)


def test_a13_a_length_past_the_end_is_not_understood() -> None:
    """An element that claims 4 GB is refused before anything is allocated."""
    with pytest.raises(NotUnderstood):
        messages.decode(b"\0\0\0\1\xff\xff\xff\xff12")


def test_one_number_is_found_without_decoding_the_others() -> None:
    """Whatever stands before it: UIDs that end with a zero, other numbers; 0 for what is not there."""
    for uid in ("1.2.840", "1.2.840.1", ""):
        for code in (0, 0x0100, 0xFE00, 0x0002):
            values: dict[int, int | str] = {
                messages.AFFECTED_SOP_CLASS_UID: uid,
                messages.MESSAGE_ID_RESPONDED_TO: 0x0100,
                messages.STATUS: code,
            }
            command = messages.encode(Command.C_STORE_RSP, values)

            assert messages.number_in(command, messages.STATUS) == code
            assert messages.number_in(command, messages.COMMAND_FIELD) == Command.C_STORE_RSP
            assert messages.number_in(command, messages.REMAINING) == 0
