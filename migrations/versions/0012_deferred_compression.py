"""Records whose pixels are to be compressed later.

Revision: 0012, after 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("instance", sa.Column("deferred", sa.Boolean(), nullable=False, server_default=sa.false()))
    waiting = sa.text("deferred")
    op.create_index("ix_instance_deferred", "instance", ["stored_at"], sqlite_where=waiting, postgresql_where=waiting)


def downgrade() -> None:
    op.drop_index("ix_instance_deferred", "instance")
    op.drop_column("instance", "deferred")
