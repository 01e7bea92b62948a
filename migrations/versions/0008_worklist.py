"""The worklist: sealed items and what they are found by.

Revision: 0008, after 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "worklist_item",
        sa.Column("item_id", KEY, nullable=False),
        sa.Column("state", KEY, nullable=False),
        sa.Column("key_id", KEY, nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("added_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("item_id", name="pk_worklist_item"),
    )
    op.create_table(
        "worklist_digest",
        sa.Column("item_id", KEY, nullable=False),
        sa.Column("digest", KEY, nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["worklist_item.item_id"], name="fk_worklist_digest_item_id_worklist_item"),
        sa.PrimaryKeyConstraint("item_id", "digest", name="pk_worklist_digest"),
    )
    op.create_index("ix_worklist_digest_digest", "worklist_digest", ["digest"])


def downgrade() -> None:
    op.drop_table("worklist_digest")
    op.drop_table("worklist_item")
