"""The shares that callers and tenants have of what a gateway's callers use together."""

from __future__ import annotations

from pydantic import Field

from gateway.core.shares import Shares
from gateway.settings.types import Group


class ShareSettings(Group):
    """The shares that callers and tenants have of what a gateway's callers use together."""

    caller_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Part of each shared limit that one API key, lease or viewer link may take; 1 means all of it.",
    )
    tenant_share: float = Field(
        0.75,
        gt=0,
        le=1,
        description="Part of each shared limit that all callers of one organization or subaccount may take; 1 means "
        "all of it.",
    )

    @property
    def shares(self) -> Shares:
        return Shares(self.caller_share, self.tenant_share)
