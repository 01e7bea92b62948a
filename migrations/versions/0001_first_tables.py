"""The first tables.

Revision: 0001, after none
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
DUE = sa.text("scheduled_generation < generation")


def upgrade() -> None:
    op.create_table(
        "event",
        sa.Column("event_id", ID, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("kind", KEY, nullable=False),
        sa.Column("study_instance_uid", KEY, nullable=False),
        sa.Column("series_instance_uid", KEY, nullable=False),
        sa.Column("sop_instance_uid", KEY, nullable=False),
        sa.Column("detail", JSON, nullable=False),
        sa.PrimaryKeyConstraint("event_id", name="pk_event"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "job",
        sa.Column("job_id", KEY, nullable=False),
        sa.Column("job_key", KEY, nullable=False),
        sa.Column("processor", KEY, nullable=False),
        sa.Column("version", KEY, nullable=False),
        sa.Column("parameters", JSON, nullable=False),
        sa.Column("rule", KEY, nullable=False),
        sa.Column("queue", KEY, nullable=False),
        sa.Column("state", KEY, nullable=False),
        sa.Column("reason", KEY, nullable=False),
        sa.Column("note", KEY, nullable=False),
        sa.Column("completion", KEY, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("progress", sa.Double(), nullable=False),
        sa.Column("study_instance_uid", KEY, nullable=False),
        sa.Column("inputs", KEY, nullable=False),
        sa.Column("owner", KEY, nullable=False),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("dispatched_at", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", name="pk_job"),
        sa.UniqueConstraint("job_key", name="uq_job_job_key"),
    )
    op.create_index("ix_job_created_at", "job", ["created_at"])
    op.create_index("ix_job_state_due_at", "job", ["state", "due_at"])
    op.create_index("ix_job_study_instance_uid", "job", ["study_instance_uid"])
    op.create_table(
        "link",
        sa.Column("secret_digest", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("secret_digest", name="pk_link"),
    )
    op.create_table(
        "patient",
        sa.Column("pk", ID, nullable=False),
        sa.Column("patient_id", KEY, nullable=False),
        sa.Column("issuer", KEY, nullable=False),
        sa.Column("orphan", KEY, nullable=False),
        sa.Column("patient_id_folded", KEY, nullable=False),
        sa.Column("name_key", KEY, nullable=False),
        sa.Column("name_key2", KEY, nullable=False),
        sa.Column("name_key3", KEY, nullable=False),
        sa.Column("name_words", KEY, nullable=False),
        sa.Column("birth_date", KEY, nullable=False),
        sa.Column("sex", KEY, nullable=False),
        sa.Column("attributes", JSON, nullable=False),
        sa.PrimaryKeyConstraint("pk", name="pk_patient"),
        sa.UniqueConstraint("patient_id", "issuer", "orphan", name="uq_patient_patient_id_issuer_orphan"),
    )
    op.create_index("ix_patient_birth_date", "patient", ["birth_date"])
    op.create_index("ix_patient_name_key", "patient", ["name_key"])
    op.create_index("ix_patient_name_key2", "patient", ["name_key2"])
    op.create_index("ix_patient_name_key3", "patient", ["name_key3"])
    op.create_table(
        "peer",
        sa.Column("ae_title", KEY, nullable=False),
        sa.Column("host", KEY, nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("may", KEY, nullable=False),
        sa.PrimaryKeyConstraint("ae_title", name="pk_peer"),
    )
    op.create_table(
        "quarantine",
        sa.Column("quarantine_id", KEY, nullable=False),
        sa.Column("kind", KEY, nullable=False),
        sa.Column("reason", KEY, nullable=False),
        sa.Column("origin", KEY, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("quarantine_id", name="pk_quarantine"),
    )
    op.create_table(
        "session",
        sa.Column("secret_digest", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("secret_digest", name="pk_session"),
    )
    op.create_table(
        "token",
        sa.Column("name", KEY, nullable=False),
        sa.Column("secret_digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("last_used_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_token"),
        sa.UniqueConstraint("secret_digest", name="uq_token_secret_digest"),
    )
    op.create_table(
        "job_output",
        sa.Column("job_id", KEY, nullable=False),
        sa.Column("series_instance_uid", KEY, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.job_id"], name="fk_job_output_job_id_job"),
        sa.PrimaryKeyConstraint("job_id", "series_instance_uid", name="pk_job_output"),
    )
    op.create_index("ix_job_output_series_instance_uid", "job_output", ["series_instance_uid"])
    op.create_table(
        "study",
        sa.Column("pk", ID, nullable=False),
        sa.Column("patient_pk", ID, nullable=False),
        sa.Column("study_instance_uid", KEY, nullable=False),
        sa.Column("study_date", KEY, nullable=False),
        sa.Column("study_time", KEY, nullable=False),
        sa.Column("accession_number", KEY, nullable=False),
        sa.Column("study_id", KEY, nullable=False),
        sa.Column("description", KEY, nullable=False),
        sa.Column("description_folded", KEY, nullable=False),
        sa.Column("referring_key", KEY, nullable=False),
        sa.Column("referring_key2", KEY, nullable=False),
        sa.Column("referring_key3", KEY, nullable=False),
        sa.Column("referring_words", KEY, nullable=False),
        sa.Column("attributes", JSON, nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("scheduled_generation", sa.BigInteger(), nullable=False),
        sa.Column("last_arrival", sa.Double(), nullable=False),
        sa.Column("completion", KEY, nullable=False),
        sa.ForeignKeyConstraint(["patient_pk"], ["patient.pk"], name="fk_study_patient_pk_patient"),
        sa.PrimaryKeyConstraint("pk", name="pk_study"),
        sa.UniqueConstraint("study_instance_uid", name="uq_study_study_instance_uid"),
    )
    op.create_index("ix_study_accession_number", "study", ["accession_number"])
    op.create_index("ix_study_due", "study", ["last_arrival"], sqlite_where=DUE, postgresql_where=DUE)
    op.create_index("ix_study_newest", "study", ["study_date", "study_time", "study_instance_uid"])
    op.create_index("ix_study_patient_pk", "study", ["patient_pk"])
    op.create_index("ix_study_study_id", "study", ["study_id"])
    op.create_table(
        "series",
        sa.Column("pk", ID, nullable=False),
        sa.Column("study_pk", ID, nullable=False),
        sa.Column("series_instance_uid", KEY, nullable=False),
        sa.Column("modality", KEY, nullable=False),
        sa.Column("series_number", sa.BigInteger(), nullable=True),
        sa.Column("series_date", KEY, nullable=False),
        sa.Column("series_time", KEY, nullable=False),
        sa.Column("description", KEY, nullable=False),
        sa.Column("body_part", KEY, nullable=False),
        sa.Column("attributes", JSON, nullable=False),
        sa.Column("sop_classes", KEY, nullable=False),
        sa.Column("derived", sa.Boolean(), nullable=False),
        sa.Column("instances", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("scheduled_generation", sa.BigInteger(), nullable=False),
        sa.Column("last_arrival", sa.Double(), nullable=False),
        sa.Column("evidence", KEY, nullable=False),
        sa.Column("completion", KEY, nullable=False),
        sa.ForeignKeyConstraint(["study_pk"], ["study.pk"], name="fk_series_study_pk_study"),
        sa.PrimaryKeyConstraint("pk", name="pk_series"),
        sa.UniqueConstraint("study_pk", "series_instance_uid", name="uq_series_study_pk_series_instance_uid"),
    )
    op.create_index("ix_series_due", "series", ["last_arrival"], sqlite_where=DUE, postgresql_where=DUE)
    op.create_index("ix_series_modality", "series", ["modality", "study_pk", "instances"])
    op.create_index("ix_series_series_instance_uid", "series", ["series_instance_uid"])
    op.create_table(
        "instance",
        sa.Column("pk", ID, nullable=False),
        sa.Column("series_pk", ID, nullable=False),
        sa.Column("sop_instance_uid", KEY, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("current", sa.Boolean(), nullable=False),
        sa.Column("state", KEY, nullable=False),
        sa.Column("sop_class_uid", KEY, nullable=False),
        sa.Column("transfer_syntax_uid", KEY, nullable=False),
        sa.Column("instance_number", sa.BigInteger(), nullable=True),
        sa.Column("number_of_frames", sa.Integer(), nullable=False),
        sa.Column("container", KEY, nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("study_key_id", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("origin", KEY, nullable=False),
        sa.Column("source", KEY, nullable=False),
        sa.Column("policy", KEY, nullable=False),
        sa.Column("stored_at", sa.Double(), nullable=False),
        sa.Column("attributes", JSON, nullable=False),
        sa.ForeignKeyConstraint(["series_pk"], ["series.pk"], name="fk_instance_series_pk_series"),
        sa.PrimaryKeyConstraint("pk", name="pk_instance"),
        sa.UniqueConstraint("sop_instance_uid", "version", name="uq_instance_sop_instance_uid_version"),
    )
    op.create_index("ix_instance_container_offset", "instance", ["container", "offset"])
    op.create_index("ix_instance_in_series", "instance", ["series_pk", "instance_number", "sop_instance_uid"])
    op.create_table(
        "open_arrival",
        sa.Column("association", KEY, nullable=False),
        sa.Column("series_pk", ID, nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["series_pk"], ["series.pk"], name="fk_open_arrival_series_pk_series"),
        sa.PrimaryKeyConstraint("association", "series_pk", name="pk_open_arrival"),
    )
    op.create_index("ix_open_arrival_series_pk", "open_arrival", ["series_pk"])


def downgrade() -> None:
    # Indexes go with their tables; tables before those that they refer to.
    for table in (
        "open_arrival",
        "instance",
        "series",
        "study",
        "job_output",
        "token",
        "session",
        "quarantine",
        "peer",
        "patient",
        "link",
        "job",
        "event",
    ):
        op.drop_table(table)
