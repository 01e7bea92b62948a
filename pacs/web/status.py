"""Errors of the archive as HTTP status codes and as Failure Reasons of STOW-RS: the one place of the web door for numbers.

A class is looked up along its MRO, so that a new subclass works at once (ARCHITECTURE.md, section 6). The message of an error
goes out as it is, because messages state facts and never values of a data set.
"""

from collections.abc import Mapping
from typing import Any

from pacs.model.errors import (
    ArchiveError,
    ConfigurationError,
    DataSetMismatch,
    InstanceConflict,
    IntegrityError,
    InvalidQuery,
    InvalidValue,
    MissingAttribute,
    MissingValue,
    NotAuthorized,
    NotFound,
    NotTranscodable,
    NotUnderstood,
    OutOfResources,
    Quarantined,
    Refused,
    SOPClassNotSupported,
    Unavailable,
)
from pacs.model.workitem import Problem, WorkitemRefused
from pacs.web.accept import NotAcceptable, UnsupportedMediaType


class TooLarge(ArchiveError):
    """The body is larger than the settings allow."""


class Stalled(ArchiveError):
    """The sender stopped in the middle of its body."""


HTTP: Mapping[type[Any], int] = {
    ArchiveError: 500,
    Refused: 409,
    MissingAttribute: 400,
    MissingValue: 400,
    InvalidValue: 400,
    NotUnderstood: 400,
    DataSetMismatch: 409,
    SOPClassNotSupported: 409,
    NotAuthorized: 403,
    InstanceConflict: 409,
    InvalidQuery: 400,
    Quarantined: 409,
    Unavailable: 503,
    OutOfResources: 507,
    NotFound: 404,
    IntegrityError: 500,
    NotTranscodable: 406,
    NotAcceptable: 406,
    UnsupportedMediaType: 415,
    TooLarge: 413,
    Stalled: 408,
    ConfigurationError: 500,
}

# PS3.18 Table I.2-2 and PS3.4 Table B.2-1; Cxxx sub-codes are ours, as on the DIMSE side.
FAILURE_REASON: Mapping[type[Any], int] = {
    ArchiveError: 0xC0FF,
    Refused: 0xC000,
    NotUnderstood: 0xC000,
    DataSetMismatch: 0xA900,
    SOPClassNotSupported: 0x0122,
    NotAuthorized: 0x0124,
    InstanceConflict: 0xC001,
    Quarantined: 0xC002,
    Unavailable: 0xA700,
    OutOfResources: 0xA700,
    TooLarge: 0xA700,
    UnsupportedMediaType: 0xC000,
    IntegrityError: 0xC003,
}
PROCESSING_FAILURE = 0x0110
"""Anything that is not an error of ours (PS3.7 C.5.21)."""


WORKITEM: Mapping[Problem, int] = {
    Problem.WRONG_TRANSACTION: 400,
    Problem.NOT_SCHEDULED: 400,
    Problem.UNKNOWN: 404,
    Problem.UNKNOWN_RECEIVER: 403,
}
"""Where it is not 409 (PS3.18 11.4 to 11.12)."""


def nearest(error: BaseException, table: Mapping[type[Any], int]) -> int | None:
    """Return the number of the nearest class of `error` that `table` knows."""
    return next((table[cls] for cls in type(error).__mro__ if cls in table), None)


def http_status(error: BaseException) -> int:
    """Return the HTTP status of `error`; what is not ours is 500."""
    if isinstance(error, WorkitemRefused):
        return WORKITEM.get(error.problem, 409)
    return nearest(error, HTTP) or 500


def failure_reason(error: BaseException) -> int:
    """Return the Failure Reason (0008,1197) of `error`."""
    return nearest(error, FAILURE_REASON) or PROCESSING_FAILURE
