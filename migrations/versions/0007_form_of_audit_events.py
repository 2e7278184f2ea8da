"""The form in which an event of the audit log was hashed"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audit_events", sa.Column("form", sa.SmallInteger(), server_default=sa.text("1"), nullable=False))
