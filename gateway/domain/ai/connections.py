"""AI connections: saved access to an AI provider, whose key is written and never returned.

One generation of the API has them by their ids, another by an id that the caller chose, the slug; it is one row.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Unpack, cast
from uuid import UUID

from gateway.core.ai_providers import PROVIDERS, ProviderName
from gateway.core.errors import Conflict, invalid_field
from gateway.core.ids import new_id, not_found, parse_id
from gateway.core.scope import Scope
from gateway.core.sealed import SecretOwner
from gateway.core.slices import WHOLE_LIST, Slice
from gateway.domain.ai.base_urls import check_allowed, mismatch
from gateway.domain.ai.providers import ProviderClient, Verdict
from gateway.domain.audit import Action, Audit
from gateway.domain.secrets import SecretStore
from gateway.egress.outbound import Outbound
from gateway.store import ai_connections
from gateway.store.ai_connections import OWN_SLUG_PREFIX, AiConnection, AiConnectionChanges, NewAiConnection
from gateway.store.database import Connection, Database, constraint_as

__all__ = ["AiConnection", "AiConnectionRequest", "AiConnections", "Changes", "Tested"]

_SLUG = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class AiConnectionRequest:
    """A caller's request for a new one. `slug`: the id that the caller chose. `base_url`: of `openai-compatible`."""

    label: str
    provider: str
    enabled: bool = True
    default_model: str | None = None
    slug: str | None = None
    base_url: str | None = None


@dataclass(frozen=True, slots=True)
class Tested:
    connection: AiConnection
    verdict: Verdict


class Changes(AiConnectionChanges, total=False):
    """Fields of a change; `api_key` None removes the stored key."""

    api_key: str | None


