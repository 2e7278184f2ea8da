"""A malicious holder of a lease: sockets of one runtime, and the attacks made through them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import psutil
from websockets.asyncio.client import ClientConnection, connect

from tests.support import networks, servers
from tests.support.egress import serving
from tests.support.remote import LARGEST_MESSAGE, Remote
from tests.support.waiting import until

REACHED = "the canary's answer"
PAGE = f"<!doctype html><title>Canary</title><body>{REACHED}</body>"
WORKER = """
self.onmessage = event => fetch(event.data).then(answer => answer.text(), error => 'failed')
    .then(text => event.ports[0].postMessage(text));
"""
SECONDS = 20.0

# Every way of a page to ask for an address, each with a path of its own, all at once. Returns what the page sees.
WAYS = (
    "fetch",
    "no-cors",
    "beacon",
    "xhr",
    "image",
    "script",
    "style",
    "iframe",
    "object",
    "events",
    "websocket",
    "worker",
    "form",
)
_FROM_A_PAGE = """(async base => {
    // Of these a page does not learn what became of them, so there is nothing to wait for.
    const untold = ['iframe', 'form', 'object', 'style', 'beacon'];
    const limit = name => new Promise(done => setTimeout(() => done('late'), untold.includes(name) ? 300 : 10000));
    const element = (tag, key, url, more = {}) => new Promise(done => {
        const made = Object.assign(document.createElement(tag), more);
        made.onload = () => done('loaded');
        made.onerror = () => done('failed');
        made[key] = url;
        (document.body || document.documentElement).append(made);
    });
    const text = answer => answer.text();
    const failed = error => 'failed';
    const ways = {
        'fetch': url => fetch(url).then(text),
        'no-cors': url => fetch(url, {mode: 'no-cors'}).then(answer => answer.type),
        'beacon': url => Promise.resolve(String(navigator.sendBeacon(url, 'x'))),
        'xhr': url => new Promise(done => {
            const asked = new XMLHttpRequest();
            asked.onload = () => done(asked.responseText);
            asked.onerror = () => done('failed');
            asked.open('GET', url);
            asked.send();
        }),
        'image': url => element('img', 'src', url),
        'script': url => element('script', 'src', url),
        'style': url => element('link', 'href', url, {rel: 'stylesheet'}),
        'iframe': url => element('iframe', 'src', url),
        'object': url => element('object', 'data', url),
        'events': url => new Promise(done => {
            const source = new EventSource(url);
            source.onopen = () => done('open');
            source.onerror = () => done('failed');
        }),
        'websocket': url => new Promise(done => {
            const made = new WebSocket(url.replace('http', 'ws'));
            made.onopen = () => done('open');
            made.onerror = () => done('failed');
        }),
        'worker': url => new Promise(done => {
            const code = `fetch('${url}').then(a => a.text(), e => 'failed').then(t => postMessage(t))`;
            const worker = new Worker(URL.createObjectURL(new Blob([code])));
            worker.onmessage = event => done(event.data);
            worker.onerror = () => done('failed');
        }),
        'form': url => new Promise(done => {
            const frame = document.createElement('iframe');
            frame.name = 'f' + Math.random();
            document.documentElement.append(frame);
            const form = Object.assign(document.createElement('form'), {action: url, target: frame.name});
            frame.onload = () => done('loaded');
            document.documentElement.append(form);
            form.submit();
        }),
    };
    const results = {};
    const there = new Set(document.querySelectorAll('*'));
    await Promise.all(Object.entries(ways).map(async ([name, way]) => {
        const path = base.endsWith('/') ? base + name : base;
        try {
            results[name] = String(await Promise.race([way(path).catch(failed), limit(name)]));
        } catch (error) {
            results[name] = 'failed';
        }
    }));
    // Each frame may have a process of its own.
    for (const made of document.querySelectorAll('*')) if (!there.has(made)) made.remove();
    return results;
})"""


class Canary:
    """A server that must not be reached, or must be: it records every connection and every path.

    `/to?URL` redirects there, and `/worker.js` is a service worker that requests the given address.
    """

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.paths: list[str] = []

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Canary]:
        async with serving(self._serve) as port:
            self.port = port
            async with contextlib.AsyncExitStack() as stack:
                # What listens on the other family's loopback is reached by other spellings.
                with contextlib.suppress(OSError):
                    stack.push_async_callback(servers.close, await asyncio.start_server(self._serve, "::1", port))
                yield self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            target = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
            self.paths.append(target)
            status, extra, body, kind = "200 OK", "", PAGE, "text/html"
            if target.startswith("/to?"):
                status, extra = "302 Found", f"Location: {unquote(target[4:])}\r\n"
            elif target == "/worker.js":
                body, kind = WORKER, "text/javascript"
            elif target == "/download":
                kind, extra = "application/octet-stream", 'Content-Disposition: attachment; filename="../../../out"\r\n'
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}"
                f"Access-Control-Allow-Origin: *\r\nConnection: close\r\n\r\n{body}".encode()
            )
            await writer.drain()
        writer.close()


class Refusal(Exception):
    """What DevTools, or the gateway in its place, answers a command with that it does not do."""


class Commands:
    """A DevTools socket with its events kept."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._last_id = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    @contextlib.asynccontextmanager
    async def attach(cls, url: str) -> AsyncIterator[Commands]:
        async with (
            connect(url, proxy=None, max_size=LARGEST_MESSAGE, close_timeout=1) as opened,
            cls.on(opened) as made,
        ):
            yield made

    @classmethod
    @contextlib.asynccontextmanager
    async def on(cls, opened: ClientConnection) -> AsyncIterator[Commands]:
        made = cls(opened)
        try:
            yield made
        finally:
            made._reading.cancel()
            await asyncio.gather(made._reading, return_exceptions=True)

    async def _read(self) -> None:
        try:
            async for text in self.socket:
                message = json.loads(text)
                waiting = self._answers.pop(message.get("id", 0), None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
                elif "method" in message:
                    self._events.put_nowait(message)
        finally:
            for waiting in self._answers.values():
                waiting.cancel()

    async def send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """The result; raises Refusal with the words of the error."""
        self._last_id += 1
        command: dict[str, Any] = {"id": self._last_id, "method": method, "params": params}
        if session is not None:
            command["sessionId"] = session
        waiting = self._answers[self._last_id] = asyncio.get_running_loop().create_future()
        await self.socket.send(json.dumps(command))
        async with asyncio.timeout(SECONDS):
            answer = await waiting
        if "error" in answer:
            raise Refusal(answer["error"]["message"])
        result: dict[str, Any] = answer["result"]
        return result

    def forget_events(self) -> None:
        while not self._events.empty():
            self._events.get_nowait()

    async def event(self, method: str, seconds: float = SECONDS) -> dict[str, Any]:
        """The parameters of the next event of this name; those before it are dropped."""
        async with asyncio.timeout(seconds):
            while True:
                message = await self._events.get()
                if message["method"] == method:
                    params: dict[str, Any] = message["params"]
                    return params

    async def run(self, script: str, session: str | None, **more: Any) -> Any:
        params = {"expression": script, "returnByValue": True, "awaitPromise": True, "userGesture": True, **more}
        answer = await self.send("Runtime.evaluate", session, **params)
        if "exceptionDetails" in answer:
            raise Refusal(json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")


class Page:
    """A page as one session commands it; without a session it is a page's own socket."""

    def __init__(self, commands: Commands, session: str | None, target: str) -> None:
        self.commands = commands
        self.session = session
        self.target = target

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        return await self.commands.send(method, self.session, **params)

    async def run(self, script: str, **more: Any) -> Any:
        return await self.commands.run(script, self.session, **more)

    async def frame(self) -> str:
        frame: str = (await self.send("Page.getFrameTree"))["frameTree"]["frame"]["id"]
        return frame

    async def try_all(self, base: str) -> dict[str, str]:
        """What each of `WAYS` shows to a page; a base that ends with a slash gets the way's name after it."""
        results: dict[str, str] = await self.run(f"{_FROM_A_PAGE}({json.dumps(base)})")
        return results

    async def text(self) -> str:
        """The text of the page once it is loaded."""
        loaded = "new Promise(done => document.readyState == 'complete' ? done() : addEventListener('load', done))"
        script = f"{loaded}.then(() => location.href + ' ' + (document.body ? document.body.innerText : ''))"
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    result: str = await self.run(script)
                    return result
                except Refusal as error:
                    # The page was left while it was asked.
                    if "context" not in str(error) and "navigated" not in str(error):
                        raise

    async def visit(self, url: str) -> str:
        result = await self.send("Page.navigate", url=url)
        return f"{result.get('errorText', '')} {await self.text()}"


class Holder:
    """A runtime with a lease, and sockets on it."""

    def __init__(self, remote: Remote, runtime: str, lease: str, commands: Commands) -> None:
        self.remote = remote
        self.runtime = runtime
        self.lease = lease
        self.commands = commands
        self.directory = Path()
        self.devtools_url = ""
        self.exit_port = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, remote: Remote, **config: Any) -> AsyncIterator[Holder]:
        """A new runtime's; the runtime is stopped at the end."""
        runtime = await remote.runtime(**config)
        lease = (await remote.lease(runtime)).url
        async with Commands.attach(lease) as commands:
            made = cls(remote, runtime, lease, commands)
            await made._look()
            yield made
        await remote.post(f"{runtime}/stop", {})

    async def _look(self) -> None:
        """What the tests know of the browser, and its client does not: where it lives."""
        own = urlsplit((await self.discover("GET", "/json/version")).json()["webSocketDebuggerUrl"]).path
        own = own[own.index("/devtools/") :]
        for file in (self.remote.gateway.data_dir / "runtimes").glob("*/home/profile/DevToolsActivePort"):
            port, path = file.read_text().split()
            if path == own:
                self.directory = file.parent.parent.parent
                self.devtools_url = f"ws://127.0.0.1:{port}{path}"
        for process in self.launch_script.children():
            found = re.search(r"MAP exit\.invalid 127\.0\.0\.1:(\d+)", " ".join(process.cmdline()))
            if found is not None:
                self.exit_port = int(found[1])
        assert self.devtools_url
        assert self.exit_port

    @property
    def launch_script(self) -> psutil.Process:
        """The process that leads the runtime's process group."""
        command = ["/bin/sh", str(self.directory / "launch")]

        def leads(process: psutil.Process) -> bool:
            # Another browser that has just ended is a zombie, which has no command line.
            with contextlib.suppress(psutil.Error):
                return bool(process.cmdline()[:2] == command)
            return False

        (found,) = filter(leads, psutil.Process(self.remote.gateway.pid).children())
        return found

    @property
    def devtools_port(self) -> int:
        port = urlsplit(self.devtools_url).port
        assert port is not None
        return port

    @property
    def uid(self) -> int:
        return (self.directory / "home").stat().st_uid

    async def discover(self, method: str, path: str) -> httpx.Response:
        """What is below the lease's root."""
        return await self.remote.api.request(method, self.lease.replace("ws", "http", 1) + path)

    async def page(self, commands: Commands | None = None) -> Page:
        """A new page, through an attached session."""
        commands = commands or self.commands
        target = (await commands.send("Target.createTarget", url="about:blank"))["targetId"]
        attached = await commands.send("Target.attachToTarget", targetId=target, flatten=True)
        return await _enabled(Page(commands, attached["sessionId"], target))

    @contextlib.asynccontextmanager
    async def pages(self) -> AsyncIterator[dict[str, Page]]:
        """The same power in each way that a client can have it."""
        attached = await self.page()
        nested = await self.commands.send("Target.attachToBrowserTarget")
        target = (await self.commands.send("Target.createTarget", nested["sessionId"], url="about:blank"))["targetId"]
        inner = await self.commands.send("Target.attachToTarget", nested["sessionId"], targetId=target, flatten=True)
        own = (await self.commands.send("Target.createTarget", url="about:blank"))["targetId"]
        async with Commands.attach(f"{self.lease}/devtools/page/{own}") as socket:
            yield {
                "session": attached,
                "session of a session": await _enabled(Page(self.commands, inner["sessionId"], target)),
                "page's socket": await _enabled(Page(socket, None, own)),
            }

    @contextlib.asynccontextmanager
    async def unguarded(self) -> AsyncIterator[Commands]:
        """The browser's own socket, with no gateway before it."""
        async with networks.unguarded(self.directory) as opened, Commands.on(opened) as commands:
            yield commands

    async def addresses(self) -> list[str]:
        """Of all targets, those that clients aren't shown by default, too."""
        result = await self.commands.send("Target.getTargets", filter=[{}])
        return [info["url"] for info in result["targetInfos"]]


async def _enabled(page: Page) -> Page:
    await page.send("Page.enable")
    return page


# Every way of a client to have an address opened; each returns what the client sees.
Way = Callable[[Page, str], Awaitable[str]]
NEVER_ASKED = "http://example.com/"


async def _navigate(page: Page, url: str) -> str:
    return await page.visit(url)


async def _create_target(page: Page, url: str) -> str:
    """In the browser's session, where a page's own socket has no such command."""
    target = (await page.send("Target.createTarget", url=url))["targetId"]
    if page.session is None:
        return ""
    attached = await page.commands.send("Target.attachToTarget", targetId=target, flatten=True)
    return await _when_loaded(Page(page.commands, attached["sessionId"], target))


async def _when_loaded(page: Page) -> str:
    """A page that was just made is still empty."""
    result = ""

    async def is_loaded() -> bool:
        nonlocal result
        result = await page.text()
        return not result.startswith("about:blank ")

    await until(is_loaded, "the page has begun", SECONDS)
    return result


async def _load_resource(page: Page, url: str) -> str:
    options = {"disableCache": True, "includeCredentials": False}
    result = await page.send("Network.loadNetworkResource", frameId=await page.frame(), url=url, options=options)
    found = result["resource"]
    if "stream" not in found:
        return json.dumps(found)
    read = await page.send("IO.read", handle=found["stream"])
    body = b64decode(read["data"]).decode("utf-8", "replace") if read.get("base64Encoded") else read["data"]
    return f"{found.get('httpStatusCode')} {body}"


async def _universal_world(page: Page, url: str) -> str:
    """An isolated world that may read across origins."""
    made = await page.send(
        "Page.createIsolatedWorld", frameId=await page.frame(), worldName="w", grantUniveralAccess=True
    )
    script = f"fetch({json.dumps(url)}).then(answer => answer.text(), error => 'failed: ' + error)"
    result: str = await page.run(script, contextId=made["executionContextId"])
    return result


async def _universal_frame(page: Page, url: str) -> str:
    """The same world, which opens a frame and looks into it."""
    made = await page.send(
        "Page.createIsolatedWorld", frameId=await page.frame(), worldName="w", grantUniveralAccess=True
    )
    script = f"""new Promise(done => {{
        const frame = document.createElement('iframe');
        frame.onload = () => {{
            try {{ done(frame.contentDocument.body.innerText) }} catch (error) {{ done('failed: ' + error) }}
        }};
        frame.src = {json.dumps(url)};
        document.documentElement.append(frame);
        setTimeout(() => done('failed: late'), 700);
    }})"""
    result: str = await page.run(script, contextId=made["executionContextId"])
    return result


async def _document(page: Page, url: str) -> str:
    """A document of the client's own, with the address in it, as a picture and in a frame."""
    done = 'onload="this.isDone = true" onerror="this.isDone = true"'
    html = (
        f'<iframe src="{url}" {done}></iframe><img src="{url}" {done}><embed src="{url}" {done}>'
        f'<object data="{url}" {done}></object>'
    )
    await page.send("Page.setDocumentContent", frameId=await page.frame(), html=html)
    # The page may be complete before what it contains; of an address that is refused some elements report nothing.
    await page.run("""new Promise(done => {
        setTimeout(done, 300);
        (function look() {
            const made = [...document.querySelectorAll('iframe, img, embed, object')];
            made.every(each => each.isDone) ? done() : setTimeout(look, 10);
        })();
    })""")
    return await _frames(page)


async def _frames(page: Page) -> str:
    """The text of all frames, as a client sees it, across origins too."""
    await page.text()
    results = []
    tree = (await page.send("Page.getFrameTree"))["frameTree"]
    for child in [tree, *tree.get("childFrames", [])]:
        with contextlib.suppress(Refusal):
            made = await page.send("Page.createIsolatedWorld", frameId=child["frame"]["id"], worldName="look")
            script = "location.href + ' ' + document.documentElement.innerText"
            results.append(await page.run(script, contextId=made["executionContextId"]))
    return " ".join(map(str, results))


async def _new_document_script(page: Page, url: str) -> str:
    script = f"window.result = fetch({json.dumps(url)}).then(a => a.text(), e => 'failed: ' + e)"
    added = await page.send("Page.addScriptToEvaluateOnNewDocument", source=script, worldName="")
    try:
        await page.visit("data:text/html,new")
        result: str = await page.run("window.result")
        return result
    finally:
        await page.send("Page.removeScriptToEvaluateOnNewDocument", identifier=added["identifier"])


async def _print(page: Page, url: str) -> str:
    """Templates of a printed page. What was drawn shows only in the size of its picture."""
    template = f'<span style="font-size:20px">x</span><img src="{url}"><iframe src="{url}"></iframe>'
    printed = await page.send(
        "Page.printToPDF", displayHeaderFooter=True, headerTemplate=template, footerTemplate=template
    )
    return b64decode(printed["data"]).decode("latin-1")


async def _intercepted(page: Page, act: Callable[[str], Awaitable[object]]) -> str:
    """What a page gets for a request that never leaves, since the client answers or changes it."""
    await page.send("Fetch.enable", patterns=[{"urlPattern": NEVER_ASKED}])
    page.commands.forget_events()
    try:
        await page.send("Page.navigate", url="about:blank")
        await page.send("Runtime.evaluate", expression=f"location.href = {json.dumps(NEVER_ASKED)}")
        paused = await page.commands.event("Fetch.requestPaused")
        try:
            await act(paused["requestId"])
        except Refusal:
            await page.send("Fetch.failRequest", requestId=paused["requestId"], errorReason="Aborted")
            raise
        return await _when_loaded(page)
    finally:
        await page.send("Fetch.disable")


async def _continue_request(page: Page, url: str) -> str:
    return await _intercepted(page, lambda id_: page.send("Fetch.continueRequest", requestId=id_, url=url))


async def _fulfill_request(page: Page, url: str) -> str:
    headers = [{"name": "Location", "value": url}]
    return await _intercepted(
        page,
        lambda id_: page.send("Fetch.fulfillRequest", requestId=id_, responseCode=302, responseHeaders=headers),
    )


async def _fulfill_page(page: Page, url: str) -> str:
    """A page that the client makes up, of an origin of the web, which opens the address."""
    body = b64encode(f'<iframe src="{url}"></iframe><script>location = "{url}"</script>made up'.encode()).decode()
    headers = [{"name": "Content-Type", "value": "text/html"}]
    return await _intercepted(
        page,
        lambda id_: page.send(
            "Fetch.fulfillRequest", requestId=id_, responseCode=200, responseHeaders=headers, body=body
        ),
    )


COMMANDS: dict[str, Way] = {
    "Page.navigate": _navigate,
    "Target.createTarget": _create_target,
    "Network.loadNetworkResource": _load_resource,
    "Page.createIsolatedWorld": _universal_world,
    "a frame of an isolated world": _universal_frame,
    "Page.setDocumentContent": _document,
    "Page.addScriptToEvaluateOnNewDocument": _new_document_script,
    "Page.printToPDF": _print,
    "Fetch.continueRequest": _continue_request,
    "Fetch.fulfillRequest": _fulfill_request,
    "a page made up by Fetch": _fulfill_page,
}


async def try_commands(page: Page, url: str) -> dict[str, str]:
    """What the client sees of each of `COMMANDS`."""
    results = {}
    for name, way in COMMANDS.items():
        try:
            results[name] = await way(page, url)
        except Refusal as error:
            results[name] = str(error)
    return results


def interface_addresses() -> list[str]:
    """Of this machine, as URLs write them, loopback left out."""
    found = []
    for entries in psutil.net_if_addrs().values():
        for entry in entries:
            if entry.family == socket.AF_INET and not entry.address.startswith("127."):
                found.append(entry.address)
            elif entry.family == socket.AF_INET6 and "%" not in entry.address and entry.address != "::1":
                found.append(f"[{entry.address}]")
    return found
