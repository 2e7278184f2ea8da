"""Mounts, limits and configs in names of the domain; the event level of a runtime in a column"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# No key of these documents is a caller's own, so that all of them can be renamed. Values stay as they are, null too.
_SNAKE_CASE = r"""
CREATE FUNCTION pg_temp.snake_case(document jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF jsonb_typeof(document) <> 'object' THEN
        RETURN document;
    END IF;
    RETURN (
        SELECT coalesce(
            jsonb_object_agg(lower(regexp_replace(key, '([A-Z])', '_\1', 'g')), pg_temp.snake_case(value)), '{}'
        )
        FROM jsonb_each(document)
    );
END
$$
"""


def upgrade() -> None:
    op.add_column("runtimes", sa.Column("event_level", sa.Text(), nullable=True))
    op.execute(_SNAKE_CASE)
    op.execute("UPDATE subaccounts SET limits = pg_temp.snake_case(limits) WHERE limits <> '{}'")
    op.execute("UPDATE spaces SET mounts = pg_temp.snake_case(mounts) WHERE mounts <> '{}'")
    op.execute(
        "UPDATE runtimes SET event_level = config ->> 'events', config = pg_temp.snake_case(config - 'events')"
        " WHERE config <> '{}'"
    )
    op.execute("DROP FUNCTION pg_temp.snake_case(jsonb)")
