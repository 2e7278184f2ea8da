"""Carries out steps on one browser, in a process of its own: `python -m gateway.automation.worker FD MEMORY`.

FD is a socket to the gateway (framing.py). The first line of standard input is the address of a lease; the process ends
when standard input is closed. Until the address comes, it is a spare one that serves no runtime yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import socket
import sys
import threading
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, BrowserContext, CDPSession, ConsoleMessage, Frame, Page, async_playwright
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeout

from gateway.automation import framing, values
from gateway.automation.alerts import Alert, Alerts
from gateway.automation.bindings import Bindings, StepError, Subscription, is_kind, kind_of, page_of
from gateway.automation.calls import REF, TEXT, Call, Vocabulary
from gateway.automation.outcomes import Bound, File, Secret
from gateway.automation.vocabularies import VOCABULARIES

DISCONNECTED = 3
_LEFT_ALONE = 4

# Beyond the time of a step, for the library to say what it waited for.
_GRACE_SECONDS = 0.25
_END_SECONDS = 0.5
_ALIVE_SECONDS = 0.3
# A page that is slow, as on a busy machine, must not be taken for one that never answers: it would be closed.
_PATIENCE_SECONDS = 4.0
_CLOSE_SECONDS = 2.0
_PICTURE_MS = 2000
_MOST_LOGS = 100
_LONGEST_LOG = 1000
_LONGEST_MESSAGE = 2000
_MOST_WAITED_FOR = 20
_LONGEST_WAITED_FOR = 1000
LONGEST_URL = 2048

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_POLICY = re.compile(r"Refused by the gateway's policy \(([a-z_.]+)\): (.*)", re.DOTALL)
_STALE_HANDLE = re.compile(
    r"Execution context was destroyed|JSHandle is disposed|Element is not attached|Unable to adopt|Cannot find context"
)


class Guard:
    """A DevTools session with a page that is opened before its scripts run: a script that never returns lets no later
    one open."""

    def __init__(self, session: CDPSession, target_id: str) -> None:
        self._session = session
        self.target_id = target_id

    @classmethod
    async def of(cls, page: Page) -> Guard:
        session = await page.context.new_cdp_session(page)
        info = await session.send("Target.getTargetInfo")
        return cls(session, str(info["targetInfo"]["targetId"]))

    async def end_script(self, page: Page, patience: float = _PATIENCE_SECONDS) -> bool:
        """End a script that keeps the page from answering; whether the page had to be closed for it.

        `patience` is the time in seconds that the page then has to answer.
        """
        if await self._answers(_ALIVE_SECONDS):
            return False
        with contextlib.suppress(TimeoutError, PlaywrightError):
            async with asyncio.timeout(_END_SECONDS):
                await self._session.send("Runtime.terminateExecution")
        if await self._answers(patience):
            return False
        with contextlib.suppress(TimeoutError, PlaywrightError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await page.close()
        return True

    async def _answers(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._session.send("Runtime.evaluate", {"expression": "0"})
        except (TimeoutError, PlaywrightError):
            return False
        return True


class Session:
    """The browser of one runtime, and what steps have bound."""

    def __init__(self, browser: Browser, gateway: Gateway) -> None:
        self.bindings = Bindings()
        self._browser = browser
        self.gateway = gateway
        self._guards: dict[Page, Guard] = {}
        # Of the vocabulary whose driver switches between them; None for the first page, and for its main frame.
        self._current: Page | None = None
        self._frame: Frame | None = None
        # Of the vocabulary whose dialogs wait for a command.
        self._alerts: Alerts | None = None
        browser.on("disconnected", lambda _: os._exit(DISCONNECTED))
        for context in browser.contexts:
            self._watch_context(context)

    def _watch_context(self, context: BrowserContext) -> None:
        context.on("close", self.bindings.context_closed)
        context.on("page", self._watch_page)
        for page in context.pages:
            self._watch_page(page)

    def _watch_page(self, page: Page) -> None:
        page.on("close", self._page_closed)
        if self._alerts is not None:
            self._alerts.watch(page)

    def _page_closed(self, page: Page) -> None:
        self._guards.pop(page, None)
        self.bindings.page_closed(page)

    async def run(self, message: dict[str, Any]) -> None:
        """Carry out the steps of a message, and report each as it ends; stops at the first that fails."""
        values.limit.set(message["valueCharacters"])
        vocabulary = VOCABULARIES[message["vocabulary"]]
        if vocabulary.keeps_dialogs and self._alerts is None:
            self._alerts = Alerts()
            for context in self._browser.contexts:
                for page in context.pages:
                    self._alerts.watch(page)
        self._dry: set[str] = set()
        for place, step in enumerate(message["steps"]):
            result, content = await self._step(vocabulary, place, step)
            await self.gateway.send({"type": "step", "index": place, "result": result}, content)
            if not result["ok"]:
                break
        await self.gateway.send({"type": "done", "bindings": len(self.bindings)})

    async def _step(self, vocabulary: Vocabulary, place: int, step: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        began = time.monotonic()
        call = vocabulary.find(step["call"], "call")
        result: dict[str, Any] = {"ok": True, "call": call.name}
        content = b""
        page: Page | None = None
        logs: list[dict[str, str]] = []
        try:
            async with AsyncExitStack() as stack:
                if step["dryRun"]:
                    result |= self._dry_run(step)
                else:
                    on, page = await self._target(call, step["ref"])
                    if step["logs"] and page is not None:
                        stack.enter_context(_captured(page, logs))
                    arguments = self._arguments(call, step["arguments"], place)
                    self._limit(call, arguments, step["timeoutMs"], page)
                    work = self._asked_agent(place, page) if call.agent else call.function(on, **arguments)
                    if self._alerts is not None:
                        work = self._alerts.carry_out(call, work, await self.current_page())
                    returned = await self._in_time(work, step["timeoutMs"], page)
                    content = await self._add_value(result, call, step["as"], returned, page)
        except Exception as error:  # noqa: BLE001, RUF100 - whatever a step raises is its result
            result = {"ok": False, "call": call.name, "error": await self._described(error, call, page, step)}
            if step["screenshotOnFailure"] and page is not None and not page.is_closed():
                content = await _picture(page)
        if step["logs"]:
            result["logs"] = logs
        result["durationMs"] = round((time.monotonic() - began) * 1000, 1)
        return result, content

    async def _asked_agent(self, place: int, page: Page | None) -> Any:
        """What an agent that the gateway runs has made of a step on a page; the gateway has the step's arguments."""
        assert page is not None
        return await self.gateway.agent(place, (await self._guard(page)).target_id)

    # What a step is about

    async def _target(self, call: Call, ref: str | None) -> tuple[Any, Page | None]:
        """The object that a call is about, and its page, which is guarded from here on."""
        if call.on == "binding" and ref is not None:
            return self.bindings.free(ref), None
        if ref is None:
            on, page = await self._default(call)
        else:
            on, page = self._bound(call, ref)
        if page is not None:
            if page.is_closed():
                raise StepError("execute.page_closed", "The page is closed.")
            await self._guard(page)
        return on, page

    async def _default(self, call: Call) -> tuple[Any, Page | None]:
        if call.on in ("page", "keyboard", "mouse", "touchscreen"):
            page = await self.default_page()
            return page, page
        if call.on == "context":
            return self._browser.contexts[0], None
        if call.on == "browser":
            return self, None
        if call.on == "driver":
            return self, await self.current_page()
        raise StepError("execute.ref_missing", f"{call.name} needs `ref`: a binding that is a {call.on}.")

    def _bound(self, call: Call, ref: str) -> tuple[Any, Page | None]:
        by_target = next((page for page, guard in self._guards.items() if guard.target_id == ref), None)
        if by_target is not None:
            return self._of_kind(call, ref, by_target), by_target
        binding = self.bindings.get(ref)
        return self._of_kind(call, ref, binding.item), binding.page

    @staticmethod
    def _of_kind(call: Call, ref: str, item: Any) -> Any:
        """Raises StepError for an object of another kind than the call is about."""
        if call.on == "frame" and isinstance(item, Page):
            item = item.main_frame
        if call.on in ("browser", "driver") or not is_kind(item, call.on):
            raise StepError(
                "execute.ref_mismatch", f"{call.name} is about a {call.on}, and {ref!r} is a {kind_of(item)}.", ref=ref
            )
        return item

    async def default_page(self) -> Page:
        """The oldest open page of the browser's own context; a new one where there is none."""
        context = self._browser.contexts[0]
        return next((page for page in context.pages if not page.is_closed()), None) or await context.new_page()

    async def current_page(self) -> Page:
        """The page that was switched to, while it is open."""
        if self._current is None or self._current.is_closed():
            return await self.default_page()
        return self._current

    async def current_frame(self) -> Frame:
        """The frame that was switched to, while it is there."""
        page = await self.current_page()
        if self._frame is None or self._frame.is_detached() or self._frame.page is not page:
            return page.main_frame
        return self._frame

    async def alert(self) -> Alert:
        """The open dialog of the page that was switched to. Raises StepError."""
        assert self._alerts is not None
        return self._alerts.on(await self.current_page())

    async def alert_opened(self, milliseconds: float) -> None:
        """Return once it has one. Raises StepError."""
        assert self._alerts is not None
        try:
            async with asyncio.timeout(milliseconds / 1000):
                await self._alerts.opened(await self.current_page())
        except TimeoutError:
            raise StepError("execute.timeout", f"No dialog opened within {milliseconds:g} ms.") from None

    def switch_to(self, page: Page) -> Page:
        self._current, self._frame = page, None
        return page

    async def switch_to_frame(self, name: str | None) -> None:
        """By the name of a frame, or the id of its element; None for the page itself."""
        self._frame = None
        if name is None:
            return
        page = await self.current_page()
        found = page.frame(name=name)
        if found is None:
            element = await page.query_selector(f"css=[id={json.dumps(name)}]")
            found = await element.content_frame() if element is not None else None
        if found is None:
            raise StepError("execute.failed", f"There is no frame {name!r}.")
        self._frame = found

    async def id_of(self, page: Page) -> str | None:
        """Id of a page, as its events have it."""
        return await self._id_of(page)

    async def new_context(self, **options: Any) -> BrowserContext:
        context = await self._browser.new_context(**options)
        self._watch_context(context)
        return context

    @property
    def contexts(self) -> list[BrowserContext]:
        return self._browser.contexts

    @property
    def version(self) -> str:
        return self._browser.version

    async def _guard(self, page: Page) -> Guard:
        guard = self._guards.get(page)
        if guard is None:
            try:
                async with asyncio.timeout(_CLOSE_SECONDS):
                    guard = await Guard.of(page)
            except TimeoutError:
                raise StepError("execute.page_unresponsive", "The page does not answer.", url=page.url) from None
            self._guards[page] = guard
        return guard

    # Arguments

    def _arguments(self, call: Call, given: dict[str, Any], place: int) -> dict[str, Any]:
        found = {}
        for parameter in call.parameters:
            if parameter.name not in given:
                continue
            value = given[parameter.name]
            if parameter.kind is REF:
                value = self.bindings.get(value["ref"]).item
            elif parameter.kind is TEXT and isinstance(value, dict):
                value = Secret(value["secret"], value["field"], place, self._enter)
            found[parameter.python_name] = value
        return found

    async def _enter(self, secret: Secret, page: Page, mark: str, replaces: bool) -> None:
        await self.gateway.enter(secret, (await self._guard(page)).target_id, mark, replaces)

    @staticmethod
    def _limit(call: Call, arguments: dict[str, Any], timeout_ms: int, page: Page | None) -> None:
        """Let the library end the call in the time of the step, and say what it waited for.

        Nothing else ends it: what waits in the library's own process goes on, though nothing waits for it here.
        """
        if page is not None:
            page.set_default_timeout(timeout_ms)
            page.set_default_navigation_timeout(timeout_ms)
        if call.timeout_option is None:
            return
        name = next(each.python_name for each in call.parameters if each.name == call.timeout_option)
        options = arguments.get(name, {})
        given = options.get("timeout") or timeout_ms
        arguments[name] = {**options, "timeout": min(given, timeout_ms)}

    def _dry_run(self, step: dict[str, Any]) -> dict[str, Any]:
        """A step that is only checked: its arguments were, here is its reference."""
        if step["ref"] is not None and step["ref"] not in self._dry:
            self.bindings.get(step["ref"])
        if step["as"] is not None:
            self._dry.add(step["as"])
        return {"dryRun": True}

    # Time

    async def _in_time(self, work: Coroutine[Any, Any, Any], timeout_ms: int, page: Page | None) -> Any:
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task}, timeout=timeout_ms / 1000 + _GRACE_SECONDS)
        except asyncio.CancelledError:
            task.cancel()
            await self.end_script(page, _ALIVE_SECONDS)
            raise
        if task.done():
            return task.result()
        closed = await self.end_script(page)
        task.cancel()
        await asyncio.wait({task}, timeout=_END_SECONDS)
        details = {"pageClosed": True} if closed else {}
        raise StepError("execute.timeout", f"The step did not end within {timeout_ms} ms.", **details)

    async def end_script(self, page: Page | None, patience: float = _PATIENCE_SECONDS) -> bool:
        guard = self._guards.get(page) if page is not None else None
        return guard is not None and page is not None and await guard.end_script(page, patience)

    # Results

    async def _add_value(
        self, result: dict[str, Any], call: Call, alias: str | None, returned: Any, page: Page | None
    ) -> bytes:
        """Add what a call returned to the result of its step; returns the bytes of a file."""
        if isinstance(returned, File):
            result["file"] = returned.described()
            return returned.content
        item, value = (returned.item, returned.value) if isinstance(returned, Bound) else (returned, None)
        if kind_of(item) is not None:
            if call.binds is not None and (alias is not None or not call.binds_with_alias):
                result["binding"] = self.bindings.bind(
                    item, alias, page_of(item) or page, await self._id_of(item)
                ).described()
            elif alias is None and kind_of(item) in ("elementHandle", "jsHandle"):
                await item.dispose()
        elif alias is not None and call.binds is not None:
            raise StepError("execute.nothing_to_bind", f"{call.name} found nothing that can be bound to {alias!r}.")
        if not isinstance(returned, Bound):
            value = returned
        if isinstance(value, Subscription):
            value = None
        written = value if isinstance(value, values.Value) else values.bounded(await self._plain(value))
        if value is not None or written.json is not None:
            result["value"] = written.json
        if written.truncated:
            result["truncated"] = True
        return b""

    async def _plain(self, value: Any) -> Any:
        """A library's objects, by themselves or in a list, as what they are."""
        if isinstance(value, list):
            return [await self._plain(item) for item in value]
        kind = kind_of(value)
        if kind is None:
            return value
        shown: dict[str, Any] = {"$type": kind}
        if kind in ("page", "frame", "request", "response", "download"):
            shown["url"] = value.url
        if kind == "page":
            shown["id"] = await self._id_of(value)
        match kind:
            case "frame":
                shown["name"] = value.name
            case "response":
                shown |= {"status": value.status, "statusText": value.status_text, "ok": value.ok}
            case "request":
                shown |= {"method": value.method, "resourceType": value.resource_type}
            case "download":
                shown["suggestedFilename"] = value.suggested_filename
            case "dialog":
                shown |= {"type": value.type, "message": value.message, "defaultValue": value.default_value}
            case "consoleMessage":
                shown |= {"type": value.type, "text": value.text}
            case "context":
                shown["id"] = await self._id_of(value)
        return shown

    async def _id_of(self, item: Any) -> str | None:
        if isinstance(item, Page) and not item.is_closed():
            return (await self._guard(item)).target_id
        return None

    async def _described(self, error: Exception, call: Call, page: Page | None, step: dict[str, Any]) -> dict[str, Any]:
        """The error of a step."""
        code, message, details = "execute.failed", str(error), {}
        if isinstance(error, StepError):
            code, message, details = error.code, error.message, dict(error.details)
        elif isinstance(error, PlaywrightError):
            code, message, details = _from_library(error, call)
            if isinstance(error, PlaywrightTimeout) and await self.end_script(page):
                details["pageClosed"] = True
        elif isinstance(error, MemoryError):
            code, message = "execute.no_memory", "The step needs more memory than its process may have."
        elif not isinstance(error, (ValueError, framing.MessageTooLarge)):
            code, message = "execute.internal", f"The call failed in the gateway's process ({type(error).__name__})."
        if page is not None:
            # Also of one that was closed since it did not answer.
            details.setdefault("url", page.url)
        if "url" in details:
            details["url"] = details["url"][:LONGEST_URL]
        return {"code": code, "message": message[:_LONGEST_MESSAGE], "details": details}


