"""Tools, toolsets and calls of tools"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0025"
down_revision = "0021"
branch_labels = None
depends_on = None


def _owned(table: str, *columns: sa.Column[object] | sa.Constraint) -> None:
    """A table of rows of spaces."""
    op.create_table(
        table,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("subaccount_id", sa.Uuid(), nullable=True),
        sa.Column("space_id", sa.Uuid(), nullable=False),
        *columns,
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name=op.f(f"{table}_organization_id_fkey")),
        sa.ForeignKeyConstraint(["subaccount_id"], ["subaccounts.id"], name=op.f(f"{table}_subaccount_id_fkey")),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f(f"{table}_space_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f(f"{table}_pkey")),
    )
    op.create_index(f"{table}_space_id_created_at_id_idx", table, ["space_id", "created_at", "id"])


def _updated_at() -> sa.Column[object]:
    return sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)


def upgrade() -> None:
    _owned(
        "tools",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("execution", postgresql.JSONB(), nullable=False),
        sa.Column("input_schema", postgresql.JSONB(), nullable=False),
        sa.Column("output_schema", postgresql.JSONB(), nullable=False),
        sa.Column("metadata", postgresql.JSONB(), nullable=True),
        _updated_at(),
        sa.UniqueConstraint("space_id", "name", name=op.f("tools_space_id_name_key")),
    )
    _owned(
        "toolsets",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("builtin", postgresql.JSONB(), nullable=False),
        sa.Column("custom_tool_ids", postgresql.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("metadata", postgresql.JSONB(), nullable=True),
        _updated_at(),
        sa.UniqueConstraint("space_id", "name", name=op.f("toolsets_space_id_name_key")),
    )
    _owned(
        "tool_calls",
        sa.Column("tool_id", sa.Uuid(), nullable=True),
        sa.Column("tool_name", sa.Text(), nullable=False),
        sa.Column("execution_type", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("invocation_id", sa.Uuid(), nullable=True),
        sa.Column("toolset_id", sa.Uuid(), nullable=True),
        sa.Column("input", postgresql.JSONB(), nullable=True),
        sa.Column("output", postgresql.JSONB(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("error_details", postgresql.JSONB(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("actor IN ('test', 'agent', 'invocation')", name=op.f("tool_calls_actor_check")),
        sa.CheckConstraint("status IN ('succeeded', 'failed')", name=op.f("tool_calls_status_check")),
    )
    op.create_index(
        "tool_calls_invocation_id_idx",
        "tool_calls",
        ["invocation_id"],
        postgresql_where=sa.text("invocation_id IS NOT NULL"),
    )
    op.create_index("tool_calls_created_at_idx", "tool_calls", ["created_at"])


def downgrade() -> None:
    for table in ("tool_calls", "toolsets", "tools"):
        op.drop_table(table)
