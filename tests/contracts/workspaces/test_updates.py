"""/v1/updates/stream in the words of this contract."""

from __future__ import annotations

import json
import re

import httpx
import pytest

from gateway.app import Gateway
from tests.support.api import Json, checked, make_runtime, ok


@pytest.fixture
def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    return checked(client)


async def test_the_life_of_a_workspace_is_reported_in_the_words_of_this_contract(
    client: httpx.AsyncClient, gateway: Gateway
) -> None:
    workspace = (await ok(client.post("/v1/workspaces", json={"name": "first"})))["id"]
    runtime = await ok(client.post(f"/v1/workspaces/{workspace}/runtimes", json={"alias": "main"}))
    await ok(client.post(f"/v1/workspaces/{workspace}/runtimes/main/stop"))
    for _ in range(2):
        await ok(client.post(f"/v1/workspaces/{workspace}/close"))
    await ok(client.delete(f"/v1/workspaces/{workspace}"))
    await make_runtime(client)
    await gateway.services.events.write()
    text = (await client.get("/v1/updates/stream", params={"cursor": "0", "limit": "7"})).text

    found: list[Json] = [json.loads(data) for data in re.findall(r"^data: (.*)$", text, re.MULTILINE)]
    types = [each["type"] for each in found]
    assert re.findall(r"^event: (.*)$", text, re.MULTILINE) == types
    assert types == [
        "workspace.created",
        "runtime.started",
        "runtime.stopped",
        "workspace.closed",
        "workspace.deleted",
        "workspace.created",
        "runtime.started",
    ]
    about = {"spaceId": workspace, "workspaceId": workspace}
    of_runtime = {**about, "runtimeId": runtime["id"], "runId": runtime["activeRunId"], "alias": "main"}
    started, stopped = found[1:3]
    assert started["data"] == of_runtime
    assert stopped["data"] == {**of_runtime, "code": "runtime.stopped", "message": "The runtime was stopped."}
    assert found[3]["data"] == {**about, "name": "first"}
    # One that has no alias.
    assert "alias" not in found[6]["data"]
