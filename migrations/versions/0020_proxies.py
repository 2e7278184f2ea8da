"""Saved proxies"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "proxies",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("subaccount_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("protocol", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("username", sa.Text(), nullable=True),
        sa.Column("has_password", sa.Boolean(), nullable=False),
        sa.Column("dns_resolution", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("protocol IN ('http', 'socks5')", name=op.f("proxies_protocol_check")),
        sa.CheckConstraint("dns_resolution IN ('local', 'proxy')", name=op.f("proxies_dns_resolution_check")),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name=op.f("proxies_organization_id_fkey")),
        sa.ForeignKeyConstraint(["subaccount_id"], ["subaccounts.id"], name=op.f("proxies_subaccount_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("proxies_pkey")),
    )
    for owner, condition in (("organization", "subaccount_id IS NULL"), ("subaccount", "subaccount_id IS NOT NULL")):
        op.create_index(
            f"proxies_{owner}_name_key",
            "proxies",
            [f"{owner}_id", "name"],
            unique=True,
            postgresql_where=sa.text(condition),
        )
    op.create_index("proxies_organization_idx", "proxies", ["organization_id", "created_at", "id"])
    op.create_index("proxies_subaccount_idx", "proxies", ["organization_id", "subaccount_id", "created_at", "id"])


def downgrade() -> None:
    op.execute("DELETE FROM secrets USING proxies WHERE secrets.id = proxies.id")
    op.drop_table("proxies")
