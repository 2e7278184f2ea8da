""".../agent-context: what an outside agent needs of a space, and nothing that is not so."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.support.api import ENDPOINTS, NEVER, checked, make_runtime, make_space, ok, refused


@pytest.fixture
def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    return checked(client)


async def test_it_has_the_only_live_runtime_and_requests_that_are_served(client: httpx.AsyncClient) -> None:
    space = await make_space(client, mounts={"vault": {"allow": ["prod"]}})
    path = f"/v1/spaces/{space}/agent-context"
    empty = await ok(client.get(path))
    assert (empty["runtime"], empty["space"]["mounts"]) == (None, {"vault": {"allow": ["prod"]}})
    runtime = await make_runtime(client, space)
    found = await ok(client.get(path))
    assert found["runtime"]["id"] == runtime["id"]
    served = {endpoint.operation_id: endpoint for endpoint in ENDPOINTS}
    for operation in found["operations"]:
        endpoint = served[operation["id"]]
        assert endpoint.method == operation["method"]
        assert re.fullmatch(re.sub(r"\\{[^{}]*\\}", "[^/]+", re.escape(endpoint.path)), operation["path"]), operation
    assert f"/v1/runs/{runtime['activeRunId']}/events" in {each["path"] for each in found["operations"]}
    assert [each["operation"] for each in found["examples"]] == ["runtimes-connections-create"]
    (example,) = found["examples"]
    await ok(client.request(example["method"], example["path"], json=example["body"]))


async def test_full_has_an_example_of_each_body_and_a_runtime_may_be_named(client: httpx.AsyncClient) -> None:
    space = await make_space(client)
    first, _ = await make_runtime(client, space), await make_runtime(client, space)
    path = f"/v1/spaces/{space}/agent-context"
    full = await ok(client.get(path, params={"detail": "full"}))
    assert full["runtime"] is None
    assert len(full["examples"]) > 5
    assert (await ok(client.get(path, params={"include": "examples"})))["examples"] == full["examples"]
    named = await ok(client.get(path, params={"runtimeId": first["id"]}))
    assert named["runtime"]["id"] == first["id"]
    await refused(client.get(path, params={"runtimeId": NEVER}), 404, "runtime.not_found")
    await refused(client.get(f"/v1/spaces/{NEVER}/agent-context"), 404, "space.not_found")
    await refused(client.get(path, params={"detail": "all"}), 400, "request.invalid")
