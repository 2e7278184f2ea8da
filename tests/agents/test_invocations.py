"""Invocations of agents from create to their end, with a toy in the place of a library: its program is the instruction.

One gateway without browsers serves all of them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import psutil
import pytest
import pytest_asyncio
from sqlalchemy import text

from gateway.core.shares import Taker
from gateway.domain.agents.queue import AgentQueue
from tests.support.agent_gateway import ASK
from tests.support.agent_house import DONE, WAITS, House, house_of_toys
from tests.support.api import Json, make_runtime, ok, refused
from tests.support.fake_providers import KEYS
from tests.support.model_server import Failure, ModelServer, Text
from tests.support.waiting import until

PNG = "iVBORw0KGgo="


@pytest.fixture(scope="module")
def models() -> Iterator[ModelServer]:
    with ModelServer() as server:
        server.rules = [lambda asked: Text(f"You wrote: {asked.text}")]
        yield server


@pytest_asyncio.fixture(scope="module")
async def house(
    template_url: str, tmp_path_factory: pytest.TempPathFactory, models: ModelServer
) -> AsyncIterator[House]:
    async with house_of_toys(template_url, tmp_path_factory.mktemp("house"), models, agents_at_once=2) as made:
        yield made


@pytest_asyncio.fixture
async def runtime(house: House) -> Json:
    house.processes.clear()
    house.models.forget()
    house.models.rules = [lambda asked: Text(f"You wrote: {asked.text}")]
    return await make_runtime(house.client)


async def test_an_agent_works_and_all_of_it_is_recorded(house: House, runtime: Json) -> None:
    code = f"""{ASK}
