"""Options of peers, and requests for storage commitment until they are answered.

Revision: 0006, after 0005
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("peer", sa.Column("options", KEY, nullable=False, server_default=""))
    op.create_table(
        "commitment",
        sa.Column("commitment_id", ID, nullable=False),
        sa.Column("ae_title", KEY, nullable=False),
        sa.Column("transaction_uid", KEY, nullable=False),
        sa.Column("state", KEY, nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", KEY, nullable=False),
        sa.Column("instances", sa.BigInteger(), nullable=False),
        sa.Column("failures", JSON, nullable=False),
        sa.Column("received_at", sa.Double(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("commitment_id", name="pk_commitment"),
    )
    op.create_index("ix_commitment_state_due_at", "commitment", ["state", "due_at"])
    op.create_index("ix_commitment_ae_title_transaction_uid", "commitment", ["ae_title", "transaction_uid"])


def downgrade() -> None:
    op.drop_table("commitment")
    op.drop_column("peer", "options")
