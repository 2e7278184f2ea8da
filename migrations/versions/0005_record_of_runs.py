"""The record of runs: events, commands, files, artifacts and recordings"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "event_counters",
        sa.Column("stream_id", sa.Uuid(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("oldest", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("stream_id", name=op.f("event_counters_pkey")),
    )
    op.create_index(op.f("event_counters_oldest_idx"), "event_counters", ["oldest"], unique=False)
    op.create_table(
        "events",
        sa.Column("stream_id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("page_id", sa.Text(), nullable=True),
        sa.Column("connection_id", sa.Uuid(), nullable=True),
        sa.Column("subaccount_id", sa.Uuid(), nullable=True),
        sa.Column("in_activity", sa.Boolean(), nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("stream_id", "sequence", name=op.f("events_pkey")),
    )
    op.create_index(
        "events_activity_idx",
        "events",
        ["stream_id", "sequence"],
        unique=False,
        postgresql_where=sa.text("in_activity"),
    )
    op.create_index(
        op.f("events_stream_id_type_sequence_idx"), "events", ["stream_id", "type", "sequence"], unique=False
    )
    op.create_index(
        "events_page_idx",
        "events",
        ["stream_id", "page_id", "sequence"],
        unique=False,
        postgresql_where=sa.text("page_id IS NOT NULL"),
    )
    op.create_index(
        "events_connection_idx",
        "events",
        ["stream_id", "connection_id", "sequence"],
        unique=False,
        postgresql_where=sa.text("connection_id IS NOT NULL"),
    )
    op.create_table(
        "files",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("subaccount_id", sa.Uuid(), nullable=True),
        sa.Column("space_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(collation="C"), nullable=False),
        sa.Column("path_digest", sa.LargeBinary(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name=op.f("files_organization_id_fkey")),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("files_space_id_fkey"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["subaccount_id"], ["subaccounts.id"], name=op.f("files_subaccount_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("files_pkey")),
        sa.UniqueConstraint("object_key", name=op.f("files_object_key_key")),
    )
    op.create_index(
        op.f("files_expires_at_idx"),
        "files",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )
    op.create_index("files_space_id_path_key", "files", ["space_id", "path_digest"], unique=True)
    op.create_index("files_listing_idx", "files", ["space_id", sa.text('"left"(path, 512)'), "id"], unique=False)
    op.create_index("files_space_bytes_idx", "files", ["space_id"], unique=False, postgresql_include=["size_bytes"])
    op.create_index(
        "files_subaccount_bytes_idx", "files", ["subaccount_id"], unique=False, postgresql_include=["size_bytes"]
    )
    op.create_table(
        "artifacts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("subaccount_id", sa.Uuid(), nullable=True),
        sa.Column("space_id", sa.Uuid(), nullable=False),
        sa.Column("runtime_id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("page_id", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["file_id"], ["files.id"], name=op.f("artifacts_file_id_fkey"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name=op.f("artifacts_organization_id_fkey")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("artifacts_run_id_fkey"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("artifacts_space_id_fkey"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["subaccount_id"], ["subaccounts.id"], name=op.f("artifacts_subaccount_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("artifacts_pkey")),
    )
    op.create_index(op.f("artifacts_file_id_idx"), "artifacts", ["file_id"], unique=False)
    op.create_index(
        op.f("artifacts_run_id_created_at_id_idx"), "artifacts", ["run_id", "created_at", "id"], unique=False
    )
    op.create_index(
        op.f("artifacts_runtime_id_created_at_id_idx"), "artifacts", ["runtime_id", "created_at", "id"], unique=False
    )
    op.create_index(
        op.f("artifacts_space_id_created_at_id_idx"), "artifacts", ["space_id", "created_at", "id"], unique=False
    )
    op.create_table(
        "recordings",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("gateway_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("duration_ms", sa.BigInteger(), nullable=True),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("tabs", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["file_id"], ["files.id"], name=op.f("recordings_file_id_fkey"), ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("recordings_run_id_fkey"), ondelete="CASCADE"),
        sa.CheckConstraint(
            "status IN ('recording', 'preparing', 'processing', 'ready', 'failed', 'expired')",
            name=op.f("recordings_status_check"),
        ),
        sa.PrimaryKeyConstraint("run_id", name=op.f("recordings_pkey")),
    )
    op.create_index(
        op.f("recordings_expires_at_idx"),
        "recordings",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )
    op.create_index(op.f("recordings_file_id_idx"), "recordings", ["file_id"], unique=False)
    op.create_index(
        "recordings_unfinished_idx",
        "recordings",
        ["gateway_id", "created_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('recording', 'preparing', 'processing')"),
    )
    op.create_table(
        "run_commands",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("execution_mode", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("input", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("run_commands_pkey")),
    )
    op.create_index(
        op.f("run_commands_run_id_created_at_id_idx"), "run_commands", ["run_id", "created_at", "id"], unique=False
    )
    op.create_index(op.f("run_commands_created_at_idx"), "run_commands", ["created_at"], unique=False)