step(1, total=4, action="click", reason="because of " + job["model"]["token"], url="https://example.com/")
step(2, action="read", reason="", screenshot="{PNG}")
result({{"success": True, "completed": True, "message": ask("hello"), "output": {{"price": 3}}}})
"""
    schema = {"type": "object", "properties": {"price": {"type": "number"}}, "required": ["price"]}
    before = (await ok(house.client.get("/v1/usage")))["total"]
    created = await house.create(runtime, code, outputSchema=schema, screenshots=True)
    assert (created["provider"], created["method"], created["executionMode"]) == ("stagehand", "agent", "durable")
    assert (created["status"], created["runId"]) == ("queued", runtime["activeRunId"])
    ended = await house.ended(created)
    assert (ended["status"], ended["error"]) == ("succeeded", None)
    assert ended["result"]["output"] == {"price": 3}
    assert ended["result"]["message"] == "You wrote: hello"
    assert ended["usage"]["calls"] == 1
    assert ended["usage"]["inputTokens"] > 0
    after = (await ok(house.client.get("/v1/usage")))["total"]
    assert {name: after[name] - count for name, count in before.items()} == ended["usage"]
    await house.gateway.services.events.write()
    first, second = [event["data"] for event in await house.events(created["runId"])]
    assert first == {
        "invocationId": created["id"],
        "step": 1,
        "totalSteps": 4,
        "action": "click",
        "text": "because of ***",
        "tokens": 0,
        "url": "https://example.com/",
    }
    artifacts = (await ok(house.client.get(f"/v1/runs/{created['runId']}/artifacts")))["artifacts"]
    assert [each["id"] for each in artifacts] == [second["artifactId"]]
    timeline = (await ok(house.client.get(f"/v1/runs/{created['runId']}/activity")))["items"]
    assert "The agent's step 1 of 4: because of ***" in [item["message"] for item in timeline]
    async with house.database.connect() as connection:
        row = (await connection.execute(text("SELECT ai, usage FROM invocations WHERE id = :id"), created)).one()
        assert row.ai == {"source": "inline", "provider": "openai", "model": "gpt-5", "connectionId": None}
        assert row.usage == ended["usage"]
    await house.has_nothing(runtime)


async def test_what_is_wrong_is_refused_before_there_is_a_row(house: House, runtime: Json) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"method": "act", "outputSchema": {"type": "object"}}, "outputSchema"),
        ({"provider": "browser-use", "method": "act"}, "method"),
        ({"input": {"instruction": DONE, "selector": "h1"}}, "input.selector"),
        ({"input": {"instruction": DONE, "maxSteps": 101}}, "input.maxSteps"),
        ({"timeoutMs": 3_600_001}, "timeoutMs"),
        ({"maxTokens": 2_000_001}, "maxTokens"),
        ({"toolset": "nothing"}, "toolset"),
        ({"ai": {"source": "inline", "provider": "openai", "model": "gpt-5"}}, "ai.apiKey"),
        ({"method": None}, "method"),
        ({"operation": "agent.execute"}, ""),
    ]
    for changes, field in cases:
        body = await refused(house.post(runtime, DONE, **changes), 400, "request.invalid")
        assert body["details"]["errors"][0]["field"] == field, body
    schema = await refused(
        house.post(runtime, DONE, outputSchema={"type": "nothing"}), 400, "invocation.output_schema_invalid"
    )
    assert schema["details"]["errors"][0]["field"] == "outputSchema"
    await refused(house.post(runtime, DONE, ai={}), 400, "ai_connection.required")
    await refused(house.post(runtime, DONE, ai={"source": "platform"}), 501, "ai_connection.platform_off")
    await refused(house.post({**runtime, "id": str(uuid4())}, DONE), 404, "runtime.not_found")
    async with house.database.connect() as connection:
        rows = await connection.execute(text("SELECT count(*) FROM invocations WHERE runtime_id = :id"), runtime)
        assert rows.scalar_one() == 0
    assert house.processes == []


async def test_at_the_limits_a_request_is_accepted(house: House, runtime: Json) -> None:
    most = {"timeoutMs": 3_600_000, "maxTokens": 2_000_000, "input": {"instruction": DONE, "maxSteps": 100}}
    assert (await house.run(runtime, "", **most))["status"] == "succeeded"
    operation = {"method": None, "operation": "agent.execute"}
    given = {name: value for name, value in operation.items() if value is not None}
    answer = await house.client.post(
        f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}/invocations",
        json={
            "provider": "stagehand",
            "ai": {"provider": "openai", "model": "gpt-5", "apiKey": KEYS["openai"]},
            "input": {"instruction": DONE},
            **given,
        },
    )
    assert answer.status_code == 202, answer.text
    assert (await house.ended(answer.json()))["method"] == "agent"


@pytest.mark.parametrize(
    ("code", "body", "expected"),
    [
        ('result({"success": True, "completed": True, "output": {"price": "3"}})', {}, "invocation.output_invalid"),
        ('result({"success": False, "message": "I could not"})', {}, "invocation.not_completed"),
        ("result(7)", {}, "invocation.agent_failed"),
        ('say({"type": "failed", "kind": "steps", "message": "no more"})', {}, "invocation.max_steps"),
        ("sys.exit(3)", {}, "invocation.agent_failed"),
        (WAITS, {"timeoutMs": 500}, "invocation.timeout"),
        (f'{ASK}\ntry:\n    ask("hello")\nexcept Exception as error:\n    '
         'say({"type": "failed", "kind": "failed", "message": "no"})', {}, "invocation.model_failed"),
    ],
)  # fmt: skip
async def test_how_it_failed_has_a_code(
    house: House, runtime: Json, code: str, body: dict[str, Any], expected: str
) -> None:
    house.models.next(Failure(500))
    schema = {"type": "object", "properties": {"price": {"type": "number"}}}
    ended = await house.run(runtime, code, outputSchema=schema, **body)
    assert (ended["status"], ended["error"]["code"]) == ("failed", expected), ended
    if expected == "invocation.output_invalid":
        assert ended["result"]["output"] == {"price": "3"}
        assert ended["error"]["details"]["errors"][0]["field"] == "price"
    if expected == "invocation.model_failed":
        assert ended["error"]["details"]["httpStatus"] == 500
    await house.has_nothing(runtime)


async def test_a_cancelled_one_is_cancelled_at_whichever_moment(house: House, runtime: Json) -> None:
    chance = random.Random(14)
    for _ in range(12):
        created = await house.create(runtime, WAITS)
        await asyncio.sleep(chance.uniform(0, 0.2))
        cancelled = await ok(house.client.post(f"/v1/invocations/{created['id']}/cancel"))
        assert cancelled["status"] in ("cancelling", "cancelled")
        ended = await house.ended(created)
        assert (ended["status"], ended["error"]) == ("cancelled", None)
    await house.has_nothing(runtime)


async def test_the_end_of_the_runtime_and_of_the_lease_are_causes(house: House, runtime: Json) -> None:
    working = 'step()\nwhile not os.path.exists(os.path.join(os.environ["HOME"], "go")): pass\n'
    created = await house.create(runtime, working + 'say({"type": "failed", "kind": "page", "message": "gone"})')
    await house.until_step(created)
    path = f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}"
    (lease,) = (await ok(house.client.get(f"{path}/connections")))["connections"]
    await ok(house.client.delete(f"{path}/connections/{lease['id']}"))
    (house.processes[-1].directory / "go").touch()
    assert (await house.ended(created))["error"]["code"] == "invocation.lease_ended"
    created = await house.create(runtime, WAITS)
    await house.until_step(created)
    await ok(house.client.post(f"{path}/stop"))
    ended = await house.ended(created)
    assert (ended["status"], ended["error"]["code"]) == ("failed", "invocation.runtime_ended")
    await until(lambda: not any(psutil.pid_exists(process.pid) for process in house.processes), "processes ended")


async def test_an_invocation_has_its_runtime_alone(house: House, runtime: Json) -> None:
    path = f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}/connections"
    created = await house.create(runtime, WAITS)
    for busy in (house.post(runtime, DONE), house.client.post(path, json={"protocol": "cdp"})):
        body = await refused(busy, 409, "runtime.controller_busy")
        assert body["details"]["heldBy"] == {"type": "invocation", "id": created["id"]}
    await ok(house.client.post(f"/v1/invocations/{created['id']}/cancel"))
    await house.ended(created)
    lease = await ok(house.client.post(path, json={"protocol": "cdp"}))
    body = await refused(house.post(runtime, DONE), 409, "runtime.controller_busy")
    assert body["details"]["heldBy"] == {"type": "connection", "id": lease["id"]}


async def test_further_ones_are_queued_and_can_be_cancelled_there(house: House) -> None:
    runtimes = [await make_runtime(house.client) for _ in range(4)]
    created = [await house.create(runtime, WAITS) for runtime in runtimes[:2]]
    for each in created:
        await house.until_step(each)
    waiting = [await house.create(runtime, DONE) for runtime in runtimes[2:]]
    assert [(await ok(house.client.get(f"/v1/invocations/{each['id']}")))["status"] for each in waiting] == [
        "queued"
    ] * 2
    await ok(house.client.post(f"/v1/invocations/{waiting[0]['id']}/cancel"))
    assert (await house.ended(waiting[0]))["status"] == "cancelled"
    for each in created:
        await ok(house.client.post(f"/v1/invocations/{each['id']}/cancel"))
    assert (await house.ended(waiting[1]))["status"] == "succeeded"


async def test_one_that_was_told_to_be_lost_is_not_begun(house: House) -> None:
    runtimes = [await make_runtime(house.client) for _ in range(3)]
    house.processes.clear()
    created = [await house.create(runtime, WAITS) for runtime in runtimes]
    for each in created[:2]:
        await house.until_step(each)
    lost = "UPDATE invocations SET status = 'failed', error_code = 'gateway.lost', finished_at = now() WHERE id = :id"
    async with house.database.connect() as connection:
        await connection.execute(text(lost), created[2])
    for each in created[:2]:
        await ok(house.client.post(f"/v1/invocations/{each['id']}/cancel"))
        await house.ended(each)
    # It has had its turn: its runtime is free again.
    await house.has_nothing(runtimes[2])
    ended = await house.ended(created[2])
    assert (ended["status"], ended["error"]["code"], ended["startedAt"]) == ("failed", "gateway.lost", None)
    assert len(house.processes) == 2


async def test_tenants_get_places_in_turn_and_each_in_its_order() -> None:
    queue = AgentQueue(2, 1)
    taken: list[str] = []
    leaving = {name: asyncio.Event() for name in ("a1", "a2", "a3", "b1", "b2", "c1")}

    async def work(name: str) -> None:
        async with queue.place(Taker(name, name[0])):
            taken.append(name)
            await leaving[name].wait()

    tasks = []
    for name in leaving:
        tasks.append(asyncio.create_task(work(name)))
        await asyncio.sleep(0)
    await until(lambda: taken == ["a1", "b1"], "one of each tenant")
    for name, then in (("a1", "c1"), ("b1", "a2"), ("a2", "b2"), ("c1", "a3")):
        leaving[name].set()
        await until(lambda then=then: taken[-1] == then, f"{then} has a place")  # type: ignore[misc]
    for event in leaving.values():
        event.set()
    await asyncio.gather(*tasks)


async def test_tools_of_a_toolset_are_given_and_no_others(house: House, runtime: Json) -> None:
    space = runtime["spaceId"]
    made = await ok(
        house.client.post(f"/v1/spaces/{space}/toolsets", json={"name": "mine", "builtin": {"files": True}})
    )
    content = {"file": ("june.csv", b"a,b", "text/csv")}
    await ok(house.client.post(f"/v1/spaces/{space}/storage/files", files=content, data={"path": "reports/june.csv"}))
    code = """
