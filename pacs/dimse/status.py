"""Errors to DIMSE status codes; the only place where these numbers live beside the counters' rules in `retrieve`.

PS3.7 Annex C; PS3.4 Table B.2-1 (C-STORE), Table C.4-1 (C-FIND), Tables C.4-2 and C.4-3 (C-MOVE, C-GET). The sub-codes of
Cxxx are ours and told in docs/conformance.md. A class is looked up along its MRO, so a new subclass has a status at once.
"""

from collections.abc import Mapping

from pacs.model.errors import (
    ArchiveError,
    DataSetMismatch,
    DuplicateInstance,
    InstanceConflict,
    IntegrityError,
    InvalidQuery,
    InvalidValue,
    MissingAttribute,
    MissingValue,
    NoLongerUpdatable,
    NotAuthorized,
    NotFound,
    NotUnderstood,
    Quarantined,
    Refused,
    SOPClassNotSupported,
    Unavailable,
)
from pacs.model.workitem import Notice, Problem, WorkitemRefused

SUCCESS = 0x0000
PENDING = 0xFF00
PENDING_UNSUPPORTED_KEYS = 0xFF01
CANCEL = 0xFE00
SUB_OPERATIONS_WARNING = 0xB000
COERCED = 0xB000
OUT_OF_RESOURCES = 0xA700
CANNOT_COUNT = 0xA701
CANNOT_PERFORM = 0xA702
DESTINATION_UNKNOWN = 0xA801
IDENTIFIER_MISMATCH = 0xA900
SOP_CLASS_NOT_SUPPORTED = 0x0122
NOT_AUTHORIZED = 0x0124
PROCESSING_FAILURE = 0x0110
UNRECOGNIZED_OPERATION = 0x0211
UNEXPECTED = 0xC0FF

Table = Mapping[type[BaseException], int]

WORKITEM: Mapping[Problem | Notice, int] = {
    Problem.NO_LONGER_UPDATABLE: 0xC300,
    Problem.WRONG_TRANSACTION: 0xC301,
    Problem.ALREADY_IN_PROGRESS: 0xC302,
    Problem.ONLY_SCHEDULED_BY_CREATE: 0xC303,
    Problem.NOT_FINAL: 0xC304,
    Problem.UNKNOWN: 0xC307,
    Problem.UNKNOWN_RECEIVER: 0xC308,
    Problem.NOT_SCHEDULED: 0xC309,
    Problem.NOT_IN_PROGRESS: 0xC310,
    Problem.ALREADY_COMPLETED: 0xC311,
    Problem.NOT_APPROPRIATE: 0xC314,
    Notice.MODIFIED: 0xB300,
    Notice.WAS_CANCELED: 0xB304,
    Notice.WAS_COMPLETED: 0xB306,
}
"""Statuses of the Unified Procedure Step service (PS3.4 Tables CC.2.1-2 to CC.2.6-2)."""

C_STORE: Table = {
    NotUnderstood: 0xC000,
    DataSetMismatch: 0xA900,
    SOPClassNotSupported: SOP_CLASS_NOT_SUPPORTED,
    NotAuthorized: NOT_AUTHORIZED,
    InstanceConflict: 0xC001,
    Quarantined: 0xC002,
    Unavailable: OUT_OF_RESOURCES,
    IntegrityError: 0xC003,
    BaseException: UNEXPECTED,
}
C_FIND: Table = {
    InvalidQuery: IDENTIFIER_MISMATCH,
    NotUnderstood: 0xC000,
    NotAuthorized: NOT_AUTHORIZED,
    Unavailable: OUT_OF_RESOURCES,
    BaseException: UNEXPECTED,
}
C_RETRIEVE: Table = {
    InvalidQuery: IDENTIFIER_MISMATCH,
    NotUnderstood: 0xC000,
    NotAuthorized: NOT_AUTHORIZED,
    Unavailable: CANNOT_COUNT,
    BaseException: UNEXPECTED,
}


N_SERVICE: Table = {
    DuplicateInstance: 0x0111,
    NotFound: 0x0112,
    MissingAttribute: 0x0120,
    MissingValue: 0x0121,
    InvalidValue: 0x0106,
    NoLongerUpdatable: PROCESSING_FAILURE,
    NotUnderstood: PROCESSING_FAILURE,
    NotAuthorized: NOT_AUTHORIZED,
    SOPClassNotSupported: UNRECOGNIZED_OPERATION,
    Unavailable: 0x0213,
    BaseException: PROCESSING_FAILURE,
}


def status(error: BaseException, table: Table) -> int:
    """Return the status of the nearest class of `error` that `table` knows; a workitem's problem has its own."""
    if isinstance(error, WorkitemRefused):
        return WORKITEM[error.problem]
    return next(table[cls] for cls in type(error).__mro__ if cls in table)


def comment(error: BaseException) -> str:
    """Return an Error Comment (0000,0902): LO, at most 64 characters (PS3.7 C.4), never a value of a data set.

    What the sender can change is said in full; of our own trouble it learns only whether to come back.
    """
    if isinstance(error, Refused | Quarantined):
        said = "".join(letter if " " <= letter <= "~" and letter != "\\" else " " for letter in str(error))
        return said[:64].strip()
    if isinstance(error, Unavailable):
        return "not stored for now; try again later"
    return "failed inside the archive" if isinstance(error, ArchiveError) else "unexpected failure inside the archive"


def is_warning(code: int) -> bool:
    """Say whether a C-STORE status is a warning: the object was stored (PS3.7 C.4: 0001, Bxxx, 0107, 0116)."""
    return code in (0x0001, 0x0107, 0x0116) or code >> 12 == 0xB
