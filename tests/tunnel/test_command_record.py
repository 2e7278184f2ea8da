"""The record of a client's socket: which page its sessions are of, and what it makes known to observers."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from gateway.core.observation import Level, LiveBrowser, Observed
from gateway.core.scope import Scope
from gateway.tunnel.command_record import SocketRecord
from gateway.websocket.frames import ATTACHED_HEAD, ATTACHED_TAIL, FrameFollower
from tests.support.raw import TEXT, framed


class Record:
    """A run's record in memory, which wants everything."""

    level = Level.FULL
    written_bytes = 0

    def __init__(self) -> None:
        self.pages: list[str | None] = []
        self.dropped: list[dict[str, Any]] = []
        # The action or else the method of each command, and whether the activity shows it.
        self.noted: list[tuple[str, bool]] = []

    def wants(self, type_: str) -> bool:
        return True

    def note(
        self,
        type_: str,
        data: dict[str, Any],
        *,
        page_id: str | None = None,
        connection_id: UUID | None = None,
        shown: bool = True,
    ) -> None:
        if type_ == "events.dropped":
            self.dropped.append(data)
            return
        self.pages.append(page_id)
        self.noted.append((data.get("action") or data["method"], shown))


def recorded() -> tuple[SocketRecord, Record, Observed]:
    record = Record()
    run = Observed(uuid4(), uuid4(), uuid4(), Scope(uuid4(), None), cast(LiveBrowser, None), record, False)
    return SocketRecord(run, uuid4(), None), record, run


def attached(socket: SocketRecord, session: object, page: str) -> None:
    target = {"targetId": page, "type": "page"}
    event = {"method": "Target.attachedToTarget", "params": {"sessionId": session, "targetInfo": target}}
    socket.attached(json.dumps(event, separators=(",", ":")).encode())


async def test_the_oldest_session_is_forgotten_when_there_are_too_many() -> None:
    socket, record, _ = recorded()
    for number in range(4096):
        attached(socket, f"{number:X}", f"page {number}")
    for session in ("0", "1", "FFF"):
        socket.command({"id": 1, "method": "Page.reload", "sessionId": session}, None)
    assert record.pages == [None, "page 1", "page 4095"]


async def test_an_event_without_a_session_is_counted() -> None:
    socket, record, _ = recorded()
    attached(socket, 5, "page")
    socket.command({"id": 1, "method": "Page.reload", "sessionId": "5"}, None)
    assert (record.pages, record.dropped) == ([None], [{"count": 1, "reason": "unreadable"}])


async def test_what_can_not_be_read_is_counted_and_raises_nothing() -> None:
    socket, record, run = recorded()
    for text in (b"{", b"", b"\xff", b"[" * 5000, b'{"params":{"sessionId":1e999}}'):
        socket.attached(text)
    assert record.dropped == [{"count": 1, "reason": "unreadable"}]
    run.bounded.close()
    assert record.dropped[1:] == [{"count": 4, "reason": "unreadable"}]
    for _ in range(2):
        # The second one is counted with what follows.
        socket.command({"id": 1, "method": "Page.enable", "sessionId": []}, None)
    socket.command({"id": 1, "method": "Page.reload", "sessionId": "\ud83d"}, None)
    assert (record.dropped[2:], record.pages) == ([{"count": 1, "reason": "unreadable"}], [None])


