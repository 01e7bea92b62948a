"""All settings, one tree, read once: defaults here, then `pacs.toml` in the home, then `PACS_*` in the environment.

Every setting has an environment name: ``PACS_`` + section + ``_`` + field, in capitals (``PACS_DICOM_PORT``); the AE title is
``PACS_AE_TITLE``. `docs/settings.md` and the commented `pacs.toml` are written from this file (`reference()`, `as_toml()`),
so that they cannot drift. Rooms never see this module: `archive.py` gives each part only its own values.
"""

import json
import os
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_data_path

from pacs.model.errors import ConfigurationError

Pairs = tuple[tuple[str, str], ...]
"""A table of texts; in the environment a JSON object."""
Lists = tuple[tuple[str, tuple[str, ...]], ...]
"""A table of lists of texts; in the environment a JSON object."""

Tables = tuple[Mapping[str, Any], ...]
"""A list of tables, as [[section.name]] in `pacs.toml`; in the environment a JSON list of objects."""


def _setting(default: Any, help: str, env: str = "") -> Any:
    """A field with the sentence that explains it and, where the rule does not fit, its environment name."""
    return field(default=default, metadata={"help": help, "env": env})


@dataclass(frozen=True, slots=True)
class DicomSettings:
    """The DIMSE door."""

    ae_title: str = _setting("MINIPACS", "Our AE title, at most 16 characters.", "PACS_AE_TITLE")
    host: str = _setting("127.0.0.1", "Address to listen on; on any but loopback only configured peers are served.")
    port: int = _setting(11112, "Port to listen on.")
    require_called_ae_title: bool = _setting(True, "Reject associations that call another AE title.")
    maximum_associations: int = _setting(32, "Associations served at once; more are rejected as transient.")
    receivers: int = _setting(0, "Processes that receive; 0: one a core (Linux; elsewhere there is one).")
    maximum_pdu_size: int = _setting(131072, "Largest PDU we receive, in bytes.")
    maximum_object_mb: int = _setting(65536, "Largest data set accepted, in MiB; a larger one is answered A700.")
    idle_timeout_s: float = _setting(60.0, "Seconds of silence after which an association is aborted.")
    drain_s: float = _setting(20.0, "Seconds that open associations get to finish when the server stops.")
    check_peer_address: bool = _setting(
        True, "Off loopback, serve a peer only from its own host (a peer may be excepted, `pacs peers add --any-address`)."
    )
    tls: bool = _setting(False, "Speak TLS on `port`, and nothing else there.")
    tls_port: int = _setting(0, "A second port that speaks TLS, beside the plain one; 0: none.")
    tls_certificate: str = _setting("", "PEM file with our certificate and those between it and its root.")
    tls_key: str = _setting("", "PEM file with the private key of our certificate.")
    tls_ca: str = _setting("", "PEM file with the certificates by which others are known, callers and called.")
    tls_require_certificate: bool = _setting(True, "Over TLS, serve only callers that show a certificate signed by `tls_ca`.")
    maximum_answers: int = _setting(0, "Most answers to one query, which then ends with A700; 0: as many as there are.")
    pending_s: float = _setting(4.0, "Seconds after which a retrieval that waits for something says that it goes on.")
    commitment_grace_s: float = _setting(60.0, "Seconds that a request for storage commitment waits for missing instances.")
    commitment_retry_s: float = _setting(30.0, "First wait before a report or notification is tried again; doubles to 1 h.")
    commitment_attempts: int = _setting(24, "How often a report of commitment, or a notification of availability, is tried.")
    move_associations: int = _setting(
        1, "Associations to the destination of one C-MOVE at once; 2 to 4 help where it answers slowly (docs/speed.md)."
    )
    send_attempts: int = _setting(24, "How often sending to a peer is tried; waits as `processing.backoff_s` says, up to 1 h.")
    worklist_days: float = _setting(
        3.0, "Days after its own that an item stays on the worklist; performed steps are kept as long."
    )


@dataclass(frozen=True, slots=True)
class WebSettings:
    """The web door."""

    host: str = _setting("127.0.0.1", "Address to listen on.")
    port: int = _setting(8080, "Port to listen on.")
    public_url: str = _setting("", "URL under which people reach us, when a proxy stands before us.")
    open_on_loopback: bool = _setting(
        True, "Serve DICOMweb without credentials to callers on this machine while listening on loopback (as DICOM does)."
    )
    maximum_upload_mb: int = _setting(65536, "Largest STOW-RS request body, in MiB.")
    viewer: str = _setting(
        "", "Folder `dist` of the npm package @ohif/app, to be served as a viewer of our studies under /viewer; empty: none."
    )
    worklist_names: bool = _setting(
        False, "Show patients' names on the worklist's page to whoever is signed in; otherwise only when, where and what."
    )


