"""The first start: creates the organization and its first API key."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from uuid import UUID

from gateway.core.ids import new_id
from gateway.core.scope import Scope
from gateway.crypto.tokens import TokenIssuer
from gateway.domain.audit import Action, Audit
from gateway.domain.secrets import SecretStore
from gateway.store import accounts
from gateway.store.database import Database


async def ensure_organization(database: Database) -> UUID:
    """Id of the organization, which is created if there is none."""
    async with database.begin() as connection:
        await accounts.lock_first_start(connection)
        found = await accounts.first_organization(connection)
        if found is None:
            found = new_id()
            await accounts.add_organization(connection, found, "default")
        return found


async def write_first_key(database: Database, secrets: SecretStore, file: Path) -> str | None:
    """Make the organization's first API key and write it to `file` (0600); None when it has keys already.

    The file comes first and the row second, so that an interrupted start leaves no key whose secret is lost.
    """
    organization_id = await ensure_organization(database)
    key_id = new_id()
    async with database.begin() as connection:
        await accounts.lock_first_start(connection)
        if await accounts.keys(connection, Scope(organization_id)):
            return None
        token = TokenIssuer(await secrets.pepper(connection)).api_key()
        await asyncio.to_thread(_write_private, file, f"{token.secret}\n")
        first = accounts.NewKey(key_id, "first", token.prefix, token.digest)
        await accounts.add_key(connection, Scope(organization_id), first)
    audit = Audit(database)
    audit.note(
        Action.API_KEY_CREATED,
        key_id,
        details={"prefix": token.prefix, "subaccountId": None},
        scope=Scope(organization_id),
    )
    await audit.write()
    return token.secret


def _write_private(file: Path, content: str) -> None:
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(content)
