"""Several gateways of this process on one database, each without browsers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
from sqlalchemy import text

from gateway.app import Gateway, build
from gateway.core.closes import Close, Ended
from gateway.domain.attachments import Attachments
from gateway.domain.leases.service import Grant, Leases
from gateway.domain.secrets import KeySource
from gateway.settings import Settings
from gateway.store.database import Database
from tests.support.api import make_runtime, ok
from tests.support.launchers import WorkingLauncher

ENDED = Ended(Close.CLIENT_CLOSED, bytes_from_client=10, bytes_to_client=2_000, commands=3)


@dataclass(frozen=True)
class Minted:
    id: UUID
    path: str
    token: str

    @property
    def runtime_id(self) -> UUID:
        return UUID(self.path.split("/")[5])


@dataclass
class Node:
    """One of several gateways on one database."""

    gateway: Gateway
    api: httpx.AsyncClient
    database: Database
    id: UUID
    launcher: WorkingLauncher

    @property
    def leases(self) -> Leases:
        return self.gateway.services.leases

    @property
    def sockets(self) -> Attachments:
        return self.leases.attachments

    @property
    def hosted(self) -> set[UUID]:
        """Runtimes whose browser is here, also those that are just ending."""
        return self.gateway.services.runtimes.hosted()

    @property
    def live(self) -> int:
        """How many runtimes count toward this gateway's capacity."""
        return self.gateway.services.runtimes.capacity.live

    async def round(self) -> None:
        await self.gateway.supervisor.round()

    async def runtime(self) -> str:
        """Path of a new runtime, whose browser is here."""
        made = await make_runtime(self.api)
        return f"/v1/spaces/{made['spaceId']}/runtimes/{made['id']}"

    async def lease(self, runtime: str | None = None, **asked: Any) -> Minted:
        path = f"{runtime or await self.runtime()}/connections"
        made = await ok(self.api.post(path, json={"protocol": "cdp", **asked}))
        return Minted(UUID(made["id"]), f"{path}/{made['id']}", made["endpoint"]["url"].rsplit("/", 1)[1])

    async def socket(self, lease: Minted) -> Grant:
        """An admitted socket, as far as the domain sees it."""
        grant = await self.leases.attach(lease.token)
        async with self.leases.admit(grant):
            pass
        return grant

    async def usage(self, lease: Minted) -> dict[str, Any]:
        usage: dict[str, Any] = (await ok(self.api.get(lease.path)))["usage"]
        return usage

    async def execute(self, statement: str, **values: Any) -> list[Any]:
        async with self.database.connect() as connection:
            result = await connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []


@asynccontextmanager
async def joined(
    settings: Settings, database: Database, keys: KeySource, api_key: str, gateway_id: UUID | None = None
) -> AsyncIterator[Node]:
    gateway_id = gateway_id or uuid4()
    launcher = WorkingLauncher()
    gateway = await build(settings, database, keys, launcher, gateway_id, ())
    gateway.supervisor.reached_at(f"http://{gateway_id}.internal:8787")
    transport = httpx.ASGITransport(gateway.app)
    headers = {"Authorization": f"Bearer {api_key}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as api:
        yield Node(gateway, api, database, gateway_id, launcher)
