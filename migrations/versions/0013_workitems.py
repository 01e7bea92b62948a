"""Workitems: what jobs lack of a Unified Procedure Step, and who follows them.

Revision: 0013, after 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "workitem",
        sa.Column("job_id", KEY, nullable=False),
        sa.Column("digest", KEY, nullable=False),
        sa.Column("key_id", KEY, nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.job_id"], name="fk_workitem_job_id_job"),
        sa.PrimaryKeyConstraint("job_id", name="pk_workitem"),
        sa.UniqueConstraint("digest", name="uq_workitem_digest"),
    )
    op.create_table(
        "subscription",
        sa.Column("ae_title", KEY, nullable=False),
        sa.Column("job_id", KEY, nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("reported", KEY, nullable=False),
        sa.Column("progress", sa.Double(), nullable=False),
        sa.Column("cancel_by", KEY, nullable=False),
        sa.PrimaryKeyConstraint("ae_title", "job_id", name="pk_subscription"),
    )


def downgrade() -> None:
    op.drop_table("subscription")
    op.drop_table("workitem")
