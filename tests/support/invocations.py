"""Invocations of a gateway of this process, as an execution makes them."""

from __future__ import annotations

from uuid import UUID

import httpx

from gateway.app import Gateway
from gateway.core.runtime_ref import RuntimeAt
from gateway.core.scope import Scope
from gateway.domain.invocations import InvocationRequest, Outcome
from tests.support.api import Json, ok

COMPLETED = Outcome("completed", result={"mode": "fail-fast", "steps": []})


async def make_invocation(
    gateway: Gateway,
    client: httpx.AsyncClient,
    runtime: Json,
    outcome: Outcome | None = COMPLETED,
    headers: dict[str, str] | None = None,
) -> str:
    """Id of one that has ended, or with None runs, of the key in `headers` or the client's own."""
    whoami = await ok(client.get("/v1/auth/whoami", headers=headers))
    subaccount = whoami["subaccountId"]
    owner = Scope(UUID(whoami["organizationId"]), None if subaccount is None else UUID(subaccount))
    at = RuntimeAt(UUID(runtime["spaceId"]), UUID(runtime["id"]))
    invocations = gateway.services.invocations
    request = InvocationRequest("playwright", "execute", is_durable=True, total_steps=1)
    begun = await invocations.begin(owner, at, UUID(runtime["activeRunId"]), request)
    if outcome is not None:
        await invocations.finish(begun.invocation.id, outcome)
    return str(begun.invocation.id)
