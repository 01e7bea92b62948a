"""Writing the settings down: the commented `pacs.toml`, docs/settings.md, and the environment of another process."""

import json
from collections.abc import Mapping
from typing import Any

from pacs.settings.tree import POLICIES_VARIABLE, Settings, Tables, entries, sections

_EXAMPLE = '["clean_descriptors", "retain_long_full_dates"]'
_POLICIES_HELP = (
    "De-identification policies of your own, each a set of options of PS3.15 E.3 (docs/deidentification.md), chosen by "
    "`deid.policy` and `deid.by_source`. A set that contradicts itself is refused at start."
)


def as_toml() -> str:
    """Return a `pacs.toml` with every setting commented out at its default."""
    lines = ["# mini-pacs settings. Every line shows its default; take away the # to change it.", ""]
    for section, cls in sections():
        lines += [f"# {(cls.__doc__ or '').strip()}", f"[{section}]"]
        for name, kind, default, text, env in entries(section, cls):
            lines += [f"# {text}  ({env})", f"# {name} = {_toml(default, kind)}"]
        lines.append("")
    lines += [f"# {_POLICIES_HELP}  ({POLICIES_VARIABLE}, as JSON)", "#   [policies.mine]", f"#   options = {_EXAMPLE}", ""]
    return "\n".join(lines)


def reference() -> str:
    """Return docs/settings.md: a table of every setting, its default and environment name."""
    out = ["# Settings", ""]
    out += ["Written by `pacs settings --markdown`. Defaults, then `pacs.toml` in the home, then the environment.", ""]
    for section, cls in sections():
        out += [f"## [{section}]", (cls.__doc__ or "").strip(), ""]
        out += ["| setting | default | environment | what it does |", "|---|---|---|---|"]
        for name, kind, default, text, env in entries(section, cls):
            out.append(f"| `{name}` | `{_toml(default, kind)}` | `{env}` | {text} |")
        out.append("")
    out += ["## [policies.NAME]", _POLICIES_HELP, "", "| setting | default | environment | what it does |", "|---|---|---|---|"]
    out += [
        f"| `options` | none | `{POLICIES_VARIABLE}` | The options, for example `{_EXAMPLE}`; as JSON `{{name: [...]}}`. |",
        "",
    ]
    return "\n".join(out)


def as_environment(settings: Settings) -> dict[str, str]:
    """Return the variables from which another process reads these settings again; empty values are left out."""
    found = {"PACS_HOME": str(settings.home)}
    for section, cls in sections():
        for name, _, _, _, env in entries(section, cls):
            value = getattr(getattr(settings, section), name)
            if isinstance(value, tuple):
                if value:
                    found[env] = json.dumps(value if isinstance(value[0], Mapping) else dict(value))
            elif value != "":
                found[env] = str(value).lower() if isinstance(value, bool) else str(value)
    if settings.policies:
        found[POLICIES_VARIABLE] = json.dumps(dict(settings.policies))
    return found


def _toml(value: Any, kind: Any) -> str:
    if value == ():
        return "[]" if kind == Tables else "{}"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
