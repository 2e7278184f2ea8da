"""Contents of the audit log."""

from __future__ import annotations

from pydantic import Field

from gateway.settings.types import Group


class AuditSettings(Group):
    """Contents of the audit log."""

    audit_reads: bool = Field(True, description="Whether the audit log records reads.")
    audit_kept_events: int = Field(
        100_000,
        ge=1,
        le=10_000_000,
        description="Audit events that are kept in memory while the database is unavailable; further ones are counted.",
    )
    audit_refusals_per_second: int = Field(
        20,
        ge=1,
        le=10_000,
        description="Distinct refused keys and leases per second that the audit log records individually; further ones "
        "are counted.",
    )
    audit_refusals_per_hour: int = Field(
        2000,
        ge=1,
        le=1_000_000,
        description="Refusals per hour that the audit log records individually, of strangers together and of each "
        "organization; further ones are counted, one event a minute for each kind.",
    )