@dataclass(frozen=True, slots=True)
class DeidSettings:
    """De-identification on arrival."""

    policy: str = _setting("research", "Policy for what arrives: basic, research, research-faceless, or one of [policies].")
    by_source: tuple[tuple[str, str], ...] = _setting(
        (), 'Policies for some: calling AE title, pattern (`MR*`) or door (`stow`, `import`) -> policy, `{CT1 = "basic"}`.'
    )
    rules: tuple[Mapping[str, Any], ...] = _setting(
        (),
        "Policies for some by what they are, before `by_source`; the first that holds decides (docs/deidentification.md): "
        '`[[deid.rules]]` with `where = {Modality = "US"}`, `source = "TRIAL*"` or both, and `policy`.',
    )
    devices: tuple[Mapping[str, Any], ...] = _setting(
        (),
        "Devices that write text at fixed places, which are blanked (docs/deidentification.md): `[[deid.devices]]` "
        'with `where = {Manufacturer = "…"}` and `rectangles = [[x, y, width, height]]`.',
    )
    clinical_trial_sponsor_name: str = _setting("", "Clinical Trial Sponsor Name (0012,0010) to write; empty: no trial.")
    clinical_trial_protocol_id: str = _setting("", "Clinical Trial Protocol ID (0012,0020), needed with a sponsor.")
    clinical_trial_protocol_name: str = _setting("", "Clinical Trial Protocol Name (0012,0021).")
    clinical_trial_site_id: str = _setting("", "Clinical Trial Site ID (0012,0030).")
    clinical_trial_site_name: str = _setting("", "Clinical Trial Site Name (0012,0031).")
    clinical_trial_coordinating_center_name: str = _setting("", "Clinical Trial Coordinating Center Name (0012,0060).")
    quarantine_status: str = _setting("C002", "C-STORE status for an object that went to quarantine: C002 or 0000.")
    vault: bool = _setting(
        True, "Keep what is taken away, sealed under the identity key, so that the right people can find it."
    )
    vault_path: str = _setting("", "Folder of the identity vault; empty: the folder `identity` in the home.")
    recipient_certificate: str = _setting(
        "", "PEM certificate (RSA) of who may open the Encrypted Attributes Sequence of exported files; empty: none is made."
    )


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The sealed store."""

    url: str = _setting(
        "",
        "Bucket that closed segments are sent to: s3://bucket/prefix, gs://…, az://container/… or file:///folder; empty: they "
        "stay in the home. Credentials: the provider's own environment variables, or a role of the machine; never here.",
    )
    ship_after_s: float = _setting(
        600.0, "With a bucket: a segment that has held records for so long is closed and sent, full or not."
    )
    cache_mb: int = _setting(
        0, "With a bucket: so many MiB of sent segments stay here as well, the newest; 0: as many as the disk takes."
    )
    segment_mb: int = _setting(128, "Size of a segment file, in MiB; smaller where the disk is small.")
    codec: str = _setting("htj2k", "Archive compression: htj2k or none.")
    compress: str = _setting(
        "auto",
        "When pixels are compressed: at once (before the answer), later, or auto: later while more senders than cores send.",
    )
    compress_backlog: int = _setting(200000, "Instances that may wait to be compressed; beyond it all are at once. 0: any.")
    prove_every: int = _setting(1, "Decode and compare every n-th frame before the original is dropped; 1 proves all.")
    conflict: str = _setting(
        "version",
        "Other content under a known SOP Instance UID: version keeps it beside, reject answers C001, replace shows it.",
    )
    scrub_days: float = _setting(30.0, "Every record is read, opened and decoded once in so many days; 0 never.")
    scrub_mb_s: float = _setting(4.0, "At most so many MiB a second are read by that check.")
    compact_below: float = _setting(0.5, "A segment of which less than this share is live is rewritten; 0 never.")
    large_mb: int = _setting(
        32,
        "Objects larger than this, in MiB, are taken in through the encrypted scratch; a process holds at most 3 such.",
    )
    quota_gb: float = _setting(0.0, "Most GiB of records that are taken in (then A700, 507); 0: as many as the disk takes.")
    quota_warn: float = _setting(0.9, "Share of a quota from which on warnings are given.")
    quotas: tuple[Mapping[str, Any], ...] = _setting(
        (),
        "For some: `[[store.quotas]]` with `name`, `gb`, and `source` (AE title or door), `policy` or both, as patterns.",
    )
    retain: tuple[Mapping[str, Any], ...] = _setting(
        (),
        "Retention rules (docs/looking-after.md): `[[store.retain]]` with `name`, `days` since arrival or `study_days` since "
        "the Study Date, `where`, `label`, `committed`, `automatic`. `pacs retention test` lists what they would forget.",
    )
    retain_most: float = _setting(
        0.1, "By themselves rules forget at most this share of all studies (or 10) in a pass; with more, none goes."
    )
    floor_mb: int = _setting(64, "Free disk, in MiB, below which nothing more is taken in (at most a twentieth of the disk).")


@dataclass(frozen=True, slots=True)
class KeysSettings:
    """The key-encryption keys."""

    provider: str = _setting(
        "file",
        "Where they come from. file: the folder `keys` in the home. passphrase: the same, sealed by PACS_KEYS_PASSPHRASE. "
        "env: PACS_KEYS_IMAGE and PACS_KEYS_IDENTITY, base64. systemd: the credentials image.key and identity.key. "
        "aws-kms, vault: the folder `keys`, sealed by that service.",
    )
    kms_key: str = _setting("", "Key of AWS KMS: its ARN, id or alias/NAME. Credentials and region as boto3 finds them.")
    vault_url: str = _setting(
        "", "Server of HashiCorp Vault or OpenBao, https://HOST:8200. Its token: VAULT_TOKEN, or a credential."
    )
    vault_key: str = _setting("transit/mini-pacs", "Key of its transit engine, MOUNT/NAME; make it before the first start.")


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """The index."""

    url: str = _setting("", "SQLAlchemy URL; empty: SQLite in the home. PostgreSQL: postgresql+psycopg://user@host/name")


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """The bell between the scheduler and the workers."""

    url: str = _setting("", "Celery broker URL; empty: a bundled Valkey on a private socket. redis://… or amqp://…")


@dataclass(frozen=True, slots=True)
class ProcessingSettings:
    """Processing on arrival."""

    enabled: bool = _setting(True, "Run the scheduler and a worker with `pacs serve`.")
    rules: str = _setting("", "Rules file; empty: rules.toml in the home, written with the defaults on first start.")
    plugins: str = _setting("", "Folder with plug-in files; empty: the folder `processors` in the home.")
    concurrency: int = _setting(0, "Jobs that a worker runs at once; 0: half the cores, at least one.")
    settle_s: float = _setting(2.0, "Seconds of rest after its association was released before a series counts as complete.")
    quiet_s: float = _setting(20.0, "Seconds of silence after which a series counts as complete without any evidence.")
    study_settle_s: float = _setting(4.0, "Seconds of rest of all its series before a study counts as complete.")
    lease_s: float = _setting(30.0, "Seconds after which the job of a worker that has died is taken over.")
    attempts: int = _setting(3, "How often a job is tried when the failure may pass.")
    backoff_s: float = _setting(5.0, "First wait before another try; it doubles each time.")
    timeout_s: float = _setting(1800.0, "Longest a job may run.")
    memory_mb: int = _setting(6144, "Most memory, in MiB, that a job's process may map.")
    scratch: str = _setting("", "Folder for the files of jobs that need some; empty: one in memory (/dev/shm), else they fail.")
    queues: str = _setting(
        "cpu heavy gpu send", "Queues that the worker takes jobs from; heavy: gigabytes or minutes; send: to peers."
    )
    senders: int = _setting(4, "Sends to peers at once, in a lane beside the jobs; to one peer at most half as many.")


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Logs."""

    level: str = _setting("info", "debug, info, warning or error.")


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole tree. `home` holds everything that this archive owns."""

    home: Path
    dicom: DicomSettings = field(default_factory=DicomSettings)
    web: WebSettings = field(default_factory=WebSettings)
    deid: DeidSettings = field(default_factory=DeidSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    keys: KeysSettings = field(default_factory=KeysSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    broker: BrokerSettings = field(default_factory=BrokerSettings)
    processing: ProcessingSettings = field(default_factory=ProcessingSettings)
    logs: LogSettings = field(default_factory=LogSettings)
    policies: Lists = ()

    @property
    def database_url(self) -> str:
        """The index's URL, the embedded default filled in."""
        return self.database.url or f"sqlite:///{self.home / 'index.db'}"

    @property
    def vault_folder(self) -> Path:
        """The folder of the identity vault."""
        return Path(self.deid.vault_path) if self.deid.vault_path else self.home / "identity"

    @property
    def rules_path(self) -> Path:
        """The rules file in force."""
        return Path(self.processing.rules) if self.processing.rules else self.home / "rules.toml"

    @property
    def plugins_path(self) -> Path:
        """The folder where plug-in files are looked for."""
        return Path(self.processing.plugins) if self.processing.plugins else self.home / "processors"


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
    sections: dict[str, Any] = {}
    for section, cls in _sections():
        table = given.pop(section, {})
        if not isinstance(table, dict):
            raise ConfigurationError(f"pacs.toml: [{section}] must be a table")
        values: dict[str, Any] = {}
        for name, kind, _, _, env in _entries(section, cls):
            if name in table:
                values[name] = _parse(table.pop(name), kind, f"pacs.toml: {section}.{name}")
            if env in environment and environment[env] != "":
                values[name] = _parse(environment[env], kind, env)
        if table:
            raise ConfigurationError(f"pacs.toml: unknown setting {section}.{sorted(table)[0]}; see docs/settings.md")
        sections[section] = cls(**values)
    policies = _policies(given.pop("policies", {}), "pacs.toml")
    if environment.get(POLICIES_VARIABLE):
        policies = _policies(_json(environment[POLICIES_VARIABLE], POLICIES_VARIABLE), POLICIES_VARIABLE)
    if given:
        raise ConfigurationError(f"pacs.toml: unknown section [{sorted(given)[0]}]; see docs/settings.md")
    known = {env for section, cls in _sections() for *_, env in _entries(section, cls)} | SPECIAL_VARIABLES
    for name in environment:
        if name.startswith("PACS_") and name not in known and not name.startswith("PACS_TEST_"):
            raise ConfigurationError(f"unknown setting {name} in the environment; see docs/settings.md")
    settings = Settings(home=home, **sections, policies=policies)
    _check(settings)
    return settings


