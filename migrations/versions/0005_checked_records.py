"""When each record was last read and found right.

Revision: 0005, after 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("instance", sa.Column("verified_at", sa.Double(), nullable=False, server_default="0"))
    op.create_index("ix_instance_verified_at", "instance", ["verified_at"])


def downgrade() -> None:
    op.drop_index("ix_instance_verified_at", table_name="instance")
    op.drop_column("instance", "verified_at")
