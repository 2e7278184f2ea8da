"""What became of each socket of a lease, where gateways reach each other, and indexes for removing a space"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("gateways", sa.Column("internal_url", sa.Text(), nullable=True))
    op.add_column("leases", sa.Column("attaches", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("leases", sa.Column("first_attached_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("leases", sa.Column("last_active_at", sa.DateTime(timezone=True), nullable=True))
    for name in ("bytes_from_client", "bytes_to_client", "commands"):
        op.add_column("leases", sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.create_index(op.f("leases_run_id_idx"), "leases", ["run_id"], unique=False)
    op.create_index(op.f("leases_space_id_idx"), "leases", ["space_id"], unique=False)
    op.create_index(op.f("runs_space_id_idx"), "runs", ["space_id"], unique=False)
    op.create_table(
        "lease_sockets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("lease_id", sa.Uuid(), nullable=False),
        sa.Column("gateway_id", sa.Uuid(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("close_code", sa.Integer(), nullable=True),
        sa.Column("close_reason", sa.Text(), nullable=True),
        sa.Column("bytes_from_client", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("bytes_to_client", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("commands", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(
            ["lease_id"], ["leases.id"], name=op.f("lease_sockets_lease_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("lease_sockets_pkey")),
    )
    op.create_index(
        op.f("lease_sockets_lease_id_opened_at_idx"), "lease_sockets", ["lease_id", "opened_at"], unique=False
    )
    op.create_index(
        "lease_sockets_open_idx",
        "lease_sockets",
        ["gateway_id"],
        unique=False,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