SECRET_VARIABLES = frozenset(
    {"PACS_KEYS_IMAGE", "PACS_KEYS_IMAGE_NEXT", "PACS_KEYS_IDENTITY", "PACS_KEYS_IDENTITY_NEXT", "PACS_KEYS_PASSPHRASE"}
)
"""Variables that carry keys (`keys.provider`); never in the tree, so that no file and no listing holds them."""
POLICIES_VARIABLE = "PACS_POLICIES"
_EXAMPLE = '["clean_descriptors", "retain_long_full_dates"]'
_POLICIES_HELP = (
    "De-identification policies of your own, each a set of options of PS3.15 E.3 (docs/deidentification.md), chosen by "
    "`deid.policy` and `deid.by_source`. A set that contradicts itself is refused at start."
)

SPECIAL_VARIABLES = frozenset({"PACS_HOME", "PACS_REQUIRE_SERVICES", POLICIES_VARIABLE}) | SECRET_VARIABLES
"""Variables that are not settings of the tree: where the home is, keys, and whether tests may go without a server."""


def as_toml() -> str:
    """Return a `pacs.toml` with every setting commented out at its default."""
    lines = ["# mini-pacs settings. Every line shows its default; take away the # to change it.", ""]
    for section, cls in _sections():
        lines += [f"# {(cls.__doc__ or '').strip()}", f"[{section}]"]
        for name, kind, default, text, env in _entries(section, cls):
            lines += [f"# {text}  ({env})", f"# {name} = {_toml(default, kind)}"]
        lines.append("")
    lines += [f"# {_POLICIES_HELP}  ({POLICIES_VARIABLE}, as JSON)", "#   [policies.mine]", f"#   options = {_EXAMPLE}", ""]
    return "\n".join(lines)


