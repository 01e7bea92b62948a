"""Performed procedure steps, what they say was acquired, and notifications of what is available.

Revision: 0010, after 0009
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "performed_step",
        sa.Column("step_uid", KEY, nullable=False),
        sa.Column("state", KEY, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("ae_title", KEY, nullable=False),
        sa.Column("study_instance_uid", KEY, nullable=False),
        sa.Column("key_id", KEY, nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("step_uid", name="pk_performed_step"),
    )
    op.create_index("ix_performed_step_study_instance_uid", "performed_step", ["study_instance_uid"])
    op.create_table(
        "performed_series",
        sa.Column("step_uid", KEY, nullable=False),
        sa.Column("series_instance_uid", KEY, nullable=False),
        sa.Column("sop_instance_uids", JSON, nullable=False),
        sa.Column("evidence", KEY, nullable=False),
        sa.Column("awaited_until", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["step_uid"], ["performed_step.step_uid"], name="fk_performed_series_step_uid_performed_step"),
        sa.PrimaryKeyConstraint("step_uid", "series_instance_uid", name="pk_performed_series"),
    )
    op.create_index("ix_performed_series_awaited_until", "performed_series", ["awaited_until"])
    op.create_table(
        "notification",
        sa.Column("notification_id", ID, nullable=False),
        sa.Column("ae_title", KEY, nullable=False),
        sa.Column("sop_instance_uid", KEY, nullable=False),
        sa.Column("study_instance_uid", KEY, nullable=False),
        sa.Column("series", KEY, nullable=False),
        sa.Column("state", KEY, nullable=False),
        sa.Column("made_at", sa.Double(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("notification_id", name="pk_notification"),
    )
    op.create_index("ix_notification_state_due_at", "notification", ["state", "due_at"])


def downgrade() -> None:
    op.drop_table("notification")
    op.drop_table("performed_series")
    op.drop_table("performed_step")
