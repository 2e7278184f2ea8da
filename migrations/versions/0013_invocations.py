"""Invocations"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_ORDER = ["created_at", "id"]


def upgrade() -> None:
    json = postgresql.JSONB(astext_type=sa.Text())
    op.create_table(
        "invocations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("subaccount_id", sa.Uuid(), nullable=True),
        sa.Column("space_id", sa.Uuid(), nullable=False),
        sa.Column("runtime_id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("gateway_id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("execution_mode", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(collation="C"), nullable=True),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=True),
        sa.Column("input", json, nullable=True),
        sa.Column("progress", json, nullable=True),
        sa.Column("result", json, nullable=True),
        sa.Column("result_bytes", sa.BigInteger(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("error_details", json, nullable=True),
        sa.Column("cancel_wanted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("execution_mode IN ('inline', 'durable')", name=op.f("invocations_execution_mode_check")),
        sa.CheckConstraint(
            "status IN ('pending', 'running', 'completed', 'failed', 'cancelled')",
            name=op.f("invocations_status_check"),
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name=op.f("invocations_organization_id_fkey")
        ),
        sa.ForeignKeyConstraint(["subaccount_id"], ["subaccounts.id"], name=op.f("invocations_subaccount_id_fkey")),
        sa.ForeignKeyConstraint(
            ["space_id"], ["spaces.id"], name=op.f("invocations_space_id_fkey"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["runtime_id"], ["runtimes.id"], name=op.f("invocations_runtime_id_fkey"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("invocations_run_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("invocations_pkey")),
    )
    op.create_index(
        "invocations_space_id_idempotency_key_key",
        "invocations",
        ["space_id", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    for owner in (["organization_id"], ["organization_id", "subaccount_id"], ["space_id"], ["runtime_id"]):
        columns = owner + _ORDER
        op.create_index(op.f(f"invocations_{'_'.join(columns)}_idx"), "invocations", columns)
    op.create_index(op.f("invocations_run_id_idx"), "invocations", ["run_id"])
    op.create_index(
        "invocations_live_idx",
        "invocations",
        ["gateway_id"],
        postgresql_where=sa.text("status IN ('pending', 'running')"),
    )
    op.create_index(
        op.f("invocations_finished_at_idx"),
        "invocations",
        ["finished_at"],
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_table("invocations")
