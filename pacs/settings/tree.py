"""The tree of settings: every one with its default, the sentence that explains it and, where the rule does not fit, its
environment name. What may stand in it is here; how it is read is `reading`, how it is written `writing`.
"""

import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

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


POLICIES_VARIABLE = "PACS_POLICIES"


def sections() -> Iterator[tuple[str, type[Any]]]:
    """Yield the sections of the tree: name and class."""
    hints = typing.get_type_hints(Settings)
    for entry in fields(Settings):
        kind = hints[entry.name]
        if is_dataclass(kind) and isinstance(kind, type):
            yield entry.name, kind


def entries(section: str, cls: type[Any]) -> Iterator[tuple[str, Any, Any, str, str]]:
    """Yield the settings of a section: name, type, default, what it does, and its environment name."""
    hints = typing.get_type_hints(cls)
    for entry in fields(cls):
        env = entry.metadata["env"] or f"PACS_{section}_{entry.name}".upper()
        yield entry.name, hints[entry.name], entry.default, entry.metadata["help"], env
