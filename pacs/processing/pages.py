"""The page of a processor: what it is, where it comes from, its limits, its parameters, and what was measured."""

import inspect
from collections.abc import Mapping
from typing import Any

from pacs.processing.api import Spec
from pacs.processing.scoring import Measured

PUBLIC = "## On public images"


def page(spec: Spec, measured: Measured, public: Measured | None = None, before: str = "") -> str:
    """Return a processor's page; what it said of public images `before` stays where they were not measured now."""
    module = inspect.getmodule(spec.function)
    assert module is not None and module.__doc__ is not None
    summary, sources, *rest = inspect.cleandoc(module.__doc__).split("\n\n")
    lines = [
        f"# {spec.name}",
        "",
        spec.summary,
        "",
        f"![{measured.caption}]({spec.name}.png)",
        "",
        f"*{measured.caption}.*",
        "",
    ]
    lines += ["## How", "", summary, "", sources, ""]
    lines += ["## Limits", "", "\n\n".join(rest), ""] if rest else []
    lines += [f"Version {spec.version}. On {_conditions(spec.when)}; makes {', '.join(spec.makes)}.", ""]
    lines += ["## Parameters", "", "| name | default | allowed | what it is |", "|---|---|---|---|"]
    for one in spec.parameters:
        allowed = ", ".join(map(str, one.choices)) or (
            f"{one.low:g} to {one.high:g} {one.unit}".strip() if one.high is not None else ""
        )
        lines.append(f"| `{one.name}` | {one.default} | {allowed} | {one.help} |")
    lines += ["", "## Measured", "", f"On {measured.phantom}.", "", *_tables(measured), ""]
    if public is not None:
        lines += [PUBLIC, "", f"![{public.caption}]({spec.name}-public.png)", "", f"*{public.caption}.*", ""]
        lines += [f"On {public.phantom}.", "", *_tables(public), ""]
    elif PUBLIC in before:
        lines += [PUBLIC + before.partition(PUBLIC)[2].rpartition("Written by ")[0].rstrip(), ""]
    lines += [f"Written by `pacs score {spec.name} --pages docs/processors`; the same numbers are bounded by a test.", ""]
    return "\n".join(lines)


def _tables(measured: Measured) -> list[str]:
    lines = ["| measure | value |", "|---|---|"]
    lines += [f"| {measure} | {value:g} |" for measure, value in measured.scores.items()]
    for title, (head, *rows) in measured.tables.items():
        lines += ["", f"### {title}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
    return lines


def _conditions(when: Mapping[str, Any]) -> str:
    def told(value: Any) -> str:
        return " or ".join(map(str, value)) if isinstance(value, list) else str(value) if value else "empty"

    return ", ".join(f"{keyword} {told(value)}" for keyword, value in when.items())