class AiConnections:
    """`providers` of its methods: of connections to other ones there are none."""

    def __init__(
        self, database: Database, secrets: SecretStore, providers: ProviderClient, outbound: Outbound, audit: Audit
    ) -> None:
        self._database = database
        self._secrets = secrets
        self._providers = providers
        self._outbound = outbound
        self._audit = audit

    async def create(self, scope: Scope, api_key: str | None, request: AiConnectionRequest) -> AiConnection:
        """Raises RequestInvalid (the slug, the base URL), Conflict (the slug is taken)."""
        connection_id = new_id()
        with self._audit.noting(Action.AI_CONNECTION_CREATED, connection_id) as noting:
            noting.details["hasStoredKey"] = api_key is not None
            if request.slug is not None:
                _check_slug(request.slug)
            if (wrong := mismatch(request.provider, request.base_url)) is not None:
                raise invalid_field("base_url", wrong, request.base_url)
            await check_allowed(self._outbound, request.base_url)
            new = NewAiConnection(
                connection_id,
                request.label,
                request.provider,
                request.enabled,
                request.default_model,
                request.slug,
                request.base_url,
            )
            async with self._database.begin() as connection:
                if api_key is not None:
                    await self._secrets.put(connection, key_owner(scope, connection_id), api_key)
                with constraint_as(_taken(request.slug or "")):
                    return await ai_connections.add(connection, scope, new, has_stored_key=api_key is not None)

    async def listed(
        self, scope: Scope, part: Slice = WHOLE_LIST, *, providers: Collection[str] = PROVIDERS
    ) -> list[AiConnection]:
        with self._audit.noting(Action.AI_CONNECTION_READ):
            async with self._database.connect() as connection:
                return await ai_connections.listed(connection, scope, providers, part)

    async def id_of(self, scope: Scope, slug: str) -> UUID:
        """The id of the one with this slug, or of this id. Of several with the slug it is the caller's own.

        Raises NotFound, and Conflict where several subaccounts have it.
        """
        if not _SLUG.fullmatch(slug) or _is_uuid(slug):
            return parse_id(slug, "ai_credential")
        async with self._database.connect() as connection:
            found = await ai_connections.ids_of_slug(connection, scope, slug)
        own = [each for each, subaccount_id in found if subaccount_id == scope.subaccount_id]
        ids = own or [each for each, _ in found]
        if not ids:
            raise not_found("ai_credential", slug)
        if len(ids) > 1:
            message = f"Several subaccounts have an AI credential {slug!r}; name one by its connectionId."
            raise Conflict(message, "ai_credential.ambiguous", details={"id": slug})
        return ids[0]

    async def get(self, scope: Scope, connection_id: UUID, *, providers: Collection[str] = PROVIDERS) -> AiConnection:
        with self._audit.noting(Action.AI_CONNECTION_READ, connection_id):
            async with self._database.connect() as connection:
                return await self._find(connection, scope, connection_id, providers)

    async def change(
        self,
        scope: Scope,
        connection_id: UUID,
        *,
        providers: Collection[str] = PROVIDERS,
        **changes: Unpack[Changes],
    ) -> AiConnection:
        """Change what is given. `api_key` with a text replaces the stored key, with None removes it.

        A stored key is sent to no other server than the one that it was given for: with a provider or a base URL goes a
        key. Raises NotFound, RequestInvalid (the base URL), Conflict (what there is does not go with the change).
        """
        with self._audit.noting(Action.AI_CONNECTION_CHANGED, connection_id) as noting:
            noting.details["fields"] = sorted(changes)
            if "provider" in changes or "base_url" in changes:
                async with self._database.connect() as connection:
                    before = await self._find(connection, scope, connection_id, providers)
                base_url = changes.get("base_url", before.base_url)
                if (wrong := mismatch(changes.get("provider", before.provider), base_url)) is not None:
                    raise Conflict(f"{wrong}.", "ai_credential.base_url_mismatch")
                await check_allowed(self._outbound, base_url)
            async with self._database.begin() as connection:
                found = await self._find(connection, scope, connection_id, providers, lock=True)
                _check_redirected(found, changes)
                if "api_key" in changes:
                    api_key = changes.pop("api_key")
                    if api_key is None:
                        await self._secrets.remove(connection, found.id)
                    else:
                        await self._secrets.put(connection, key_owner(found.owner, found.id), api_key)
                return await ai_connections.change(connection, found.id, **cast(AiConnectionChanges, changes))

    async def remove(self, scope: Scope, connection_id: UUID, *, providers: Collection[str] = PROVIDERS) -> None:
        with self._audit.noting(Action.AI_CONNECTION_DELETED, connection_id):
            async with self._database.begin() as connection:
                await self._find(connection, scope, connection_id, providers, lock=True)
                await self._secrets.remove(connection, connection_id)
                await ai_connections.remove(connection, connection_id)

    async def test(self, scope: Scope, connection_id: UUID, *, providers: Collection[str] = PROVIDERS) -> Tested:
        """Call the provider with the stored key. A provider that refuses is an answer, not an error."""
        with self._audit.noting(Action.AI_CONNECTION_TESTED, connection_id) as noting:
            async with self._database.connect() as connection:
                found = await self._find(connection, scope, connection_id, providers)
                api_key = await self._secrets.open(connection, key_owner(found.owner, found.id))
            if api_key is None:
                message = "This connection has no stored key; set one with PATCH and `apiKey`."
                verdict = Verdict(False, message)
            else:
                verdict = await self._providers.check(cast(ProviderName, found.provider), api_key, found.base_url)
            noting.details["accepted"] = verdict.ok
            return Tested(found, verdict)

    async def _find(
        self,
        connection: Connection,
        scope: Scope,
        connection_id: UUID,
        providers: Collection[str],
        *,
        lock: bool = False,
    ) -> AiConnection:
        found = await ai_connections.get(connection, scope, connection_id, providers, lock=lock)
        if found is None:
            raise not_found("ai_connection", connection_id)
        return found


def _check_redirected(found: AiConnection, changes: Changes) -> None:
    """Raises Conflict where a stored key would be sent to another server than the one that it was given for."""
    server = changes.get("provider", found.provider), changes.get("base_url", found.base_url)
    if server != (found.provider, found.base_url) and found.has_stored_key and "api_key" not in changes:
        message = "The stored key was given for another server; give the `apiKey` of this one too."
        raise Conflict(message, "ai_credential.key_required")


def _check_slug(slug: str) -> None:
    if not _SLUG.fullmatch(slug) or _is_uuid(slug.removeprefix(OWN_SLUG_PREFIX)):
        message = "An id is a letter and up to 63 letters, digits, `_` and `-`, and not a UUID, or one behind `ai-`"
        raise invalid_field("slug", message, slug)


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def key_owner(scope: Scope, connection_id: UUID) -> SecretOwner:
    return SecretOwner("ai_connection.api_key", scope.organization_id, scope.subaccount_id, connection_id)


def _taken(slug: str) -> Conflict:
    return Conflict(
        f"There is an AI credential {slug!r}; delete it, or take another id.",
        "ai_credential.id_taken",
        details={"id": slug},
    )