answers = []
for number, (tool, given) in enumerate([
    ("files_list", {}), ("files_stage", {"path": "reports/june.csv"}), ("files_stage", {"path": "none"}),
    ("files_collect", {"path": "../../etc/passwd"}), ("vault_type", {"key": "k", "field": "password"}),
    ("files_list", {"nothing": 1}),
]):
    say({"type": "call", "id": str(number), "tool": tool, "input": given})
    answers.append(hear())
result({"success": True, "message": [each["name"] for each in job["tools"]], "output": answers})
"""
    ended = await house.run(runtime, code, toolset="mine")
    assert ended["status"] == "succeeded", ended
    assert ended["result"]["message"] == ["files_list", "files_stage", "files_collect"]
    listed, staged, none, outside, vault, wrong = ended["result"]["output"]
    assert listed["output"] == {"files": [{"path": "reports/june.csv", "sizeBytes": 3}]}
    assert staged["output"]["path"].endswith("june.csv")
    assert none["error"].startswith("file.not_found: ")
    assert outside["error"].startswith("runtime_file.path_invalid: ")
    assert vault["error"] == "There is no tool 'vault_type'."
    assert wrong["error"].startswith("tool.input_invalid: ")
    calls = await ok(house.client.get(f"/v1/spaces/{space}/tool-calls", params={"invocationId": ended["id"]}))
    rows = [(each["tool"]["name"], each["status"], each["toolsetId"]) for each in calls["toolCalls"]]
    assert rows == [
        ("files_list", "failed", made["id"]),
        ("files_collect", "failed", made["id"]),
        ("files_stage", "failed", made["id"]),
        ("files_stage", "succeeded", made["id"]),
        ("files_list", "succeeded", made["id"]),
    ]


async def test_files_are_staged_before_the_agent_begins(house: House, runtime: Json) -> None:
    content = {"file": ("may.csv", b"a,b,c", "text/csv")}
    files = f"/v1/spaces/{runtime['spaceId']}/storage/files"
    stored = await ok(house.client.post(files, files=content, data={"path": "reports/may.csv"}))
    code = 'result({"success": True, "message": open(job["instruction"].splitlines()[-1]).read()})'
    ended = await house.run(runtime, code, files=[{"fileId": stored["id"]}])
    assert (ended["status"], ended["error"]) == ("succeeded", None)
    assert ended["result"]["message"] == "a,b,c"
    ended = await house.run(runtime, DONE, files=[{"path": "reports/none.csv"}])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "file.not_found")


async def test_an_agent_that_is_not_installed_says_what_to_run(house: House, runtime: Json) -> None:
    agents = house.gateway.services.agents.runs.agents
    missing = agents.missing
    try:
        agents.missing = lambda library: f"{library} is not installed. Run make agents."  # type: ignore[method-assign]
        body = await refused(house.post(runtime, DONE), 501, "agents.not_installed")
    finally:
        agents.missing = missing  # type: ignore[method-assign]
    assert "make agents" in body["error"]
