"""What a plug-in's author may rely on: parameters, their checks, and what `@processor` refuses."""

from collections.abc import Iterator
from typing import Annotated, Any

import pytest

from pacs.processing import Choice, ParameterError, Range, Run, Series, Spec, processor


def spec_of(function: Any) -> Spec:
    found = function.__processor__
    assert isinstance(found, Spec)
    return found


@processor("sample", version="1.2.0", makes=("CT",))
def sample(
    series: Series,
    run: Run,
    *,
    level: Annotated[float, Range(-10, 10, "HU"), "where to cut"] = 1.5,
    mode: Annotated[str, Choice("fast", "exact")] = "fast",
    count: int = 3,
    on: bool = False,
) -> Iterator[Any]:
    """Do nothing, well."""
    yield from ()


def test_defaults_are_filled_in() -> None:
    """Binding nothing gives every parameter its default."""
    assert spec_of(sample).bind() == {"level": 1.5, "mode": "fast", "count": 3, "on": False}


def test_values_take_the_parameters_type() -> None:
    """Texts, as a form or a TOML file sends them, become the parameter's type."""
    assert spec_of(sample).bind({"level": "2", "count": 4.0, "on": "yes"}) == {
        "level": 2.0,
        "mode": "fast",
        "count": 4,
        "on": True,
    }


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"level": 11}, "level must be between -10 and 10 HU"),
        ({"level": "much"}, "level must be of type float"),
        ({"level": float("nan")}, "level must be between"),
        ({"mode": "slow"}, "mode must be one of fast, exact"),
        ({"count": 2.5}, "count must be of type int"),
        ({"on": "perhaps"}, "on must be of type bool"),
        ({"other": 1}, "sample has no parameter other; it has: level, mode, count, on"),
    ],
)
def test_a_wrong_parameter_is_named(given: dict[str, Any], told: str) -> None:
    """A value out of range, of another type, or for no parameter is refused with a sentence that says so."""
    with pytest.raises(ParameterError, match=told):
        spec_of(sample).bind(given)


def test_a_processor_without_types_is_refused() -> None:
    """A parameter needs a type and a default, else there could be no form for it."""
    with pytest.raises(TypeError, match="parameter x needs a type"):

        @processor("broken", version="1")
        def broken(series: Series, *, x=1) -> Iterator[Any]:  # type: ignore[no-untyped-def]
            yield from ()


def test_a_name_is_a_name() -> None:
    """Names go into rules, command lines and headers, so they are plain."""
    with pytest.raises(ValueError, match="lower-case"):
        processor("CT Lungs", version="1")


def test_progress_stays_between_0_and_1() -> None:
    """Whatever a processor says, progress is a share."""
    told: list[tuple[float, str]] = []
    run = Run(lambda fraction, note: told.append((fraction, note)))

    run.progress(-1)
    run.progress(7, "end")

    assert told == [(0.0, ""), (1.0, "end")]
