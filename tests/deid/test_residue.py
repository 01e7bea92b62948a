"""The last search finds what an engine with a fault would have left."""

import base64
import gzip
import zlib

import pytest

from pacs.deid.residue import Needles, search
from pacs.deid.text import identity
from pacs.dicom.elements import element, sequence
from pacs.model.errors import Quarantined
from pacs.model.instance import Element

NEEDLES = Needles(identity(["Doe^Jonathan", "Müller^Jörg"], ["PID12345"]))


def look(*elements: Element, uids: tuple[str, ...] = ()) -> None:
    """Search these elements."""
    search(elements, NEEDLES, set(), uids)


@pytest.mark.parametrize(
    "one",
    [
        element(0x00081030, "LO", b"scan of JONATHAN"),
        element(0x00081030, "LO", "Müller".encode()),
        element(0x00081030, "LO", "MÜLLER".encode("latin-1")),
        element(0x00204000, "UT", b"x" * 100_000 + b" doe"),
        element(0x00081030, "CS", b"PID12345"),
        sequence(0x00081032, [[sequence(0x00081032, [[element(0x00080104, "LO", b"jonathan")]])]]),
    ],
)
def test_what_was_left_is_found(one: Element) -> None:
    """In any case and encoding, at any depth, the object does not pass."""
    with pytest.raises(Quarantined):
        look(one)


def test_original_uids_are_found_in_any_value() -> None:
    """In text and in sequences."""
    with pytest.raises(Quarantined):
        look(sequence(0x00081140, [[element(0x00081155, "UI", b"1.2.3.4.5.678")]]), uids=("1.2.3.4.5.678",))


def test_words_that_merely_contain_a_name_pass() -> None:
    """ "Doe" is not in "does", numbers and dates are not text, and a code string of known words is one."""
    chest = Needles(identity(["Chest^Test"], ["20240101"]))

    look(element(0x00081030, "LO", b"does"), element(0x00280030, "DS", b"12345"))
    search([element(0x00180015, "CS", b"CHEST "), element(0x00080020, "DA", b"20240101")], chest, set(), ())


def test_messages_name_the_place_and_not_the_value() -> None:
    """The tag is enough to look into it."""
    with pytest.raises(Quarantined, match=r"\(0008,1030\)") as caught:
        look(element(0x00081030, "LO", b"Jonathan"))

    assert "onathan" not in str(caught.value)


@pytest.mark.parametrize(
    "one",
    [
        element(0x00081030, "LO", b"scan of 2024-02-29"),
        element(0x00081030, "LO", b"29.02.2024"),
        element(0x00081030, "LO", b"29 Feb 2024"),
        element(0x00081030, "LO", b"PID 123-45"),
        element(0x00081030, "LO", b"J. Doe"),
        element(0x00081030, "LO", b"jdoe"),
        element(0x00081030, "LO", "Люксембург".encode("iso8859-5")),
        element(0x00081030, "LO", b"\x1b$B;3ED\x1b(B CT"),
        element(0x00204000, "UT", "J\0o\0n\0a\0t\0h\0a\0n\0".encode("latin-1")),
        element(0x00204000, "UT", base64.b64encode(b"report on Jonathan")),
        element(0x00204000, "UT", b"x" + base64.b64encode(b"report on Jonathan")),
        element(0x00420011, "OB", b"Jonathan"),
        element(0x00420011, "OB", "Jonathan".encode("utf-16-le")),
        element(0x00420011, "OB", "Müller".encode("utf-16-be")),
        element(0x00420011, "OB", b"head" + zlib.compress(b"about Jonathan " * 3)),
        element(0x00420011, "OB", gzip.compress(b"about Jonathan")),
        element(0x00420011, "OB", zlib.compress(b"about Jonathan", wbits=-15)),
        element(0x00420011, "OB", base64.b64encode(zlib.compress(b"about Jonathan"))),
    ],
    ids=range(18),
)
def test_what_hides_is_found(one: Element) -> None:
    """Days as people write them, separators, initials, declared and undeclared character sets, UTF-16, base64, streams."""
    who = identity(["Doe^Jonathan", "Müller^Jörg", "Yamada^Tarou=山田^太郎", "Люксембург^Иван"], ["PID-12345"], ["20240229"])
    needles = Needles(who, ("iso8859-5",))

    with pytest.raises(Quarantined):
        search([one], needles, set(), ())


def test_a_uid_of_nobody_here_is_found() -> None:
    """A UID element that is neither DICOM's nor ours was forgotten, wherever it came from; unless UIDs are kept."""
    forgotten = sequence(0x00081140, [[element(0x00081155, "UI", b"1.2.3.4.5.678")]])

    with pytest.raises(Quarantined):
        look(forgotten)
    search([forgotten], NEEDLES, set(), (), foreign_uids=True)
    look(element(0x00081150, "UI", b"1.2.3.4.5.678"), element(0x0020000D, "UI", b"2.25.1\\1.2.840.10008.1.2"))


def test_bulk_of_pixels_and_numbers_is_not_searched() -> None:
    """Chance finds a name in noise; what pixels show is the business of others."""
    look(element(0x7FE00010, "OW", b"jonathan"), element(0x54001010, "OW", b"jonathan"))


@pytest.mark.timeout(30)
def test_a_hostile_value_does_not_take_for_ever() -> None:
    """Megabytes of stream heads, of base64 and of digits are searched in seconds."""
    for value in (b"\x78\x9c" * 500_000, b"A" * 1_000_000, b"2024-02-" * 125_000, zlib.compress(bytes(1 << 26))):
        look(element(0x00420011, "OB", value), element(0x00204000, "UT", value))
