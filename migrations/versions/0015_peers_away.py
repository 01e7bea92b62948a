"""Peers that are away, and since when: what is to be sent to one waits for one next try.

Revision: 0015, after 0014
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "peer_away",
        sa.Column("ae_title", KEY, primary_key=True),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.Column("reason", KEY, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("peer_away")
