"""Where files come from: their source, driver, target and runtime"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_TEXTS = ("source", "driver", "target")


def upgrade() -> None:
    for name in _TEXTS:
        op.add_column("files", sa.Column(name, sa.Text()))
    op.add_column("files", sa.Column("runtime_id", sa.Uuid()))
    # Of files that runs produced, it is known.
    op.execute(
        """
        UPDATE files SET source = artifacts.kind, runtime_id = artifacts.runtime_id,
            driver = (SELECT driver FROM runtimes WHERE runtimes.id = artifacts.runtime_id)
        FROM artifacts WHERE artifacts.file_id = files.id
        """
    )


def downgrade() -> None:
    op.drop_column("files", "runtime_id")
    for name in reversed(_TEXTS):
        op.drop_column("files", name)
