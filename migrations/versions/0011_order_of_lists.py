"""Indexes in the order of lists, so that a page is read without sorting what is not on it"""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_ORDER = ["created_at", "id"]

_ADDED = {
    "subaccounts": [["organization_id"]],
    "api_keys": [["organization_id", "subaccount_id"]],
    "ai_connections": [["organization_id"], ["organization_id", "subaccount_id"]],
    "spaces": [["organization_id"], ["organization_id", "subaccount_id"]],
    "runtimes": [["space_id"]],
    "runs": [["organization_id"], ["organization_id", "subaccount_id"], ["space_id"], ["runtime_id"]],
    "leases": [["runtime_id"]],
}

# Beginnings of the new ones.
_REPLACED = {
    "api_keys": [["organization_id", "subaccount_id"]],
    "ai_connections": [["organization_id", "subaccount_id"]],
    "spaces": [["organization_id", "subaccount_id"]],
    "runtimes": [["space_id"]],
    "runs": [["organization_id", "subaccount_id", "created_at"], ["space_id"], ["runtime_id"]],
    "leases": [["runtime_id", "created_at"]],
}


def upgrade() -> None:
    for table, owners in _ADDED.items():
        for owner in owners:
            op.create_index(_name(table, owner + _ORDER), table, owner + _ORDER)
    for table, indexes in _REPLACED.items():
        for columns in indexes:
            op.drop_index(_name(table, columns), table)


def _name(table: str, columns: list[str]) -> str:
    return f"{table}_{'_'.join(columns)}_idx"
