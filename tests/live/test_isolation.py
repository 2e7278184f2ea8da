"""What the holder of a lease can't do, tried on a running gateway as a newcomer starts it.

Each attempt is made by a page, and by the client of a lease in every way that it can command a page. Each has a control
that shows that it would work: the same thing where it is allowed, or on the browser's own socket, with no gateway
before it. Names that are resolved to loopback, or that change their answer, need a resolver of the tests' own; they are
tried in test_egress_proxy.py and test_egress_browser.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio

from gateway.crypto.tokens import TokenIssuer
from gateway.launchers.base import BrowserName
from tests.support.attacker import (
    COMMANDS,
    REACHED,
    WAYS,
    Canary,
    Holder,
    Page,
    Refusal,
    interface_addresses,
    try_commands,
)
from tests.support.browser_kinds import EACH_KIND, KINDS
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.remote import Remote
from tests.support.tiers import first_of
from tests.support.waiting import until

T = TypeVar("T")
HOLE = "webSocketDebuggerUrl"
FILE = "file:///etc/passwd"
FILE_TEXT = "root:"
LOOPBACK = (
    "127.0.0.1",
    "localhost",
    "a.localhost",
    "0.0.0.0",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "2130706433",
    "017700000001",
    "0x7f000001",
    "0x7f.1",
    "127.1",
    "0177.0.0.1",
    "127.0.0.1.",
)
METADATA = (
    "169.254.169.254",
    "0xa9fea9fe",
    "[::ffff:169.254.169.254]",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "[fd00:ec2::254]",
    "metadata.google.internal",
    "metadata",
    "instance-data",
)
PRIVATE = ("10.0.0.1", "192.168.0.1", "172.16.0.1", "100.64.0.1", "[fd00::1]", "[fe80::1]", "0x0a000001", "10.1")
FILES = (
    FILE,
    "file:/etc/passwd",
    "file://localhost/etc/passwd",
    "FILE:///etc/passwd",
    " \tfi\nle:///etc/passwd",
    "view-source:file:///etc/passwd",
    "filesystem:file:///etc/passwd",
    "blob:file:///etc/passwd",
    "chrome://version/",
    "chrome-untrusted://print/",
    "devtools://devtools/bundled/inspector.html",
    "chrome-extension://mhjfbmdgcfjbbpaeojofohoefgiehjai/index.html",
    "view-source:chrome://version/",
    "about:version",
    "javascript:1",
)
# What opens a file for a client that no gateway stands before. The others are refused by the browser itself, too.
OPENS_FILES = ("Page.navigate", "Target.createTarget")
# Of the picture, and of no other, in a printed page.
DRAWN = "/Width 37"
PAGE_ONE = "data:text/html,<body>start"


def picture() -> bytes:
    """A PNG of 37 x 1 pixels."""
    rows = zlib.compress(b"\0" + b"\x80" * 37 * 3)
    chunks = ((b"IHDR", struct.pack("!IIBBBBB", 37, 1, 8, 2, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b""))
    parts = (
        struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


# One that each user may run.
PYTHON = shutil.which("python3", path="/usr/bin:/bin")
as_root = pytest.mark.skipif(
    os.geteuid() != 0 or PYTHON is None, reason="only root gives each runtime a user of its own; the machine's Python"
)


@dataclass(frozen=True)
class Place:
    """A gateway of the tests, what is allowed on it, and what is not."""

    gateway: GatewayProcess
    remote: Remote
    allowed: Canary | None
    canary: Canary

    @property
    def port(self) -> int:
        return int(self.gateway.base_url.rsplit(":", 1)[1])

    def refused(self) -> int:
        """How many requests of pages were refused so far."""
        page = httpx.get(f"{self.gateway.base_url}/metrics", trust_env=False).text
        return int(sum(map(float, re.findall(r"^gateway_egress_refusals_total\{.*\} (\S+)$", page, re.MULTILINE))))


@contextlib.asynccontextmanager
async def place(*, allowing: bool) -> AsyncIterator[Place]:
    async with contextlib.AsyncExitStack() as stack:
        canary = await stack.enter_async_context(Canary().serving())
        allowed = await stack.enter_async_context(Canary().serving()) if allowing else None
        # Here the rules alone keep runtimes from each other; of networks of their own, see launchers/test_networks.py.
        options = {"GATEWAY_BROWSER_NETWORK": "off"}
        if allowed:
            options["GATEWAY_EGRESS_ALLOW"] = f"127.0.0.1:{allowed.port}"
        data_dir = stack.enter_context(temporary_data_dir())
        gateway = await asyncio.to_thread(GatewayProcess.start, data_dir, **options)
        stack.push_async_callback(asyncio.to_thread, gateway.close)
        remote = await stack.enter_async_context(Remote(gateway))
        yield Place(gateway, remote, allowed, canary)


@pytest_asyncio.fixture(scope="module")
async def default() -> AsyncIterator[Place]:
    """As a newcomer has it, but for networks of their own."""
    async with place(allowing=False) as made:
        yield made


@pytest_asyncio.fixture(scope="module")
async def allowing() -> AsyncIterator[Place]:
    """One port of loopback is allowed."""
    async with place(allowing=True) as made:
        yield made


@pytest.fixture(scope="module", params=EACH_KIND)
def pair_kind(request: pytest.FixtureRequest) -> BrowserName:
    kind: BrowserName = request.param
    return kind


@pytest_asyncio.fixture(scope="module")
async def pair(default: Place, pair_kind: BrowserName) -> AsyncIterator[tuple[Holder, Holder]]:
    """An attacker and its victim."""
    async with (
        Holder.of(default.remote, browser=pair_kind) as attacker,
        Holder.of(default.remote, browser=pair_kind) as victim,
    ):
        yield attacker, victim


def share(kind: BrowserName, targets: Sequence[T]) -> Sequence[T]:
    """All of them for the default browser, a third for the other one, whose proxy and policy are the same."""
    return targets if kind == KINDS[0] else targets[::3]


async def devtools_answers(holder: Holder) -> bool:
    """The control of all attempts on a DevTools port: a client that can connect to it controls the browser."""
    async with httpx.AsyncClient(trust_env=False) as client:
        return HOLE in (await client.get(f"http://127.0.0.1:{holder.devtools_port}/json/version")).text


def inside(where: Place, attacker: Holder, victim: Holder) -> list[str]:
    """What is there, on this machine, for a page to want; each really answers."""
    names = [socket.gethostname(), *interface_addresses()]
    return [
        *(f"http://{host}:{victim.devtools_port}/json/version" for host in [*LOOPBACK, *names]),
        f"http://127.0.0.1:{attacker.devtools_port}/json/version",
        f"http://127.0.0.1:{victim.exit_port}/",
        f"http://127.0.0.1:{attacker.exit_port}/",
        *(f"http://{host}:{where.port}/healthz" for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]")),
        f"http://127.0.0.1:{where.port}/metrics",
        f"http://127.0.0.1:{where.port}/v1/spaces",
        f"http://127.0.0.1:{where.port}/v1/connect/{'x' * 55}/json/version",
    ]


def elsewhere() -> list[str]:
    return [f"http://{host}/latest/meta-data/" for host in (*METADATA, *PRIVATE)]


# Addresses


async def test_no_page_reaches_internal_services(
    default: Place, pair: tuple[Holder, Holder], pair_kind: BrowserName
) -> None:
    attacker, victim = pair
    before = await victim.addresses()
    assert await devtools_answers(victim)
    canaries = [f"http://{host}:{default.canary.port}/" for host in LOOPBACK]
    targets = share(pair_kind, canaries + inside(default, attacker, victim))
    # Chromium lets a process that many websockets were refused to wait for the next ones.
    for first in range(0, len(targets), 8):
        page = await attacker.page()
        await page.visit(PAGE_ONE if first % 16 else "about:blank")
        for url in targets[first : first + 8]:
            results = await page.try_all(url)
            assert REACHED not in str(results), url
            assert HOLE not in str(results), url
            assert {results[way] for way in ("fetch", "xhr", "events", "websocket", "image", "script")} == {"failed"}, (
                url
            )
        await page.send("Page.close")
    assert default.canary.connections == 0
    assert await victim.addresses() == before


async def test_each_request_kind_of_a_page_is_refused_by_the_proxy(default: Place, pair: tuple[Holder, Holder]) -> None:
    """Not by anything in the browser, which might change its mind."""
    attacker, victim = pair
    page = await attacker.page()
    for url in (f"http://127.0.0.1:{victim.devtools_port}/", f"http://127.0.0.1:{default.canary.port}/"):
        before = default.refused()
        await page.try_all(url)
        assert default.refused() - before >= len(WAYS)
    assert default.canary.connections == 0


async def test_a_refused_page_gets_a_readable_error(default: Place, pair: tuple[Holder, Holder]) -> None:
    attacker, victim = pair
    page = await attacker.page()
    for url in inside(default, attacker, victim):
        shown = await page.visit(url)
        assert "Refused by the gateway" in shown, (url, shown)
        assert re.search(r"egress\.(gateway|loopback_address|own_address|name_not_allowed)", shown), (url, shown)
    for url in elsewhere():
        shown = await page.visit(url)
        assert "Refused by the gateway" in shown, (url, shown)
        assert re.search(r"egress\.(metadata|private_address|link_local_address)", shown), (url, shown)


async def test_no_command_reaches_internal_services(
    default: Place, pair: tuple[Holder, Holder], pair_kind: BrowserName
) -> None:
    attacker, victim = pair
    before = await victim.addresses()
    targets = [
        f"{default.canary.url}/x",
        f"http://127.0.0.1:{victim.devtools_port}/json/version",
        f"http://[::1]:{victim.devtools_port}/json/version",
        f"http://0x7f000001:{default.port}/metrics",
        f"http://127.0.0.1:{victim.exit_port}/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
    ]
    async with attacker.pages() as pages:
        for way, page in pages.items():
            for url in share(pair_kind, targets if way == "session" else targets[::3]):
                results = await try_commands(page, url)
                assert REACHED not in str(results), (way, url)
                assert HOLE not in str(results), (way, url)
                assert "gateway_" not in str(results), (way, url)
                for name in ("Page.navigate", "Page.createIsolatedWorld", "Fetch.continueRequest"):
                    assert "Refused by the gateway" in results[name], (way, url, name, results[name])
                assert '"httpStatusCode": 403' in results["Network.loadNetworkResource"]
    for url in targets:
        assert (await attacker.discover("PUT", f"/json/new?{url}")).status_code == 200
    assert default.canary.connections == 0
    assert await victim.addresses() == before


@pytest.mark.parametrize("kind", EACH_KIND)
async def test_the_same_requests_reach_allowed_targets_only(allowing: Place, kind: BrowserName) -> None:
    """The control of all above; and that to allow one port opens no other, be it by a redirect."""
    allowed, canary = allowing.allowed, allowing.canary
    assert allowed is not None
    async with Holder.of(allowing.remote, browser=kind) as attacker, Holder.of(allowing.remote, browser=kind) as victim:
        page = await attacker.page()
        assert REACHED in await page.visit(f"{allowed.url}/")
        allowed.paths.clear()
        await page.try_all(f"{allowed.url}/")
        assert {f"/{way}" for way in WAYS} - {path.partition("?")[0] for path in allowed.paths} == set()
        allowed.paths.clear()
        results = await try_commands(page, f"{allowed.url}/x")
        # Of a printed page, and of one that navigates by itself, the client sees no text; the server sees the request.
        for name in COMMANDS.keys() - {"Page.printToPDF", "a page made up by Fetch"}:
            # On a busy machine a frame may be read before its document is there.
            if REACHED not in results[name]:
                await until(functools.partial(reaches, page, name, f"{allowed.url}/x"), f"{name}: {results[name]}")
        await page.visit("about:blank")
        for name in ("Page.printToPDF", "a page made up by Fetch"):
            allowed.paths.clear()
            await COMMANDS[name](page, f"{allowed.url}/x")
            if name != "Page.printToPDF":
                await until(lambda: "/x" in allowed.paths, "the page has asked for it")

        await page.visit(f"{allowed.url}/")
        targets = [
            f"{canary.url}/",
            f"http://[::1]:{allowed.port}/",
            f"http://127.0.0.2:{allowed.port}/",
            f"http://127.0.0.1:{victim.devtools_port}/json/version",
            f"http://127.0.0.1:{allowing.port}/metrics",
            f"http://127.0.0.1:{victim.exit_port}/",
            "http://169.254.169.254/latest/meta-data/",
        ]
        for target in share(kind, targets):
            redirect = f"{allowed.url}/to?{target}"
            for url in (target, redirect):
                results = await page.try_all(url)
                assert REACHED not in str(results), url
                assert HOLE not in str(results), url
                assert {results["fetch"], results["xhr"], results["websocket"], results["image"]} == {"failed"}, url
            results = await try_commands(page, redirect)
            assert REACHED not in str(results), redirect
            assert HOLE not in str(results), redirect
            assert "Refused by the gateway" in results["Page.navigate"]
            await page.visit(f"{allowed.url}/")
        assert canary.connections == 0


async def reaches(page: Page, name: str, url: str) -> bool:
    return REACHED in await COMMANDS[name](page, url)


@pytest.mark.parametrize("kind", EACH_KIND)
async def test_a_service_worker_reaches_no_further(allowing: Place, kind: BrowserName) -> None:
    allowed, canary = allowing.allowed, allowing.canary
    assert allowed is not None
    ask = """(async url => {
        await navigator.serviceWorker.register('/worker.js');
        const worker = (await navigator.serviceWorker.ready).active;
        const channel = new MessageChannel();
        return new Promise(done => {
            channel.port1.onmessage = event => done(event.data);
            worker.postMessage(url, [channel.port2]);
        });
    })"""
    async with Holder.of(allowing.remote, browser=kind) as attacker:
        page = await attacker.page()
        await page.visit(f"{allowed.url}/")
        assert REACHED in await page.run(f"{ask}({json.dumps(allowed.url + '/x')})")
        for url in (f"{canary.url}/", f"{allowed.url}/to?{canary.url}/", f"http://127.0.0.1:{attacker.devtools_port}/"):
            assert await page.run(f"{ask}({json.dumps(url)})") == "failed"
    assert canary.connections == 0


# Files


async def test_no_command_opens_a_file_or_a_page_of_the_browsers_own(
    pair: tuple[Holder, Holder], pair_kind: BrowserName
) -> None:
    attacker, victim = pair
    profile = victim.directory / "home" / "profile" / "Default" / "Preferences"
    environment = f"/proc/{victim.remote.gateway.pid}/environ"
    keys = victim.remote.gateway.data_dir
    drawing = keys / "picture.png"
    drawing.write_bytes(picture())
    async with attacker.pages() as pages:
        for way, page in pages.items():
            for url in FILES:
                for method in ("Page.navigate", "Target.createTarget"):
                    with pytest.raises(Refusal, match=r"Refused by the gateway's policy \(address\.scheme\)"):
                        await page.send(method, url=url)
                with pytest.raises(Refusal, match=r"\(address\.scheme\)"):
                    await page.send("Network.loadNetworkResource", frameId=await page.frame(), url=url, options={})
            paths = ("/etc/passwd", profile, environment, keys / "api-key", keys / "master-keys")
            for path in share(pair_kind, paths if way == "session" else paths[:1]):
                results = await try_commands(page, f"file://{path}")
                assert FILE_TEXT not in str(results), way
                assert "always_open_pdf_externally" not in str(results), way
                assert "address.scheme" in results["Page.navigate"], way
            assert DRAWN not in await COMMANDS["Page.printToPDF"](page, f"file://{drawing}"), way
    for url in FILES[:5]:
        answer = await attacker.discover("PUT", f"/json/new?{quote(url, safe='')}")
        assert answer.status_code == 403, url
        assert answer.json()["code"] == "target.address_refused"
    shown = await attacker.addresses()
    assert not any(url.startswith(("file:", "chrome:", "devtools:", "view-source:file:")) for url in shown), shown


@pytest.mark.parametrize("kind", EACH_KIND)
async def test_the_commands_open_files_without_the_guard(default: Place, kind: BrowserName) -> None:
    async with Holder.of(default.remote, browser=kind) as attacker, attacker.unguarded() as commands:
        page = await attacker.page(commands)
        for name in OPENS_FILES:
            assert FILE_TEXT in await COMMANDS[name](page, FILE), name
        await page.visit("about:blank")
        data = f"data:image/png;base64,{b64encode(picture()).decode()}"
        assert DRAWN in await COMMANDS["Page.printToPDF"](page, data)


async def test_no_page_opens_a_file_or_a_page_of_the_browsers_own(pair: tuple[Holder, Holder]) -> None:
    attacker, _ = pair
    leave = """(url => new Promise(done => {
        const frame = document.createElement('iframe');
        frame.src = url;
        document.body.append(frame);
        for (const tag of ['img', 'embed', 'object', 'script'])
            document.body.append(Object.assign(document.createElement(tag), {src: url, data: url}));
        open(url);
        fetch(url).then(answer => answer.text(), error => 'failed').then(done);
    }))"""
    for url in FILES[:1] + FILES[5:13]:
        page = await attacker.page()
        await page.visit(PAGE_ONE)
        assert await page.run(f"{leave}({json.dumps(url)})") == "failed", url
        with contextlib.suppress(Refusal):
            await page.run(f"location = {json.dumps(url)}; 1")
            # An address that is refused to a page might be opened for the browser itself.
            await page.send("Page.reload")
        shown = await page.text()
        assert shown.startswith(("about:blank", "chrome-error:", "data:")), (url, shown)
        assert FILE_TEXT not in shown
        assert await page.run("Object.keys(window.chrome || {}).includes('send')") is False
    assert await privileged(attacker) == []


async def test_printing_and_pdf_files_open_no_page_of_the_browsers_own(pair: tuple[Holder, Holder]) -> None:
    attacker, _ = pair
    document = b64encode(b"%PDF-1.1\n1 0 obj<</Pages 2 0 R>>endobj 2 0 obj<</Kids[]/Count 0>>endobj\n").decode()
    page = await attacker.page()
    await page.visit(PAGE_ONE)
    embed = f"<embed type='application/pdf' src='data:application/pdf;base64,{document}'>"
    await page.run(f"document.body.innerHTML = {json.dumps(embed)}; setTimeout(print, 0); 1")
    # The page answers again once its printing is over.
    await page.run("new Promise(done => setTimeout(done, 300))")
    assert await privileged(attacker) == []


async def privileged(holder: Holder) -> list[str]:
    """Targets whose page may do more than one of the web; a blocked one has an error page in its place."""
    found = []
    for info in (await holder.commands.send("Target.getTargets", filter=[{}]))["targetInfos"]:
        if re.match(r"(chrome|chrome-extension|chrome-untrusted|devtools|file|view-source:file):", info["url"]):
            if info["type"] == "tab":
                continue
            attached = await holder.commands.send("Target.attachToTarget", targetId=info["targetId"], flatten=True)
            where = await holder.commands.run("location.href", attached["sessionId"])
            if not where.startswith("chrome-error:"):
                found.append(info["url"])
    return found


# What is written and read on the machine


async def test_a_download_is_written_into_the_runtimes_own_directory(allowing: Place) -> None:
    allowed = allowing.allowed
    assert allowed is not None
    async with Holder.of(allowing.remote) as attacker, Holder.of(allowing.remote) as victim:
        own = attacker.directory / "home" / "downloads"
        outside = allowing.gateway.data_dir / "outside"
        outside.mkdir()
        outside.chmod(0o777)
        paths = (
            str(outside),
            f"{own}/../../../../outside",
            f"/{outside}",
            f"{own}/\0/../../../../outside",
            str(victim.directory / "home" / "downloads"),
            "/etc",
            "../../outside",
        )
        page = await attacker.page()
        for path in paths:
            for commands, session, method in (
                (attacker.commands, None, "Browser.setDownloadBehavior"),
                (page.commands, page.session, "Browser.setDownloadBehavior"),
                (page.commands, page.session, "Page.setDownloadBehavior"),
            ):
                more = {} if method.startswith("Page") else {"eventsEnabled": True}
                for file in own.iterdir():
                    file.unlink()
                await commands.send(method, session, behavior="allow", downloadPath=path, **more)
                await page.visit(f"{allowed.url}/")
                await page.run("location = '/download'; 1")
                await until(lambda: list(own.rglob("*out*")) != [], f"{method} {path!r} wrote it", 15)
        assert list(outside.iterdir()) == []
        assert list((victim.directory / "home" / "downloads").iterdir()) == []
        assert not any(file.is_symlink() for file in own.rglob("*"))

        async with attacker.unguarded() as commands:
            page = await attacker.page(commands)
            await commands.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(outside))
            await page.visit(f"{allowed.url}/")
            await page.run("location = '/download'; 1")
            await until(lambda: list(outside.iterdir()) != [], "the control wrote it")


async def test_an_upload_reads_nothing_from_outside(pair: tuple[Holder, Holder]) -> None:
    attacker, victim = pair
    own = attacker.directory / "home" / "downloads"
    paths = (
        "/etc/passwd",
        f"{own}/../profile/Default/Preferences",
        f"{own}/../../../../api-key",
        f"{own}/\0/etc/passwd",
        f"{own}x/../../../../../../../etc/passwd",
        f"/proc/{attacker.remote.gateway.pid}/environ",
        str(victim.directory / "home" / "profile" / "Default" / "Preferences"),
        "etc/passwd",
        "file:///etc/passwd",
    )
    async with attacker.pages() as pages:
        for page in pages.values():
            for path in paths:
                node = await file_input(page)
                with pytest.raises(Refusal, match=r"\(file\.outside\)"):
                    await page.send("DOM.setFileInputFiles", nodeId=node, files=[path])
                drag = {"items": [], "files": [path], "dragOperationsMask": 1}
                with pytest.raises(Refusal, match=r"\(file\.drag\)"):
                    await page.send("Input.dispatchDragEvent", type="drop", x=5, y=5, data=drag)
                link = {
                    "items": [{"mimeType": "text/uri-list", "data": f"#\r\nfile://{path}"}],
                    "dragOperationsMask": 1,
                }
                with pytest.raises(Refusal, match=r"\(address\.scheme\)"):
                    await page.send("Input.dispatchDragEvent", type="drop", x=5, y=5, data=link)
            assert await page.run("document.querySelector('input').files.length") == 0
    async with attacker.unguarded() as commands:
        page = await attacker.page(commands)
        await page.send("DOM.setFileInputFiles", nodeId=await file_input(page), files=["/etc/passwd"])
        assert FILE_TEXT in await page.run("document.querySelector('input').files[0].text()")


async def file_input(page: Page) -> int:
    await page.run("document.body.innerHTML = '<input type=file>'; 1")
    await page.send("DOM.enable")
    root = (await page.send("DOM.getDocument"))["root"]["nodeId"]
    node: int = (await page.send("DOM.querySelector", nodeId=root, selector="input"))["nodeId"]
    return node


# Commands


async def test_commands_that_bypass_the_gateway_are_refused(default: Place, pair: tuple[Holder, Holder]) -> None:
    attacker, _ = pair
    proxy = f"http://127.0.0.1:{default.canary.port}"
    crashes = {"Browser.crash": "browser.crash", "Browser.crashGpuProcess": "browser.crash"}
    wrapped = json.dumps({"id": 1, "method": "Page.navigate", "params": {"url": FILE}})
    commands: list[tuple[str, str, dict[str, object]]] = [
        *((method, rule, {}) for method, rule in crashes.items()),
        ("Target.createBrowserContext", "network.guard", {"proxyServer": proxy}),
        ("Target.createBrowserContext", "network.guard", {"proxyServer": "direct://"}),
        ("Target.createBrowserContext", "network.guard", {"proxyBypassList": "127.0.0.1"}),
        ("Target.createBrowserContext", "network.guard", {"originsWithUniversalNetworkAccess": ["null"]}),
        ("Target.setRemoteLocations", "network.guard", {"locations": [{"host": "127.0.0.1", "port": default.port}]}),
        ("Target.exposeDevToolsProtocol", "command.wrapped", {"targetId": "x", "bindingName": "cdp"}),
        ("Target.sendMessageToTarget", "command.wrapped", {"message": wrapped, "sessionId": "x"}),
        ("Target.openDevTools", "browser.interface", {"targetId": "x"}),
        ("Browser.executeBrowserCommand", "browser.interface", {"commandId": "openTabSearch"}),
        ("Browser.getBrowserCommandLine", "host.details", {}),
        ("SystemInfo.getInfo", "host.details", {}),
        ("SystemInfo.getProcessInfo", "host.details", {}),
        ("Extensions.loadUnpacked", "browser.extensions", {"path": "/tmp"}),
        ("Tracing.start", "trace.config", {"perfettoConfig": b64encode(b"x").decode()}),
        ("Tracing.start", "trace.config", {"tracingBackend": "system"}),
        ("Tethering.bind", "network.guard", {"port": default.port}),
        ("Page.addCompilationCache", "page.code", {"url": "http://x/", "data": ""}),
        ("Unknown.command", "command.unknown", {}),
        ("page.navigate", "command.unknown", {"url": FILE}),
    ]
    async with attacker.pages() as pages:
        for page in pages.values():
            for method, rule, params in commands:
                with pytest.raises(Refusal, match=rf"Refused by the gateway's policy \({re.escape(rule)}\)"):
                    await page.send(method, **params)
            with contextlib.suppress(Refusal):
                await page.send("Page.navigate", url=" " * (2 * 1024 * 1024) + FILE)
                pytest.fail("a large command went past the policy")
            assert (await attacker.commands.send("Browser.getVersion"))["product"]
    assert default.canary.connections == 0
    async with attacker.unguarded() as control:
        assert "browserContextId" in await control.send("Target.createBrowserContext", proxyServer=proxy)
        assert (await control.send("SystemInfo.getProcessInfo"))["processInfo"]


async def test_a_browser_can_be_crashed_without_the_guard(default: Place) -> None:
    async with Holder.of(default.remote) as attacker:
        main = attacker.launch_script.children()[0]
        with pytest.raises(Refusal):
            await attacker.commands.send("Browser.crash")
        assert main.is_running()
        async with attacker.unguarded() as commands:
            await commands.socket.send(json.dumps({"id": 1, "method": "Browser.crash"}))
            await until(lambda: not main.is_running(), "the browser is gone", 20)


# All against all


@pytest.mark.parametrize("runtimes", first_of([4, 10]))
async def test_concurrent_runtimes_do_not_reach_each_other(default: Place, runtimes: int) -> None:
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(100):
        opened = [Holder.of(default.remote) for _ in range(runtimes)]
        holders = await asyncio.gather(*map(stack.enter_async_context, opened))
        pages = await asyncio.gather(*(holder.page() for holder in holders))
        before = [await holder.addresses() for holder in holders]
        refused = default.refused()

        async def attack(number: int) -> None:
            for victim in holders[:number] + holders[number + 1 :]:
                results = await pages[number].run(
                    f"""(async () => {{
                        const asked = [];
                        for (const port of [{victim.devtools_port}, {victim.exit_port}]) {{
                            const url = `http://127.0.0.1:${{port}}/json/version`;
                            asked.push(fetch(url).then(a => a.text(), e => 'failed'));
                            asked.push(fetch(url, {{mode: 'no-cors'}}).then(a => a.type));
                        }}
                        // One each, since Chromium slows down websockets of a page that many were refused to.
                        asked.push(new Promise(done => {{
                            const made = new WebSocket('{victim.devtools_url}');
                            made.onopen = () => done('open');
                            made.onerror = () => done('failed');
                        }}));
                        return Promise.all(asked);
                    }})()"""
                )
                assert results == ["failed", "opaque", "failed", "opaque", "failed"]

        await asyncio.gather(*map(attack, range(runtimes)))
        assert default.refused() - refused >= runtimes * (runtimes - 1) * 5
        assert [await holder.addresses() for holder in holders] == before
        assert all(await asyncio.gather(*map(devtools_answers, holders)))


# A process of a runtime's own user, such as one that broke out of Chromium's sandbox


NATIVE = """
import json, os, socket, sys
paths, ports = json.loads(sys.argv[1])
def opened(path):
    try:
        return "listed" if os.path.isdir(path) and os.listdir(path) is not None else open(path, "rb").read(1) and "read"
    except OSError as error:
        return type(error).__name__
