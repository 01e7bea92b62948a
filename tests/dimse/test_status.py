"""Errors to statuses."""

import pytest

from pacs.dimse import status
from pacs.model import errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NotUnderstood("x"), 0xC000),
        (errors.DataSetMismatch("x"), 0xA900),
        (errors.SOPClassNotSupported("x"), 0x0122),
        (errors.NotAuthorized("x"), 0x0124),
        (errors.InstanceConflict("x"), 0xC001),
        (errors.Quarantined("x"), 0xC002),
        (errors.OutOfResources("x"), 0xA700),
        (errors.Unavailable("x"), 0xA700),
        (errors.IntegrityError("x"), 0xC003),
        (errors.ArchiveError("x"), 0xC0FF),
        (RuntimeError("x"), 0xC0FF),
    ],
)
def test_every_error_has_its_c_store_status(error: Exception, code: int) -> None:
    """The table of the architecture, class by class (PS3.4 Table B.2-1)."""
    assert status.status(error, status.C_STORE) == code


def test_a_new_subclass_has_a_status_at_once() -> None:
    """A class nobody told the door about is looked up along its MRO."""

    class TooManyStudies(errors.OutOfResources):
        pass

    assert status.status(TooManyStudies("x"), status.C_STORE) == 0xA700


def test_s4_error_comment_is_short_ascii_and_says_nothing_of_our_insides() -> None:
    """At most 64 characters of LO (PS3.7 C.4); our own trouble is told without paths or reasons."""
    assert status.comment(errors.DataSetMismatch("é\\" * 100)).isascii()
    assert len(status.comment(errors.DataSetMismatch("long " * 40))) <= 64
    assert "/var" not in status.comment(errors.OutOfResources("no room in /var/lib/pacs"))