def _from_library(error: PlaywrightError, call: Call) -> tuple[str, str, dict[str, Any]]:
    text = _ANSI.sub("", error.message)
    if (refused := _POLICY.search(text)) is not None:
        return "execute.refused", refused[0].split("\n")[0], {"rule": refused[1]}
    head, _, log = text.partition("\nCall log:\n")
    waited = [line.strip().removeprefix("- ")[:_LONGEST_WAITED_FOR] for line in log.splitlines() if line.strip()]
    details: dict[str, Any] = {"waitedFor": waited[:_MOST_WAITED_FOR]} if waited else {}
    if isinstance(error, PlaywrightTimeout):
        return "execute.timeout", head, details
    if "has been closed" in head:
        return "execute.page_closed", head, details
    if "crashed" in head:
        return "execute.page_crashed", head, details
    if call.on in ("elementHandle", "jsHandle") and _STALE_HANDLE.search(head):
        return "execute.binding_stale", head, details
    return "execute.failed", head, details


@contextlib.contextmanager
def _captured(page: Page, logs: list[dict[str, str]]) -> Any:
    """What the page writes to its console meanwhile; the first messages."""

    def note(message: ConsoleMessage) -> None:
        if len(logs) < _MOST_LOGS:
            logs.append({"type": message.type, "text": message.text[:_LONGEST_LOG]})

    page.on("console", note)
    try:
        yield
    finally:
        page.remove_listener("console", note)


