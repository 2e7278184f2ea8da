"""Limits of saved profiles: those of the settings, and the own ones of a subaccount."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.errors import Conflict, LimitReached
from gateway.core.limits import Limits
from gateway.core.scope import Scope
from gateway.domain.profiles.packing import PackLimits
from gateway.settings import ProfileSettings
from gateway.store import accounts, browser_profiles
from gateway.store.browser_profiles import Totals
from gateway.store.database import Connection


@dataclass(frozen=True, slots=True)
class _Counted:
    """What an organization or a subaccount has, and the most that it may have."""

    noun: str
    has: Totals
    most: Totals


class ProfileLimits:
    """A subaccount's own limits hold where they are lower than those of the settings."""

    def __init__(self, settings: ProfileSettings) -> None:
        self._settings = settings

    async def check_number(self, connection: Connection, owner: Scope) -> None:
        """Raises LimitReached where the owner may have no further profile. Counting is serialized within an
        organization, up to the end of the transaction."""
        for counted in await self._counted(connection, owner):
            most = counted.most.profiles
            if counted.has.profiles >= most:
                raise LimitReached(
                    f"This {counted.noun} may have {most} browser profiles, and has {counted.has.profiles}.",
                    f"{counted.noun}.max_profiles",
                    details={"limit": most},
                    retry_after=60,
                )

    async def check_bytes(self, connection: Connection, owner: Scope, more: int) -> None:
        """Raises Conflict where `more` bytes have no room; what takes no more than before always has. Counting is
        serialized within an organization, up to the end of the transaction."""
        if more <= 0:
            return
        for counted in await self._counted(connection, owner):
            used, most = counted.has.stored_bytes, counted.most.stored_bytes
            if used + more > most:
                raise Conflict(
                    f"The browser profiles of this {counted.noun} use {used} of {most} bytes, and {more} more have no "
                    "room; delete or reset some.",
                    f"{counted.noun}.profiles_full",
                    details={"limit": most, "used": used},
                )

    async def of_one(self, connection: Connection, owner: Scope) -> PackLimits:
        """What may be saved as one profile of the owner."""
        own = await _own(connection, owner)
        settings = self._settings
        return PackLimits(_lower(settings.profile_max_bytes, own.max_bytes_per_profile), settings.profile_max_entries)

    async def _counted(self, connection: Connection, owner: Scope) -> list[_Counted]:
        settings = self._settings
        await accounts.lock_owner(connection, owner)
        all_of, of_subaccount = await browser_profiles.totals(connection, owner.organization_id, owner.subaccount_id)
        most = Totals(settings.organization_max_profiles, settings.organization_max_profile_bytes)
        counted = [_Counted("organization", all_of, most)]
        if owner.subaccount_id is not None:
            own = await _own(connection, owner)
            most = Totals(
                _lower(settings.subaccount_max_profiles, own.max_profiles),
                _lower(settings.subaccount_max_profile_bytes, own.max_profile_bytes),
            )
            counted.append(_Counted("subaccount", of_subaccount, most))
        return counted


async def _own(connection: Connection, owner: Scope) -> Limits:
    if owner.subaccount_id is None:
        return Limits()
    found = await accounts.subaccount(connection, owner, owner.subaccount_id)
    return Limits() if found is None else found.limits


def _lower(of_settings: int, own: int | None) -> int:
    return of_settings if own is None else min(of_settings, own)
