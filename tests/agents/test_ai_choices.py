"""The codes of each choice of a model that can't be used: in invocations, in steps of executions, in operations.

Toys in the place of the library, on a real browser; what decides is `tests/domain/test_ai_choice.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from gateway.core.ids import new_id
from tests.support.agent_gateway import ASK, Toys, created, ended, gateway_of_agents
from tests.support.api import Json, refused
from tests.support.execution import Executing, step
from tests.support.fake_providers import KEYS
from tests.support.live import LiveGateway
from tests.support.model_server import ModelServer, Text
from tests.support.waiting import until

# Names of connections, and the code of a request for each.
UNUSABLE = {
    "off": (409, "disabled"),
    "empty": (409, "no_key"),
    "unlisted": (403, "forbidden"),
    "twin": (409, "ambiguous"),
    "nothing": (404, "not_found"),
}
# What happens to a connection while an agent uses it, and the code of the agent's end.
MEANWHILE = {"disabled": {"enabled": False}, "no_key": {"apiKey": None}, "deleted": None}
# Calls its model, waits for the test, and calls it again.
TWICE = f"""{ASK}
ask("first")
step()
while not os.path.exists(os.path.join(os.environ["HOME"], "go")):
    time.sleep(0.01)
try:
    ask("second")
except Exception as error:
    say({{"type": "failed", "kind": "failed", "message": str(error)}})
"""


@pytest_asyncio.fixture(scope="module")
async def live(
    template_url: str, tmp_path_factory: pytest.TempPathFactory, running_models: ModelServer
) -> AsyncIterator[LiveGateway]:
    directory = tmp_path_factory.mktemp("live")
    options = {
        "openai_base_url": running_models.base_url("openai"),
        "platform_ai_provider": "openai",
        "platform_ai_models": ("gpt-of-the-operator",),
        "platform_ai_api_key_file": directory / "key",
    }
    async with gateway_of_agents(template_url, directory, **options) as gateway, gateway.visit():
        gateway.gateway.services.agents.runs.agents = Toys(gateway.gateway.services.settings, directory / "toys")
        yield gateway


@pytest.fixture
def toys(live: LiveGateway, models: ModelServer) -> Toys:
    models.forget()
    models.rules = [lambda asked: Text("Yes.")]
    found = live.gateway.services.agents.runs.agents
    assert isinstance(found, Toys)
    found.processes.clear()
    return found


async def connection(live: LiveGateway, label: str, **changes: Any) -> str:
    body = {"label": label, "provider": "openai", "apiKey": KEYS["openai"], "defaultModel": "gpt-5", **changes}
    given = {name: value for name, value in body.items() if value is not None}
    made: str = (await live.remote.post("/v1/ai-connections", given))["id"]
    return made


@pytest_asyncio.fixture(scope="module")
async def executing(live: LiveGateway) -> Executing:
    """A runtime whose mounts allow all connections of UNUSABLE but one, and have two defaults."""
    allowed = [
        await connection(live, "off", enabled=False),
        await connection(live, "empty", apiKey=None),
        await connection(live, "twin"),
        await connection(live, "twin"),
        await connection(live, "bare", defaultModel=None),
        await connection(live, "main"),
    ]
    await connection(live, "unlisted")
    other = await connection(live, "claude", provider="anthropic", apiKey=KEYS["anthropic"])
    mounts = {
        "allow": [f"ai-{each}" for each in (*allowed, other)],
        "defaults": {"openai": f"ai-{allowed[-1]}", "anthropic": f"ai-{other}"},
    }
    workspace = await live.remote.post("/v1/workspaces", {"name": "choices", "mounts": {"ai": mounts}})
    body = {"kind": "browser", "alias": "main", "driver": "stagehand"}
    runtime = await live.remote.post(f"/v1/workspaces/{workspace['id']}/runtimes", body)
    return Executing(live.remote, f"/v1/spaces/{workspace['id']}/runtimes/{runtime['id']}", "")


async def post(executing: Executing, **ai: Any) -> Any:
    """An answer to an invocation's request with this choice."""
    body = {"provider": "stagehand", "method": "agent", "input": {"instruction": "result(1)"}, "ai": ai}
    return await executing.remote.api.post(f"{executing.path}/invocations", json=body)


def agent(code: str, **options: Any) -> Json:
    return step("agent.execute", code, None, options)


async def failed(executing: Executing, *steps: Json) -> Json:
    """The error of the last step; no part of the answer has the other generation's word for it."""
    results = await executing.run(*steps)
    assert "ai_connection" not in str(results)
    error: Json = results[-1]["error"]
    return error


@pytest.mark.parametrize("name", UNUSABLE)
async def test_one_that_can_not_be_used_is_refused_by_its_code(executing: Executing, toys: Toys, name: str) -> None:
    status, reason = UNUSABLE[name]
    await refused(post(executing, connection=name), status, f"ai_connection.{reason}")
    assert (await failed(executing, agent("result(1)", connection=name)))["code"] == f"ai_credential.{reason}"
    assert toys.processes == []