async def _picture(page: Page) -> bytes:
    with contextlib.suppress(PlaywrightError):
        return await page.screenshot(timeout=_PICTURE_MS)
    return b""


class Gateway:
    """The other end of the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._asked: asyncio.Future[dict[str, Any]] | None = None

    async def send(self, message: dict[str, Any], content: bytes = b"") -> None:
        try:
            packed = framing.packed(message, content)
        except framing.MessageTooLarge:
            if message["type"] != "step":
                raise
            error = {"code": "execute.result_too_large", "message": "The result is too large.", "details": {}}
            failed = {**message["result"], "ok": False, "error": error}
            for name in ("value", "file", "binding"):
                failed.pop(name, None)
            packed = framing.packed({**message, "result": failed})
        self._writer.write(packed)
        await self._writer.drain()

    async def enter(self, secret: Secret, page_id: str, mark: str, replaces: bool) -> None:
        """Have a secret of the vault typed into the element of a page that has this mark. Raises StepError."""
        of = {"key": secret.key, "field": secret.field, "index": secret.step}
        answer = await self.ask({"type": "secret", **of, "page": page_id, "mark": mark, "replaces": replaces})
        if "error" in answer:
            raise StepError(answer["error"]["code"], answer["error"]["message"])

    async def agent(self, place: int, page_id: str) -> Any:
        """What an agent answers to the step of this place. Raises StepError."""
        answer = await self.ask({"type": "agent", "index": place, "page": page_id})
        if "error" in answer:
            raise StepError(answer["error"]["code"], answer["error"]["message"], **answer["error"]["details"])
        return answer["value"]

    async def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """The answer to a message of the type `secret` or `agent`."""
        self._asked = asyncio.get_running_loop().create_future()
        await self.send(message)
        return await self._asked

    async def serve(self, session: Session) -> None:
        """Carry out executions, one at a time, until the gateway is gone."""
        running: asyncio.Task[None] | None = None
        while True:
            message, _ = await framing.read(self._reader)
            match message["type"]:
                case "run":
                    running = asyncio.create_task(session.run(message))
                case "secret" | "agent" if self._asked is not None and not self._asked.done():
                    self._asked.set_result(message)
                case "cancel":
                    if running is not None:
                        running.cancel()
                        await asyncio.wait({running})
                    await self.send({"type": "cancelled"})


def _limit(memory: int) -> None:
    """Limits of this process and of the library's: memory that is written to, and to be the first to go."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Only Linux has this file.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _end_with_parent() -> None:
    # Not by sys.stdin, whose lock would be held at the exit.
    while os.read(0, 1):
        pass
    os._exit(_LEFT_ALONE)


def _address() -> str:
    """The first line of standard input."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            os._exit(_LEFT_ALONE)
        line += byte
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return line.decode().strip()


async def _serve(descriptor: int) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=descriptor))
    gateway = Gateway(reader, writer)
    async with async_playwright() as library:
        await gateway.send({"type": "ready"})
        address = await asyncio.to_thread(_address)
        try:
            browser = await library.chromium.connect_over_cdp(address)
        except PlaywrightError as error:
            await gateway.send({"type": "failed", "message": _ANSI.sub("", error.message).split("\n")[0][:300]})
            return
        session = Session(browser, gateway)
        await gateway.send({"type": "connected"})
        await gateway.serve(session)


if __name__ == "__main__":
    _limit(int(sys.argv[2]))
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        asyncio.run(_serve(int(sys.argv[1])))
    # The library's own process ends with this one's pipes.
    os._exit(0)
