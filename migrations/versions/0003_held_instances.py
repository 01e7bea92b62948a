"""Instances that are held until they are clean.

Revision: 0003, after 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
TO_CLEAN = sa.text("cleaning_generation < held_generation")
HELD = sa.text("state = 'held'")


def upgrade() -> None:
    op.add_column("instance", sa.Column("held_for", KEY, nullable=False, server_default=""))
    op.add_column("instance", sa.Column("received_digest", sa.LargeBinary(), nullable=True))
    op.create_index("ix_instance_held", "instance", ["series_pk"], sqlite_where=HELD, postgresql_where=HELD)
    op.add_column("series", sa.Column("held_generation", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("series", sa.Column("cleaning_generation", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index("ix_series_to_clean", "series", ["last_arrival"], sqlite_where=TO_CLEAN, postgresql_where=TO_CLEAN)


def downgrade() -> None:
    op.drop_index("ix_series_to_clean", table_name="series")
    op.drop_index("ix_instance_held", table_name="instance")
    for table, column in (
        ("series", "cleaning_generation"),
        ("series", "held_generation"),
        ("instance", "received_digest"),
        ("instance", "held_for"),
    ):
        op.drop_column(table, column)
