"""AI credentials: the caller's own ids, and addresses of providers"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_CHECK = "ai_connections_provider_check"


def upgrade() -> None:
    op.add_column("ai_connections", sa.Column("slug", sa.Text()))
    op.add_column("ai_connections", sa.Column("base_url", sa.Text()))
    for owner, condition in (("organization", "subaccount_id IS NULL"), ("subaccount", "subaccount_id IS NOT NULL")):
        op.create_index(
            f"ai_connections_{owner}_slug_key",
            "ai_connections",
            [f"{owner}_id", "slug"],
            unique=True,
            postgresql_where=sa.text(condition),
        )
    op.drop_constraint(_CHECK, "ai_connections")
    op.create_check_constraint(
        op.f(_CHECK), "ai_connections", "provider IN ('openai', 'anthropic', 'google', 'openai-compatible')"
    )


def downgrade() -> None:
    # The schema before has no place for them.
    op.execute(
        "DELETE FROM secrets USING ai_connections"
        " WHERE secrets.id = ai_connections.id AND ai_connections.provider = 'openai-compatible'"
    )
    op.execute("DELETE FROM ai_connections WHERE provider = 'openai-compatible'")
    op.drop_constraint(_CHECK, "ai_connections")
    op.create_check_constraint(op.f(_CHECK), "ai_connections", "provider IN ('openai', 'anthropic', 'google')")
    op.drop_index("ai_connections_subaccount_slug_key", "ai_connections")
    op.drop_index("ai_connections_organization_slug_key", "ai_connections")
    op.drop_column("ai_connections", "base_url")
    op.drop_column("ai_connections", "slug")
