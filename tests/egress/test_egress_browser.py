"""What a page of a real browser can't reach: the hole that such gateways have, tried in every way there is.

One runtime's page tries to get at another runtime's DevTools port, whose answer has the address of a socket that owns
that browser. Loopback as a whole is allowed here, which is as favourable as it gets.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import pytest_asyncio
import websockets.asyncio.server
from websockets.asyncio.server import ServerConnection

from gateway.core.traffic_rules import Traffic
from gateway.egress.proxy import EgressProxy
from gateway.launchers.base import BrowserName, LaunchSpec
from gateway.launchers.local import browsers
from gateway.launchers.local.launcher import LocalLauncher
from gateway.launchers.local.local_browser import LocalBrowser
from gateway.settings import Settings
from tests.support import own_network
from tests.support.browser_kinds import EACH_KIND
from tests.support.devtools import DevTools
from tests.support.egress import serving
from tests.support.gateway_process import temporary_data_dir
from tests.support.own_network import Outside, Packet, run_in_own_network
from tests.support.waiting import until

SPELLINGS = (
    "127.0.0.1",
    "localhost",
    "a.localhost",
    "0.0.0.0",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "2130706433",
    "017700000001",
    "0x7f000001",
    "127.1",
    "0177.0.0.1",
    "victim.example",
)
BIG = 24 * 1024 * 1024
PAGE = b"<!doctype html><title>Page</title><body>page</body>"
HOLE = "Browser"  # what /json/version begins with

FETCH = "fetch({url}).then(answer => answer.text(), error => 'failed')"
OPAQUE = "fetch({url}, {{mode: 'no-cors'}}).then(answer => answer.type, error => 'failed')"
SOCKET = """new Promise(done => {{
    const socket = new WebSocket({url}.replace('http', 'ws'));
    socket.onopen = () => done('open');
    socket.onerror = () => done('failed');
}})"""
WEBRTC = """new Promise(done => {{
    const peer = new RTCPeerConnection({{iceServers: [{{urls: 'stun:127.0.0.1:{port}'}}]}});
    peer.createDataChannel('data');
    peer.onicegatheringstatechange = () => peer.iceGatheringState == 'complete' && done('complete');
    peer.createOffer().then(offer => peer.setLocalDescription(offer));
}})"""


class Zone:
    """Resolves `victim.example` to loopback, and `rebind.example` to another loopback address once it is `rebound`."""

    def __init__(self) -> None:
        self.asked = 0
        self.rebound = False

    def __call__(self, name: str) -> list[str]:
        if name == "rebind.example":
            self.asked += 1
            return ["127.0.0.2"] if self.rebound else ["127.0.0.1"]
        if name == "victim.example":
            return ["127.0.0.1"]
        raise socket.gaierror(-2, "Name or service not known")


@contextlib.asynccontextmanager
async def opened(
    *allow: str, zone: Zone | None = None, arguments: Callable[[int], list[str]] | None = None
) -> AsyncIterator[LocalLauncher]:
    """A launcher whose browsers have the machine's network, where the rules alone keep pages from each other."""
    found = browsers.find(None)
    assert found is not None
    with temporary_data_dir() as data_dir:
        settings = Settings(data_dir=Path(data_dir), warm_browsers=0, egress_allow=allow, browser_network="off")
        launcher = LocalLauncher(settings, found, EgressProxy(settings, zone or Zone(), cache_seconds=0), arguments)
        await launcher.open()
        try:
            yield launcher
        finally:
            await launcher.close()


@pytest_asyncio.fixture(scope="module")
async def launcher() -> AsyncIterator[LocalLauncher]:
    async with opened("127.0.0.0/8", "::1", "localhost", "*.localhost", "victim.example") as launcher:
        yield launcher


@pytest_asyncio.fixture(scope="module")
async def victim(launcher: LocalLauncher) -> LocalBrowser:
    return await launcher.launch(LaunchSpec(uuid4()))


