"""A lease's websocket: which attaches are accepted, what is forwarded, and how sockets end."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import httpx
import pytest
import pytest_asyncio
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.app import Gateway
from gateway.core.endings import IDLE_TIMEOUT
from gateway.core.shares import Shares
from gateway.crypto.hops import Hop, Target
from gateway.crypto.tokens import TokenIssuer
from gateway.domain.secrets import KeySource
from gateway.launchers.base import LaunchSpec
from gateway.launchers.local.launcher import LocalLauncher
from gateway.launchers.local.local_browser import LocalBrowser
from gateway.server import Server, configuration_of
from gateway.settings import Settings
from gateway.store.database import Database
from gateway.tunnel.large_commands import LARGE, LargeCommands
from gateway.tunnel.tunnel import Tunnel
from gateway.websocket.frames import header
from tests.support import launchers
from tests.support.devtools import DevTools
from tests.support.launchers import FakeBrowser, WorkingLauncher
from tests.support.nodes import joined
from tests.support.pages import BIG_SCREENSHOT_BYTES, PageServer
from tests.support.raw import RawClient
from tests.support.remote import Lease, closed
from tests.support.samples import sample
from tests.support.waiting import SECONDS, until

CEILING = 1024 * 1024
ATTACH_SECONDS = 0.5
WHOLE = {"x": 0, "y": 0, "width": 1700, "height": 1500, "scale": 1}
PAINTED = """new Promise(done => {
    const look = () => document.title == 'Noise, painted' ? done() : setTimeout(look, 20);
    look();
})"""
NOBODYS_TOKEN = TokenIssuer(bytes(32)).lease_token().secret
# More often, and from more distances, by GATEWAY_TEST_RACES.
RACES = int(os.environ.get("GATEWAY_TEST_RACES", "20"))


class Elsewhere(WorkingLauncher):
    """A launcher whose browsers are all at one address, where a test has put something."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    async def launch(self, spec: LaunchSpec) -> FakeBrowser:
        browser = await super().launch(spec)
        browser.devtools_url = self.url
        return browser


@dataclass
class Served:
    """A gateway behind a real port, its API, and a space."""

    gateway: Gateway
    server: Server
    api: httpx.AsyncClient
    space: str
    database_url: str

    async def runtime(self, **config: Any) -> str:
        """Path of a new runtime."""
        answer = await self.api.post(f"/v1/spaces/{self.space}/runtimes", json={"config": config} if config else {})
        answer.raise_for_status()
        return f"/v1/spaces/{self.space}/runtimes/{answer.json()['id']}"

    async def lease(self, runtime: str | None = None) -> Lease:
        path = f"{runtime or await self.runtime()}/connections"
        answer = (await self.api.post(path, json={"protocol": "cdp"})).raise_for_status().json()
        return Lease(answer["endpoint"]["url"], f"{path}/{answer['id']}")

    async def expire_in(self, lease: Lease, seconds: float) -> None:
        """Set the lease's end by the database's clock."""
        connection = await asyncpg.connect(self.database_url)
        try:
            await connection.execute(
                "UPDATE leases SET expires_at = now() + $1 * interval '1 second' WHERE id = $2",
                seconds,
                UUID(lease.path.rsplit("/", 1)[1]),
            )
        finally:
            await connection.close()

    @contextlib.asynccontextmanager
    async def attached_near_its_end(
        self, lease: Lease
    ) -> AsyncIterator[tuple[ClientConnection, ClientConnection, float]]:
        """Two sockets of a lease that ends soon after, however long the machine takes to attach, and its end by the
        monotonic clock."""
        seconds = 0.5
        async with contextlib.AsyncExitStack() as opened:
            while True:
                await self.expire_in(lease, seconds)
                expires = time.monotonic() + seconds
                try:
                    one, other = [await opened.enter_async_context(connect(lease.url, proxy=None)) for _ in range(2)]
                except InvalidStatus as refusal:
                    if refusal.response.status_code != 410:
                        raise
                    seconds *= 2
                else:
                    break
            yield one, other, expires

    async def is_expired(self, lease: Lease) -> bool:
        """Whether the lease's time is over by the database's clock."""
        connection = await asyncpg.connect(self.database_url)
        try:
            query = "SELECT expires_at < now() FROM leases WHERE id = $1"
            return bool(await connection.fetchval(query, UUID(lease.path.rsplit("/", 1)[1])))
        finally:
            await connection.close()

    @property
    def sockets(self) -> int:
        return len(self.gateway.services.leases.attachments)


