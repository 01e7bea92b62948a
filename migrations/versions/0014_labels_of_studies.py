"""Labels of studies: what retention rules ask for, "protected" and "committed" among them.

Revision: 0014, after 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "study_label",
        sa.Column("study_instance_uid", KEY, nullable=False),
        sa.Column("label", KEY, nullable=False),
        sa.Column("reason", KEY, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("study_instance_uid", "label", name="pk_study_label"),
    )


def downgrade() -> None:
    op.drop_table("study_label")
