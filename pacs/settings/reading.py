"""Reading the settings: `pacs.toml` in the home, then `PACS_*` in the environment; what is wrong is refused by its name."""

import json
import os
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from platformdirs import user_data_path

from pacs.model.errors import ConfigurationError
from pacs.settings.tree import POLICIES_VARIABLE, Lists, Pairs, Settings, Tables, entries, sections

SECRET_VARIABLES = frozenset(
    {"PACS_KEYS_IMAGE", "PACS_KEYS_IMAGE_NEXT", "PACS_KEYS_IDENTITY", "PACS_KEYS_IDENTITY_NEXT", "PACS_KEYS_PASSPHRASE"}
)
"""Variables that carry keys (`keys.provider`); never in the tree, so that no file and no listing holds them."""
SPECIAL_VARIABLES = frozenset({"PACS_HOME", "PACS_REQUIRE_SERVICES", POLICIES_VARIABLE}) | SECRET_VARIABLES
"""Variables that are not settings of the tree: where the home is, keys, and whether tests may go without a server."""


def default_home() -> Path:
    """``PACS_HOME``, or the platform's folder for a user's data."""
    return Path(os.environ.get("PACS_HOME") or user_data_path("mini-pacs")).expanduser().absolute()


def load(home: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings for `home`.

    Raises
    ------
    ConfigurationError
        A file that cannot be read, an unknown name, or a value of the wrong type; the message names it.
    """
    environment = os.environ if environment is None else environment
    home = (home or default_home()).absolute()
    given = _read_toml(home / "pacs.toml")
    read: dict[str, Any] = {}
    for section, cls in sections():
        table = given.pop(section, {})
        if not isinstance(table, dict):
            raise ConfigurationError(f"pacs.toml: [{section}] must be a table")
        values: dict[str, Any] = {}
        for name, kind, _, _, env in entries(section, cls):
            if name in table:
                values[name] = _parse(table.pop(name), kind, f"pacs.toml: {section}.{name}")
            if env in environment and environment[env] != "":
                values[name] = _parse(environment[env], kind, env)
        if table:
            raise ConfigurationError(f"pacs.toml: unknown setting {section}.{sorted(table)[0]}; see docs/settings.md")
        read[section] = cls(**values)
    policies = _policies(given.pop("policies", {}), "pacs.toml")
    if environment.get(POLICIES_VARIABLE):
        policies = _policies(_json(environment[POLICIES_VARIABLE], POLICIES_VARIABLE), POLICIES_VARIABLE)
    if given:
        raise ConfigurationError(f"pacs.toml: unknown section [{sorted(given)[0]}]; see docs/settings.md")
    known = environment_names()
    for name in environment:
        if name.startswith("PACS_") and name not in known and not name.startswith("PACS_TEST_"):
            raise ConfigurationError(f"unknown setting {name} in the environment; see docs/settings.md")
    settings = Settings(home=home, **read, policies=policies)
    _check(settings)
    return settings


def environment_names() -> frozenset[str]:
    """Return every `PACS_*` name that is understood."""
    return frozenset(env for section, cls in sections() for *_, env in entries(section, cls)) | SPECIAL_VARIABLES


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigurationError(f"cannot read {path} ({said}); mend it, or set PACS_HOME to a folder of yours") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _parse(value: Any, kind: Any, where: str) -> Any:
    assert not isinstance(kind, types.UnionType)
    if kind == Pairs:
        table = _json(value, where) if isinstance(value, str) else value
        if not isinstance(table, dict) or not all(isinstance(one, str) for one in table.values()):
            raise ConfigurationError(f"{where} must be a table of texts")
        return tuple(table.items())
    if kind == Tables:
        tables = _json(value, where) if isinstance(value, str) else value
        if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
            raise ConfigurationError(f"{where} must be a list of tables")
        return tuple(tables)
    try:
        if kind is bool:
            if isinstance(value, bool):
                return value
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[str(value).lower()]
        if isinstance(value, bool):
            raise ValueError
        return kind(value)
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigurationError(f"{where} must be of type {kind.__name__}") from error


def _policies(tables: Any, where: str) -> Lists:
    found = []
    for name, table in (tables if isinstance(tables, dict) else {"": None}).items():
        options = table if isinstance(table, list) else table.get("options") if isinstance(table, dict) else None
        if not isinstance(options, list) or not all(isinstance(one, str) for one in options):
            raise ConfigurationError(f"{where}: [policies.{name}] must hold options, a list of texts")
        if isinstance(table, dict) and len(table) > 1:
            unknown = sorted(table.keys() - {"options"})[0]
            raise ConfigurationError(f"{where}: unknown setting policies.{name}.{unknown}; see docs/settings.md")
        found.append((str(name), tuple(options)))
    return tuple(found)


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{where} must be JSON") from error


def _check(settings: Settings) -> None:
    title = settings.dicom.ae_title
    if not title.strip() or len(title) > 16 or not title.isascii() or "\\" in title:
        raise ConfigurationError("dicom.ae_title must be 1 to 16 ASCII characters without a backslash (PS3.5 6.2)")
    dicom = settings.dicom
    for name, port in (("dicom.port", dicom.port), ("dicom.tls_port", dicom.tls_port), ("web.port", settings.web.port)):
        if not 0 <= port <= 65535:
            raise ConfigurationError(f"{name} must be between 0 and 65535")
    if dicom.receivers < 0:
        raise ConfigurationError("dicom.receivers must not be negative")
    if settings.processing.senders < 1:
        raise ConfigurationError("processing.senders must be at least 1")
    if settings.store.large_mb < 1:
        raise ConfigurationError("store.large_mb must be at least 1")
    for name, value, allowed in (
        ("deid.quarantine_status", settings.deid.quarantine_status, {"C002", "0000"}),
        ("store.codec", settings.store.codec, {"htj2k", "none"}),
        ("store.compress", settings.store.compress, {"auto", "at once", "later"}),
        ("store.conflict", settings.store.conflict, {"version", "reject", "replace"}),
        ("keys.provider", settings.keys.provider, {"file", "env", "passphrase", "systemd", "aws-kms", "vault"}),
        ("logs.level", settings.logs.level, {"debug", "info", "warning", "error"}),
    ):
        if value not in allowed:
            raise ConfigurationError(f"{name} must be one of {', '.join(sorted(allowed))}")
