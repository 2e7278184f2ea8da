"""Who controls a runtime: leases by their API keys, invocations that hold it"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Null for leases of the gateway's own, and for those of before, which hold nothing.
    op.add_column("leases", sa.Column("api_key_id", sa.Uuid(), nullable=True))
    op.create_index(
        "leases_holding_idx",
        "leases",
        ["runtime_id", "expires_at"],
        postgresql_where=sa.text("api_key_id IS NOT NULL AND revoked_at IS NULL AND closed_at IS NULL"),
    )
    # Null for those that hold nothing, such as executions.
    op.add_column("invocations", sa.Column("holds_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column("invocations", sa.Column("toolset_id", sa.Uuid(), nullable=True))
    op.add_column("invocations", sa.Column("ai", postgresql.JSONB(), nullable=True))
    op.add_column("invocations", sa.Column("usage", postgresql.JSONB(), nullable=True))
    op.create_index(
        "invocations_holding_idx",
        "invocations",
        ["runtime_id"],
        postgresql_where=sa.text("holds_until IS NOT NULL AND status IN ('pending', 'running')"),
    )
    # A statement that writes a lease or an invocation which controls a runtime asks this first: those of
    # one runtime wait for each other, and the query sees what was committed meanwhile, since a volatile function has a
    # snapshot for each of its statements. `api_key_id` is that of a new lease, and null for a new invocation.
    op.execute(
        """
        CREATE FUNCTION runtime_holder(lock int, wanted uuid, by_key uuid)
        RETURNS TABLE (kind text, id uuid, since timestamptz, until timestamptz) LANGUAGE plpgsql VOLATILE AS $$
        BEGIN
            PERFORM pg_advisory_xact_lock(lock, hashtext(wanted::text));
            RETURN QUERY
                SELECT 'invocation', invocations.id, invocations.created_at, invocations.holds_until FROM invocations
                WHERE invocations.runtime_id = wanted AND invocations.holds_until IS NOT NULL
                    AND invocations.status IN ('pending', 'running')
                UNION ALL
                SELECT 'connection', leases.id, leases.created_at, leases.expires_at FROM leases
                WHERE leases.runtime_id = wanted AND leases.api_key_id IS NOT NULL AND leases.revoked_at IS NULL
                    AND leases.closed_at IS NULL AND leases.expires_at > clock_timestamp()
                    AND (by_key IS NULL OR leases.api_key_id <> by_key)
                LIMIT 1;
        END
        $$
        """
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION runtime_holder")
    op.drop_index("invocations_holding_idx", "invocations")
    op.drop_column("invocations", "usage")
    op.drop_column("invocations", "ai")
    op.drop_column("invocations", "toolset_id")
    op.drop_column("invocations", "holds_until")
    op.drop_index("leases_holding_idx", "leases")
    op.drop_column("leases", "api_key_id")