@pytest.fixture
def ceiling() -> int:
    return CEILING


@pytest.fixture
def attach_seconds() -> float:
    """For a browser that answers, more than it ever needs."""
    return Settings().attach_timeout_seconds


@pytest.fixture
def permitted() -> bool:
    """Whether the operator permits unrestricted leases."""
    return Settings().unrestricted_leases


@pytest.fixture
def settings(settings: Settings, ceiling: int, attach_seconds: float, permitted: bool) -> Settings:
    # Browsers that echo know commands which no browser knows.
    changed = {
        "max_message_bytes": ceiling,
        "attach_timeout_seconds": attach_seconds,
        "cdp_unknown": "allow",
        "unrestricted_leases": permitted,
    }
    return settings.model_copy(update=changed)


@pytest_asyncio.fixture(scope="module")
async def local_launcher() -> AsyncIterator[LocalLauncher]:
    async with launchers.local_launcher(egress_allow=("127.0.0.1",)) as opened:
        yield opened


@pytest_asyncio.fixture
async def served(gateway: Gateway, settings: Settings, api_key: str, database_url: str) -> AsyncIterator[Served]:
    server = Server(configuration_of(settings.model_copy(update={"port": 0}), gateway))
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started, "the server listens", 10)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {api_key}"}, trust_env=False
    ) as api:
        space = (await api.post("/v1/spaces", json={})).raise_for_status().json()["id"]
        yield Served(gateway, server, api, space, database_url)
        await gateway.drain()
        assert len(gateway.services.leases.attachments) == 0
    server.should_exit = True
    await serving


@pytest_asyncio.fixture
async def real(local_launcher: LocalLauncher, launcher: WorkingLauncher) -> list[LocalBrowser]:
    """For tests on real browsers: the gateway launches them instead, and adds each to this list."""
    launched: list[LocalBrowser] = []

    async def launch(spec: LaunchSpec) -> LocalBrowser:
        launched.append(await local_launcher.launch(spec))
        return launched[-1]

    launcher.launch = launch  # type: ignore[method-assign, assignment]
    return launched


async def refused(url: str) -> InvalidStatus:
    with pytest.raises(InvalidStatus) as refusal:
        async with connect(url, proxy=None):
            pass
    return refusal.value


def error_of(refusal: InvalidStatus) -> tuple[int, str]:
    """Status and code of a refusal, whose answer is the one shape of every error, and names no token."""
    assert refusal.response.body is not None
    body = json.loads(refusal.response.body)
    assert set(body) == {"error", "code", "requestId", "details"}
    return refusal.response.status_code, body["code"]


@contextlib.asynccontextmanager
async def standing_in(answer: Callable[[ServerConnection], Awaitable[None]]) -> AsyncIterator[str]:
    """A websocket server where a browser is expected."""
    async with serve_websockets(answer, "127.0.0.1", 0, max_size=None, compression=None) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


def command(**params: Any) -> str:
    """A command as it leaves the gateway, so that it comes back the same from a browser that echoes."""
    return json.dumps({"id": 1, "method": "Echo.echo", "params": params}, ensure_ascii=False, separators=(",", ":"))


def masked(payload: bytes, first: int) -> bytes:
    """A client's frame with a key of zeros; `first` has no FIN bit, so that more must follow."""
    return header(first, len(payload), masked=True) + payload


def command_of(size: int) -> str:
    """A command of this many bytes."""
    return command(x="x" * (size - len(command(x=""))))


@pytest_asyncio.fixture
async def echoing(launcher: WorkingLauncher) -> AsyncIterator[None]:
    """The gateway's browsers are servers that echo what they receive."""
    async with standing_in(echo) as url:
        at(launcher, url)
        yield


def at(launcher: WorkingLauncher, url: str) -> None:
    launcher.launch = Elsewhere(url).launch  # type: ignore[method-assign]


