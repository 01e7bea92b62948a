"""Finds processors: installed packages by the entry-point group `mini_pacs.processors`, and files in the plug-in folder.

An entry point names a module; every function in it that `@processor` has marked is taken. In the folder, a Python file is such
a module, too, and a TOML file describes one processor that is a program, a container or a network (`manifests`). A plug-in that
cannot be imported is left out and reported by class and place; it never stops the archive. A file in the folder wins over a
package of the same name.
"""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from pacs.logs import get_logger
from pacs.model.errors import ConfigurationError, NotFound
from pacs.processing import manifests
from pacs.processing.api import Spec

log = get_logger(__name__)
GROUP = "mini_pacs.processors"
_FILE_PREFIX = "mini_pacs_plugin_"


@dataclass(frozen=True, slots=True)
class Problem:
    """A plug-in that could not be imported."""

    source: str
    error: str
    place: str


def discover(plugins_path: Path | None = None) -> dict[str, Spec]:
    """Return every processor by name; what cannot be imported is logged and left out."""
    found, problems = survey(plugins_path)
    for problem in problems:
        log.warning("processor_not_loaded", path_name=problem.source, error=problem.error, place=problem.place)
    return found


def survey(plugins_path: Path | None = None) -> tuple[dict[str, Spec], list[Problem]]:
    """Return every processor by name, and what could not be imported."""
    found: dict[str, Spec] = {}
    problems: list[Problem] = []
    for point in sorted(entry_points(group=GROUP), key=lambda one: one.name):
        _collect(point.value.partition(":")[0], None, found, problems)
    if plugins_path is not None and plugins_path.is_dir():
        for path in sorted((*plugins_path.glob("*.py"), *plugins_path.glob("*.toml"))):
            if not path.name.startswith(("_", "test_")):
                _collect(path.stem, path, found, problems)
    return found, problems


def load_one(module: str, path: str, name: str) -> Spec:
    """Import one processor again, in a child process, from where discovery had found it."""
    if path.endswith(".toml"):
        return manifests.load(Path(path))
    is_file = module.startswith(_FILE_PREFIX)
    loaded = _import(module.removeprefix(_FILE_PREFIX), Path(path) if is_file else None)
    for spec in _specs(loaded):
        if spec.name == name:
            return spec
    raise NotFound(f"processor {name} is no longer in its module")


def in_file(path: Path) -> str:
    """Return the module name by which `load_one` finds a plug-in in a file, wherever it lies."""
    return _FILE_PREFIX + path.stem


def describe(spec: Spec) -> dict[str, Any]:
    """Return what people want to know of a processor, ready for a table, JSON or a form."""
    return {
        "name": spec.name,
        "version": spec.version,
        "level": spec.level,
        "queue": spec.queue,
        "makes": ", ".join(spec.makes),
        "summary": spec.summary,
        "when": dict(spec.when),
        "parameters": [
            {
                "name": one.name,
                "type": one.kind.__name__,
                "default": one.default,
                "low": one.low,
                "high": one.high,
                "unit": one.unit,
                "choices": list(one.choices) or None,
                "help": one.help,
            }
            for one in spec.parameters
        ],
        "timeout_s": spec.timeout_s,
        "memory_mb": spec.memory_mb,
        "documentation": spec.documentation,
        "source": spec.path if spec.module.startswith(_FILE_PREFIX) or spec.path.endswith(".toml") else spec.module,
    }


def _collect(name: str, path: Path | None, found: dict[str, Spec], problems: list[Problem]) -> None:
    try:
        for spec in [manifests.load(path)] if path and path.suffix == ".toml" else _specs(_import(name, path)):
            found[spec.name] = spec
    except Exception as error:
        # Anything at all may be wrong with other people's code. Its message may quote data; class and place do not.
        last = traceback.extract_tb(error.__traceback__)[-1:]
        place = f"{Path(last[0].filename).name}:{last[0].lineno}" if last else ""
        told = f"{type(error).__name__}: {error}" if isinstance(error, ConfigurationError) else type(error).__name__
        problems.append(Problem(path.name if path else name, told, place))


def _import(name: str, path: Path | None) -> ModuleType:
    if path is None:
        return importlib.import_module(name)
    full_name = _FILE_PREFIX + name
    spec = importlib.util.spec_from_file_location(full_name, path)
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[full_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[full_name]
        raise
    return module


def _specs(module: ModuleType) -> Iterator[Spec]:
    for value in vars(module).values():
        spec = getattr(value, "__processor__", None)
        if isinstance(spec, Spec) and spec.module == module.__name__:
            yield spec
