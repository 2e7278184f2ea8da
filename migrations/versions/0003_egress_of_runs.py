"""What went through the egress proxy in each run"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("egress_bytes_sent", "egress_bytes_received", "egress_refused"):
        op.add_column("runs", sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False))
