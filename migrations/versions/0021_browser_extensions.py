"""Browser extensions"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "browser_extensions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("subaccount_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("chromium_id", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("unpacked_bytes", sa.BigInteger(), nullable=False),
        sa.Column("source_url", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name=op.f("browser_extensions_organization_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["subaccount_id"], ["subaccounts.id"], name=op.f("browser_extensions_subaccount_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("browser_extensions_pkey")),
    )
    op.create_index(
        "browser_extensions_organization_idx", "browser_extensions", ["organization_id", "created_at", "id"]
    )
    op.create_index(
        "browser_extensions_subaccount_idx",
        "browser_extensions",
        ["organization_id", "subaccount_id", "created_at", "id"],
    )
    for table, owner, owners, on_delete in (
        ("browser_profile_extensions", "profile_id", "browser_profiles", None),
        ("runtime_extensions", "runtime_id", "runtimes", "CASCADE"),
    ):
        op.create_table(
            table,
            sa.Column(owner, sa.Uuid(), nullable=False),
            sa.Column("extension_id", sa.Uuid(), nullable=False),
            sa.ForeignKeyConstraint([owner], [f"{owners}.id"], name=op.f(f"{table}_{owner}_fkey"), ondelete="CASCADE"),
            sa.ForeignKeyConstraint(
                ["extension_id"],
                ["browser_extensions.id"],
                name=op.f(f"{table}_extension_id_fkey"),
                ondelete=on_delete,
            ),
            sa.PrimaryKeyConstraint(owner, "extension_id", name=op.f(f"{table}_pkey")),
        )
        op.create_index(op.f(f"{table}_extension_id_idx"), table, ["extension_id"])


def downgrade() -> None:
    op.drop_table("runtime_extensions")
    op.drop_table("browser_profile_extensions")
    op.drop_table("browser_extensions")
