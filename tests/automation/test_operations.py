"""Executions that a caller may come back to: idempotency keys, answers at once, long ones, cancellations."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.execution import Executing, step
from tests.support.gateway_process import MEASURED, GatewayProcess, temporary_data_dir
from tests.support.waiting import until

OPEN = step("page.goto", "{pages}/playground")
COUNT = step("page.evaluate", "window.counted = (window.counted || 0) + 1")


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    """Answers with an operation after four seconds."""
    with (
        temporary_data_dir() as data_dir,
        GatewayProcess.start(
            data_dir,
            GATEWAY_EGRESS_ALLOW="127.0.0.1",
            GATEWAY_WARM_BROWSERS="1",
            GATEWAY_EXECUTE_ANSWER_SECONDS="4",
            GATEWAY_EXECUTE_WAIT_SECONDS="3",
            **MEASURED,
        ) as started,
    ):
        yield started


async def cancelled(executing: Executing, operation_id: str) -> dict[str, Any]:
    await executing.remote.api.post(f"/v1/operations/{operation_id}/cancel")
    return await executing.operation(operation_id)


async def test_a_key_runs_once(executing: Executing) -> None:
    assert (await executing.last(OPEN))["ok"]
    first = await executing.answer(COUNT, step("page.title"), idempotencyKey="once")
    assert [each["value"] for each in first["steps"]] == [1, "Playground"]
    again = await executing.answer(COUNT, step("page.title"), idempotencyKey="once")
    assert again == first
    assert await executing.value(step("page.evaluate", "window.counted")) == 1
    body = {"runtime": executing.id, "steps": [step("page.title")], "idempotencyKey": "once"}
    other = await executing.remote.api.post(executing.url, json=body)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency.mismatch")


async def test_a_key_whose_steps_failed_is_answered_as_it_was(executing: Executing) -> None:
    steps = (OPEN, COUNT, step("page.click", "#missing", options={"timeoutMs": 100}))
    first = await executing.answer(*steps, idempotencyKey="failed")
    assert [each["ok"] for each in first["steps"]] == [True, True, False]
    assert await executing.answer(*steps, idempotencyKey="failed") == first


async def test_requests_with_one_key_at_once_run_once(executing: Executing) -> None:
    assert (await executing.last(OPEN))["ok"]
    answers = await asyncio.gather(
        *(executing.remote.api.post(
            executing.url,
            json={"runtime": executing.id, "steps": [COUNT, step("page.waitForTimeout", 50)], "idempotencyKey": "race"},
        ) for _ in range(4))
    )  # fmt: skip
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert await executing.value(step("page.evaluate", "window.counted")) == 1


async def test_an_execution_may_be_answered_at_once(executing: Executing) -> None:
    answer = await executing.answer(OPEN, step("page.title"), prefer="async")
    assert set(answer) == {"operation"}
    assert answer["operation"]["status"] in ("pending", "running")
    ended = await executing.operation(answer["operation"]["id"])
    assert (ended["status"], ended["method"], ended["provider"]) == ("completed", "execute", "playwright")
    assert ended["result"]["steps"][1]["value"] == "Playground"
    assert ended["progress"]["totalSteps"] == 2
    failing = await executing.answer(step("page.click", "#missing", options={"timeoutMs": 100}), prefer="async")
    failed = await executing.operation(failing["operation"]["id"])
    assert (failed["status"], failed["error"]["code"]) == ("failed", "execute.timeout")


async def test_events_name_the_operation_that_caused_them(executing: Executing) -> None:
    path = executing.url.replace("/execute", f"/runtimes/{executing.id}/events?limit=1000")
    assert (await executing.last(OPEN))["ok"]
    await executing.value(step("page.title"))
    answer = await executing.answer(step("page.title"), step("page.screenshot"), prefer="async")
    operation_id = answer["operation"]["id"]
    ended = await executing.operation(operation_id)
    await executing.value(step("page.evaluate", "1"))

    async def seen() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await executing.remote.get(path))["events"]
        return found

    async def has_all() -> bool:
        """Also of the last execution, whose commands are counted for a second and come after those of the operation."""
        *earlier, last = await seen()
        return (
            last["eventType"] == "connection.command.forwarded"
            and last["operationId"] is None
            and any(event["operationId"] == operation_id for event in earlier)
        )

    await until(has_all, "the commands of the last execution are recorded")
    events = await seen()
    caused = [event for event in events if event["operationId"] == operation_id]
    assert sorted(event["eventType"] for event in caused if event["eventType"] != "connection.command.forwarded") == [
        "artifact.created",
        "tool.command",
    ]
    by_type = {event["eventType"]: event["eventData"] for event in caused}
    assert by_type["artifact.created"]["artifactId"] == ended["result"]["steps"][1]["artifact"]["id"]
    assert "Page.captureScreenshot" in by_type["connection.command.forwarded"]["methods"]
    # The executions around it were none, and what they sent was counted apart.
    others = [event for event in events if event not in caused]
    assert not any("Page.captureScreenshot" in event["eventData"].get("methods", {}) for event in others)
    assert {event["eventType"] for event in others} >= {"tool.command", "connection.command.forwarded"}
    assert all("operationId" not in event["eventData"] for event in events)
    run = (await executing.remote.get(executing.path))["activeRunId"]
    spelled = (await executing.remote.get(f"/v1/runs/{run}/events?limit=1000"))["events"]
    assert {event["type"] for event in spelled} >= set(by_type)
    assert all("operationId" not in event["data"] for event in spelled)


async def test_the_header_prefers_it_as_well(executing: Executing) -> None:
    body = {"runtime": executing.id, "steps": [step("page.title")]}
    headers = {"Prefer": "respond-async"}
    answer = (await executing.remote.api.post(executing.url, json=body, headers=headers)).json()
    assert (await executing.operation(answer["operation"]["id"]))["status"] == "completed"


async def test_a_long_execution_is_answered_with_its_operation(executing: Executing) -> None:
    answer = await executing.answer(OPEN, step("page.waitForTimeout", 4500), step("page.title"))
    assert answer["operation"]["status"] == "running"
    ended = await executing.operation(answer["operation"]["id"])
    assert ended["status"] == "completed"
    assert [each["call"] for each in ended["result"]["steps"]] == ["page.goto", "page.waitForTimeout", "page.title"]


@pytest.mark.parametrize(
    "endless",
    [
        step("page.waitForTimeout", 60_000),
        step("page.evaluate", "while (true) {}"),
        step("page.click", "#missing"),
        step("page.evaluate", "new Promise(() => {})"),
    ],
    ids=["wait", "script", "click", "promise"],
)
async def test_a_cancelled_execution_ends_in_the_browser(executing: Executing, endless: dict[str, Any]) -> None:
    answer = await executing.answer(OPEN, endless, prefer="async")
    operation_id = answer["operation"]["id"]

    async def runs() -> bool:
        progress = (await executing.remote.get(f"/v1/operations/{operation_id}"))["progress"]
        return bool(progress) and progress.get("step") == 2

    await until(runs, "the endless step runs")
    ended = await cancelled(executing, operation_id)
    assert (ended["status"], ended["error"]) == ("cancelled", None)
    assert [each["call"] for each in ended["result"]["steps"]] == ["page.goto"]
    # The page is the runtime's, and answers.
    assert await executing.value(step("page.title", options={"timeoutMs": 5000})) == "Playground"


async def test_the_second_of_two_at_once_fails_as_busy(executing: Executing) -> None:
    first = await executing.answer(step("page.waitForTimeout", 60_000), prefer="async")

    async def runs() -> bool:
        found = await executing.remote.get(f"/v1/operations/{first['operation']['id']}")
        return str(found["status"]) == "running"

    await until(runs, "the first runs")
    second = await executing.answer(step("page.title"), prefer="async")
    ended = await executing.operation(second["operation"]["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "runtime.busy")
    assert (await cancelled(executing, first["operation"]["id"]))["status"] == "cancelled"
