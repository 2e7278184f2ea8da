"""The order of lists of artifacts that are of no single space"""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for owner, columns in (
        ("organization", ["organization_id"]),
        ("subaccount", ["organization_id", "subaccount_id"]),
    ):
        op.create_index(f"artifacts_{owner}_idx", "artifacts", [*columns, "created_at", "id"])


def downgrade() -> None:
    for owner in ("organization", "subaccount"):
        op.drop_index(f"artifacts_{owner}_idx", "artifacts")
