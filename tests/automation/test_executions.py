"""Steps on a real browser: bindings, values, errors, timeouts, and the process that carries them out."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import psutil
import pytest

from tests.support.execution import Executing, step
from tests.support.gateway_process import GatewayProcess
from tests.support.pages import PageServer
from tests.support.remote import Remote
from tests.support.waiting import until

OPEN = step("page.goto", "{pages}/playground")
# Answers neither to a DevTools session that is opened later, nor to anything else.
ENDLESS = step("page.evaluate", "while (true) {}", options={"timeoutMs": 300})


def processes(gateway: GatewayProcess) -> list[psutil.Process]:
    """Those that carry out steps for a runtime, or are spare."""
    found = []
    for process in gateway.descendants():
        try:
            if "gateway.automation.worker" in process.cmdline():
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


async def test_steps_run_in_order_and_stop_at_the_first_that_fails(executing: Executing) -> None:
    answer = await executing.answer(
        OPEN,
        step("page.fill", "#name", "Ada"),
        step("page.click", "#greet"),
        step("page.textContent", "#result"),
        step("page.click", "#missing", options={"timeoutMs": 200}),
        step("page.title"),
        mode="fail-fast",
    )
    assert answer["mode"] == "fail-fast"
    *done, failed = answer["steps"]
    assert [each["ok"] for each in done] == [True] * 4
    assert done[3]["value"] == "Hello Ada"
    assert (failed["ok"], failed["call"], failed["error"]["code"]) == (False, "page.click", "execute.timeout")
    details = failed["error"]["details"]
    assert details["url"] == f"{executing.pages}/playground"
    assert "waiting for locator('#missing')" in " ".join(details["waitedFor"]).replace('"', "'")
    assert "artifact" not in failed


async def test_arguments_may_be_given_by_name(executing: Executing) -> None:
    by_name = {"call": "page.getAttribute", "args": {"selector": "#name", "name": "placeholder"}}
    assert await executing.value(OPEN, by_name) == "Your name"


async def test_an_object_is_bound_for_later_executions(executing: Executing) -> None:
    result = await executing.last(OPEN, step("page.locator", "#name", alias="field"))
    assert result["binding"] == {"alias": "field", "id": result["binding"]["id"], "type": "handle"}
    assert "value" not in result or result["value"] is not None
    for ref in ("field", result["binding"]["id"]):
        assert await executing.value(step("locator.getAttribute", "id", ref=ref)) == "name"
    await executing.last(step("page.locator", "#greet", alias="field"))
    assert await executing.value(step("locator.getAttribute", "id", ref="field")) == "greet"
    assert (await executing.error(step("locator.count", ref=result["binding"]["id"])))[
        "code"
    ] == "execute.binding_stale"
    await executing.last(step("binding.free", ref="field"))
    assert (await executing.error(step("locator.count", ref="field")))["code"] == "execute.binding_stale"
    assert (await executing.error(step("locator.count", ref="nothing")))["code"] == "execute.binding_unknown"


async def test_bindings_of_a_page_that_closes_are_stale(executing: Executing) -> None:
    opened = await executing.run(
        step("context.newPage", alias="tab"),
        step("page.goto", "{pages}/playground", ref="tab"),
        step("page.locator", "#name", ref="tab", alias="field"),
    )
    assert opened[0]["binding"]["type"] == "page"
    page_id = opened[0]["binding"]["id"]
    assert await executing.value(step("page.title", ref=page_id)) == "Playground"
    await executing.last(step("page.close", ref="tab"))
    for ref, call in (("tab", "page.title"), ("field", "locator.count"), (page_id, "page.title")):
        error = await executing.error(step(call, ref=ref))
        assert (error["code"], error["details"]["ref"]) == ("execute.binding_stale", ref)


async def test_a_reference_of_another_kind_is_refused(executing: Executing) -> None:
    await executing.last(OPEN, step("page.locator", "#name", alias="field"))
    assert (await executing.error(step("page.title", ref="field")))["code"] == "execute.ref_mismatch"
    assert (await executing.error(step("locator.click")))["code"] == "execute.ref_missing"


VALUES: list[tuple[str, Any]] = [
    ("1", 1),
    ("'text'", "text"),
    ("null", None),
    ("undefined", {"$type": "undefined"}),
    ("NaN", {"$type": "number", "value": "NaN"}),
    ("[Infinity, -Infinity, -0]", [{"$type": "number", "value": each} for each in ("Infinity", "-Infinity", "-0")]),
    ("2n ** 64n", {"$type": "bigint", "value": "18446744073709551616"}),
    ("new Date(0)", {"$type": "date", "value": "1970-01-01T00:00:00.000Z"}),
    ("new Date('no')", {"$type": "date", "value": "Invalid Date"}),
    ("new Uint8Array([104, 105])", {"$type": "buffer", "value": "aGk="}),
    ("new Uint8Array([104, 105]).buffer", {"$type": "buffer", "value": "aGk="}),
    ("new Map([['a', new Set([1])]])", {"$type": "map", "value": [["a", {"$type": "set", "value": [1]}]]}),
    ("/a+/g", {"$type": "regexp", "value": "/a+/g"}),
    ("Symbol('one')", {"$type": "symbol", "value": "Symbol(one)"}),
    ("new TypeError('bad')", {"$type": "error", "value": {"name": "TypeError", "message": "bad"}}),
    ("(() => { const a = { b: [] }; a.b.push(a); return a; })()", {"b": [{"$type": "cycle", "value": "$"}]}),
    ("(() => { const a = {}; return [a, a]; })()", [{}, {}]),
    ("({ $type: 'date' })", {"$type": "object", "value": [["$type", "date"]]}),
    ("window", {"$type": "window"}),
    ("document.querySelector('#list li')", {"$type": "node", "value": '<li class="item">one</li>'}),
    ("({ a: () => 1 }).a", 1),
    ("({ inner: { call() {} } })", {"inner": {"call": {"$type": "function", "value": "call"}}}),
    ("'\\ud800'", "?"),
    ("Promise.resolve(7)", 7),
    ("const inside = 3; inside + 1", 4),
    ("async () => { await null; return 5; }", 5),
    ("function named() { return 6; }", 6),
]


@pytest.mark.parametrize(("expression", "value"), VALUES, ids=[expression for expression, _ in VALUES])
async def test_a_value_has_its_stated_form(executing: Executing, expression: str, value: Any) -> None:
    results = await executing.run(OPEN, step("page.evaluate", expression))
    assert results[1].get("value") == value
    assert "truncated" not in results[1]


async def test_a_value_that_is_too_large_is_cut(executing: Executing) -> None:
    results = await executing.run(
        OPEN,
        step("page.evaluate", "'x'.repeat(1000000)"),
        step("page.evaluate", "Array.from({ length: 100000 }, (_, i) => i)"),
        step("page.evaluate", "(() => { let a = []; for (let i = 0; i < 100; i++) a = [a]; return a; })()"),
        step("page.evaluate", "new Uint8Array(1000000)"),
        step("page.setContent", "y" * 400_000),
        step("page.content"),
    )
    assert [each.get("truncated") for each in results] == [None, True, True, True, True, None, True]
    assert 200_000 < len(results[1]["value"]) <= 262_144
    assert len(results[6]["value"]) <= 262_144


async def test_a_page_can_t_change_what_others_get(executing: Executing) -> None:
    """A page that replaces what the script uses gets a failed step, or another value of its own."""
    spoiled = step("page.evaluate", "Map = Date = RegExp = Array.isArray = JSON.stringify = () => { throw 1; }, 1")
    assert not (await executing.run(OPEN, spoiled))[-1]["ok"]
    assert await executing.value(OPEN, step("page.evaluate", "[1]")) == [1]


async def test_a_script_under_a_strict_policy_runs(executing: Executing) -> None:
    guarded = step("page.setContent", "<meta http-equiv=Content-Security-Policy content=\"script-src 'none'\">x")
    assert await executing.value(OPEN, guarded, step("page.evaluate", "() => 1 + 1")) == 2


async def test_a_script_that_never_returns_is_ended_in_the_browser(executing: Executing) -> None:
    error = await executing.error(OPEN, ENDLESS)
    assert error["code"] == "execute.timeout"
    assert "pageClosed" not in error["details"]
    assert await executing.value(step("page.title")) == "Playground"


async def test_a_click_that_starts_an_endless_script_leaves_the_page_usable(executing: Executing) -> None:
    endless = step("page.evaluate", "document.querySelector('#greet').onclick = () => { while (true) {} }, 1")
    results = await executing.run(OPEN, endless, step("page.click", "#greet", options={"timeoutMs": 500}))
    assert [each["ok"] for each in results][:2] == [True, True]
    later = await executing.run(step("page.title", options={"timeoutMs": 5000}))
    if not later[0]["ok"]:
        # The click itself had been answered before its script began.
        later = await executing.run(step("page.title"))
    assert later[0]["value"] == "Playground"


async def test_a_promise_that_never_settles_times_out(executing: Executing) -> None:
    error = await executing.error(OPEN, step("page.evaluate", "new Promise(() => {})", options={"timeoutMs": 100}))
    assert error["code"] == "execute.timeout"
    assert await executing.value(step("page.title")) == "Playground"


async def test_a_failed_step_may_keep_a_picture(executing: Executing) -> None:
    options = {"timeoutMs": 200, "screenshotOnFailure": True}
    *_, failed = await executing.run(OPEN, step("page.click", "#missing", options=options))
    artifact = failed["artifact"]
    assert (artifact["contentType"], failed["ok"]) == ("image/png", False)
    run = (await executing.remote.get(executing.path))["activeRunId"]
    kept = await executing.remote.get(f"/v1/runs/{run}/artifacts?kind=screenshot")
    assert artifact["id"] in [each["id"] for each in kept["artifacts"]]


async def test_a_picture_becomes_an_artifact(executing: Executing) -> None:
    artifact = (await executing.last(OPEN, step("page.screenshot")))["artifact"]
    content = await executing.remote.api.get(
        f"{executing.path.partition('/runtimes')[0]}/storage/files/{artifact['fileId']}/content"
    )
    assert content.content.startswith(b"\x89PNG")
    assert len(content.content) == artifact["sizeBytes"]


async def test_the_console_is_captured_when_asked(executing: Executing) -> None:
    logged = step("page.evaluate", "console.error('one', 2), 1")
    results = await executing.run(OPEN, {**logged, "options": {"logs": "capture"}}, logged)
    assert results[1]["logs"] == [{"type": "error", "text": "one 2"}]
    assert "logs" not in results[2]


async def test_a_dry_run_does_nothing(executing: Executing) -> None:
    dry = {"dryRun": True}
    results = await executing.run(
        OPEN,
        step("page.fill", "#name", "Ada", options=dry),
        step("page.locator", "#name", alias="planned", options=dry),
        step("locator.click", ref="planned", options=dry),
        step("page.inputValue", "#name"),
        step("locator.click", ref="unplanned", options=dry),
    )
    assert [each.get("dryRun") for each in results] == [None, True, True, True, None, None]
    assert results[4]["value"] == ""
    assert results[5]["error"]["code"] == "execute.binding_unknown"


async def test_dialogs_are_answered_as_asked(executing: Executing) -> None:
    assert await executing.value(OPEN, step("page.click", "#ask"), step("page.textContent", "#result")) == "null"
    answered = await executing.run(
        step("page.on", "dialog", {"dialog": "accept", "promptText": "Ada"}, alias="dialogs"),
        step("page.click", "#ask"),
        step("page.textContent", "#result"),
        step("subscription.events", ref="dialogs"),
        step("binding.free", ref="dialogs"),
    )
    assert answered[2]["value"] == "Ada"
    assert answered[3]["value"] == [{"$type": "dialog", "type": "prompt", "message": "Who?", "defaultValue": "nobody"}]


async def test_a_popup_is_bound(executing: Executing) -> None:
    results = await executing.run(
        OPEN,
        step("page.on", "popup", alias="popups"),
        step("page.evaluate", "window.open('/blank') && 1"),
        step("subscription.next", ref="popups", alias="popup"),
        step("page.waitForURL", "**/blank", ref="popup"),
        step("page.title", ref="popup"),
        step("page.close", ref="popup"),
        step("binding.free", ref="popups"),
    )
    assert results[3]["binding"]["type"] == "page"
    assert results[5]["value"] == "Blank"


async def test_what_the_policy_refuses_is_refused(executing: Executing) -> None:
    error = await executing.error(step("page.goto", "file:///etc/passwd"))
    assert (error["code"], error["details"]["rule"]) == ("execute.refused", "address.scheme")


async def test_a_second_execution_waits_and_is_refused(executing: Executing) -> None:
    waiting = asyncio.create_task(executing.run(step("page.waitForTimeout", 1500)))
    await asyncio.sleep(0)
    body = {"runtime": executing.id, "steps": [step("page.title")]}
    responses = []

    async def refused() -> bool:
        responses.append(await executing.remote.api.post(executing.url, json=body))
        return responses[-1].status_code == 409

    await until(refused, "a second execution is refused")
    assert responses[-1].json()["code"] == "runtime.busy"
    assert (await waiting)[0]["ok"]


async def test_limits_are_kept(executing: Executing) -> None:
    async def refused(*steps: dict[str, Any]) -> list[tuple[str, str]]:
        response = await executing.remote.api.post(executing.url, json={"runtime": executing.id, "steps": list(steps)})
        assert (response.status_code, response.json()["code"]) == (400, "request.invalid")
        return [(each["field"], each["code"]) for each in response.json()["details"]["errors"]]

    assert await refused(*[step("page.title")] * 101) == [("steps", "too_long")]
    late = step("page.title", options={"timeoutMs": 120_001})
    assert await refused(step("page.title"), late) == [("steps.1.options.timeoutMs", "less_than_equal")]
    assert len(await executing.run(*[step("page.title", options={"timeoutMs": 120_000})] * 100)) == 100


async def test_a_runtime_that_is_not_live_executes_nothing(remote: Remote, pages: PageServer) -> None:
    stopped = Executing(remote, await remote.runtime(), pages.base_url)
    await remote.post(f"{stopped.path}/stop", {})
    response = await remote.api.post(stopped.url, json={"runtime": stopped.id, "steps": [step("page.title")]})
    assert (response.status_code, response.json()["code"]) == (409, "runtime.not_active")


async def test_a_process_that_is_killed_is_replaced(executing: Executing, gateway: GatewayProcess) -> None:
    await executing.last(OPEN, step("page.locator", "#name", alias="field"))
    (process,) = [each for each in processes(gateway) if each.children() and _is_attached(each)]
    waiting = asyncio.create_task(executing.run(step("page.waitForTimeout", 20_000)))
    await executing_begins(executing)
    process.kill()
    (failed,) = await waiting
    assert failed["error"]["code"] == "execute.process_lost"
    assert (await executing.error(step("locator.count", ref="field")))["code"] == "execute.binding_unknown"
    assert await executing.value(step("page.title")) == "Playground"


async def executing_begins(executing: Executing) -> None:
    """Return once an execution runs, which then refuses others."""

    async def is_busy() -> bool:
        body = {"runtime": executing.id, "steps": [step("page.title")]}
        return (await executing.remote.api.post(executing.url, json=body)).status_code == 409

    await until(is_busy, "an execution runs")


def _is_attached(process: psutil.Process) -> bool:
    return any(each.net_connections(kind="tcp") for each in [process, *process.children(recursive=True)])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has other users")
async def test_processes_have_users_and_environments_of_their_own(
    executing: Executing, gateway: GatewayProcess
) -> None:
    await executing.run(step("page.title"))
    users = set()
    for process in processes(gateway):
        for each in [process, *process.children(recursive=True)]:
            assert each.uids().effective >= 870000
            users.add(each.uids().effective)
            assert not [name for name in each.environ() if name.startswith("GATEWAY")]
            assert not any("/v1/connect/" in part for part in each.cmdline())
    assert len(users) == len(processes(gateway))


async def test_the_process_ends_with_its_runtime(remote: Remote, pages: PageServer, gateway: GatewayProcess) -> None:
    short = Executing(remote, await remote.runtime(), pages.base_url)
    before = {process.pid for process in processes(gateway)}
    await short.run(step("page.title"))
    connections = await remote.get(f"{short.path}/connections")
    assert [each["status"] for each in connections["connections"]] == ["active"]
    await remote.post(f"{short.path}/stop", {})
    await until(lambda: len(processes(gateway)) <= max(1, len(before)), "its process has ended")


async def test_the_record_has_the_names_of_calls_and_no_arguments(executing: Executing) -> None:
    marker = "argument-7f3a"
    await executing.run(OPEN, step("page.fill", "#name", marker, options={"scriptName": "greet"}))
    run = (await executing.remote.get(executing.path))["activeRunId"]

    async def noted() -> list[dict[str, Any]]:
        events = await executing.remote.get(f"/v1/runs/{run}/events?type=tool.command&limit=200")
        return [each["data"] for each in events["events"] if each["data"]["input"].get("scriptName") == "greet"]

    async def is_noted() -> bool:
        return bool(await noted())

    await until(is_noted, "the command is recorded")
    (command,) = await noted()
    assert (command["name"], command["status"]) == ("execute", "succeeded")
    assert command["input"] == {
        "steps": 2,
        "calls": ["page.goto", "page.fill"],
        "scriptName": "greet",
        "outcome": "ok",
    }
