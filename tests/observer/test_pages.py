"""Which events of a browser are read for the record of pages, and which are passed over by their bytes."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, cast
from uuid import uuid4

import pytest

from gateway.core import json_text
from gateway.core.observation import EventLimits, Level, LiveBrowser, Observed
from gateway.core.scope import Scope
from gateway.core.usage import Usage
from gateway.observer.devtools import DevTools
from gateway.observer.masking import Masking
from gateway.observer.observers import Observation
from gateway.observer.pages import PagesOfRun
from gateway.websocket.browser_socket import BrowserSocket
from gateway.websocket.frames import MessageReader, Opcode, frame
from tests.support.delivered_socket import DeliveredSocket
from tests.support.waiting import until

SESSION = "0123456789ABCDEF0123456789ABCDEF"
HALVES = "\ud800" * 200


class Record:
    """A run's record in memory."""

    written_bytes = 0

    def __init__(self, level: Level) -> None:
        self.level = level
        self.noted: list[tuple[str, dict[str, Any]]] = []

    def wants(self, _type: str) -> bool:
        return True

    def note(self, type_: str, data: dict[str, Any], **_: Any) -> None:
        self.noted.append((type_, data))


class Socket(DeliveredSocket):
    """Keeps the gateway's commands."""

    def __init__(self) -> None:
        super().__init__()
        self.commands: list[str] = []
        self._reader = MessageReader(2**20)

    def write(self, buffers: list[bytes]) -> None:
        for _, payload in self._reader.feed(b"".join(buffers)):
            self.commands.append(json.loads(payload)["method"])


