"""Authentication and accounts: API keys, their principals, and subaccounts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Unpack
from uuid import UUID

from gateway.core.errors import Conflict, Forbidden, OrganizationSuspended, Unauthorized
from gateway.core.ids import new_id, not_found
from gateway.core.limits import Limits
from gateway.core.scope import Scope
from gateway.core.slices import WHOLE_LIST, Slice
from gateway.crypto.tokens import TokenIssuer, api_key_prefix
from gateway.domain import audit
from gateway.domain.accounts.known_keys import KnownKeys, forgotten_elsewhere
from gateway.domain.audit import Action, Audit
from gateway.store import accounts
from gateway.store.accounts import ApiKey, NewKey, NewSubaccount, Subaccount, SubaccountChanges
from gateway.store.database import Database

__all__ = ["Access", "ApiKey", "Principal", "Subaccount", "SubaccountChanges"]


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller: an API key and whose it is."""

    key_id: UUID
    scope: Scope

    @property
    def is_organization(self) -> bool:
        return self.scope.subaccount_id is None


class Access:
    def __init__(
        self,
        database: Database,
        issuer: TokenIssuer,
        audit: Audit,
        gateway_id: UUID | None = None,
        known: KnownKeys | None = None,
    ) -> None:
        """`gateway_id` is None for a command, which authenticates nothing."""
        self._database = database
        self._issuer = issuer
        self._audit = audit
        self._gateway_id = gateway_id
        self._known = KnownKeys() if known is None else known
        self._used: set[UUID] = set()

    async def authenticate(self, authorization: str | None) -> Principal:
        """The principal of an `Authorization: Bearer <api-key>` header, who acts from here on; raises Unauthorized."""
        scheme, _, secret = (authorization or "").partition(" ")
        secret = secret.strip()
        prefix = api_key_prefix(secret) if scheme.lower() == "bearer" else None
        try:
            principal = await self._principal(authorization, secret, prefix)
        except Unauthorized as error:
            self._audit.refused(Action.AUTH_REFUSED, error, prefix=prefix)
            raise
        audit.identify(principal.key_id, principal.scope)
        return principal

    async def _principal(self, authorization: str | None, secret: str, prefix: str | None) -> Principal:
        if not authorization:
            raise Unauthorized(
                "The Authorization header is missing; send `Authorization: Bearer <api-key>`.", "auth.required"
            )
        if prefix is None:
            raise Unauthorized("The Authorization header must be `Bearer <api-key>` with a key of this gateway.")
        key = self._known.get(prefix)
        reading = None
        if key is None:
            reading = self._known.reading()
            async with self._database.connect() as connection:
                key = await accounts.key_by_prefix(connection, prefix)
        # Without a row a digest is compared too, so that timing does not reveal which prefixes exist.
        matches = self._issuer.matches(secret, key.digest if key else bytes(32))
        if key is None or not matches or not key.usable:
            raise Unauthorized("The API key is unknown, expired or revoked.")
        if key.suspended:
            raise OrganizationSuspended("The organization of this API key is suspended; ask the gateway's operator.")
        if reading is not None:
            self._known.keep(prefix, key, reading)
        self._used.add(key.id)
        return Principal(key.id, Scope(key.organization_id, key.subaccount_id))

    async def write_usage(self) -> None:
        """Write when keys were last used; called now and then, since each request would be too often."""
        used, self._used = self._used, set()
        if used:
            async with self._database.connect() as connection:
                await accounts.touch_keys(connection, list(used))

    async def create_key(self, scope: Scope, name: str | None, expires_at: datetime | None) -> tuple[ApiKey, str]:
        """A new key and its secret, which is known this once."""
        token = self._issuer.api_key()
        key_id = new_id()
        with self._audit.noting(Action.API_KEY_CREATED, key_id) as noting:
            noting.details = {"prefix": token.prefix, "subaccountId": _text(scope.subaccount_id)}
            async with self._database.connect() as connection:
                key = await accounts.add_key(
                    connection, scope, NewKey(key_id, name, token.prefix, token.digest, expires_at)
                )
        return key, token.secret

    async def keys(self, scope: Scope, part: Slice = WHOLE_LIST) -> list[ApiKey]:
        with self._audit.noting(Action.API_KEY_READ) as noting:
            noting.details["subaccountId"] = _text(scope.subaccount_id)
            async with self._database.connect() as connection:
                return await accounts.keys(connection, scope, part)

    async def revoke_key(self, scope: Scope, key: UUID | str) -> ApiKey:
        """Returns once no gateway accepts the key. Raises NotFound."""
        with self._audit.noting(Action.API_KEY_REVOKED, key if isinstance(key, UUID) else None) as noting:
            async with self._database.connect() as connection:
                revoked = await accounts.revoke_key(connection, scope, key)
            if revoked is None:
                raise not_found("api_key", key)
            noting.object_id = revoked.id
            noting.details["prefix"] = revoked.prefix
        await self._forgotten()
        return revoked

    async def _forgotten(self) -> None:
        """Return once no gateway accepts a key that is refused by the rows."""
        self._known.forget()
        await forgotten_elsewhere(self._database, self._gateway_id)

    async def create_subaccount(
        self,
        principal: Principal,
        name: str,
        *,
        external_id: str | None = None,
        limits: Limits | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Subaccount:
        """Raises Forbidden, Conflict where another one of the organization has this `external_id`."""
        _require_organization(principal)
        subaccount_id = new_id()
        new = NewSubaccount(subaccount_id, name, _slug(name, subaccount_id), external_id, limits or Limits(), metadata)
        with self._audit.noting(Action.SUBACCOUNT_CREATED, subaccount_id):
            async with self._database.connect() as connection:
                return await accounts.add_subaccount(connection, principal.scope.organization_id, new)

    async def subaccounts(self, scope: Scope, part: Slice = WHOLE_LIST) -> list[Subaccount]:
        with self._audit.noting(Action.SUBACCOUNT_READ):
            async with self._database.connect() as connection:
                return await accounts.subaccounts_of(connection, scope, part)

    async def subaccount(self, scope: Scope, subaccount_id: UUID) -> Subaccount:
        with self._audit.noting(Action.SUBACCOUNT_READ, subaccount_id):
            return await self._subaccount(scope, subaccount_id)

    async def _subaccount(self, scope: Scope, subaccount_id: UUID) -> Subaccount:
        async with self._database.connect() as connection:
            found = await accounts.subaccount(connection, scope, subaccount_id)
        return _found(found, subaccount_id)

    async def change_subaccount(
        self, principal: Principal, subaccount_id: UUID, **changes: Unpack[SubaccountChanges]
    ) -> Subaccount:
        """Change what is given. Raises NotFound, Forbidden, Conflict where another one has the `external_id`."""
        _require_organization(principal, subaccount_id)
        with self._audit.noting(Action.SUBACCOUNT_CHANGED, subaccount_id) as noting:
            noting.details["fields"] = sorted(changes)
            async with self._database.connect() as connection:
                found = await accounts.change_subaccount(connection, principal.scope, subaccount_id, **changes)
            return _found(found, subaccount_id)

    async def archive_subaccount(self, principal: Principal, subaccount_id: UUID) -> Subaccount:
        """Refuse a subaccount's keys; its resources stay readable by its organization. Returns once no gateway accepts
        them. Raises NotFound, Forbidden."""
        _require_organization(principal, subaccount_id)
        with self._audit.noting(Action.SUBACCOUNT_ARCHIVED, subaccount_id):
            async with self._database.connect() as connection:
                found = await accounts.archive_subaccount(connection, principal.scope, subaccount_id)
            archived = _found(found, subaccount_id)
        await self._forgotten()
        return archived

    async def owner(self, principal: Principal, subaccount_id: UUID | None) -> Scope:
        """The owner of a new resource: the caller, or the subaccount that it names. Raises NotFound for one outside the
        caller's scope, Conflict for an archived one."""
        if subaccount_id is None or subaccount_id == principal.scope.subaccount_id:
            return principal.scope
        if not principal.is_organization:
            raise not_found("subaccount", subaccount_id)
        return await self.scope_of_subaccount(principal.scope, subaccount_id)

    async def scope_of_subaccount(self, scope: Scope, subaccount_id: UUID) -> Scope:
        """The scope of a subaccount inside `scope`. Raises NotFound, Conflict for an archived one, which takes nothing
        new."""
        found = await self._subaccount(scope, subaccount_id)
        if found.status != "active":
            raise Conflict(f"Subaccount {subaccount_id} is archived.", "subaccount.archived")
        return Scope(scope.organization_id, subaccount_id)

    async def create_key_of(
        self, principal: Principal, subaccount_id: UUID, name: str | None, expires_at: datetime | None
    ) -> tuple[ApiKey, str]:
        """A new key of a subaccount, and its secret. Raises NotFound, Forbidden, Conflict for an archived one."""
        _require_organization(principal, subaccount_id)
        return await self.create_key(await self.scope_of_subaccount(principal.scope, subaccount_id), name, expires_at)

    async def keys_of(self, principal: Principal, subaccount_id: UUID, part: Slice = WHOLE_LIST) -> list[ApiKey]:
        """Keys of a subaccount, archived or not. Raises NotFound."""
        return await self.keys(await self._scope_of_keys(principal, subaccount_id), part)

    def require_organization(self, principal: Principal, subaccount_id: UUID) -> None:
        """Raises Forbidden for a subaccount's own key, NotFound for that of another subaccount."""
        _require_organization(principal, subaccount_id)

    async def revoke_key_of(self, principal: Principal, subaccount_id: UUID, key_id: UUID) -> ApiKey:
        """Revoke a key of a subaccount, archived or not; idempotent. Raises NotFound, Forbidden."""
        _require_organization(principal, subaccount_id)
        return await self.revoke_key(await self._scope_of_keys(principal, subaccount_id), key_id)

    async def _scope_of_keys(self, principal: Principal, subaccount_id: UUID) -> Scope:
        found = await self._subaccount(principal.scope, subaccount_id)
        return Scope(principal.scope.organization_id, found.id)


def _require_organization(principal: Principal, subaccount_id: UUID | None = None) -> None:
    """Accounts are managed by the organization. To a subaccount's key, other subaccounts do not exist."""
    if principal.is_organization:
        return
    if subaccount_id is not None and subaccount_id != principal.scope.subaccount_id:
        raise not_found("subaccount", subaccount_id)
    raise Forbidden("Only a key of the organization may do this.", "auth.forbidden")


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)


def _found(subaccount: Subaccount | None, subaccount_id: UUID) -> Subaccount:
    if subaccount is None:
        raise not_found("subaccount", subaccount_id)
    return subaccount


def _slug(name: str, subaccount_id: UUID) -> str:
    """A readable name for addresses; the id's end keeps two of one name apart."""
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:48]
    return f"{readable or 'subaccount'}-{subaccount_id.hex[-8:]}"