class Attacker:
    """A page, from whose point of view things are tried."""

    def __init__(self, browser: LocalBrowser, client: DevTools, session: str) -> None:
        self.browser = browser
        self.client = client
        self.session = session

    async def run(self, script: str, **values: object) -> Any:
        return await self.client.evaluate(script.format(**values), self.session)

    async def visit(self, url: str) -> str:
        """The text of the page that the address leads to."""
        await self.client.send("Page.navigate", self.session, url=url)
        text = "new Promise(done => document.readyState == 'complete' ? done() : addEventListener('load', done))"
        answer: str = await self.run(text + ".then(() => document.body.innerText)")
        return answer


@contextlib.asynccontextmanager
async def attacker(
    launcher: LocalLauncher, name: BrowserName | None = None, traffic: Traffic | None = None
) -> AsyncIterator[Attacker]:
    browser = await launcher.launch(LaunchSpec(uuid4(), name, traffic=traffic or Traffic()))
    try:
        async with DevTools.attach(browser) as client:
            session = await client.first_page()
            await client.send("Page.enable", session)
            yield Attacker(browser, client, session)
    finally:
        await browser.stop()


async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """`/to?URL` redirects there, `/big` is large, everything else is a small page; bodies are read."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        target = head.split()[1]
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        got = len(await reader.readexactly(length))
        if target.startswith(b"/to?"):
            writer.write(b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % target[4:])
            continue
        body = bytes(BIG) if target == b"/big" else str(got).encode() if got else PAGE
        lines = (b"HTTP/1.1 200 OK", b"Content-Type: text/html", b"Content-Length: %d" % len(body))
        writer.write(b"\r\n".join(lines) + b"\r\nAccess-Control-Allow-Origin: *\r\n\r\n" + body)
        await writer.drain()


def unguarded(port: int) -> list[str]:
    """Arguments without the egress proxy."""
    return ["--remote-debugging-port=0", "--no-first-run"]


def unprotected(port: int) -> list[str]:
    """Arguments without the egress proxy, with features: of two lists of disabled ones the last counts."""
    return [*unguarded(port), "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup"]


def port_of(browser: LocalBrowser) -> int:
    port = urlsplit(browser.devtools_url).port
    assert port is not None
    return port


@pytest.mark.parametrize("name", EACH_KIND)
async def test_another_runtimes_devtools_port_is_unreachable(
    launcher: LocalLauncher, victim: LocalBrowser, name: BrowserName
) -> None:
    path = f"{port_of(victim)}/json/version"
    async with serving(page) as port, attacker(launcher, name) as one:
        assert await one.visit(f"http://127.0.0.1:{port}/") == "page"
        for spelling in SPELLINGS:
            url = json.dumps(f"http://{spelling}:{path}")
            assert HOLE not in await one.run(FETCH, url=url), spelling
            own = urlsplit(victim.devtools_url)._replace(scheme="http", netloc=f"{spelling}:{port_of(victim)}").geturl()
            assert await one.run(SOCKET, url=json.dumps(own)) == "failed", spelling
        for spelling in SPELLINGS:
            text = await one.visit(f"http://{spelling}:{path}")
            assert text.startswith("Refused by the gateway"), spelling
            assert "egress." in text
        refused = one.browser.listener.usage.refused
        rules = {"egress.gateway", "egress.loopback_address", "egress.name_not_allowed"}
        # The owner of a connection that has ended meanwhile is unknown.
        assert set(refused) - {"egress.foreign_process"} <= rules
        assert refused["egress.gateway"] >= 3 * (len(SPELLINGS) - 3)


async def test_redirects_and_frames_do_not_bypass_the_rules(launcher: LocalLauncher, victim: LocalBrowser) -> None:
    target = f"http://127.0.0.1:{port_of(victim)}/json/version"
    frame = """new Promise(done => {{
        const frame = document.createElement('iframe');
        frame.onload = () => done('loaded');
        frame.src = {url};
        document.body.append(frame);
    }})"""
    image = """new Promise(done => {{
        const image = new Image();
        image.onload = () => done('loaded');
        image.onerror = () => done('failed');
        image.src = {url};
    }})"""
    async with serving(page) as port, attacker(launcher) as one:
        redirect = f"http://127.0.0.1:{port}/to?{target}"
        await one.visit(f"http://127.0.0.1:{port}/")
        refused = one.browser.listener.usage.refused
        for number, (script, url) in enumerate(
            [(FETCH, redirect), (OPAQUE, redirect), (frame, target), (frame, redirect), (image, target)], 1
        ):
            assert HOLE not in await one.run(script, url=json.dumps(url))
            assert refused["egress.gateway"] == number
        assert (await one.visit(redirect)).startswith("Refused by the gateway")


async def test_dns_rebinding_does_not_bypass_the_rules() -> None:
    zone = Zone()
    async with serving(page) as port, opened("rebind.example", "127.0.0.0/8", zone=zone) as launcher:
        victim = await launcher.launch(LaunchSpec(uuid4()))
        async with attacker(launcher) as one:
            assert await one.visit(f"http://rebind.example:{port}/") == "page"
            before = zone.asked
            zone.rebound = True
            url = json.dumps(f"http://rebind.example:{port_of(victim)}/json/version")
            assert HOLE not in await one.run(FETCH, url=url)
            assert zone.asked > before
            assert one.browser.listener.usage.refused == {"egress.name_not_allowed": 1}


async def test_the_attempt_works_without_the_guard() -> None:
    """Chrome bypasses its proxy for loopback unless configured otherwise; so the attempts above are real ones."""
    async with opened(arguments=unguarded) as careless:
        other = await careless.launch(LaunchSpec(uuid4()))
        async with attacker(careless) as one:
            url = f"http://127.0.0.1:{port_of(other)}/json/version"
            assert HOLE in await one.visit(url)
            assert await one.run(SOCKET, url=json.dumps(other.devtools_url.replace("ws://", "http://"))) == "open"


async def test_another_runtimes_exit_is_unreachable(launcher: LocalLauncher, victim: LocalBrowser) -> None:
    async with attacker(launcher) as one:
        assert "egress.gateway" in await one.visit(f"http://127.0.0.1:{victim.listener.port}/")


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest/meta-data/", "http://metadata.google.internal/", "http://[fd00:ec2::254]/"]
)
async def test_metadata_services_are_unreachable(launcher: LocalLauncher, url: str) -> None:
    async with attacker(launcher) as one:
        assert "egress.metadata" in await one.visit(url)


@pytest.mark.parametrize("name", EACH_KIND)
async def test_a_context_without_the_proxy_reaches_nothing(launcher: LocalLauncher, name: BrowserName) -> None:
    async with serving(page) as port, attacker(launcher, name) as one:
        for proxy in ("direct://", f"http://127.0.0.1:{port}"):
            context = await one.client.send("Target.createBrowserContext", proxyServer=proxy)
            target = await one.client.send("Target.createTarget", url="about:blank", **context)
            session = await one.client.session(target["targetId"])
            await one.client.send("Page.enable", session)
            for host in (f"127.0.0.1:{port}", f"localhost:{port}", "example.com"):
                answer = await one.client.send("Page.navigate", session, url=f"http://{host}/")
                assert answer["errorText"] in ("net::ERR_NAME_NOT_RESOLVED", "net::ERR_PROXY_CONNECTION_FAILED")


@pytest.mark.parametrize("name", EACH_KIND)
async def test_by_default_loopback_and_private_networks_are_unreachable(name: BrowserName) -> None:
    connections = 0

    async def counting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1

    async with serving(counting) as port, opened() as strict, attacker(strict, name) as one:
        assert "egress.loopback_address" in await one.visit(f"http://127.0.0.1:{port}/")
        assert "egress.private_address" in await one.visit("http://192.168.0.1/")
        assert "egress.name_not_allowed" in await one.visit(f"http://victim.example:{port}/")
        relay = f"turn:127.0.0.1:{port}?transport=tcp', username: 'u', credential: 'c"
        assert await one.run(WEBRTC.replace("stun:127.0.0.1:{port}", relay)) == "complete"
    assert connections == 0


async def test_the_lists_of_a_runtime_apply_to_its_pages(launcher: LocalLauncher) -> None:
    async with serving(page) as port:
        traffic = Traffic(allow=["127.0.0.1"], block=[f"http://127.0.0.1:{port}/blocked"])
        async with attacker(launcher, traffic=traffic) as one:
            assert await one.visit(f"http://127.0.0.1:{port}/") == "page"
            assert "egress.url_blocklist" in await one.visit(f"http://127.0.0.1:{port}/blocked/x")
            assert "egress.url_allowlist" in await one.visit(f"http://localhost:{port}/")


async def test_websockets_and_big_bodies_pass_and_are_counted(launcher: LocalLauncher) -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    talk = """new Promise((done, failed) => {{
        const socket = new WebSocket('ws://127.0.0.1:{port}/');
        socket.onopen = () => socket.send('x'.repeat(1000000));
        socket.onmessage = event => done(event.data.length);
        socket.onerror = () => failed('error');
    }})"""
    async with serving(page) as port, attacker(launcher) as one:
        await one.visit(f"http://127.0.0.1:{port}/")
        async with websockets.asyncio.server.serve(echo, "127.0.0.1", 0, max_size=None) as server:
            assert await one.run(talk, port=server.sockets[0].getsockname()[1]) == 1_000_000
        usage = one.browser.listener.usage
        before = usage.received
        assert await one.run("fetch('/big').then(answer => answer.arrayBuffer()).then(body => body.byteLength)") == BIG
        assert BIG <= usage.received - before < BIG + 10_000
        before = usage.sent
        sending = "fetch('/', {{method: 'POST', body: new Uint8Array({size})}}).then(answer => answer.text())"
        assert await one.run(sending, size=BIG) == str(BIG)
        assert BIG <= usage.sent - before < BIG + 10_000


@pytest.mark.parametrize("name", EACH_KIND)
async def test_an_upload_that_is_answered_early_arrives_whole_and_once(
    launcher: LocalLauncher, name: BrowserName
) -> None:
    size = 16 * 1024 * 1024
    heads: list[bytes] = []
    bodies: list[int] = []

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nAccess-Control-Allow-Origin: *\r\n\r\nok")
            if heads[-1].startswith(b"POST /close"):
                writer.write_eof()
            if heads[-1].startswith(b"POST"):
                bodies.append(len(await reader.readexactly(size)))

    send = "fetch({path}, {{method: 'POST', body: new Uint8Array({size})}}).then(answer => answer.text(), String)"
    async with serving(early) as port, attacker(launcher, name) as one:
        await one.visit(f"http://127.0.0.1:{port}/")
        del heads[:]
        for path in ("/keep", "/keep", "/close", "/keep"):
            assert await one.run(send, path=json.dumps(path), size=size) == "ok"
        # The page has its answer before the server has all of the body.
        await until(lambda: len(bodies) == 4, "the server has all bodies")
    assert bodies == [size] * 4
    assert sum(head.startswith(b"POST") for head in heads) == 4


# What pages have to send a datagram, or to have the browser send one. The address is one outside of the machine.
DATAGRAMS = {
    "a server of WebRTC": """(async () => {{
        const relay = {{username: 'u', credential: 'c'}};
        const peer = new RTCPeerConnection({{iceServers: [
            {{urls: ['stun:198.51.100.9:3478', 'stun:stun.example:3478', 'stun:stun.local:3478']}},
            {{urls: ['turn:198.51.100.9:3478', 'turn:turn.local:3478'], ...relay}},
            {{urls: 'turn:198.51.100.9:5349?transport=tcp', ...relay}},
        ]}});
        peer.createDataChannel('data');
        await peer.setLocalDescription(await peer.createOffer());
        window.peer = peer;
        return true;
    }})()""",
    "a candidate of WebRTC": """(async () => {{
        const [one, other] = window.peers = [new RTCPeerConnection(), new RTCPeerConnection()];
        one.createDataChannel('data');
        await one.setLocalDescription(await one.createOffer());
        await other.setRemoteDescription(one.localDescription);
        await other.setLocalDescription(await other.createAnswer());
        await one.setRemoteDescription(other.localDescription);
        const unique = '12345678-1234-1234-1234-123456789012.local';
        for (const peer of [one, other])
            for (const address of ['198.51.100.9', '224.0.0.251', 'name.local', unique, 'candidate.example'])
                await peer.addIceCandidate(
                    {{candidate: `candidate:1 1 udp 2113937151 ${{address}} 3478 typ host`, sdpMLineIndex: 0}});
        return true;
    }})()""",
    "WebTransport": """Promise.all(['198.51.100.9', 'transport.example', 'transport.local'].map(
        host => new WebTransport(`https://${{host}}/`).ready.catch(() => 0))).then(() => true)""",
    "names that are looked up": """(async () => {{
        for (const host of ['ahead.local', 'ahead.example'])
            for (const rel of ['dns-prefetch', 'preconnect', 'prefetch'])
                document.head.append(Object.assign(document.createElement('link'), {{rel, href: `https://${{host}}/`}}));
        for (const url of ['http://name.local/', 'https://name.local/', 'http://name/', 'https://name.example/'])
            await fetch(url).catch(() => 0);
        return true;
    }})()""",
    "devices that are searched": """(async () => {{
        for (const url of ['cast:CC1AD845', 'https://receiver.example/']) {{
            const request = new PresentationRequest([url]);
            await request.getAvailability().catch(() => 0);
            request.start().catch(() => 0);
        }}
        const video = Object.assign(document.createElement('video'), {{src: '/video'}});
        document.body.append(video);
        await video.remote.watchAvailability(() => 0).catch(() => 0);
        return true;
    }})()""",
}


GATHERED = """new Promise(done => {{
    const look = () => peer.iceGatheringState == 'complete' && done(peer.localDescription.sdp);
    peer.onicegatheringstatechange = look;
    look();
}})"""


async def send_datagrams(one: Attacker, port: int) -> None:
    await one.visit(f"http://localhost:{port}/")
    for name, script in DATAGRAMS.items():
        assert await one.run(script) is True, name


async def fail_to_resolve(client: DevTools, session: str, url: str) -> None:
    """Have a page's address fail as a name that is not found, which full Chromium's error page looks into."""
    await client.send("Fetch.enable", session)
    navigate = {"id": 0, "method": "Page.navigate", "params": {"url": url}, "sessionId": session}
    await client.socket.send(json.dumps(navigate))
    event: dict[str, Any] = {}
    while event.get("method") != "Fetch.requestPaused":
        event = json.loads(await client.socket.recv())
    request = event["params"]["requestId"]
    await client.send("Fetch.failRequest", session, requestId=request, errorReason="NameNotResolved")
    await client.send("Fetch.disable", session)


async def says_that_no_name_was_found(client: DevTools, session: str) -> bool:
    """As full Chromium's error page does once it does not search any further."""
    text = await client.evaluate("document.body ? document.body.innerText : ''", session)
    return "ERR_NAME_NOT_RESOLVED" in text


