"""What rules say of their jobs, what results found, which jobs wait for which, and versions that were recalled.

Revision: 0009, after 0008
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    for name in ("rule_digest", "step", "subject"):
        op.add_column("job", sa.Column(name, KEY, nullable=False, server_default=""))
    op.add_column("job", sa.Column("priority", sa.Integer(), nullable=False, server_default="5"))
    op.add_column("job", sa.Column("outdated", sa.Boolean(), nullable=False, server_default=sa.false()))
    # Jobs that ended before there was `after` wake nothing.
    op.add_column("job", sa.Column("followed", sa.Boolean(), nullable=False, server_default=sa.true()))
    not_followed = sa.text("NOT followed")
    op.create_index("ix_job_to_follow", "job", ["finished_at"], sqlite_where=not_followed, postgresql_where=not_followed)
    op.create_index("ix_job_processor_version", "job", ["processor", "version"])
    op.create_table(
        "job_parent",
        sa.Column("job_id", KEY, sa.ForeignKey("job.job_id", name="fk_job_parent_job_id_job"), nullable=False),
        sa.Column("parent_id", KEY, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "parent_id", name="pk_job_parent"),
    )
    op.create_index("ix_job_parent_parent_id", "job_parent", ["parent_id"])
    op.create_table(
        "job_finding",
        sa.Column("job_id", KEY, sa.ForeignKey("job.job_id", name="fk_job_finding_job_id_job"), nullable=False),
        sa.Column("findings", JSON, nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_job_finding"),
    )
    op.create_table(
        "rule",
        sa.Column("digest", KEY, nullable=False),
        sa.Column("name", KEY, nullable=False),
        sa.Column("definition", JSON, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("until", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("digest", name="pk_rule"),
    )
    op.create_table(
        "recall",
        sa.Column("recall_id", ID, nullable=False),
        sa.Column("processor", KEY, nullable=False),
        sa.Column("version", KEY, nullable=False),
        sa.Column("reason", KEY, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("recall_id", name="pk_recall"),
    )


def downgrade() -> None:
    for table in ("recall", "rule", "job_finding", "job_parent"):
        op.drop_table(table)
    for index in ("ix_job_processor_version", "ix_job_to_follow"):
        op.drop_index(index, "job")
    for name in ("followed", "outdated", "priority", "subject", "step", "rule_digest"):
        op.drop_column("job", name)
