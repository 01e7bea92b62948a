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
        {"SliceThickness": 2.5, "NumberOfSeriesRelatedInstances": 143.0},
        {"SliceThickness": "2..3"},
        {"BodyPartExamined": "/^lung_(left|right)$/"},
        {"BodyPartExamined": "!/^head/"},
        {"ImageType": ["/^AX/", "!/LOCAL/"]},
        {"BodyPartExamined": True, "ContrastBolusAgent": False},
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
        {"SliceThickness": 2},
        {"SliceThickness": "3..4"},
        {"BodyPartExamined": "/^left/"},
        {"BodyPartExamined": False},
        {"ContrastBolusAgent": True},
        {"ContrastBolusAgent": "0..9"},
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


AFTER = '[[rule]]\nname = "{name}"\nafter = {after}\n{more}run = [{{ use = "enhance" }}]\n'
RULE = '[[rule]]\nname = "good"\nrun = [{ use = "enhance" }]\n\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[rule]]\nname = "x"', "line 5, rule x: run must be a list"),
        ('[[rule]]\nrun = [{ use = "enhance" }]', "line 5, rule 2: name must be"),
        ('# [[rule]]\n[[rule]]\nname = """\n[[rule]]\n"""\nrun = []', "line 7, rule [[rule]]: name must be"),
        ('[[rule]]\nname = "x"\non = "night"\nrun = [{ use = "enhance" }]', "on must be one of series, study, manual"),
        ('[[rule]]\nname = "x"\nrun = [{ use = "magic" }]', "there is no processor magic; there are agatston"),
        ('[[rule]]\nname = "x"\nrun = [{ use = "enhance", strength = 2 }]', "strength must be between 0 and 1"),
        ('[[rule]]\nname = "x"\nrun = [{ use = "petct-fusion" }]', 'must say on = "study"'),
        ('[[rule]]\nname = "x"\nwhere = { Modalty = "CT" }\nrun = [{ use = "enhance" }]', "where.Modalty is not the keyword"),
        ('[[rule]]\nname = "x"\nwhere = { Rows = ">=many" }\nrun = [{ use = "enhance" }]', "a comparison is"),
        ('[[rule]]\nname = "x"\nwhen = { Rows = 1 }\nrun = [{ use = "enhance" }]', "unknown key when"),
        ('[[rule]]\nname = "good"\nrun = [{ use = "enhance" }]', "another rule has the same name"),
        (
            '[[rule]]\nname = "x"\n[rule.where]\nRows = 1\nColumns = "/(/"\n[[rule.run]]\nuse = "enhance"',
            "line 9, rule x: where.Columns: the expression is wrong",
        ),
        ('[[rule]]\nname = "x"\n[rule.where]\nRows = 1\nModalty = 2\n', "line 9, rule x: where.Modalty is not"),
        ('[[rule]]\nname = "x"\nrun = [\n  { use = "enhance" },\n  { use = "magic" },\n]', "line 9, rule x: there is no"),
        ('[[rule]]\nname = "x"\nhours = "7pm"\nrun = [{ use = "enhance" }]', "line 7, rule x: hours are like"),
        ('[[rule]]\nname = "x"\npriority = "soon"\nrun = [{ use = "enhance" }]', "line 7, rule x: priority is urgent"),
        ('[[rule]]\nname = "x"\nper_hour = 0\nrun = [{ use = "enhance" }]', "line 7, rule x: per_hour must be"),
        ('[[rule]]\nname = "x"\ninput = "both"\nrun = [{ use = "enhance" }]', "line 7, rule x: input says something only"),
        (AFTER.format(name="x", after='["gone"]', more=""), "line 7, rule x: there is no rule gone to come after"),
        (AFTER.format(name="x", after='["x"]', more=""), "line 7, rule x: the rules wait for each other: x after x"),
        (AFTER.format(name="x", after='"y"', more="") + AFTER.format(name="y", after='"x"', more=""), "x after y after x"),
        (
            AFTER.format(name="x", after='"good"', more='results = [{ finding = "a", value = 1 }]\n'),
            "line 8, rule x: value does",
        ),
        (AFTER.format(name="x", after='"good"', more='results = [{ measure = "a", rule = "b" }]\n'), "there is no rule b"),
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


def test_a_rule_is_known_by_what_it_says() -> None:
    """Comments, order of keys and its place do not change the digest; a condition does."""
    (one,) = parse_rules('[[rule]]\nname = "a"\nwhere = { Rows = 1, Columns = 2 }\nrun = [{ use = "enhance" }]', REGISTRY)
    text = '# said\n\n[[rule]]\nrun = [{ use = "enhance" }]\nname = "a" # so\n[rule.where]\nColumns = 2\nRows = {}\n'
    (same,) = parse_rules(text.replace("{}", "1"), REGISTRY)
    (other,) = parse_rules(text.replace("{}", "2"), REGISTRY)

    assert one.digest == same.digest != other.digest
    assert (same.line(), same.line("where.Rows")) == (3, 8)


def test_several_uses_of_a_processor_are_told_apart() -> None:
    """Each is a step of its own, so that one does not supersede the other."""
    (rule,) = parse_rules('[[rule]]\nname = "a"\nrun = [{ use = "enhance" }, { use = "enhance", tiles = 4 }]', REGISTRY)

    assert [use.step for use in rule.run] == ["", "2"]


def test_attributes_in_sequences_are_named_with_dots() -> None:
    """TOML's dotted keys and nested tables mean the same."""
    text = '[[rule]]\nname = "a"\nwhere = {{ {} }}\nrun = [{{ use = "enhance" }}]'
    path = "RadiopharmaceuticalInformationSequence.RadionuclideTotalDose"
    (dotted,) = parse_rules(text.format(f'{path} = ">0"'), REGISTRY)
    (quoted,) = parse_rules(text.format(f'"{path}" = ">0"'), REGISTRY)

    assert dotted.where == quoted.where == {path: ">0"}
