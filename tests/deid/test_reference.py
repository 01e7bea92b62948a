"""The page about de-identification says what the tables say."""

from pathlib import Path

from pacs.deid.policy import METHODS, POLICIES
from pacs.deid.reference import BEGIN, END, policies

PAGE = Path(__file__).resolve().parents[2] / "docs" / "deidentification.md"


def test_the_policies_on_the_page_are_those_of_the_code() -> None:
    """The part between the marks is written by the code, word for word."""
    page = PAGE.read_text(encoding="utf-8")

    assert page[page.index(BEGIN) : page.index(END) + len(END)] == policies()


def test_every_policy_and_option_is_named() -> None:
    """Nobody has to read the code to choose."""
    assert all(name in policies() for name in POLICIES) and all(f"`{option}`" in policies() for option in METHODS)
