"""Saved profiles of browsers"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def _time(name: str, *, required: bool = False) -> sa.Column[object]:
    default = sa.func.now() if required else None
    return sa.Column(name, sa.DateTime(timezone=True), nullable=not required, server_default=default)


def _count(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default=sa.text("0"))


def upgrade() -> None:
    op.create_table(
        "browser_profiles",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("subaccount_id", sa.Uuid()),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("config", JSONB(), nullable=False),
        sa.Column("metadata", JSONB()),
        sa.Column("browser", sa.Text()),
        sa.Column("object_id", sa.Uuid()),
        _count("generation"),
        _count("size_bytes"),
        _count("stored_bytes"),
        sa.Column("runtime_id", sa.Uuid()),
        sa.Column("gateway_id", sa.Uuid()),
        _time("last_used_at"),
        _time("saved_at"),
        sa.Column("save_error_code", sa.Text()),
        sa.Column("save_error_message", sa.Text()),
        _time("created_at", required=True),
        _time("updated_at", required=True),
        sa.PrimaryKeyConstraint("id", name="browser_profiles_pkey"),
        sa.UniqueConstraint("object_id", name="browser_profiles_object_id_key"),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="browser_profiles_organization_id_fkey"
        ),
        sa.ForeignKeyConstraint(["subaccount_id"], ["subaccounts.id"], name="browser_profiles_subaccount_id_fkey"),
    )
    for owner, column, condition in (
        ("organization", "organization_id", "subaccount_id IS NULL"),
        ("subaccount", "subaccount_id", "subaccount_id IS NOT NULL"),
    ):
        op.create_index(
            f"browser_profiles_{owner}_name_key",
            "browser_profiles",
            [column, "name"],
            unique=True,
            postgresql_where=sa.text(condition),
        )
    for owner, columns in (
        ("organization", ["organization_id"]),
        ("subaccount", ["organization_id", "subaccount_id"]),
    ):
        op.create_index(f"browser_profiles_{owner}_idx", "browser_profiles", [*columns, "created_at", "id"])
    op.create_index(
        "browser_profiles_used_idx",
        "browser_profiles",
        ["gateway_id"],
        postgresql_where=sa.text("runtime_id IS NOT NULL"),
    )
    op.add_column("runtimes", sa.Column("profile_id", sa.Uuid()))
    op.add_column("runtimes", sa.Column("profile_read_only", sa.Boolean()))


def downgrade() -> None:
    # Keys of states, and passwords of proxies in configs.
    op.execute("DELETE FROM secrets WHERE purpose LIKE 'browser_profile.%'")
    op.drop_column("runtimes", "profile_read_only")
    op.drop_column("runtimes", "profile_id")
    op.drop_table("browser_profiles")