# What a page may call a worker to mislead a reader of the event, in the JSON that Chromium makes of it.
NAMES = [
    r"half \ud83d",
    r"\ud800" * 40_000,
    r"\"" * 40_000,
    r"\\" * 40_000,
    r"\",\"sessionId\":\"F\"}",
    r"\",\"type\":\"page\",\"targetId\":\"F",
    "é" * 40_000,
    "\xff" * 600,
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
@pytest.mark.parametrize(("parent", "page"), [(b',"sessionId":"A"', "page"), (b"", None)], ids=["parent", "none"])
@pytest.mark.parametrize("is_last", [True, False], ids=["name last", "name within"])
async def test_whatever_a_worker_is_named_it_belongs_to_its_page(
    name: str, parent: bytes, page: str | None, is_last: bool
) -> None:
    socket, record, _ = recorded()
    attached(socket, "A", "page")
    attached(socket, "F", "other page")
    event = (
        b'{"method":"Target.attachedToTarget","params":{"sessionId":"B","targetInfo":{"targetId":"W","type":"worker",'
    )
    event += b'"title":"%b","url":"blob:x"},"waitingForDebugger":false' % name.encode(
        "latin-1" if "ÿ" in name else "utf-8"
    )
    event += (b',"last":"%b"}' % name.encode() if is_last else b"}") + parent + b"}"
    (ends,) = ends_of(event)
    assert len(ends) <= ATTACHED_HEAD + ATTACHED_TAIL
    socket.attached(ends)
    socket.command({"id": 1, "method": "Runtime.evaluate", "sessionId": "B"}, None)
    assert (record.pages, record.dropped) == ([page], [])


def ends_of(event: bytes) -> list[bytes]:
    """What is kept of an event while it is forwarded in two parts, and whole."""
    found = []
    data = framed(TEXT, event)
    for parts in ([data], [data[:700], data[700:]]):
        follower = FrameFollower(len(data))
        for part in parts:
            follower.feed(part)
        found += follower.attached
    assert found[:1] == found[1:]
    return found[:1]


async def test_made_up_sessions_are_bounded_in_number_and_bytes() -> None:
    socket, _, _ = recorded()
    tracemalloc.start()
    for number in range(300):
        socket.command({"id": 1, "method": "Page.enable", "sessionId": f"{number:X}".zfill(100_000)}, None)
    for number in range(50_000):
        socket.command({"id": 1, "method": "Page.enable", "sessionId": f"{number:X}"}, None)
    assert tracemalloc.get_traced_memory()[0] < 2_000_000
    tracemalloc.stop()
    attached(socket, f"{49_999:X}", "page")
    attached(socket, "0", "other page")
    assert socket.handles_dialogs_of("page")


async def test_the_download_behavior_of_a_client_is_kept() -> None:
    socket, _, run = recorded()
    method = "Browser.setDownloadBehavior"
    socket.command({"id": 1, "method": method, "params": {"behavior": "deny", "eventsEnabled": True}}, None)
    other = {"behavior": "allow", "downloadPath": "/there", "browserContextId": "C"}
    socket.command({"id": 2, "method": method, "params": other}, None)
    for malformed in (
        {"browserContextId": 5},
        {"browserContextId": "x" * 65},
        {"behavior": ["deny"]},
        {"behavior": "x" * 65},
        {"downloadPath": "x" * 4097},
    ):
        socket.command({"id": 3, "method": method, "params": malformed}, None)
    assert run.download_behaviors == {
        "": {"behavior": "deny"},
        "C": {"behavior": "allow", "downloadPath": "/there"},
    }


async def test_the_contexts_set_last_are_kept() -> None:
    _, _, run = recorded()
    for number in range(1001):
        run.download_behaviors.keep({"browserContextId": str(number)})
    assert (len(run.download_behaviors), "0" in run.download_behaviors, "1000" in run.download_behaviors) == (
        1000,
        False,
        True,
    )


async def test_the_page_of_a_clients_command_is_reported() -> None:
    socket, _, run = recorded()
    attached(socket, "A", "page")
    # Before anybody wants to know, too.
    socket.command({"id": 1, "method": "Input.insertText", "sessionId": "A"}, None)
    pages: list[str] = []
    run.clients.on_work = pages.append
    socket.command({"id": 1, "method": "Input.insertText", "sessionId": "A"}, None)
    socket.command({"id": 1, "method": "Input.insertText", "sessionId": "B"}, None)
    socket.command({"id": 1, "method": "Target.activateTarget", "params": {"targetId": "other"}}, None)
    socket.command({"id": 1, "method": "Target.activateTarget", "params": {"targetId": 5}}, None)
    socket.command({"id": 1, "method": "Page.navigate", "sessionId": "A"}, "refused")
    assert pages == ["page", "other"]


async def test_a_malformed_detach_keeps_the_session() -> None:
    socket, record, run = recorded()
    attached(socket, "A", "page")
    socket.command({"id": 1, "method": "Target.detachFromTarget", "params": {"sessionId": 5}}, None)
    socket.command({"id": 1, "method": "Page.reload", "sessionId": "A"}, None)
    assert record.pages[-1] == "page"
    assert socket in run.clients
    socket.close()
    assert socket not in run.clients


def sent(socket: SocketRecord, method: str, refused: str | None = None, **params: Any) -> None:
    socket.command({"id": 1, "method": method, "params": params}, refused)


async def test_the_activity_shows_clicks_and_input_once_a_series_and_no_moves() -> None:
    socket, record, _ = recorded()
    for kind in ("mouseMoved", "mousePressed", "mouseReleased", "mousePressed", "mouseWheel", "mouseWheel"):
        sent(socket, "Input.dispatchMouseEvent", type=kind, x=1, y=2)
    for kind in ("rawKeyDown", "char", "keyUp"):
        sent(socket, "Input.dispatchKeyEvent", type=kind, text="secret")
    sent(socket, "Input.insertText", text="secret")
    sent(socket, "Input.dispatchMouseEvent", type=["mousePressed"])
    sent(socket, "DOM.setFileInputFiles", files=["/secret"])
    sent(socket, "Runtime.evaluate", expression="secret")
    for _ in range(2):
        sent(socket, "Page.crash", "Page.crash is refused (page.crash).")
    mouse, key = "Input.dispatchMouseEvent", "Input.dispatchKeyEvent"
    assert record.noted == [
        (mouse, False),
        ("click", True),
        (mouse, False),
        ("click", False),
        ("scroll", True),
        ("scroll", False),
        ("type", True),
        ("type", False),
        (key, False),
        ("type", False),
        (mouse, False),
        ("choose-files", True),
        ("Runtime.evaluate", False),
        ("Page.crash", True),
        ("Page.crash", False),
    ]
    assert "secret" not in repr(record.noted)


async def test_input_in_another_page_is_a_series_of_its_own() -> None:
    socket, record, _ = recorded()
    attached(socket, "AA", "other page")
    for session in ("", "AA", "AA"):
        message = {"id": 1, "method": "Input.insertText", "sessionId": session, "params": {"text": "x"}}
        socket.command(message, None)
    assert record.noted == [("type", True), ("type", True), ("type", False)]