async def test_one_of_another_tenant_is_not_found(executing: Executing, toys: Toys) -> None:
    made = await executing.remote.post("/v1/subaccounts", {"name": "other"})
    body = {"label": "theirs", "provider": "openai", "apiKey": KEYS["openai"], "subaccountId": made["id"]}
    foreign = (await executing.remote.post("/v1/ai-connections", body))["id"]
    for name in (foreign, str(new_id())):
        await refused(post(executing, connection=name), 404, "ai_connection.not_found")
        assert (await failed(executing, agent("result(1)", connection=name)))["code"] == "ai_credential.not_found"
    assert toys.processes == []


async def test_what_the_request_lacks_is_named(executing: Executing, toys: Toys) -> None:
    await refused(post(executing), 400, "ai_connection.required")
    assert (await failed(executing, agent("result(1)")))["code"] == "ai_credential.required"
    await refused(post(executing, source="platform", model="gpt-5"), 403, "ai_connection.model_forbidden")
    private = {"provider": "openai-compatible", "model": "m", "apiKey": "sk-inline-0123456789"}
    wrong = [
        ({"connection": "bare"}, "ai.model", "field.missing"),
        ({"connection": "main", "provider": "anthropic"}, "ai.provider", "field.invalid"),
        ({"source": "platform", "provider": "google"}, "ai.provider", "field.invalid"),
        ({"provider": "openai", "apiKey": "sk-inline-0123456789"}, "ai.model", "field.missing"),
        ({**private, "baseUrl": "http://10.0.0.1/v1"}, "ai.baseUrl", "egress.private_address"),
        (private, "ai.baseUrl", "field.invalid"),
    ]
    for ai, field, code in wrong:
        error = (await refused(post(executing, **ai), 400, "request.invalid"))["details"]["errors"][0]
        assert (error["field"], error["code"]) == (field, code), error
    error = await failed(executing, agent("result(1)", connection="bare"))
    assert (error["code"], error["details"]["errors"][0]["field"]) == ("request.invalid", "model")
    assert toys.processes == []


@pytest.mark.parametrize("reason", MEANWHILE)
async def test_one_that_is_taken_away_meanwhile_is_the_cause(
    live: LiveGateway, executing: Executing, toys: Toys, models: ModelServer, reason: str
) -> None:
    space = await live.remote.post("/v1/spaces", {"name": reason, "mounts": {"ai": {}}})
    body: Json = {"kind": "browser", "alias": "main", "driver": "stagehand"}
    runtime = await live.remote.post(f"/v1/workspaces/{space['id']}/runtimes", body)
    own = Executing(live.remote, f"/v1/spaces/{space['id']}/runtimes/{runtime['id']}", "")

    async def take_away(connection_id: str, number: int) -> None:
        await until(lambda: len(models.seen) == number, "the agent has called its model", 120)
        path = f"/v1/ai-connections/{connection_id}"
        change = MEANWHILE[reason]
        sent = live.remote.api.delete(path) if change is None else live.remote.api.patch(path, json=change)
        (await sent).raise_for_status()
        (toys.processes[-1].directory / "go").touch()

    given = {"instruction": TWICE}
    used = await connection(live, "invoked")
    invocation = await created(own, ai={"connection": used}, input=given)
    await take_away(used, 1)
    found = await ended(own, invocation)
    assert (found["status"], found["error"]["code"]) == ("failed", f"ai_connection.{reason}"), found

    used = await connection(live, "step")
    body = {"runtime": own.id, "steps": [agent(TWICE, connection=used)], "prefer": "async"}
    body["idempotencyKey"] = reason
    operation = (await live.remote.post(own.url, body))["operation"]
    await take_away(used, 2)
    told = await own.operation(operation["id"])
    assert told["result"]["steps"][0]["error"]["code"] == f"ai_credential.{reason}", told
    assert "ai_connection" not in str(told)
    again = await live.remote.post(own.url, body)
    assert again["steps"] == told["result"]["steps"]
    assert len(models.seen) == 2
    headers = {"Last-Event-ID": "0"}
    url = "/v1/updates/stream"
    async with live.remote.api.stream("GET", url, headers=headers) as updates:
        async for line in updates.aiter_lines():
            assert "ai_connection." not in line
            if operation["id"] in line and f"ai_credential.{reason}" in line:
                break


async def test_the_operators_key_that_can_not_be_read_is_the_cause(
    live: LiveGateway, executing: Executing, toys: Toys, models: ModelServer
) -> None:
    file = live.gateway.services.settings.platform_ai_api_key_file
    assert file is not None
    code = (
        f"{ASK}\ntry:\n    ask('x')\nexcept Exception:\n    say({{'type': 'failed', 'kind': 'model', 'message': ''}})"
    )
    invocation = await created(executing, ai={"source": "platform"}, input={"instruction": code})
    assert not file.exists()
    assert (await ended(executing, invocation))["error"]["code"] == "ai_connection.platform_unavailable"
    assert models.seen == []
    assert len(toys.processes) == 1