# Admission


@pytest.mark.parametrize(
    "token",
    [NOBODYS_TOKEN, NOBODYS_TOKEN[:-1], NOBODYS_TOKEN + "x", "x", "%00", "é"],
    ids=["well formed", "short", "long", "tiny", "escaped", "not ASCII"],
)
async def test_an_unknown_token_is_refused_with_401(served: Served, token: str) -> None:
    refusal = await refused(f"{str(served.api.base_url).replace('http', 'ws')}/v1/connect/{token}")
    assert error_of(refusal) == (401, "lease.unknown")
    assert token not in str(refusal.response.body)


async def test_a_token_with_another_secret_is_refused_like_an_unknown_one(served: Served, echoing: None) -> None:
    lease = await served.lease()
    forged = lease.url[:-43] + NOBODYS_TOKEN[12:]
    refusal, unknown = await refused(forged), await refused(lease.url[:-55] + NOBODYS_TOKEN)
    assert error_of(refusal) == error_of(unknown) == (401, "lease.unknown")
    async with connect(lease.url, proxy=None):
        pass


async def test_an_expired_lease_is_refused_with_410(served: Served, echoing: None) -> None:
    lease = await served.lease()
    await served.expire_in(lease, -1)
    assert error_of(await refused(lease.url)) == (410, "lease.expired")


async def test_a_revoked_lease_is_refused_with_410(served: Served, echoing: None) -> None:
    lease = await served.lease()
    (await served.api.delete(lease.path)).raise_for_status()
    assert error_of(await refused(lease.url)) == (410, "lease.revoked")
    # An expiry that comes later does not change what it is.
    await served.expire_in(lease, -1)
    assert error_of(await refused(lease.url)) == (410, "lease.revoked")


async def test_a_lease_of_a_stopped_runtime_is_refused_with_410(served: Served, echoing: None) -> None:
    runtime = await served.runtime()
    lease = await served.lease(runtime)
    (await served.api.post(f"{runtime}/stop")).raise_for_status()
    assert error_of(await refused(lease.url)) == (410, "runtime.gone")


@pytest.mark.parametrize("attach_seconds", [3600.0])
async def test_a_browser_that_refuses_is_503_without_waiting_for_the_attach_timeout(served: Served) -> None:
    # Nothing listens at the address that this launcher reports for its browsers.
    lease = await served.lease()
    refusal = await refused(lease.url)
    assert error_of(refusal) == (503, "browser.unreachable")
    assert refusal.response.headers["Retry-After"] == "1"
    assert served.sockets == 0


