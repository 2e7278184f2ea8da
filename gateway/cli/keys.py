"""`gateway keys`: API keys of organizations and their subaccounts."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from gateway.cli.auditing import audited
from gateway.cli.commands import Commands
from gateway.cli.output import accept_json, say, say_json
from gateway.cli.own_keys import with_own_keys
from gateway.cli.values import future_time
from gateway.cli.with_database import require_schema, with_database
from gateway.core.scope import Scope
from gateway.domain.accounts.access import Access
from gateway.domain.accounts.first_start import ensure_organization
from gateway.domain.accounts.organizations import Organizations
from gateway.domain.audit import Audit
from gateway.domain.secrets import KeySource, SecretStore
from gateway.settings import Settings
from gateway.store.accounts import ApiKey
from gateway.store.database import Database


def add_to(commands: Commands) -> None:
    group = commands.group("keys")
    creation = commands.add("create", "Make an API key and show it once.", create, to=group)
    creation.add_argument("--name", help="a name for lists")
    creation.add_argument("--subaccount", type=UUID, help="id of the subaccount that it is for")
    creation.add_argument(
        "--expires-at", type=future_time, metavar="TIME", help="time with zone, such as 2027-01-31T00:00:00Z"
    )
    listing = commands.add("list", "List API keys, without the keys.", list_keys, to=group)
    accept_json(listing)
    revocation = commands.add("revoke", "Refuse an API key from now on.", revoke, to=group)
    revocation.add_argument("key", help="its id or its prefix (bctrl_...)")
    for parser in (creation, listing, revocation):
        parser.add_argument("--org", metavar="ID", help="id or name of the organization; without it, the first one")


@dataclass(frozen=True, slots=True)
class _Keys:
    access: Access
    organization: Scope


@contextlib.asynccontextmanager
async def _keys(loaded: Settings, database: Database, organization_name: str | None) -> AsyncIterator[_Keys]:
    """The keys of an organization, by its id or name; of the first one without."""
    from gateway.crypto.tokens import TokenIssuer

    await require_schema(database)
    organization = Scope(await ensure_organization(database))
    if organization_name is not None:
        organization = Scope((await Organizations(database, Audit(database)).find(organization_name)).id)
    async with audited(database, organization) as log:
        async with database.begin() as connection:
            pepper = await SecretStore(KeySource.of(loaded), log).pepper(connection)
        yield _Keys(Access(database, TokenIssuer(pepper), log), organization)


def create(loaded: Settings, parsed: argparse.Namespace) -> int:
    loaded = with_own_keys(loaded)

    async def create(database: Database) -> int:
        async with _keys(loaded, database, parsed.org) as keys:
            scope = keys.organization
            if parsed.subaccount is not None:
                scope = await keys.access.scope_of_subaccount(scope, parsed.subaccount)
            key, secret = await keys.access.create_key(scope, parsed.name, parsed.expires_at)
        say(f"Key {key.id}, shown this once:", file=sys.stderr)
        say(secret)
        return 0

    return with_database(loaded, create)


def list_keys(loaded: Settings, parsed: argparse.Namespace) -> int:
    loaded = with_own_keys(loaded)

    async def listed(database: Database) -> int:
        async with _keys(loaded, database, parsed.org) as keys:
            found = await keys.access.keys(keys.organization)
        if parsed.json:
            say_json([_as_document(key) for key in found])
            return 0
        for key in found:
            whose = f"subaccount {key.subaccount_id}" if key.subaccount_id else "organization"
            state = f"revoked {key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else "active"
            used = f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never"
            say(f"{key.id}  {key.prefix}  {whose}  {key.name or '-'}  {state}  used {used}")
        return 0

    return with_database(loaded, listed)


def _as_document(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "prefix": key.prefix,
        "subaccountId": key.subaccount_id,
        "name": key.name,
        "createdAt": key.created_at,
        "expiresAt": key.expires_at,
        "revokedAt": key.revoked_at,
        "lastUsedAt": key.last_used_at,
    }


def revoke(loaded: Settings, parsed: argparse.Namespace) -> int:
    loaded = with_own_keys(loaded)

    async def revoke(database: Database) -> int:
        async with _keys(loaded, database, parsed.org) as keys:
            try:
                which: UUID | str = UUID(parsed.key)
            except ValueError:
                which = parsed.key
            key = await keys.access.revoke_key(keys.organization, which)
        say(f"Key {key.id} ({key.prefix}) is revoked.")
        return 0

    return with_database(loaded, revoke)
