"""Which policy is for what: by attributes, by sender, by door; and what a mistake in the settings says."""

from pathlib import Path

import making
import pytest
from deid.deidentifying import KEY

from pacs.archive import Archive
from pacs.deid.profile import Deidentifier
from pacs.model.errors import ConfigurationError
from pacs.model.instance import Origin
from pacs.settings import as_environment, load
from pacs.sweep import prepare


def chosen(rules: list[dict[str, object]], *, source: str = "CT9", origin: Origin = Origin.STORAGE_SCU, **values: str) -> str:
    """Return the policy that a phantom with these attributes gets."""
    one = Deidentifier("research", KEY, rules=rules, by_source={"CT1": "basic"})
    return one.deidentify(making.received(making.dataset(**values), source=source, origin=origin)).policy


@pytest.mark.parametrize(
    ("where", "holds"),
    [
        ({"Modality": "CT"}, True),
        ({"Modality": ["MR", "PT"]}, False),
        ({"StationName": "CTROOM*", "BodyPartExamined": ["CHEST", "LUNG"]}, True),
        ({"StationName": "CTROOM*", "BodyPartExamined": "HEAD"}, False),
        ({"Rows": "<=64"}, True),
        ({"ContrastBolusAgent": ""}, True),
    ],
)
def test_the_attributes_of_what_arrives_decide(where: dict[str, object], holds: bool) -> None:
    """Modality, station, body part, numbers, absence; every condition must hold."""
    rules = [{"where": where, "policy": "basic"}]

    assert chosen(rules, BodyPartExamined="CHEST") == ("basic" if holds else "research")


def test_the_first_rule_that_holds_goes_before_the_sender() -> None:
    """Rules in their order, then `by_source`, then the default."""
    rules = [
        {"where": {"Modality": "MR"}, "policy": "research-faceless"},
        {"where": {"Modality": "CT"}, "source": "TRIAL*", "policy": "research-faceless"},
        {"source": "import", "policy": "basic"},
    ]

    assert chosen(rules, source="TRIAL7") == "research-faceless"
    assert chosen(rules, source="CT9") == "research"
    assert chosen(rules, source="CT1") == "basic"
    assert chosen(rules, source="files", origin=Origin.IMPORT) == "basic"


def test_a_policy_that_is_asked_for_leaves_the_rules_aside() -> None:
    """`under` is for one policy, whatever the object is."""
    one = Deidentifier("research", KEY, rules=[{"where": {"Modality": "CT"}, "policy": "basic"}])

    assert one.under("research").deidentify(making.received(making.dataset())).policy == "research"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ('where = {Modality = "CT"}\npolicy = "strict"', "entry 1: policy must be one of basic, research"),
        ('where = {Modalitee = "CT"}\npolicy = "basic"', "Modalitee is not the keyword"),
        ('where = {Rows = ">many"}\npolicy = "basic"', "a comparison is"),
        ('policy = "basic"', "one of them given"),
        ('when = {Modality = "CT"}\npolicy = "basic"', "unknown key when"),
    ],
)
def test_a_rule_that_is_none_stops_the_start(tmp_path: Path, rule: str, said: str) -> None:
    """The message names the entry and what is wrong with it."""
    prepare(making.settings(tmp_path))
    (tmp_path / "pacs.toml").write_text(f"[[deid.rules]]\n{rule}\n", encoding="utf-8")

    with pytest.raises(ConfigurationError, match=said):
        Archive.open(load(tmp_path, {}), writer="test")


def test_rules_travel_to_other_processes(tmp_path: Path) -> None:
    """What `pacs.toml` says is the same for whoever reads it from the environment."""
    (tmp_path / "pacs.toml").write_text(
        '[[deid.rules]]\nwhere = {Modality = ["CT", "MR"]}\npolicy = "basic"\n', encoding="utf-8"
    )
    tree = load(tmp_path, {})
    (tmp_path / "pacs.toml").unlink()

    assert load(tmp_path, as_environment(tree)).deid.rules == tree.deid.rules != ()