def reference() -> str:
    """Return docs/settings.md: a table of every setting, its default and environment name."""
    out = ["# Settings", ""]
    out += ["Written by `pacs settings --markdown`. Defaults, then `pacs.toml` in the home, then the environment.", ""]
    for section, cls in _sections():
        out += [f"## [{section}]", (cls.__doc__ or "").strip(), ""]
        out += ["| setting | default | environment | what it does |", "|---|---|---|---|"]
        for name, kind, default, text, env in _entries(section, cls):
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
    for section, cls in _sections():
        for name, _, _, _, env in _entries(section, cls):
            value = getattr(getattr(settings, section), name)
            if isinstance(value, tuple):
                if value:
                    found[env] = json.dumps(value if isinstance(value[0], Mapping) else dict(value))
            elif value != "":
                found[env] = str(value).lower() if isinstance(value, bool) else str(value)
    if settings.policies:
        found[POLICIES_VARIABLE] = json.dumps(dict(settings.policies))
    return found


def environment_names() -> frozenset[str]:
    """Return every `PACS_*` name that is understood."""
    return frozenset(env for section, cls in _sections() for *_, env in _entries(section, cls)) | SPECIAL_VARIABLES


def _sections() -> Iterator[tuple[str, type[Any]]]:
    hints = typing.get_type_hints(Settings)
    for entry in fields(Settings):
        kind = hints[entry.name]
        if is_dataclass(kind) and isinstance(kind, type):
            yield entry.name, kind


def _entries(section: str, cls: type[Any]) -> Iterator[tuple[str, Any, Any, str, str]]:
    hints = typing.get_type_hints(cls)
    for entry in fields(cls):
        env = entry.metadata["env"] or f"PACS_{section}_{entry.name}".upper()
        yield entry.name, hints[entry.name], entry.default, entry.metadata["help"], env


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


def _toml(value: Any, kind: Any) -> str:
    if value == ():
        return "[]" if kind == Tables else "{}"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


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
