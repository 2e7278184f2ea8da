"""The vault: sizes, and who reads plain text."""

from __future__ import annotations

from pydantic import Field

from gateway.settings.types import Group


class VaultSettings(Group):
    """The vault: sizes, and who reads plain text."""

    vault_entry_bytes: int = Field(
        16 * 1024,
        ge=256,
        le=1024**2,
        description="Maximum size of what is secret in an entry of the vault: names, passwords, notes together.",
    )
    vault_max_entries: int = Field(
        10_000, ge=1, le=10_000_000, description="Entries that the vault of an organization or a subaccount may have."
    )
    vault_raw_reads: bool = Field(
        False,
        description="Whether an API key may read values of the vault as text without naming a workspace whose mounts "
        "allow it.",
    )
