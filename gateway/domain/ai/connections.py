"""AI connections: saved access to an AI provider, whose key is written and never returned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack, cast
from uuid import UUID

from gateway.core.ids import new_id, not_found
from gateway.core.scope import Scope
from gateway.core.sealed import SecretOwner
from gateway.core.slices import WHOLE_LIST, Slice
from gateway.domain.ai.providers import ProviderClient, ProviderName, Verdict
from gateway.domain.audit import Action, Audit
from gateway.domain.secrets import SecretStore
from gateway.store import ai_connections
from gateway.store.ai_connections import AiConnection, AiConnectionChanges, NewAiConnection
from gateway.store.database import Database

__all__ = ["AiConnection", "AiConnections", "Changes", "Tested"]


@dataclass(frozen=True, slots=True)
class Tested:
    connection: AiConnection
    verdict: Verdict


class Changes(AiConnectionChanges, total=False):
    """Fields of a change; `api_key` None removes the stored key."""

    api_key: str | None


class AiConnections:
    def __init__(self, database: Database, secrets: SecretStore, providers: ProviderClient, audit: Audit) -> None:
        self._database = database
        self._secrets = secrets
        self._providers = providers
        self._audit = audit

    async def create(
        self, scope: Scope, api_key: str | None, *, label: str, provider: str, enabled: bool, default_model: str | None
    ) -> AiConnection:
        connection_id = new_id()
        new = NewAiConnection(connection_id, label, provider, enabled, default_model)
        with self._audit.noting(Action.AI_CONNECTION_CREATED, connection_id) as noting:
            noting.details["hasStoredKey"] = api_key is not None
            async with self._database.begin() as connection:
                if api_key is not None:
                    await self._secrets.put(connection, _owner(scope, connection_id), api_key)
                return await ai_connections.add(connection, scope, new, has_stored_key=api_key is not None)

    async def listed(self, scope: Scope, part: Slice = WHOLE_LIST) -> list[AiConnection]:
        with self._audit.noting(Action.AI_CONNECTION_READ):
            async with self._database.connect() as connection:
                return await ai_connections.listed(connection, scope, part)

    async def get(self, scope: Scope, connection_id: UUID) -> AiConnection:
        with self._audit.noting(Action.AI_CONNECTION_READ, connection_id):
            async with self._database.connect() as connection:
                found = await ai_connections.get(connection, scope, connection_id)
            return _found(found, connection_id)

    async def change(self, scope: Scope, connection_id: UUID, **changes: Unpack[Changes]) -> AiConnection:
        """Change what is given. `api_key` with a text replaces the stored key, with None removes it."""
        with self._audit.noting(Action.AI_CONNECTION_CHANGED, connection_id) as noting:
            noting.details["fields"] = sorted(changes)
            async with self._database.begin() as connection:
                found = _found(await ai_connections.get(connection, scope, connection_id, lock=True), connection_id)
                if "api_key" in changes:
                    api_key = changes.pop("api_key")
                    if api_key is None:
                        await self._secrets.remove(connection, found.id)
                    else:
                        owner = Scope(found.organization_id, found.subaccount_id)
                        await self._secrets.put(connection, _owner(owner, found.id), api_key)
                return await ai_connections.change(connection, found.id, **cast(AiConnectionChanges, changes))

    async def remove(self, scope: Scope, connection_id: UUID) -> None:
        with self._audit.noting(Action.AI_CONNECTION_DELETED, connection_id):
            async with self._database.begin() as connection:
                _found(await ai_connections.get(connection, scope, connection_id, lock=True), connection_id)
                await self._secrets.remove(connection, connection_id)
                await ai_connections.remove(connection, connection_id)

    async def test(self, scope: Scope, connection_id: UUID) -> Tested:
        """Call the provider with the stored key. A provider that refuses is an answer, not an error."""
        with self._audit.noting(Action.AI_CONNECTION_TESTED, connection_id) as noting:
            async with self._database.connect() as connection:
                found = _found(await ai_connections.get(connection, scope, connection_id), connection_id)
                owner = Scope(found.organization_id, found.subaccount_id)
                api_key = await self._secrets.open(connection, _owner(owner, found.id))
            if api_key is None:
                message = "This connection has no stored key; set one with PATCH and `apiKey`."
                verdict = Verdict(False, message)
            else:
                verdict = await self._providers.check(cast(ProviderName, found.provider), api_key)
            noting.details["accepted"] = verdict.ok
            return Tested(found, verdict)


def _owner(scope: Scope, connection_id: UUID) -> SecretOwner:
    return SecretOwner("ai_connection.api_key", scope.organization_id, scope.subaccount_id, connection_id)


def _found(connection: AiConnection | None, connection_id: UUID) -> AiConnection:
    if connection is None:
        raise not_found("ai_connection", connection_id)
    return connection
