"""Organizations that nothing else of a test has."""

from __future__ import annotations

from gateway.core.ids import new_id
from gateway.core.limits import Limits
from gateway.core.scope import Scope
from gateway.store import accounts
from gateway.store.accounts import NewSubaccount
from gateway.store.database import Database


async def organization_with_subaccount(database: Database) -> tuple[Scope, Scope]:
    """A new organization, and a subaccount of it."""
    organization, subaccount = new_id(), NewSubaccount(new_id(), "inner", "inner", None, Limits(), None)
    async with database.begin() as connection:
        await accounts.add_organization(connection, organization, f"of {organization}")
        made = await accounts.add_subaccount(connection, organization, subaccount)
    return Scope(organization), Scope(organization, made.id)
