"""/v1/workspaces/{id}/runtimes/{alias}/help: the calls of each driver, as they are declared."""

from __future__ import annotations

import httpx
import pytest
from jsonschema import Draft202012Validator

from gateway.automation.vocabularies import VOCABULARIES
from tests.support.api import checked, make_runtime, ok, problems, refused


@pytest.fixture
def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    return checked(client)


@pytest.mark.parametrize("driver", VOCABULARIES)
async def test_all_calls_of_a_driver_are_described(driver: str, client: httpx.AsyncClient) -> None:
    workspace = await ok(client.post("/v1/workspaces", json={"name": "first"}))
    path = f"/v1/workspaces/{workspace['id']}/runtimes"
    await ok(client.post(path, json={"alias": "main", "driver": driver}))
    answer = await ok(client.get(f"{path}/main/help"))
    assert (answer["runtime"], answer["driver"], answer["status"]) == ("main", driver, "active")
    assert answer["executeRoute"] == f"/v1/workspaces/{workspace['id']}/execute"
    calls = {each["call"]: each for each in answer["calls"]}
    assert list(calls) == VOCABULARIES[driver].names()
    for name, described in calls.items():
        declared = VOCABULARIES[driver].get(name)
        assert declared is not None
        Draft202012Validator.check_schema(described["arguments"])
        assert list(described["arguments"].get("properties", {})) == [each.name for each in declared.parameters]
        assert described["summary"]
        assert (described["on"], described["binds"]) == (declared.on, declared.binds)
        # As steps take it.
        declared.arguments(described["step"].get("args"), "args")
    assert "page.navigated" in answer["events"]["supportedEventTypes"]


async def test_calls_are_found_by_how_they_begin(client: httpx.AsyncClient) -> None:
    runtime = await make_runtime(client)
    path = f"/v1/workspaces/{runtime['spaceId']}/runtimes/{runtime['id']}/help"
    everything = await ok(client.get(path))
    assert everything["driver"] is None
    found = await ok(client.get(path, params={"call": "keyboard."}))
    assert found["calls"] == [each for each in everything["calls"] if each["call"].startswith("keyboard.")]
    assert len(found["calls"]) > 1
    assert (await ok(client.get(path, params={"call": "nothing"})))["calls"] == []
    assert await problems(client.get(path, params={"name": "x"})) == {"name": "field.unknown"}
    await refused(client.get(path.replace(runtime["id"], "none")), 404, "runtime.not_found")
