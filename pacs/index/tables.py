"""The tables, as SQLAlchemy Core sees them; the same on SQLite and PostgreSQL.

Each level of PS3.4 C.6 is one table. `attributes` holds all non-empty attributes of the level as they came; the other columns
hold the same values made comparable (`pacs.index.attributes`), because queries restrict and order by them. A change here needs
a migration; a test compares the two. Defaults are set in Python: server defaults differ between databases and drift.
"""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
"""Text compared code point by code point everywhere: ranges of dates and prefixes must not depend on a server's locale."""
Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Json = sa.JSON().with_variant(JSONB(), "postgresql")
Time: sa.Double[float] = sa.Double()
"""Seconds since the epoch, UTC."""
_DUE = sa.text("scheduled_generation < generation")
_TO_CLEAN = sa.text("cleaning_generation < held_generation")
_HELD = sa.text("state = 'held'")
_TO_FOLLOW = sa.text("NOT followed")
_DEFERRED = sa.text("deferred")


def _key(name: str, **options: bool) -> sa.Column[str]:
    return sa.Column(name, Key, nullable=False, default="", **options)  # type: ignore[arg-type]  # keywords of Column


patient = sa.Table(
    "patient",
    metadata,
    sa.Column("pk", Id, primary_key=True),
    _key("patient_id"),
    _key("issuer"),
    # The Study Instance UID where there is no Patient ID: patients without one are not one patient.
    _key("orphan"),
    _key("patient_id_folded"),
    _key("name_key", index=True),
    _key("name_key2", index=True),
    _key("name_key3", index=True),
    _key("name_words"),
    _key("birth_date", index=True),
    _key("sex"),
    sa.Column("attributes", Json, nullable=False),
    sa.UniqueConstraint("patient_id", "issuer", "orphan"),
)

study = sa.Table(
    "study",
    metadata,
    sa.Column("pk", Id, primary_key=True),
    sa.Column("patient_pk", Id, sa.ForeignKey("patient.pk"), nullable=False, index=True),
    sa.Column("study_instance_uid", Key, nullable=False, unique=True),
    _key("study_date"),
    _key("study_time"),
    _key("accession_number", index=True),
    _key("study_id", index=True),
    _key("description"),
    _key("description_folded"),
    _key("referring_key"),
    _key("referring_key2"),
    _key("referring_key3"),
    _key("referring_words"),
    sa.Column("attributes", Json, nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False, default=0),
    sa.Column("scheduled_generation", sa.BigInteger, nullable=False, default=0),
    sa.Column("last_arrival", Time, nullable=False, default=0.0),
    _key("completion"),
    sa.Index("ix_study_newest", "study_date", "study_time", "study_instance_uid"),
    sa.Index("ix_study_due", "last_arrival", sqlite_where=_DUE, postgresql_where=_DUE),
)

series = sa.Table(
    "series",
    metadata,
    sa.Column("pk", Id, primary_key=True),
    sa.Column("study_pk", Id, sa.ForeignKey("study.pk"), nullable=False),
    sa.Column("series_instance_uid", Key, nullable=False, index=True),
    _key("modality"),
    sa.Column("series_number", sa.BigInteger),
    _key("series_date"),
    _key("series_time"),
    _key("description"),
    _key("body_part"),
    sa.Column("attributes", Json, nullable=False),
    # SOP Class UIDs of its instances, each between backslashes.
    _key("sop_classes"),
    sa.Column("derived", sa.Boolean, nullable=False, default=False),
    # What is current and visible.
    sa.Column("instances", sa.BigInteger, nullable=False, default=0),
    sa.Column("size_bytes", sa.BigInteger, nullable=False, default=0),
    sa.Column("generation", sa.BigInteger, nullable=False, default=0),
    sa.Column("scheduled_generation", sa.BigInteger, nullable=False, default=0),
    sa.Column("last_arrival", Time, nullable=False, default=0.0),
    _key("evidence"),
    _key("completion"),
    # Raised by every instance that must be cleaned first; the other follows when a cleaning job was made.
    sa.Column("held_generation", sa.BigInteger, nullable=False, default=0),
    sa.Column("cleaning_generation", sa.BigInteger, nullable=False, default=0),
    sa.UniqueConstraint("study_pk", "series_instance_uid"),
    # An index on the modality alone would be chosen to look for one study's series among all CT there is.
    sa.Index("ix_series_modality", "modality", "study_pk", "instances"),
    sa.Index("ix_series_due", "last_arrival", sqlite_where=_DUE, postgresql_where=_DUE),
    sa.Index("ix_series_to_clean", "last_arrival", sqlite_where=_TO_CLEAN, postgresql_where=_TO_CLEAN),
)

