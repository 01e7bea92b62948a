"""What a processor is: a plain function with typed parameters, and the words it may use.

    @processor("invert", version="1.0.0", makes=("CT",))
    def invert(series: Series, run: Run, *, level: Annotated[float, Range(-1000, 3000, "HU")] = 0.0) -> Iterator[Images]:
        '''One line that people read in the list of processors.'''

The function sees arrays and geometry and yields results (`pacs.processing.outputs`); the runtime alone writes DICOM, UIDs,
provenance and rows. Parameters are keyword-only; their annotations give the form, the validation and the documentation.
"""

import inspect
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
"""What a processor may be called."""

QUEUES = ("cpu", "heavy", "gpu")
"""Celery queues a processor may ask for: `heavy` for what needs gigabytes or minutes."""

Level = Literal["series", "study"]


class NotApplicable(Exception):
    """This input is not what the processor is for. The job is skipped with the reason; never an error, never tried again.

    The reason is shown to people: say what is missing, never a value of the data set.
    """


class Transient(Exception):
    """Something that may pass (a licence server, a full scratch disk): the job is tried again after a while."""


class ParameterError(ValueError):
    """A parameter that the processor does not have, or a value outside its range; the message names both."""


@dataclass(frozen=True, slots=True)
class Range:
    """Bounds of a number, both included, and its unit."""

    low: float
    high: float
    unit: str = ""


@dataclass(frozen=True, slots=True, init=False)
class Choice:
    """The values that a parameter may take."""

    options: tuple[str | int | float, ...]

    def __init__(self, *options: str | int | float) -> None:
        object.__setattr__(self, "options", options)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression that a whole text must match; an empty text always may stand."""

    expression: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """One keyword-only parameter of a processor, as read from its signature."""

    name: str
    kind: type
    default: Any
    low: float | None = None
    high: float | None = None
    unit: str = ""
    choices: tuple[Any, ...] = ()
    help: str = ""
    pattern: str = ""

    def parse(self, value: Any) -> Any:
        """Return `value` as this parameter's type; raises `ParameterError` where it does not fit."""
        try:
            parsed = self._convert(value)
        except (TypeError, ValueError) as error:
            raise ParameterError(f"{self.name} must be of type {self.kind.__name__}") from error
        if self.low is not None and self.high is not None and not self.low <= parsed <= self.high:
            raise ParameterError(f"{self.name} must be between {self.low:g} and {self.high:g} {self.unit}".rstrip())
        if self.choices and parsed not in self.choices:
            raise ParameterError(f"{self.name} must be one of {', '.join(map(str, self.choices))}")
        if self.pattern and parsed and not re.fullmatch(self.pattern, parsed):
            raise ParameterError(f"{self.name} is not written as it must be: {self.help}")
        return parsed

    def _convert(self, value: Any) -> Any:
        if self.kind is bool:
            if isinstance(value, bool):
                return value
            try:
                return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[str(value).lower()]
            except KeyError as error:
                raise ValueError from error
        if isinstance(value, bool):
            raise ValueError
        if self.kind is int and isinstance(value, float) and value != int(value):
            raise ValueError
        return self.kind(value)


class Run:
    """The running job, as a processor sees it; `job_key` is its digest, "" outside of a job."""

    def __init__(self, report: Callable[[float, str], None] | None = None, job_key: str = "") -> None:
        self._report = report
        self.job_key = job_key

    def progress(self, fraction: float, note: str = "") -> None:
        """Tell how far the work is (0.0 to 1.0); `note` names the step, never a value of the data set."""
        if self._report is not None:
            self._report(min(max(float(fraction), 0.0), 1.0), note)


