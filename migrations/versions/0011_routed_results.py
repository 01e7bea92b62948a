"""Series that were made here count as routed: no route that is written later sends what was there before.

Revision: 0011, after 0010
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("UPDATE series SET scheduled_generation = generation WHERE derived")


def downgrade() -> None:
    pass