class Page:
    """A page that is watched, without a browser."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, limits: EventLimits, level: Level = Level.STANDARD) -> None:
        self.record, self.socket = Record(level), Socket()
        browser = cast(LiveBrowser, type("Browser", (), {"usage": Usage(), "user_agent_override": None}))
        scope = Scope(uuid4(), None)
        self.run = Observed(uuid4(), uuid4(), uuid4(), scope, browser, self.record, False, limits)
        devtools = DevTools(cast(BrowserSocket, self.socket), self.run.bounded.gap)
        pages = PagesOfRun(Observation(self.run, devtools), Masking((), 100))
        info = {"targetId": "PAGE", "type": "page"}
        pages.attached({"sessionId": SESSION, "targetInfo": info, "waitingForDebugger": False})
        self.read: Counter[str] = Counter()
        loads = json_text.loads

        def counting(text: bytes) -> Any:
            value = loads(text)
            self.read[value["method"]] += 1
            return value

        monkeypatch.setattr(json_text, "loads", counting)

    async def sends(self, method: str, *events: dict[str, Any]) -> None:
        for params in events:
            self.socket.from_browser(b"".join(frame(Opcode.TEXT, text_of(method, params))))
        await until(lambda: self.socket.is_read, "all is read")

    def noted(self, type_: str) -> list[dict[str, Any]]:
        return [data for kind, data in self.record.noted if kind == type_]

    def dropped(self) -> list[dict[str, Any]]:
        self.run.bounded.close()
        return self.noted("events.dropped")


def text_of(method: str, params: dict[str, Any]) -> bytes:
    """As Chromium serializes it."""
    return json.dumps({"method": method, "params": params, "sessionId": SESSION}, separators=(",", ":")).encode()


def logged(number: int, **argument: str) -> dict[str, Any]:
    return {"type": "log", "args": [{"type": "string"} | argument], "timestamp": number + 1.5}


def thrown(number: int, **exception: str) -> dict[str, Any]:
    details = {"text": "Uncaught", "lineNumber": 1, "columnNumber": 1, "exception": {"type": "string"} | exception}
    return {"timestamp": number + 1.5, "exceptionDetails": details}


def requested(id_: str, url: str = "http://a.example/", kind: str = "Fetch", **more: Any) -> dict[str, Any]:
    request = {"url": url, "method": "GET", "headers": {"x": HALVES}}
    return {"requestId": id_, "request": request, "timestamp": 1.5, "type": kind, **more}


def answered(id_: str, url: str = "http://a.example/") -> dict[str, Any]:
    return {"requestId": id_, "type": "Fetch", "response": {"url": url, "status": 200, "headers": {"x": HALVES}}}


@pytest.mark.parametrize(
    ("method", "make", "type_"),
    [
        ("Runtime.consoleAPICalled", logged, "console.message"),
        ("Runtime.exceptionThrown", thrown, "page.error"),
        ("Network.requestWillBeSent", lambda number, **_: requested(f"{number}"), "network.request"),
    ],
    ids=["messages", "errors", "requests"],
)
@pytest.mark.parametrize("count", [2, 3, 30])
async def test_above_the_rate_nothing_is_read(
    monkeypatch: pytest.MonkeyPatch, method: str, make: Any, type_: str, count: int
) -> None:
    page = Page(monkeypatch, EventLimits(3))
    await page.sends(method, *(make(number, value=HALVES) for number in range(count)))
    assert len(page.noted(type_)) == page.read[method] == min(count, 3)
    over = [{"type": type_, "count": count - 3, "reason": "rate"}] if count > 3 else []
    assert page.dropped() == over


@pytest.mark.parametrize(("more", "are_read"), [(1, 2), (0, 2), (-1, 1)], ids=["under", "at", "over"])
async def test_above_the_bytes_of_a_second_nothing_is_read(
    monkeypatch: pytest.MonkeyPatch, more: int, are_read: int
) -> None:
    method, events = "Runtime.consoleAPICalled", [logged(number, value=HALVES) for number in range(2)]
    size = len(text_of(method, events[0]))
    page = Page(monkeypatch, EventLimits(read_bytes_per_second=2 * size + more))
    await page.sends(method, *events)
    assert len(page.noted("console.message")) == page.read[method] == are_read
    assert page.dropped() == [{"type": "console.message", "count": 1, "reason": "rate"}][are_read - 1 :]
    # The next second.
    await page.sends(method, logged(5, value=HALVES))
    assert page.read[method] == are_read + 1


async def test_objects_of_messages_that_are_not_read_are_released(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(monkeypatch, EventLimits(1))
    await page.sends("Runtime.consoleAPICalled", *(logged(number, value="x") for number in range(3)))
    assert "Runtime.releaseObjectGroup" not in page.socket.commands
    await page.sends("Runtime.consoleAPICalled", logged(4, objectId="1.2.3"), logged(5, objectId="1.2.4"))
    assert page.socket.commands.count("Runtime.releaseObjectGroup") == 1
    assert page.read["Runtime.consoleAPICalled"] == 1


async def test_the_document_of_a_page_is_followed_above_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(monkeypatch, EventLimits(1))
    await page.sends("Network.requestWillBeSent", requested("1"), requested("2"))
    redirect = answered("1")["response"]
    await page.sends("Network.requestWillBeSent", requested("1", redirectResponse=redirect))
    document = requested("D", kind="Document", frameId="PAGE")
    await page.sends("Network.requestWillBeSent", document)
    await page.sends("Network.responseReceived", answered("1"), answered("2"), answered("D"))
    failed = {"requestId": "D", "timestamp": 2.5, "errorText": "net::ERR_FAILED"}
    await page.sends("Network.loadingFailed", failed, failed | {"requestId": "2"})
    assert page.read == {
        # Of the first and its redirect, and of the document.
        "Network.requestWillBeSent": 3,
        # Of the document: the redirect was the one response.
        "Network.responseReceived": 1,
        "Network.loadingFailed": 1,
    }
    assert [data["status"] for data in page.noted("navigation")] == ["failed"]


@pytest.mark.parametrize(("level", "are_read"), [(Level.STANDARD, False), (Level.FULL, True)])
async def test_what_is_part_of_a_page_is_read_at_full_only(
    monkeypatch: pytest.MonkeyPatch, level: Level, are_read: bool
) -> None:
    page = Page(monkeypatch, EventLimits(), level)
    await page.sends(
        "Network.requestWillBeSent",
        requested("1", "data:text/plain,x", initiator={"type": "script"})
        | {"request": {"url": "data:text/plain,x", "method": "GET", "initialPriority": "Low"}},
    )
    await page.sends("Network.responseReceived", answered("1", "data:text/plain,x"))
    await page.sends("Network.loadingFinished", {"requestId": "1", "timestamp": 2.5})
    assert sum(page.read.values()) == (3 if are_read else 0)
    assert len(page.noted("network.response")) == are_read
    assert page.dropped() == []


async def test_websockets_above_the_rate_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(monkeypatch, EventLimits(2))
    await page.sends("Network.webSocketCreated", *({"requestId": f"{n}", "url": "ws://a.example/"} for n in range(5)))
    await page.sends("Network.webSocketFrameError", {"requestId": "4", "errorMessage": HALVES})
    assert page.read == {"Network.webSocketCreated": 2}
