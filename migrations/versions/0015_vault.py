"""The vault"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    json = postgresql.JSONB(astext_type=sa.Text())
    op.create_table(
        "vault_entries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("subaccount_id", sa.Uuid(), nullable=True),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("has_totp", sa.Boolean(), nullable=False),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("origins", json, nullable=False),
        sa.Column("origin_patterns", json, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('login', 'value')", name=op.f("vault_entries_kind_check")),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name=op.f("vault_entries_organization_id_fkey")
        ),
        sa.ForeignKeyConstraint(["subaccount_id"], ["subaccounts.id"], name=op.f("vault_entries_subaccount_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("vault_entries_pkey")),
    )
    for owner, condition in (("organization", "subaccount_id IS NULL"), ("subaccount", "subaccount_id IS NOT NULL")):
        op.create_index(
            f"vault_entries_{owner}_key",
            "vault_entries",
            [f"{owner}_id", "key"],
            unique=True,
            postgresql_where=sa.text(condition),
        )


def downgrade() -> None:
    op.execute("DELETE FROM secrets USING vault_entries WHERE secrets.id = vault_entries.id")
    op.drop_table("vault_entries")
