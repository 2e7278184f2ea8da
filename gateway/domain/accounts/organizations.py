"""Organizations: the tenants of a gateway. None sees anything of another. The operator manages them."""

from __future__ import annotations

from uuid import UUID

from gateway.core.errors import NotFound, RequestInvalid
from gateway.core.ids import new_id
from gateway.core.scope import Scope
from gateway.domain.accounts.known_keys import forgotten_elsewhere
from gateway.domain.audit import Action, Audit
from gateway.store import accounts
from gateway.store.accounts import Organization
from gateway.store.database import Database

__all__ = ["Organization", "Organizations"]

MAX_NAME_LENGTH = 120


class Organizations:
    def __init__(self, database: Database, audit: Audit) -> None:
        self._database = database
        self._audit = audit

    async def create(self, name: str) -> Organization:
        """A new organization, without keys. Raises RequestInvalid."""
        if not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable():
            raise RequestInvalid(f"An organization's name has 1 to {MAX_NAME_LENGTH} printable characters.")
        organization_id = new_id()
        async with self._database.begin() as connection:
            await accounts.add_organization(connection, organization_id, name)
            created = await accounts.organization(connection, organization_id)
        assert created is not None
        self._audit.note(Action.ORGANIZATION_CREATED, organization_id, scope=Scope(organization_id))
        return created

    async def all(self) -> list[Organization]:
        """All organizations, the oldest first."""
        async with self._database.connect() as connection:
            found = await accounts.organizations_of_gateway(connection)
        self._audit.note(Action.ORGANIZATION_READ)
        return found

    async def find(self, given: str) -> Organization:
        """The organization of this id, or of this name if it is the only one. Raises NotFound."""
        async with self._database.connect() as connection:
            found = await accounts.organizations_of_gateway(connection)
        matching = [each for each in found if given in (str(each.id), each.name)]
        if len(matching) == 1:
            return matching[0]
        if matching:
            ids = ", ".join(str(each.id) for each in matching)
            raise NotFound(f"There are several organizations named {given!r}: {ids}.", "organization.not_found")
        raise NotFound(f"There is no organization {given!r}.", "organization.not_found")

    async def suspend(self, organization_id: UUID) -> Organization:
        """Refuse the organization's keys; its runtimes, and so its leases, end within seconds. Returns once no gateway
        accepts them. Idempotent."""
        suspended = await self._set(Action.ORGANIZATION_SUSPENDED, organization_id, suspended=True)
        await forgotten_elsewhere(self._database, None)
        return suspended

    async def resume(self, organization_id: UUID) -> Organization:
        """Accept the organization's keys again. What has ended stays ended. Idempotent."""
        return await self._set(Action.ORGANIZATION_RESUMED, organization_id, suspended=False)

    async def _set(self, action: Action, organization_id: UUID, *, suspended: bool) -> Organization:
        scope = Scope(organization_id)
        async with self._database.begin() as connection:
            changed = await accounts.suspend_organization(connection, scope, suspended=suspended)
        if changed is None:
            raise NotFound(f"There is no organization {str(organization_id)!r}.", "organization.not_found")
        self._audit.note(action, organization_id, scope=scope)
        return changed
