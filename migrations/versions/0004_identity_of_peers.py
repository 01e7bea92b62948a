"""Peers and tokens that may see original identities.

Revision: 0004, after 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    for table in ("peer", "token"):
        op.add_column(table, sa.Column("identity", KEY, nullable=False, server_default=""))


def downgrade() -> None:
    for table in ("token", "peer"):
        op.drop_column(table, "identity")
