"""The state of a runtime's page, with a real gateway and browser."""

from __future__ import annotations

import base64
from typing import Any

from tests.support.execution import Executing, step
from tests.support.waiting import until


class State:
    def __init__(self, executing: Executing) -> None:
        self._api = executing.remote.api
        self.path = f"{executing.url.removesuffix('/execute')}/runtimes/{executing.id}"

    async def get(self, path: str = "/state", **query: Any) -> Any:
        response = await self._api.get(self.path + path, params=query)
        assert response.status_code == 200, response.text
        return response.json()

    async def post(self, **body: Any) -> Any:
        response = await self._api.post(f"{self.path}/state", json=body)
        return response.json()


async def test_the_state_of_a_page_while_steps_run_on_it(executing: Executing) -> None:
    state, url = State(executing), f"{executing.pages}/playground"
    title = await executing.value(step("page.goto", "{pages}/playground"), step("page.title"))
    first = await state.get()
    assert first["meta"] == {"url": url, "title": title, "readyState": "complete"}
    assert (first["dom"], first["screenshot"], first["warnings"]) == (None, None, [])
    summary = (await state.get(""))["summary"]
    assert summary["defaultPageId"] == first["refResolved"]
    assert summary["defaultContextId"] is not None

    screenshot = {"type": "png", "fullPage": True}
    whole = await state.post(include=["dom", "screenshot"], dom={"maxChars": 30}, screenshot=screenshot)
    assert whole["meta"] is None
    assert (len(whole["dom"]["html"]), whole["dom"]["truncated"]) == (30, True)
    assert whole["dom"]["length"] > 30
    raw = base64.b64decode(whole["screenshot"]["base64"])
    assert (raw[:4], whole["screenshot"]["bytes"], whole["screenshot"]["truncated"]) == (b"\x89PNG", len(raw), False)
    length = await state.post(include=["dom"], dom={"includeHtml": False})
    assert length["dom"] == {"html": "", "length": whole["dom"]["length"], "truncated": True}
    # Reading the state has changed nothing.
    assert await executing.value(step("page.url")) == url


async def test_another_page_is_named_by_its_id_or_its_context(executing: Executing) -> None:
    state = State(executing)
    binding = (await executing.last(step("context.newPage", alias="tab")))["binding"]
    await executing.last(step("page.goto", "{pages}/playground", ref="tab"))
    context = (await state.get(""))["summary"]["defaultContextId"]

    async def known() -> bool:
        return "meta" in await state.post(ref=binding["id"])

    await until(known)
    for ref in (binding["id"], context):
        found = await state.get(ref=ref, include="meta,dom")
        assert (found["refResolved"], found["meta"]["url"]) == (binding["id"], f"{executing.pages}/playground")
    assert (await state.post(ref="nothing"))["code"] == "page.not_found"
    await executing.last(step("page.close", ref="tab"))
