"""How often each service answered with which status, and peers that are DICOMweb servers.

Revision: 0007, after 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("peer", sa.Column("url", KEY, nullable=False, server_default=""))
    op.create_table(
        "tally",
        sa.Column("service", KEY, nullable=False),
        sa.Column("status", KEY, nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("service", "status", name="pk_tally"),
    )


def downgrade() -> None:
    op.drop_table("tally")
    op.drop_column("peer", "url")