@own_network.needed
@pytest.mark.parametrize("name", EACH_KIND)
def test_no_datagram_leaves_a_browser(name: BrowserName) -> None:
    async def attempts(outside: Outside) -> None:
        async with serving(page) as port, opened("localhost", "127.0.0.1") as guarded, attacker(guarded, name) as one:
            await send_datagrams(one, port)
            # No address of the machine is given to pages either.
            assert "a=candidate" not in await one.run(GATHERED)
            for session in (one.session, await one.client.new_page(own_context=True)):
                await fail_to_resolve(one.client, session, f"http://unresolved.example:{port}/")
                if name == "chromium":
                    await until(
                        partial(says_that_no_name_was_found, one.client, session), "the search for a cause is over"
                    )
            await one.visit(f"http://localhost:{port}/")
            assert outside.packets == []

    run_in_own_network(attempts)


@own_network.needed
@pytest.mark.parametrize("name", EACH_KIND)
def test_datagrams_leave_a_browser_without_the_guard(name: BrowserName) -> None:
    """So the attempts above are real ones."""

    async def attempts(outside: Outside) -> None:
        async with serving(page) as port, opened(arguments=unprotected) as careless, attacker(careless, name) as one:
            await one.client.send("Page.navigate", one.session, url=f"http://localhost:{port}/")
            for script in DATAGRAMS.values():
                await one.client.send("Runtime.evaluate", one.session, expression=script.format())
            sent = {Packet("udp", "198.51.100.9", 3478), Packet("udp", "198.51.100.9", 443)}
            sent |= {Packet("udp", "224.0.0.251", 5353), Packet("igmp", "224.0.0.22", 0)}
            await until(lambda: sent <= set(outside.packets), "datagrams of each kind left")

    run_in_own_network(attempts)
