"""The lifetime that a lease was minted with, which a renewal grants again"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("leases", sa.Column("ttl_seconds", sa.Integer()))
    op.execute("UPDATE leases SET ttl_seconds = greatest(1, round(extract(epoch FROM expires_at - created_at)))")
    op.alter_column("leases", "ttl_seconds", nullable=False)