@pytest.mark.parametrize("attach_seconds", [ATTACH_SECONDS])
async def test_a_browser_that_is_silent_is_503_within_the_attach_timeout(
    served: Served, launcher: WorkingLauncher
) -> None:
    async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(stay_silent, "127.0.0.1", 0) as server:
        at(launcher, f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        lease = await served.lease()
        before = time.monotonic()
        assert error_of(await refused(lease.url)) == (503, "browser.unreachable")
        assert time.monotonic() - before >= ATTACH_SECONDS
    assert Settings().attach_timeout_seconds <= 5


async def test_a_draining_gateway_refuses_attaches(served: Served, echoing: None) -> None:
    lease = await served.lease()
    served.gateway.services.runtimes.draining = True
    assert error_of(await refused(lease.url)) == (503, "gateway.draining")


async def test_a_server_without_the_tunnel_extension_gets_501(
    gateway: Gateway, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    plain = uvicorn.Config(
        gateway.app, host="127.0.0.1", port=0, ws="websockets-sansio", lifespan="off", log_config=None
    )
    server = uvicorn.Server(plain)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started, "the server listens", 10)
    port = server.servers[0].sockets[0].getsockname()[1]
    refusal = await refused(f"ws://127.0.0.1:{port}/v1/connect/{NOBODYS_TOKEN}")
    server.should_exit = True
    await serving
    assert error_of(refusal) == (501, "connect.unsupported_server")
    assert b"gateway.tunnel" in (refusal.response.body or b"")


async def test_each_answer_to_an_upgrade_has_a_request_id(
    served: Served, echoing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = await served.lease()
    async with connect(lease.url, proxy=None) as socket:
        assert socket.response is not None
        answers = [socket.response]
    answers.append((await refused(f"{lease.url}x")).response)
    answers.append((await refused(lease.url.replace("/v1/connect/", "/v1/nothing/"))).response)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the words of an inner error")

    # What no handler of a socket expects, which uvicorn would answer in plain text.
    monkeypatch.setattr(served.gateway.services.leases, "attach", broken)
    failure = await refused(lease.url)
    assert error_of(failure) == (500, "internal.error")
    assert b"inner" not in (failure.response.body or b"")
    answers.append(failure.response)
    assert [answer.status_code for answer in answers] == [101, 401, 404, 500]
    assert len({UUID(answer.headers["X-Request-Id"]) for answer in answers}) == 4


async def test_plain_http_gets_upgrade_required_without_the_token(served: Served, echoing: None) -> None:
    lease = await served.lease()
    address = lease.url.replace("ws", "http", 1)
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        for more in ("", "/", "/devtools/page/A", "?a=b"):
            answer = await served.api.request(method, address + more)
            assert answer.status_code == 426
            assert answer.headers["Upgrade"] == "websocket"
            assert lease.token not in answer.text + str(answer.headers)
            if method != "HEAD":
                assert answer.json()["code"] == "connect.websocket_only"


@pytest.mark.parametrize(
    ("header", "instead", "status"),
    [
        (rb"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 12", b"426"),
        (rb"Sec-WebSocket-Key: [^\r]+", b"Sec-WebSocket-Key: short", b"400"),
    ],
    ids=["another version", "a malformed key"],
)
async def test_an_invalid_upgrade_is_refused(
    served: Served, echoing: None, header: bytes, instead: bytes, status: bytes
) -> None:
    lease = await served.lease()
    request = re.sub(header, instead, RawClient.request(lease.url))
    parts = urlsplit(lease.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(request)
        assert (await reader.readline()).startswith(b"HTTP/1.1 " + status)
    finally:
        writer.close()


async def test_a_longer_address_is_no_lease_and_not_repeated(served: Served, echoing: None) -> None:
    lease = await served.lease()
    refusal = await refused(f"{lease.url}/json/version")
    assert refusal.response.status_code in (403, 404)
    assert lease.token.encode() not in (refusal.response.body or b"")


async def test_a_client_that_disconnects_during_the_attach_leaves_nothing(
    served: Served, launcher: WorkingLauncher, caplog: pytest.LogCaptureFixture
) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def slow(_: Any, __: Any) -> None:
        asked.set()
        await go.wait()

    async with serve_websockets(echo, "127.0.0.1", 0, process_request=slow) as server:
        at(launcher, f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        lease = await served.lease()
        leaving = asyncio.create_task(refused(lease.url))
        await asked.wait()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        go.set()
        await until(lambda: served.sockets == 0, "the attachment is gone")
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# What passes through


@pytest.mark.parametrize("ceiling", [Settings().max_message_bytes])
async def test_a_screenshot_of_5_megabytes_passes(served: Served, real: list[LocalBrowser], pages: PageServer) -> None:
    lease = await served.lease()
    async with DevTools.attach(lease.url) as client:
        page = await client.first_page()
        await client.send("Page.navigate", page, url=pages.url("/noise"))
        await client.evaluate(PAINTED, page)
        shot = await client.send("Page.captureScreenshot", page, captureBeyondViewport=True, clip=WHOLE)
        assert len(base64.b64decode(shot["data"])) > BIG_SCREENSHOT_BYTES


@pytest.fixture(scope="module")
def pages() -> Iterator[PageServer]:
    with PageServer() as server:
        yield server


async def test_commands_and_their_fragments_pass(served: Served, echoing: None) -> None:
    lease = await served.lease()
    async with connect(lease.url, proxy=None) as socket:
        for text in (command(), command(text="äöü \U0001f600"), command_of(126), command_of(70_000)):
            await socket.send(text)
            assert await socket.recv() == text
            await socket.send([text[:5], text[5:9], text[9:]])
            assert await socket.recv() == text


async def test_invalid_commands_are_answered_and_never_reach_the_browser(served: Served, echoing: None) -> None:
    lease = await served.lease()
    async with connect(lease.url, proxy=None) as socket:
        for wrong, code in (
            ("", -32700),
            ("{", -32700),
            (b'{"id": 1, "method": "Echo.echo"}', -32700),
            ("[]", -32600),
            ('{"method": "Echo.echo"}', -32600),
            ('{"id": 7}', -32600),
        ):
            await socket.send(wrong)
            answer = json.loads(await socket.recv())
            assert answer["error"]["code"] == code
        await socket.send(command(after="all that"))
        assert await socket.recv() == command(after="all that")


async def test_of_a_duplicate_key_the_browser_gets_the_checked_value(served: Served, echoing: None) -> None:
    lease = await served.lease()
    async with connect(lease.url, proxy=None) as socket:
        await socket.send('{"id":1,"method":"Page.navigate","method":"Echo.echo","params":{"url":"a","url":"b"}}')
        assert await socket.recv() == command(url="b")


async def test_text_that_is_not_utf_8_closes_with_1007(served: Served, echoing: None) -> None:
    lease = await served.lease()
    async with connect(lease.url, proxy=None) as socket:
        socket.transport.write(b"\x81\x82\0\0\0\0\xc3\x28")
        code, _ = await closed(socket)
        assert code == 1007


async def test_a_frame_that_is_not_masked_closes_with_1002(served: Served, echoing: None) -> None:
    lease = await served.lease()
    async with connect(lease.url, proxy=None) as socket:
        socket.transport.write(b"\x81\x02{}")
        code, _ = await closed(socket)
        assert code == 1002


async def test_messages_up_to_the_maximum_pass_both_ways(served: Served, echoing: None) -> None:
    lease = await served.lease()
    async with connect(lease.url, proxy=None, max_size=None) as socket:
        for size in (CEILING - 1, CEILING):
            await socket.send(command_of(size))
            assert await socket.recv() == command_of(size)


@pytest.mark.parametrize("ceiling", [8 * CEILING])
async def test_large_commands_pass_in_order_and_block_no_other_socket(served: Served, echoing: None) -> None:
    lease = await served.lease()
    texts = [command_of(LARGE - 1), command_of(LARGE), command(small=1), command_of(8 * CEILING), command(small=2)]
    async with connect(lease.url, proxy=None, max_size=None) as socket, connect(lease.url, proxy=None) as other:
        for text in texts:
            await socket.send(text)
        await other.send(command(other=True))
        assert await other.recv() == command(other=True)
        assert [await socket.recv() for _ in texts] == texts


@pytest.mark.parametrize("ceiling", [8 * CEILING])
async def test_a_large_command_that_can_not_be_reviewed_in_time_closes_with_1013(served: Served, echoing: None) -> None:
    served.gateway.services.large_commands.seconds = 0.001
    lease = await served.lease()
    async with connect(lease.url, proxy=None, max_size=None) as socket:
        await socket.send(command_of(4 * CEILING))
        assert await closed(socket) == (1013, "overloaded")


def holds(large: LargeCommands, size: int) -> bool:
    return large.held == size


async def test_unfinished_commands_of_all_sockets_are_limited(served: Served, echoing: None) -> None:
    large = served.gateway.services.large_commands
    large.limits = Shares(caller=1, tenant=1).of(3 * 70_000)
    lease = await served.lease()
    async with connect(lease.url, proxy=None) as one, connect(lease.url, proxy=None) as two:
        for socket, number in ((one, 1), (two, 2), (one, 3)):
            socket.transport.write(masked(b"x" * 70_000, 0x01 if number < 3 else 0x00))
            await until(partial(holds, large, number * 70_000), "it is held")
        two.transport.write(masked(b"x", 0x00))
        # The socket that holds the most ends, not the one that exceeded the limit.
        assert await closed(one) == (1013, "overloaded")
        await until(lambda: large.held == 70_001, "what it held is free")
    await until(lambda: large.held == 0, "nothing is held")


@pytest.mark.parametrize("size", [CEILING + 1, 64 * CEILING])
async def test_a_message_to_the_browser_above_the_maximum_closes_with_1009(
    served: Served, echoing: None, size: int
) -> None:
    lease = await served.lease()
    before = sample("gateway_sockets_closed_total", reason="too_big")
    for _ in range(2):  # The second time proves that the lease and its browser go on.
        async with connect(lease.url, proxy=None, max_size=None, write_limit=2**26) as socket:
            with contextlib.suppress(ConnectionClosed):
                await socket.send(b"x" * size)
            assert await closed(socket) == (1009, "too_big")
    await until(lambda: sample("gateway_sockets_closed_total", reason="too_big") == before + 2, "both are counted")


async def test_a_message_of_the_browser_above_the_maximum_closes_with_1009(
    served: Served, real: list[LocalBrowser]
) -> None:
    lease = await served.lease()
    async with DevTools.attach(lease.url) as client:
        page = await client.first_page()
        command = {"expression": f"'x'.repeat({CEILING})", "returnByValue": True}
        await client.socket.send(
            json.dumps({"id": 1000, "method": "Runtime.evaluate", "params": command, "sessionId": page})
        )
        assert await closed(client.socket) == (1009, "too_big")
    async with DevTools.attach(lease.url) as client:
        assert await client.evaluate("1 + 1", await client.first_page()) == 2


# How it ends


async def test_the_browser_survives_a_client_that_disconnects(served: Served, real: list[LocalBrowser]) -> None:
    open_before = sample("gateway_sockets_open")
    lease = await served.lease()
    async with DevTools.attach(lease.url) as client:
        page = await client.new_page()
        await client.evaluate("window.left = 'behind'", page)
        assert (served.sockets, sample("gateway_sockets_open")) == (1, open_before + 1)
    async with connect(lease.url, proxy=None) as abrupt:
        await until(lambda: served.sockets == 1, "the first one has left")
        abrupt.transport.abort()
    await until(lambda: served.sockets == 0, "no socket is counted")
    assert sample("gateway_sockets_open") == open_before
    async with DevTools.attach(lease.url) as client:
        found = [
            await client.evaluate("window.left", await client.session(page["targetId"]))
            for page in await client.pages()
        ]
    assert "behind" in found


async def test_an_expiry_closes_open_sockets_at_its_time(served: Served, echoing: None) -> None:
    lease = await served.lease()
    async with served.attached_near_its_end(lease) as (one, other, expires):
        assert [await closed(one), await closed(other)] == [(4401, "lease_expired")] * 2
        # The two clocks may differ a little.
        assert time.monotonic() - expires > -0.2
    assert error_of(await refused(lease.url)) == (410, "lease.expired")


async def test_the_commands_of_a_client_renew_its_lease(served: Served, echoing: None) -> None:
    asked = {"protocol": "cdp", "ttlSeconds": 60, "options": {"autoRenew": True}}
    path = f"{await served.runtime()}/connections"
    answer = (await served.api.post(path, json=asked)).raise_for_status().json()
    lease = Lease(answer["endpoint"]["url"], f"{path}/{answer['id']}")
    await served.expire_in(lease, 20)

    async def expires() -> str:
        return str((await served.api.get(lease.path)).json()["expiresAt"])

    before = await expires()
    async with connect(lease.url, proxy=None) as socket:
        await served.gateway.supervisor.round()
        assert await expires() == before
        await socket.send('{"id": 1, "method": "Browser.getVersion"}')
        await socket.recv()
        await served.gateway.supervisor.round()
        assert await expires() > before


async def test_a_slow_browser_does_not_extend_the_lease(served: Served, launcher: WorkingLauncher) -> None:
    go = asyncio.Event()

    async def slow(_: Any, __: Any) -> None:
        await go.wait()

    async with serve_websockets(echo, "127.0.0.1", 0, process_request=slow) as server:
        at(launcher, f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        lease = await served.lease()
        await served.expire_in(lease, 0.5)
        attaching = asyncio.create_task(refused(lease.url))
        await until(partial(served.is_expired, lease), "the lease has expired")
        go.set()
        assert error_of(await attaching) == (410, "lease.expired")


async def test_a_revoke_closes_open_sockets_and_no_others(served: Served, echoing: None) -> None:
    runtime = await served.runtime()
    revoked, other = await served.lease(runtime), await served.lease(runtime)
    async with (
        connect(revoked.url, proxy=None) as one,
        connect(revoked.url, proxy=None) as two,
        connect(other.url, proxy=None) as three,
    ):
        (await served.api.delete(revoked.path)).raise_for_status()
        assert [await closed(one), await closed(two)] == [(4403, "lease_revoked")] * 2
        await three.send(command(still="there"))
        assert await three.recv() == command(still="there")


async def test_a_lost_browser_connection_closes_with_1011(served: Served, launcher: WorkingLauncher) -> None:
    async def break_off(socket: ServerConnection) -> None:
        await socket.send("last words")
        socket.transport.abort()

    async with standing_in(break_off) as url:
        at(launcher, url)
        lease = await served.lease()
        async with connect(lease.url, proxy=None) as socket:
            assert await socket.recv() == "last words"
            assert await closed(socket) == (1011, "upstream_error")


async def test_the_end_of_a_browser_closes_with_4404_after_its_last_messages(
    served: Served, real: list[LocalBrowser]
) -> None:
    lease = await served.lease()
    async with DevTools.attach(lease.url) as client:
        # An answer comes, although the browser's socket ends right behind it.
        await client.send("Browser.getVersion")
        (browser,) = real
        os.killpg(browser.group, signal.SIGKILL)
        assert await closed(client.socket) == (4404, "runtime_gone")
    assert error_of(await refused(lease.url)) == (410, "runtime.gone")


async def test_browser_close_ends_the_socket_and_not_the_browser(served: Served, real: list[LocalBrowser]) -> None:
    runtime = await served.runtime()
    lease = await served.lease(runtime)
    async with DevTools.attach(lease.url) as client:
        page = await client.new_page()
        await client.evaluate("window.left = 'behind'", page)
        assert await client.send("Browser.close") == {}
        assert await closed(client.socket) == (1000, "client_closed")
    assert (await served.api.get(runtime)).json()["status"] == "active"
    async with DevTools.attach(lease.url) as client:
        found = [
            await client.evaluate("window.left", await client.session(page["targetId"]))
            for page in await client.pages()
        ]
    assert "behind" in found


@pytest.mark.parametrize(
    ("value", "reported"),
    [("signed", (1001, "draining")), ("1", (1000, "client_closed")), (None, (1000, "client_closed"))],
    ids=["a gateway", "a client that claims to be one", "any other client"],
)
async def test_a_gateway_that_forwarded_a_socket_reports_why_it_ended(
    served: Served, echoing: None, value: str | None, reported: tuple[int, str]
) -> None:
    lease = await served.lease()
    if value == "signed":
        value = served.gateway.services.hops.sign(Hop("192.0.2.7"), Target("GET", urlsplit(lease.url).path))
    headers = {} if value is None else {"Gateway-Hop": value}
    async with connect(lease.url, proxy=None, additional_headers=headers) as socket:
        await socket.close(1001, "draining")
    await until(lambda: served.sockets == 0, "the socket is gone")
    await served.gateway.services.leases.write_ended()
    (row,) = (await served.api.get(lease.path)).json()["usage"]["sockets"]
    assert (row["closeCode"], row["closeReason"]) == reported


async def test_an_idle_timeout_closes_with_4408(served: Served, echoing: None) -> None:
    # It finds a socket only where one is attached at that very moment; a runtime with a socket is not idle.
    runtime = await served.runtime()
    lease = await served.lease(runtime)
    async with connect(lease.url, proxy=None) as socket:
        await served.gateway.services.runtimes.end([UUID(runtime.rsplit("/", 1)[1])], IDLE_TIMEOUT)
        assert await closed(socket) == (4408, "idle_timeout")
    ended = (await served.api.get(runtime)).json()
    assert (ended["status"], ended["summary"]["endReason"]["code"]) == ("stopped", "runtime.idle_timeout")


async def test_a_drain_closes_with_1001(served: Served, real: list[LocalBrowser]) -> None:
    lease = await served.lease()
    async with DevTools.attach(lease.url) as client:
        draining = asyncio.create_task(served.gateway.drain())
        assert await closed(client.socket) == (1001, "draining")
        await draining


@pytest.mark.parametrize("how", ["revoke", "drain"])
async def test_a_client_that_never_reads_delays_no_close(served: Served, launcher: WorkingLauncher, how: str) -> None:
    async def talk(socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.send(b"x" * 65536)

    async with standing_in(talk) as url:
        at(launcher, url)
        lease = await served.lease()
        async with connect(lease.url, proxy=None, max_queue=1, close_timeout=0.1) as socket:
            await until(lambda: served.sockets == 1, "it is attached")
            await until(lambda: stalled(served), "it has stalled")
            if how == "revoke":
                (await served.api.delete(lease.path)).raise_for_status()
                await until(lambda: served.sockets == 0, "the attachment is gone")
            else:
                async with asyncio.timeout(SECONDS):
                    await served.gateway.services.runtimes.drain()
                assert served.sockets == 0
            socket.transport.abort()


def stalled(served: Served) -> bool:
    """Whether some socket of the server has more to write than is taken from it."""
    return any(link.is_stalled for link in served.server.server_state.connections if isinstance(link, Tunnel))


async def test_after_a_revoke_is_answered_no_socket_is_open(served: Served, real: list[LocalBrowser]) -> None:
    runtime = await served.runtime()
    let_in = 0

    async def attach(lease: Lease) -> ClientConnection | InvalidStatus:
        try:
            return await connect(lease.url, proxy=None)
        except InvalidStatus as refusal:
            return refusal

    # How long an attach takes here, with what else this machine does.
    began = time.monotonic()
    alone = await attach(await served.lease(runtime))
    assert not isinstance(alone, InvalidStatus)
    seconds = time.monotonic() - began
    await alone.close()
    for race in range(RACES):
        lease = await served.lease(runtime)
        attaching = asyncio.create_task(attach(lease))
        # From long before the check of the token to long after the socket is open.
        await asyncio.sleep(2 * race / RACES * seconds)
        (await served.api.delete(lease.path)).raise_for_status()
        outcome = await attaching
        if isinstance(outcome, InvalidStatus):
            assert error_of(outcome) == (410, "lease.revoked")
            continue
        let_in += 1
        with contextlib.suppress(ConnectionClosed):
            await outcome.send('{"id": 1, "method": "Browser.getVersion"}')
            pytest.fail(f"answered after the revoke: {str(await outcome.recv())[:200]}")
        assert await closed(outcome) == (4403, "lease_revoked")
    # Else the races were none.
    assert 0 < let_in < RACES


# What it may command


async def test_a_command_that_the_policy_refuses_is_answered_and_the_socket_stays(
    served: Served, real: list[LocalBrowser]
) -> None:
    lease = await served.lease()
    async with DevTools.attach(lease.url) as client:
        await client.socket.send('{"id": 1, "method": "Browser.crash"}')
        error = json.loads(await client.socket.recv())["error"]
        assert error["code"] == -32000
        assert "browser.crash" in error["message"]
        page = await client.first_page()
        with pytest.raises(AssertionError, match=r"address\.scheme"):
            await client.send("Page.navigate", page, url="file:///etc/passwd")
        assert await client.evaluate("1 + 1", page) == 2


@pytest.mark.parametrize(("permitted", "answer"), [(True, "result"), (False, "error")])
async def test_an_unrestricted_lease_allows_every_command_where_the_gateway_with_the_browser_permits_it(
    served: Served,
    real: list[LocalBrowser],
    settings: Settings,
    database: Database,
    keys: KeySource,
    api_key: str,
    answer: str,
) -> None:
    runtime = await served.runtime()
    permitting = settings.model_copy(update={"unrestricted_leases": True})
    async with joined(permitting, database, keys, api_key) as other:
        asked = {"protocol": "cdp", "options": {"policy": "unrestricted"}}
        minted = (await other.api.post(f"{runtime}/connections", json=asked)).raise_for_status().json()
    token = minted["endpoint"]["url"].rsplit("/", 1)[1]
    async with DevTools.attach(f"{str(served.api.base_url).replace('http', 'ws')}/v1/connect/{token}") as client:
        await client.socket.send('{"id": 1, "method": "SystemInfo.getProcessInfo"}')
        assert answer in json.loads(await client.socket.recv())
