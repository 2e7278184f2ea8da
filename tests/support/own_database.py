"""What gateways of one database share: a copy of the template, master keys, and the first API key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.crypto.keyring import create_key_file
from gateway.domain.accounts.first_start import write_first_key
from gateway.domain.secrets import KeySource, SecretStore
from gateway.store.database import Database
from tests.support.databases import fresh_database


@dataclass(frozen=True)
class OwnDatabase:
    database: Database
    keys: KeySource
    api_key: str


@asynccontextmanager
async def own_database(template_url: str, directory: Path) -> AsyncIterator[OwnDatabase]:
    """The keys are files of the directory."""
    create_key_file(directory / "master-keys")
    keys = KeySource((directory / "master-keys").read_text, directory / "master-keys")
    async with fresh_database(template_url) as url:
        database = Database(url, 10)
        api_key = await write_first_key(database, SecretStore(keys), directory / "api-key")
        assert api_key is not None
        yield OwnDatabase(database, keys, api_key)
        await database.close()