@dataclass(frozen=True, slots=True)
class Spec:
    """A processor, as the runtime knows it. `module` and `path` say where a child process finds the function again."""

    name: str
    version: str
    level: Level
    queue: str
    timeout_s: float | None
    memory_mb: int | None
    makes: tuple[str, ...]
    when: Mapping[str, Any]
    parameters: tuple[Parameter, ...]
    function: Callable[..., Iterable[Any]] = field(repr=False)
    wants_run: bool
    summary: str
    documentation: str = field(repr=False)
    module: str
    path: str
    files: bool = False
    """Whether it works on files, in a folder of its own in memory; a Python function has no need of them."""
    clean_up: Callable[[str], Sequence[Sequence[str]]] | None = field(default=None, repr=False)
    """For a job key, the commands that end what it may leave outside its process group."""

    def afterwards(self, job_key: str) -> Sequence[Sequence[str]]:
        """Return the commands that run once a job has ended, however it did."""
        return self.clean_up(job_key) if self.clean_up is not None else ()

    def bind(self, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return every parameter, validated, defaults filled in; raises `ParameterError`."""
        given = dict(given or {})
        bound = {one.name: one.parse(given.pop(one.name, one.default)) for one in self.parameters}
        if given:
            known = ", ".join(one.name for one in self.parameters) or "none"
            raise ParameterError(f"{self.name} has no parameter {sorted(given)[0]}; it has: {known}")
        return bound

    def call(self, subject: Any, run: Run, parameters: Mapping[str, Any]) -> Iterable[Any]:
        """Run the function on a `Series` or `Study`."""
        return self.function(subject, run, **parameters) if self.wants_run else self.function(subject, **parameters)


def processor(
    name: str,
    *,
    version: str,
    level: Level = "series",
    queue: str = "cpu",
    timeout_s: float | None = None,
    memory_mb: int | None = None,
    makes: tuple[str, ...] = (),
    when: Mapping[str, Any] | None = None,
) -> Callable[[Callable[..., Iterable[Any]]], Callable[..., Iterable[Any]]]:
    """Make a function a processor.

    Parameters
    ----------
    name : str
        What rules and people call it: lower-case letters, digits and hyphens.
    version : str
        Changes whenever results change; another version makes new results beside the older ones.
    level : "series" or "study"
        What the function is given.
    queue : "cpu", "heavy" or "gpu"
        Which workers take it.
    timeout_s, memory_mb : float, int
        Own limits, at most those of the settings.
    makes : tuple of str
        Modalities of what it yields; shown to people.
    when : mapping
        What it is for, in the words of a rule's `where`. At series level it must match for a job to be made; at study level it
        chooses which series of the study are inputs.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a name of lower-case letters, digits and hyphens")
    if level not in ("series", "study") or queue not in QUEUES:
        raise ValueError(f"{name}: level must be series or study, queue one of {', '.join(QUEUES)}")

    def decorate(function: Callable[..., Iterable[Any]]) -> Callable[..., Iterable[Any]]:
        parameters, wants_run = _parameters(name, function)
        text = inspect.getdoc(function) or ""
        spec = Spec(
            name=name,
            version=version,
            level=level,
            queue=queue,
            timeout_s=timeout_s,
            memory_mb=memory_mb,
            makes=tuple(makes),
            when=dict(when or {}),
            parameters=parameters,
            function=function,
            wants_run=wants_run,
            summary=text.partition("\n")[0],
            documentation=text,
            module=function.__module__,
            path=inspect.getsourcefile(function) or "",
        )
        function.__processor__ = spec  # type: ignore[attr-defined]  # how discovery finds it
        return function

    return decorate


def _parameters(name: str, function: Callable[..., Iterable[Any]]) -> tuple[tuple[Parameter, ...], bool]:
    hints = typing.get_type_hints(function, include_extras=True)
    positional, found = 0, []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            positional += 1
            continue
        hint = hints.get(parameter.name)
        kind, *extras = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
        if kind not in (float, int, bool, str) or parameter.default is inspect.Parameter.empty:
            raise TypeError(f"{name}: parameter {parameter.name} needs a type (float, int, bool or str) and a default")
        one = Parameter(parameter.name, kind, parameter.default)
        for extra in extras:
            if isinstance(extra, Range):
                one = replace(one, low=extra.low, high=extra.high, unit=extra.unit)
            elif isinstance(extra, Choice):
                one = replace(one, choices=extra.options)
            elif isinstance(extra, Pattern):
                one = replace(one, pattern=extra.expression)
            elif isinstance(extra, str):
                one = replace(one, help=extra)
        one.parse(one.default)
        found.append(one)
    if positional not in (1, 2):
        raise TypeError(f"{name}: a processor takes a Series or Study, optionally a Run, and keyword-only parameters")
    return tuple(found), positional == 2
