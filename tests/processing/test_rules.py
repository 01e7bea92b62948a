"""Rules: what matches, what does not, and what a mistake in the file says."""

import pytest

from pacs.dicom.conditions import matches, mismatch
from pacs.model.errors import ConfigurationError
from pacs.processing.registry import discover
from pacs.processing.rules import DEFAULT_RULES, parse_rules

ATTRIBUTES = {
    "Modality": "CT",
    "ImageType": "ORIGINAL\\PRIMARY\\AXIAL",
    "BodyPartExamined": "Lung_left",
    "SliceThickness": "2.5",
    "NumberOfSeriesRelatedInstances": "143",
}
REGISTRY = discover()


@pytest.mark.parametrize(
    "where",
    [
        {},
        {"Modality": "ct"},
        {"Modality": ["MR", "C?"]},
        {"BodyPartExamined": ["CHEST", "LUNG*"]},
        {"SliceThickness": "<=2.5", "NumberOfSeriesRelatedInstances": ">=20"},
        {"ImageType": "AXIAL"},
        {"ImageType": "!LOCALIZER"},
        {"ImageType": ["AXIAL", "!LOCALIZER"]},
        {"ImageType": {"all": ["ORIGINAL", "AXIAL"], "none": ["LOCALIZER"]}},
        {"ContrastBolusAgent": ""},
        {"ContrastBolusAgent": "!IOPAMIDOL"},
        {"CorrectedImage": ["ATTN", ""]},
    ],
)
def test_conditions_that_hold(where: dict[str, object]) -> None:
    """Case, wildcards, lists, comparisons, negation, all/none and absence."""
    assert mismatch(where, ATTRIBUTES) is None


@pytest.mark.parametrize(
    "where",
    [
        {"Modality": "MR"},
        {"Modality": "C"},
        {"ImageType": "!AXIAL"},
        {"ImageType": ["AXIAL", "!PRIMARY"]},
        {"ImageType": {"all": ["AXIAL", "LOCALIZER"]}},
        {"SliceThickness": "<2.5"},
        {"SliceThickness": ""},
        {"RepetitionTime": ">=0"},
        {"BodyPartExamined": ">=1"},
        {"BodyPartExamined": "[L]*"},
    ],
)
def test_conditions_that_do_not_hold(where: dict[str, object]) -> None:
    """An absent or non-numeric value satisfies no comparison; a bracket is no wildcard (PS3.4 C.2.2.2.4)."""
    assert not matches(where, ATTRIBUTES)


def test_a_mismatch_names_the_condition() -> None:
    """People can be told why a rule did not fire."""
    assert mismatch({"Modality": "CT", "SliceThickness": "<=1"}, ATTRIBUTES) == "SliceThickness: <=1"


def test_the_default_rules_are_valid() -> None:
    """A new home's rules name processors that ship."""
    used = {use.processor for rule in parse_rules(DEFAULT_RULES, REGISTRY) for use in rule.run}

    assert used == {"classify-series", "enhance", "ct-lungs", "petct-fusion"}


RULE = '[[rule]]\nname = "good"\nrun = [{ use = "enhance" }]\n\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[rule]]\nname = "x"', "line 5, rule x: run must be a list"),
        ('[[rule]]\nrun = [{ use = "enhance" }]', "line 5, rule 2: name must be"),
        ('[[rule]]\nname = "x"\non = "night"\nrun = [{ use = "enhance" }]', "on must be one of series, study, manual"),
        ('[[rule]]\nname = "x"\nrun = [{ use = "magic" }]', "there is no processor magic; there are agatston"),
        ('[[rule]]\nname = "x"\nrun = [{ use = "enhance", strength = 2 }]', "strength must be between 0 and 1"),
        ('[[rule]]\nname = "x"\nrun = [{ use = "petct-fusion" }]', 'must say on = "study"'),
        ('[[rule]]\nname = "x"\nwhere = { Modalty = "CT" }\nrun = [{ use = "enhance" }]', "where.Modalty is not the keyword"),
        ('[[rule]]\nname = "x"\nwhere = { Rows = ">=many" }\nrun = [{ use = "enhance" }]', "a comparison is"),
        ('[[rule]]\nname = "x"\nwhen = { Rows = 1 }\nrun = [{ use = "enhance" }]', "unknown key when"),
        ('[[rule]]\nname = "good"\nrun = [{ use = "enhance" }]', "another rule has the same name"),
        ("[[rules]]", "only [[rule]] tables are understood"),
        ("[[rule]]\nname = ", "at end of document"),
    ],
)
def test_a_mistake_is_told_by_line_rule_and_key(text: str, told: str) -> None:
    """The message names file, line of the rule, its name, and what is wrong."""
    with pytest.raises(ConfigurationError) as caught:
        parse_rules(RULE + text, REGISTRY, source="my.toml")

    assert str(caught.value).startswith("my.toml")
    assert told in str(caught.value)


def test_the_examples_in_the_shipped_file_are_valid() -> None:
    """With the # taken away every example rule parses, and together with the rules in force they use every processor."""
    examples = DEFAULT_RULES.partition("# More processors")[2].partition("#\n")[2]
    rules = parse_rules("\n".join(line.removeprefix("#").removeprefix(" ") for line in examples.splitlines()), REGISTRY)

    used = {use.processor for rule in (*rules, *parse_rules(DEFAULT_RULES, REGISTRY)) for use in rule.run}
    assert used == set(REGISTRY)
