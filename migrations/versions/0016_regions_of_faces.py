"""Regions of faces: where the head series of a frame of reference were cut, for what else of it comes.

Revision: 0016, after 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "face_region",
        sa.Column("place", KEY, nullable=False),
        sa.Column("study_instance_uid", KEY, nullable=False),
        sa.Column("frame_of_reference_uid", KEY, nullable=False),
        sa.Column("key_id", KEY, nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("place", name="pk_face_region"),
    )
    op.create_index("ix_face_region_study_instance_uid", "face_region", ["study_instance_uid"])


def downgrade() -> None:
    op.drop_table("face_region")
