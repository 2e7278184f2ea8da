"""Steps on a runtime of a gateway, and the examples of calls as such steps."""

from __future__ import annotations

from typing import Any

from gateway.automation.calls import ANY, Call
from gateway.automation.vocabularies import VOCABULARIES
from tests.support.remote import Remote

# How each driver opens an address.
OPENS = {"playwright": "page.goto", "puppeteer": "page.goto", "selenium": "driver.get", "stagehand": "page.goto"}
EVERY_CALL = [(vocabulary.name, call.name) for vocabulary in VOCABULARIES.values() for call in vocabulary]


class Executing:
    """One runtime, and the pages that its steps open."""

    def __init__(self, remote: Remote, runtime: str, pages: str) -> None:
        """`runtime` is a path; `pages` is the address of a PageServer."""
        self.remote = remote
        self.path = runtime
        self.pages = pages
        space, _, self.id = runtime.removeprefix("/v1/spaces/").partition("/runtimes/")
        self.url = f"/v1/workspaces/{space}/execute"

    async def answer(self, *steps: dict[str, Any], **body: Any) -> dict[str, Any]:
        body = {"runtime": self.id, "steps": filled(list(steps), self.pages), **body}
        response = await self.remote.api.post(self.url, json=body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def run(self, *steps: dict[str, Any], **body: Any) -> list[dict[str, Any]]:
        """Results of steps, of which the last may have failed."""
        answer = await self.answer(*steps, **body)
        if "operation" in answer:
            # Those that take long are answered so, as any do on a busy machine.
            answer = (await self.operation(answer["operation"]["id"]))["result"]
        results: list[dict[str, Any]] = answer["steps"]
        return results

    async def operation(self, operation_id: str) -> dict[str, Any]:
        """The operation once it has ended."""
        waited = await self.remote.post(f"/v1/operations/{operation_id}/wait", {"timeoutMs": 60_000})
        assert waited["timedOut"] is False
        ended: dict[str, Any] = waited["operation"]
        return ended

    async def last(self, *steps: dict[str, Any]) -> dict[str, Any]:
        """The result of the last step, before which none fails."""
        results = await self.run(*steps)
        assert len(results) == len(steps), results[-1]
        return results[-1]

    async def value(self, *steps: dict[str, Any]) -> Any:
        """What the last step returns; none fails."""
        result = await self.last(*steps)
        assert result["ok"], result
        return result.get("value")

    async def error(self, *steps: dict[str, Any]) -> dict[str, Any]:
        """The error of the last step."""
        result = await self.last(*steps)
        assert not result["ok"], result
        found: dict[str, Any] = result["error"]
        return found


class Drivers:
    """A runtime for each driver, launched when a test first asks for it."""

    def __init__(self, remote: Remote, pages: str) -> None:
        self._remote = remote
        self._pages = pages
        self._found: dict[str, Executing] = {}
        self._workspace = ""

    async def of(self, driver: str) -> Executing:
        if not self._workspace:
            self._workspace = (await self._remote.post("/v1/workspaces", {"name": "drivers"}))["id"]
        if driver not in self._found:
            body = {"kind": "browser", "alias": driver, "driver": driver}
            made = await self._remote.post(f"/v1/workspaces/{self._workspace}/runtimes", body)
            path = f"/v1/spaces/{self._workspace}/runtimes/{made['id']}"
            self._found[driver] = Executing(self._remote, path, self._pages)
        return self._found[driver]

    async def clear(self) -> None:
        if self._workspace:
            (await self._remote.api.delete(f"/v1/workspaces/{self._workspace}")).raise_for_status()


def filled(value: Any, pages: str) -> Any:
    """With the address of the pages for `{pages}`."""
    if isinstance(value, str):
        return value.replace("{pages}", pages)
    if isinstance(value, dict):
        return {name: filled(item, pages) for name, item in value.items()}
    return [filled(item, pages) for item in value] if isinstance(value, (list, tuple)) else value


def step(call: str, *args: Any, **more: Any) -> dict[str, Any]:
    """A step; `alias` is its `as`."""
    if "alias" in more:
        more["as"] = more.pop("alias")
    return {"call": call, **({"args": list(args)} if args else {}), **more}


def example(driver: str, call: Call) -> list[dict[str, Any]]:
    """The steps of a call's example, on the page of the tests."""
    of = call.example
    own: dict[str, Any] = {"call": call.name, "args": of.args if isinstance(of.args, dict) else list(of.args)}
    if of.ref is not None:
        own["ref"] = of.ref
    if call.binds is not None and of.error is None and (of.value is ANY or of.value is not None):
        own["as"] = "made"
    return [step(OPENS[driver], "{pages}/playground"), *map(dict, of.before), own]