instance = sa.Table(
    "instance",
    metadata,
    sa.Column("pk", Id, primary_key=True),
    sa.Column("series_pk", Id, sa.ForeignKey("series.pk"), nullable=False),
    sa.Column("sop_instance_uid", Key, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("current", sa.Boolean, nullable=False),
    # visible | held | recalled
    sa.Column("state", Key, nullable=False),
    # What must be cleaned before it is shown ("pixels", "faces", "shapes"), joined by backslashes.
    _key("held_for"),
    sa.Column("sop_class_uid", Key, nullable=False),
    sa.Column("transfer_syntax_uid", Key, nullable=False),
    sa.Column("instance_number", sa.BigInteger),
    sa.Column("number_of_frames", sa.Integer, nullable=False),
    sa.Column("container", Key, nullable=False),
    sa.Column("offset", sa.BigInteger, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("study_key_id", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    # The digest before cleaning changed the pixels: by it an equal object that is sent again is known.
    sa.Column("received_digest", sa.LargeBinary),
    sa.Column("origin", Key, nullable=False),
    sa.Column("source", Key, nullable=False),
    sa.Column("policy", Key, nullable=False),
    # What de-identification did, in counts; never a value.
    sa.Column("deid_report", Json),
    sa.Column("stored_at", Time, nullable=False),
    sa.Column("attributes", Json, nullable=False),
    # When the record was last read again and checked; 0 for never since it was written.
    sa.Column("verified_at", Time, nullable=False, default=0.0, index=True),
    # Native for now, and to be compressed.
    sa.Column("deferred", sa.Boolean, nullable=False, default=False),
    sa.UniqueConstraint("sop_instance_uid", "version"),
    sa.Index("ix_instance_in_series", "series_pk", "instance_number", "sop_instance_uid"),
    sa.Index("ix_instance_container_offset", "container", "offset"),
    sa.Index("ix_instance_held", "series_pk", sqlite_where=_HELD, postgresql_where=_HELD),
    sa.Index("ix_instance_deferred", "stored_at", sqlite_where=_DEFERRED, postgresql_where=_DEFERRED),
)

open_arrival = sa.Table(
    "open_arrival",
    metadata,
    sa.Column("association", Key, primary_key=True),
    sa.Column("series_pk", Id, sa.ForeignKey("series.pk"), primary_key=True, index=True),
    sa.Column("since", Time, nullable=False),
)

job = sa.Table(
    "job",
    metadata,
    sa.Column("job_id", Key, primary_key=True),
    sa.Column("job_key", Key, nullable=False, unique=True),
    sa.Column("processor", Key, nullable=False),
    sa.Column("version", Key, nullable=False),
    sa.Column("parameters", Json, nullable=False),
    sa.Column("rule", Key, nullable=False),
    sa.Column("queue", Key, nullable=False),
    sa.Column("state", Key, nullable=False),
    _key("reason"),
    _key("note"),
    _key("completion"),
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("progress", sa.Double, nullable=False, default=0.0),
    sa.Column("study_instance_uid", Key, nullable=False, index=True),
    # Sorted Series Instance UIDs, joined by a backslash: which inputs this is about.
    sa.Column("inputs", Key, nullable=False),
    # Which version of the rule asked for it, for which of several uses of the processor, and for which series (or its study).
    _key("rule_digest"),
    _key("step"),
    _key("subject"),
    # 1 is first, 9 is last.
    sa.Column("priority", sa.Integer, nullable=False, default=5),
    # Something newer was made for the same while it ran: it ends superseded.
    sa.Column("outdated", sa.Boolean, nullable=False, default=False),
    # Rules that come after its rule were asked.
    sa.Column("followed", sa.Boolean, nullable=False, default=False),
    _key("owner"),
    sa.Column("lease_until", Time),
    sa.Column("due_at", Time, nullable=False),
    sa.Column("dispatched_at", Time),
    sa.Column("created_at", Time, nullable=False),
    sa.Column("started_at", Time),
    sa.Column("finished_at", Time),
    sa.Index("ix_job_state_due_at", "state", "due_at"),
    sa.Index("ix_job_created_at", "created_at"),
    sa.Index("ix_job_to_follow", "finished_at", sqlite_where=_TO_FOLLOW, postgresql_where=_TO_FOLLOW),
    sa.Index("ix_job_processor_version", "processor", "version"),
)

job_output = sa.Table(
    "job_output",
    metadata,
    sa.Column("job_id", Key, sa.ForeignKey("job.job_id"), primary_key=True),
    sa.Column("series_instance_uid", Key, primary_key=True, index=True),
)

# Whose results a job waited for; who is superseded takes those along.
job_parent = sa.Table(
    "job_parent",
    metadata,
    sa.Column("job_id", Key, sa.ForeignKey("job.job_id"), primary_key=True),
    sa.Column("parent_id", Key, primary_key=True, index=True),
)

# What the reports of a job say, for rules that branch on it: coded answers and measured numbers.
job_finding = sa.Table(
    "job_finding",
    metadata,
    sa.Column("job_id", Key, sa.ForeignKey("job.job_id"), primary_key=True),
    sa.Column("findings", Json, nullable=False),
)

# Every version of every rule that was ever in force; `until` is empty while it is.
rule = sa.Table(
    "rule",
    metadata,
    sa.Column("digest", Key, primary_key=True),
    sa.Column("name", Key, nullable=False),
    sa.Column("definition", Json, nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("since", Time, nullable=False),
    sa.Column("until", Time),
)

# Versions of processors whose results are hidden, while `ended_at` is empty.
recall = sa.Table(
    "recall",
    metadata,
    sa.Column("recall_id", Id, primary_key=True),
    sa.Column("processor", Key, nullable=False),
    sa.Column("version", Key, nullable=False),
    sa.Column("reason", Key, nullable=False),
    sa.Column("at", Time, nullable=False),
    sa.Column("ended_at", Time),
)

event = sa.Table(
    "event",
    metadata,
    sa.Column("event_id", Id, primary_key=True),
    sa.Column("at", Time, nullable=False),
    sa.Column("kind", Key, nullable=False),
    _key("study_instance_uid"),
    _key("series_instance_uid"),
    _key("sop_instance_uid"),
    sa.Column("detail", Json, nullable=False),
    sqlite_autoincrement=True,
)

peer = sa.Table(
    "peer",
    metadata,
    sa.Column("ae_title", Key, primary_key=True),
    sa.Column("host", Key, nullable=False),
    sa.Column("port", sa.Integer, nullable=False),
    sa.Column("may", Key, nullable=False),
    # pseudonym | original: what it gets to see.
    _key("identity"),
    _key("options"),
    # Where it takes STOW-RS requests, for a peer that is sent to over the web.
    _key("url"),
)

# Peers that did not answer when something was to be sent: `tries` in a row, the next at `until`.
peer_away = sa.Table(
    "peer_away",
    metadata,
    sa.Column("ae_title", Key, primary_key=True),
    sa.Column("since", Time, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("until", Time, nullable=False),
    sa.Column("reason", Key, nullable=False),
)

# How often a service answered with a status, since the home was made.
tally = sa.Table(
    "tally",
    metadata,
    sa.Column("service", Key, primary_key=True),
    sa.Column("status", Key, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
)

commitment = sa.Table(
    "commitment",
    metadata,
    sa.Column("commitment_id", Id, primary_key=True),
    sa.Column("ae_title", Key, nullable=False),
    # The pseudonym of its Transaction UID: enough to know it again.
    sa.Column("transaction_uid", Key, nullable=False),
    # waiting | checked | reported | given up
    sa.Column("state", Key, nullable=False),
    # The request with its original UIDs, sealed under the identity key; empty once it was reported or given up.
    sa.Column("request", sa.LargeBinary, nullable=False),
    _key("key_id"),
    sa.Column("instances", sa.BigInteger, nullable=False),
    # Failure Reasons by position, [[0, 274], ...], once it is checked.
    sa.Column("failures", Json, nullable=False),
    sa.Column("received_at", Time, nullable=False),
    sa.Column("due_at", Time, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("ended_at", Time),
    sa.Index("ix_commitment_state_due_at", "state", "due_at"),
    sa.Index("ix_commitment_ae_title_transaction_uid", "ae_title", "transaction_uid"),
)

# What a job lacks of a workitem; sealed under the identity key, and found by a keyed digest of its UID.
workitem = sa.Table(
    "workitem",
    metadata,
    sa.Column("job_id", Key, sa.ForeignKey("job.job_id"), primary_key=True),
    sa.Column("digest", Key, nullable=False, unique=True),
    sa.Column("key_id", Key, nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
)

# Who follows which job ("" for all of them), and the state that was reported last.
subscription = sa.Table(
    "subscription",
    metadata,
    sa.Column("ae_title", Key, primary_key=True),
    sa.Column("job_id", Key, primary_key=True),
    sa.Column("since", Time, nullable=False),
    _key("reported"),
    sa.Column("progress", sa.Double, nullable=False, default=0.0),
    _key("cancel_by"),
)

# Steps are sealed under the identity key; their UIDs and those they list are pseudonyms.
performed_step = sa.Table(
    "performed_step",
    metadata,
    sa.Column("step_uid", Key, primary_key=True),
    # in progress | completed | discontinued
    sa.Column("state", Key, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("ae_title", Key, nullable=False),
    _key("study_instance_uid", index=True),
    sa.Column("key_id", Key, nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("created_at", Time, nullable=False),
    sa.Column("ended_at", Time),
)

performed_series = sa.Table(
    "performed_series",
    metadata,
    sa.Column("step_uid", Key, sa.ForeignKey("performed_step.step_uid"), primary_key=True),
    sa.Column("series_instance_uid", Key, primary_key=True),
    sa.Column("sop_instance_uids", Json, nullable=False),
    sa.Column("evidence", Key, nullable=False),
    # Until when the listed instances are awaited; NULL once they came, or it is too late.
    sa.Column("awaited_until", Time, index=True),
)

notification = sa.Table(
    "notification",
    metadata,
    sa.Column("notification_id", Id, primary_key=True),
    sa.Column("ae_title", Key, nullable=False),
    sa.Column("sop_instance_uid", Key, nullable=False),
    sa.Column("study_instance_uid", Key, nullable=False),
    # Series Instance UIDs joined by a backslash; empty for the whole study.
    _key("series"),
    # waiting | sent | given up
    sa.Column("state", Key, nullable=False),
    sa.Column("made_at", Time, nullable=False),
    sa.Column("due_at", Time, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Index("ix_notification_state_due_at", "state", "due_at"),
)

# An item is sealed under the identity key; a digest is keyed, and says nothing without the key.
worklist_item = sa.Table(
    "worklist_item",
    metadata,
    sa.Column("item_id", Key, primary_key=True),
    # scheduled | started | completed | discontinued
    sa.Column("state", Key, nullable=False),
    sa.Column("key_id", Key, nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("added_at", Time, nullable=False),
)

worklist_digest = sa.Table(
    "worklist_digest",
    metadata,
    sa.Column("item_id", Key, sa.ForeignKey("worklist_item.item_id"), primary_key=True),
    sa.Column("digest", Key, primary_key=True, index=True),
)

# What people, and storage commitment, say of a study: retention rules ask for it.
study_label = sa.Table(
    "study_label",
    metadata,
    sa.Column("study_instance_uid", Key, primary_key=True),
    sa.Column("label", Key, primary_key=True),
    _key("reason"),
    sa.Column("at", Time, nullable=False),
)

# Where the face of a patient lies, sealed under the identity key: for segmentations, PET and late series of that frame.
face_region = sa.Table(
    "face_region",
    metadata,
    # Study, frame of reference and series, whose region it is.
    sa.Column("place", Key, primary_key=True),
    sa.Column("study_instance_uid", Key, nullable=False, index=True),
    sa.Column("frame_of_reference_uid", Key, nullable=False),
    sa.Column("key_id", Key, nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
)

quarantine = sa.Table(
    "quarantine",
    metadata,
    sa.Column("quarantine_id", Key, primary_key=True),
    sa.Column("kind", Key, nullable=False),
    sa.Column("reason", Key, nullable=False),
    sa.Column("origin", Key, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("at", Time, nullable=False),
)

# Of a secret only its SHA-256 is kept: who reads the database cannot sign in.
link = sa.Table(
    "link",
    metadata,
    sa.Column("secret_digest", sa.LargeBinary, primary_key=True),
    sa.Column("expires_at", Time, nullable=False),
)

session = sa.Table(
    "session",
    metadata,
    sa.Column("secret_digest", sa.LargeBinary, primary_key=True),
    sa.Column("expires_at", Time, nullable=False),
)

token = sa.Table(
    "token",
    metadata,
    sa.Column("name", Key, primary_key=True),
    sa.Column("secret_digest", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("created_at", Time, nullable=False),
    sa.Column("last_used_at", Time),
    _key("identity"),
)