def answered(port):
    with socket.create_connection(("127.0.0.1", port), 5) as made:
        made.sendall(b"GET http://127.0.0.1/ HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n")
        return made.recv(4096).split(b" ")[1].decode()
print(json.dumps([{path: opened(path) for path in paths}, {port: answered(port) for port in ports}]))
"""


@as_root
async def test_a_process_of_one_runtimes_user_can_not_access_others(default: Place) -> None:
    async with Holder.of(default.remote) as attacker, Holder.of(default.remote) as victim:
        assert attacker.uid != victim.uid != 0
        data_dir = default.gateway.data_dir
        main = victim.launch_script.children()[0].pid
        foreign = [
            *(victim.directory / "home" / name for name in ("", "profile", "downloads", "profile/DevToolsActivePort")),
            *(data_dir / name for name in ("", "api-key", "master-keys", "runtimes", "postgres", "postgres.socket")),
            *(
                f"/proc/{pid}/{name}"
                for pid in (main, default.gateway.pid)
                for name in ("environ", "mem", "fd", "root")
            ),
        ]
        own = [attacker.directory / "home" / "profile" / "DevToolsActivePort", "/etc/passwd"]
        asked = json.dumps([[str(path) for path in (*foreign, *own)], [victim.exit_port, attacker.exit_port]])
        group = str((attacker.directory / "home").stat().st_gid)
        drop = ["setpriv", "--reuid", str(attacker.uid), "--regid", group, "--clear-groups", "--no-new-privs", "--"]
        done = await asyncio.to_thread(
            subprocess.run,
            [*drop, str(PYTHON), "-I", "-c", NATIVE, asked],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            cwd="/",
            env={},
        )
        files, ports = json.loads(done.stdout)
        assert {path: files[str(path)] for path in map(str, own)} == {str(path): "read" for path in own}
        got = {path: found for path in map(str, foreign) if (found := files[path]) not in ("PermissionError",)}
        assert got == {}
        assert ports == {str(victim.exit_port): "407", str(attacker.exit_port): "403"}


# Keys and tokens


async def test_an_unknown_key_or_token_takes_the_same_comparison_as_a_wrong_one(
    anonymous: httpx.AsyncClient, api_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time is too noisy for a test; it would show whether a digest is compared at all, so that is tested."""
    compared: list[int] = []
    matches = TokenIssuer.matches

    def watched(issuer: TokenIssuer, secret: str, digest: bytes) -> bool:
        compared.append(len(digest))
        return matches(issuer, secret, digest)

    monkeypatch.setattr(TokenIssuer, "matches", watched)
    wrong = api_key[:-43] + "A" * 43
    foreign = TokenIssuer(bytes(32))
    answers = [
        await anonymous.get("/v1/spaces", headers={"Authorization": f"Bearer {key}"})
        for key in (wrong, foreign.api_key().secret)
    ]
    assert [answer.status_code for answer in answers] == [401, 401]
    one, two = ({**answer.json(), "requestId": None} for answer in answers)
    assert one == two
    assert compared == [32, 32]
    answer = await anonymous.get(f"/v1/connect/{foreign.lease_token().secret}/json/version")
    assert answer.status_code == 401
    assert compared == [32, 32, 32]
