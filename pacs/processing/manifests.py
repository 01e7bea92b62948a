"""Processors that are not Python functions: a TOML file that names a program, a container or an ONNX network.

    name = "site-lungs"                      # lower-case letters, digits, hyphens
    version = "1.0.0"
    summary = "Lungs by the network of our own."
    when = { Modality = "CT" }
    makes = ["SEG"]

    [parameters]
    level = { default = -320.0, low = -700, high = -200, unit = "HU", help = "air is below it" }

    [command]                                # or [container], or [model]
    argv = ["python3", "{here}/lungs.py", "{in}", "{out}", "{level}"]

    [[output]]
    kind = "segmentation"
    …

What stands under `[command]` and `[container]` is in `programs`, under `[model]` in `networks`; `[[output]]` in `files`.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pacs.model.errors import ConfigurationError
from pacs.processing.api import QUEUES, Parameter, Spec

_KEYS = frozenset(
    "name version summary level queue timeout_s memory_mb makes when parameters command container model output".split()
)
_PARAMETER_KEYS = frozenset("default low high unit choices help".split())
RUNNERS = ("command", "container", "model")


def load(path: Path) -> Spec:
    """Return the processor that a manifest describes. Raises `ConfigurationError`, which says what to change."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path.name}: {error}") from error
    try:
        return _spec(table, path)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path.name}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{path.name}: {error!s} is missing or not as it should be") from error


def _spec(table: Mapping[str, Any], path: Path) -> Spec:
    from pacs.processing import networks, programs
    from pacs.processing.api import NAME

    unknown = sorted(table.keys() - _KEYS)
    if unknown:
        raise ConfigurationError(f"there is no key {unknown[0]}; there are {', '.join(sorted(_KEYS))}")
    runners = [one for one in RUNNERS if one in table]
    if len(runners) != 1:
        raise ConfigurationError("it needs exactly one of [command], [container] and [model]")
    name, level, queue = str(table["name"]), table.get("level", "series"), table.get("queue", "cpu")
    if not NAME.fullmatch(name):
        raise ConfigurationError("name must be of lower-case letters, digits and hyphens")
    if level not in ("series", "study") or queue not in QUEUES:
        raise ConfigurationError(f"level must be series or study, queue one of {', '.join(QUEUES)}")
    parameters = tuple(_parameter(key, one) for key, one in table.get("parameters", {}).items())
    make = networks.processor if runners[0] == "model" else programs.processor
    function, clean_up = make(name, table, path, runners[0], parameters)
    summary = str(table.get("summary", ""))
    return Spec(
        name=name,
        version=str(table["version"]),
        level=level,
        queue=queue,
        timeout_s=table.get("timeout_s"),
        memory_mb=table.get("memory_mb"),
        makes=tuple(table.get("makes", ())),
        when=dict(table.get("when", {})),
        parameters=parameters,
        function=function,
        wants_run=True,
        summary=summary.partition("\n")[0],
        documentation=summary,
        module=path.stem,
        path=str(path.resolve()),
        files=runners[0] != "model",
        clean_up=clean_up,
    )


def _parameter(name: str, table: Mapping[str, Any]) -> Parameter:
    unknown = sorted(table.keys() - _PARAMETER_KEYS)
    if unknown or "default" not in table or not name.isidentifier():
        raise ConfigurationError(f"parameter {name} needs a default, and may have {', '.join(sorted(_PARAMETER_KEYS))}")
    default = table["default"]
    if type(default) not in (float, int, bool, str):
        raise ConfigurationError(f"parameter {name}: the default must be a number, a text, true or false")
    one = Parameter(
        name,
        type(default),
        default,
        low=table.get("low"),
        high=table.get("high"),
        unit=str(table.get("unit", "")),
        choices=tuple(table.get("choices", ())),
        help=str(table.get("help", "")),
    )
    one.parse(default)
    return one
