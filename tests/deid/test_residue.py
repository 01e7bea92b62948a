"""The last search finds what an engine with a fault would have left."""

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
