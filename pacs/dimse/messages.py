"""DIMSE command sets, to and from bytes; pure.

A command set is Implicit VR Little Endian whatever the context says (PS3.7 6.3.1), and holds two dozen elements (PS3.7 E.1):
a table serves better than a data set library, which costs more than everything else in a small message. Command fields that
this archive neither sends nor understands are left out.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from pacs.model.errors import ArchiveError, NotUnderstood
from pacs.store.scratch import ScratchFile


class Command(IntEnum):
    """Command Field (0000,0100), PS3.7 E.1; a response has the highest bit set."""

    C_STORE_RQ = 0x0001
    C_GET_RQ = 0x0010
    C_FIND_RQ = 0x0020
    C_MOVE_RQ = 0x0021
    C_ECHO_RQ = 0x0030
    N_EVENT_REPORT_RQ = 0x0100
    N_GET_RQ = 0x0110
    N_SET_RQ = 0x0120
    N_ACTION_RQ = 0x0130
    N_CREATE_RQ = 0x0140
    C_CANCEL_RQ = 0x0FFF
    C_STORE_RSP = 0x8001
    C_GET_RSP = 0x8010
    C_FIND_RSP = 0x8020
    C_MOVE_RSP = 0x8021
    C_ECHO_RSP = 0x8030
    N_EVENT_REPORT_RSP = 0x8100
    N_GET_RSP = 0x8110
    N_SET_RSP = 0x8120
    N_ACTION_RSP = 0x8130
    N_CREATE_RSP = 0x8140


AFFECTED_SOP_CLASS_UID = 0x0002
REQUESTED_SOP_CLASS_UID = 0x0003
COMMAND_FIELD = 0x0100
MESSAGE_ID = 0x0110
MESSAGE_ID_RESPONDED_TO = 0x0120
MOVE_DESTINATION = 0x0600
PRIORITY = 0x0700
DATA_SET_TYPE = 0x0800
STATUS = 0x0900
ERROR_COMMENT = 0x0902
ERROR_ID = 0x0903
AFFECTED_SOP_INSTANCE_UID = 0x1000
REQUESTED_SOP_INSTANCE_UID = 0x1001
EVENT_TYPE_ID = 0x1002
ATTRIBUTE_IDENTIFIER_LIST = 0x1005
ACTION_TYPE_ID = 0x1008
REMAINING = 0x1020
COMPLETED = 0x1021
FAILED = 0x1022
WARNING = 0x1023
MOVE_ORIGINATOR = 0x1030
MOVE_ORIGINATOR_MESSAGE_ID = 0x1031

NO_DATA_SET = 0x0101
_UI = frozenset({AFFECTED_SOP_CLASS_UID, REQUESTED_SOP_CLASS_UID, AFFECTED_SOP_INSTANCE_UID, REQUESTED_SOP_INSTANCE_UID})
_HEADER = struct.Struct("<HHI")


@dataclass(frozen=True, slots=True)
class Message:
    """One DIMSE message as it came: its command elements (element number -> value) and its data set, still encoded.

    A large data set of a C-STORE lies in the scratch. `refused` says why one could not be held (it is too large, the disk is
    full); it was read to its end and thrown away.
    """

    context_id: int
    elements: Mapping[int, bytes] = field(repr=False)
    content: bytes | bytearray | ScratchFile | None = field(default=None, repr=False)
    refused: ArchiveError | None = None

    @property
    def data_set(self) -> bytes | bytearray | None:
        """The data set where it is in memory."""
        return self.content if isinstance(self.content, bytes | bytearray) else None

    @property
    def too_large(self) -> bool:
        """Whether the data set could not be held."""
        return self.refused is not None

    def number(self, element: int, default: int = 0) -> int:
        """Return a US element, `default` where it is absent or of another length."""
        value = self.elements.get(element, b"")
        return int(struct.unpack("<H", value)[0]) if len(value) == 2 else default

    def text(self, element: int) -> str:
        """Return a UI or AE element without its padding; "" where it is absent or not ASCII."""
        try:
            return self.elements.get(element, b"").decode("ascii").strip("\0 ")
        except UnicodeDecodeError:
            return ""

    @property
    def command_field(self) -> int:
        return self.number(COMMAND_FIELD)

    @property
    def message_id(self) -> int:
        return self.number(MESSAGE_ID)

    @property
    def status(self) -> int:
        return self.number(STATUS)

    @property
    def sop_class_uid(self) -> str:
        return self.text(AFFECTED_SOP_CLASS_UID) or self.text(REQUESTED_SOP_CLASS_UID)

    @property
    def sop_instance_uid(self) -> str:
        return self.text(AFFECTED_SOP_INSTANCE_UID)

    @property
    def requested_sop_instance_uid(self) -> str:
        return self.text(REQUESTED_SOP_INSTANCE_UID)


def encode(command_field: int, values: Mapping[int, int | str], *, data_set: bool = False) -> bytes:
    """Return an encoded command set with its group length; `values` are element number -> value, in any order."""
    rows: dict[int, bytes] = {
        COMMAND_FIELD: struct.pack("<H", command_field),
        DATA_SET_TYPE: struct.pack("<H", 1 if data_set else NO_DATA_SET),
    }
    for element, value in values.items():
        if isinstance(value, int):
            rows[element] = struct.pack("<H", value)
        else:
            encoded = value.encode("ascii", "replace")
            rows[element] = encoded + (b"" if len(encoded) % 2 == 0 else b"\0" if element in _UI else b" ")
    body = b"".join(_HEADER.pack(0, element, len(value)) + value for element, value in sorted(rows.items()))
    return _HEADER.pack(0, 0, 4) + struct.pack("<I", len(body)) + body


def number_in(command: bytes, element: int) -> int:
    """Return a US element of a command set that `encode` made, without decoding the others; 0 if it is not there."""
    # No other value can hold these bytes: texts of a command have no zero in their middle, numbers are too short.
    at = command.find(struct.pack("<HHI", 0, element, 2))
    return int.from_bytes(command[at + 8 : at + 10], "little") if at >= 0 else 0


def decode(encoded: bytes) -> dict[int, bytes]:
    """Return the elements of a command set. Raises `NotUnderstood` if it is malformed or has no Command Field."""
    elements: dict[int, bytes] = {}
    offset = 0
    while offset < len(encoded):
        if offset + 8 > len(encoded):
            raise NotUnderstood("a command set ends within an element")
        group, element, length = _HEADER.unpack_from(encoded, offset)
        offset += 8
        if group != 0 or offset + length > len(encoded):
            raise NotUnderstood("a command set holds an element of another group or a wrong length")
        elements[element] = encoded[offset : offset + length]
        offset += length
    if len(elements.get(COMMAND_FIELD, b"")) != 2:
        raise NotUnderstood("a command set without a Command Field")
    return elements
