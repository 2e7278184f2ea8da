"""What agents have used of models, by hour"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "model_usage",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("subaccount_id", sa.Uuid(), nullable=True),
        sa.Column("provider", sa.Text(collation="C"), nullable=False),
        sa.Column("model", sa.Text(collation="C"), nullable=False),
        sa.Column("key_source", sa.Text(collation="C"), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("estimated_calls", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("key_source IN ('platform', 'saved', 'inline')", name=op.f("model_usage_key_source_check")),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name=op.f("model_usage_organization_id_fkey")
        ),
        sa.ForeignKeyConstraint(["subaccount_id"], ["subaccounts.id"], name=op.f("model_usage_subaccount_id_fkey")),
        sa.PrimaryKeyConstraint("owner_id", "provider", "model", "key_source", "hour", name=op.f("model_usage_pkey")),
    )
    op.create_index(op.f("model_usage_organization_id_hour_idx"), "model_usage", ["organization_id", "hour"])
    op.create_index(op.f("model_usage_hour_idx"), "model_usage", ["hour"])


def downgrade() -> None:
    op.drop_table("model_usage")
