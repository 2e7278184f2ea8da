"""Closing of spaces; alias, driver and mounts of runtimes"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("spaces", sa.Column("closed_at", sa.DateTime(timezone=True)))
    op.add_column("runtimes", sa.Column("alias", sa.Text()))
    op.add_column("runtimes", sa.Column("driver", sa.Text()))
    op.add_column("runtimes", sa.Column("mounts", JSONB()))
    op.create_index(
        "runtimes_live_alias_key",
        "runtimes",
        ["space_id", "alias"],
        unique=True,
        postgresql_where=sa.text("status IN ('starting', 'active')"),
    )
    op.create_index(
        "runtimes_alias_idx",
        "runtimes",
        ["space_id", "alias", "created_at", "id"],
        postgresql_where=sa.text("alias IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("runtimes_alias_idx", "runtimes")
    op.drop_index("runtimes_live_alias_key", "runtimes")
    op.drop_column("runtimes", "mounts")
    op.drop_column("runtimes", "driver")
    op.drop_column("runtimes", "alias")
    op.drop_column("spaces", "closed_at")
