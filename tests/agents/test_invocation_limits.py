"""Each limit of invocations of agents: under it, at it, over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent_house import DONE, WAITS, House, house_of_toys
from tests.support.api import Json, make_runtime, make_subaccount, ok, refused
from tests.support.model_server import ModelServer

STEPS = """result({"success": True, "message": job["maxSteps"], "output": None})"""


@pytest.fixture(scope="module")
def models() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


async def status(house: House, invocation: Json) -> str:
    found: str = (await ok(house.client.get(f"/v1/invocations/{invocation['id']}")))["status"]
    return found


async def cancel(house: House, *invocations: Json) -> None:
    for each in invocations:
        await ok(house.client.post(f"/v1/invocations/{each['id']}/cancel"))
        await house.ended(each)


async def test_invocations_of_a_gateway_at_once(template_url: str, tmp_path: Path, models: ModelServer) -> None:
    options = {"agents_max_invocations": 2, "agents_at_once": 1, "caller_share": 1, "tenant_share": 1}
    async with house_of_toys(template_url, tmp_path, models, **options) as house:
        runtimes = [await make_runtime(house.client) for _ in range(3)]
        first = await house.create(runtimes[0], WAITS)
        await house.until_step(first)
        # A queued one counts.
        second = await house.create(runtimes[1], WAITS)
        body = await refused(house.post(runtimes[2], DONE), 429, "agents.max_invocations")
        assert body["details"]["limit"] == 2
        await cancel(house, second)
        assert (await house.create(runtimes[2], WAITS))["status"] == "queued"


async def test_agents_of_a_tenant_at_once(template_url: str, tmp_path: Path, models: ModelServer) -> None:
    options = {"agents_at_once_per_tenant": 2, "agents_at_once": 3}
    async with house_of_toys(template_url, tmp_path, models, **options) as house:
        made = []
        for _ in range(3):
            made.append(await house.create(await make_runtime(house.client), WAITS))
        for each in made[:2]:
            await house.until_step(each)
        assert await status(house, made[2]) == "queued"
        # Another tenant does not wait for it, but for a place of the gateway.
        _, key = await make_subaccount(house.client)
        own = dict(house.client.headers)
        house.client.headers.update(key)
        others = [await house.create(await make_runtime(house.client), WAITS) for _ in range(2)]
        await house.until_step(others[0])
        assert await status(house, others[1]) == "queued"
        house.client.headers.update(own)
        await cancel(house, made[0])
        await house.until_step(others[1])
        assert await status(house, made[2]) == "queued"


async def test_agents_of_a_subaccount_are_its_own_whichever_key_asks(
    template_url: str, tmp_path: Path, models: ModelServer
) -> None:
    options = {"agents_at_once_per_tenant": 1, "agents_at_once": 3}
    async with house_of_toys(template_url, tmp_path, models, **options) as house:
        owners = [{}, *[{"subaccountId": (await make_subaccount(house.client))[0]} for _ in range(2)]]
        spaces = [(await ok(house.client.post("/v1/spaces", json=owner)))["id"] for owner in owners]
        made = [await house.create(await make_runtime(house.client, space), WAITS) for space in spaces]
        for each in made:
            await house.until_step(each)
        further = await house.create(await make_runtime(house.client, spaces[1]), WAITS)
        await cancel(house, made[0])
        await cancel(house, made[2])
        assert await status(house, further) == "queued"
        await cancel(house, made[1])
        await house.until_step(further)


async def test_time_in_the_queue(template_url: str, tmp_path: Path, models: ModelServer) -> None:
    options = {"agents_queue_seconds": 0.5, "agents_at_once": 1}
    async with house_of_toys(template_url, tmp_path, models, **options) as house:
        runtimes = [await make_runtime(house.client) for _ in range(2)]
        # The time of its work is not that of the queue.
        works = await house.create(runtimes[0], f"step(); time.sleep(0.6); {DONE}")
        assert (await house.ended(works))["status"] == "succeeded"
        works = await house.create(runtimes[0], WAITS)
        await house.until_step(works)
        ended = await house.run(runtimes[1], DONE)
        assert (ended["status"], ended["error"]["code"]) == ("failed", "invocation.queue_timeout")
        assert ended["startedAt"] is None
        await cancel(house, works)
        assert (await house.run(runtimes[1], DONE))["status"] == "succeeded"


async def test_time_and_steps(template_url: str, tmp_path: Path, models: ModelServer) -> None:
    options = {
        "agents_timeout_seconds": 1,
        "agents_max_timeout_seconds": 5,
        "agents_steps": 3,
        "agents_max_steps": 5,
    }
    async with house_of_toys(template_url, tmp_path, models, **options) as house:
        runtime = await make_runtime(house.client)
        ended = await house.run(runtime, WAITS)
        assert (ended["status"], ended["error"]["code"]) == ("failed", "invocation.timeout")
        assert (await house.run(runtime, STEPS))["result"]["message"] == 3
        for most in (4, 5):
            given = {"instruction": STEPS, "maxSteps": most}
            ended = await house.run(runtime, "", input=given, timeoutMs=most * 1000)
            assert ended["result"]["message"] == most
        for wrong, field in (
            ({"input": {"instruction": STEPS, "maxSteps": 6}}, "input.maxSteps"),
            ({"timeoutMs": 5001}, "timeoutMs"),
        ):
            body = await refused(house.post(runtime, STEPS, **wrong), 400, "request.invalid")
            assert body["details"]["errors"][0]["field"] == field
    # A default above the maximum is the maximum.
    (tmp_path / "2").mkdir()
    async with house_of_toys(template_url, tmp_path / "2", models, agents_steps=9, agents_max_steps=5) as house:
        runtime = await make_runtime(house.client)
        assert (await house.run(runtime, STEPS))["result"]["message"] == 5
