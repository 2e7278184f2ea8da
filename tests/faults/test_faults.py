"""Faults that a lease's websocket survives, each as it happens, on a real gateway process.

The browser is a real one where the fault is the browser's, and a fake one where the test must control each byte.

What is short here is as long as one likes by an environment variable: GATEWAY_TEST_STOPPED_SECONDS (browser and
database), GATEWAY_TEST_SOCKETS.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from gateway.settings import Settings
from gateway.store.embedded import EmbeddedPostgres
from tests.support import missing
from tests.support.faults import (
    Cable,
    Memory,
    Unplugged,
    attached_near_its_end,
    connections_at,
    how_ended,
    id_of,
    leaders,
    point_at,
    rows_of,
    signal_database,
    sockets_open,
    taken,
)
from tests.support.gateway_process import MEASURED, GatewayProcess, temporary_data_dir
from tests.support.raw import BINARY, CLOSE, PING, PONG, TEXT, Gone, RawBrowser, RawClient, echo, framed, raw_browser
from tests.support.remote import Lease, Remote, ask, closed
from tests.support.tiers import first_of
from tests.support.waiting import for_a_while, until

MIB = 1024 * 1024
STOPPED_SECONDS = float(os.environ.get("GATEWAY_TEST_STOPPED_SECONDS", "4"))
SOCKETS = int(os.environ.get("GATEWAY_TEST_SOCKETS", "200"))
GONE = (4404, "runtime_gone")
REVOKED = (4403, "lease_revoked")
EXPIRED = (4401, "lease_expired")
# What a gateway may hold of a client or a browser that does not keep up, by far.
BOUNDED = 32 * MIB
PING_SECONDS = 0.5
PONG_SECONDS = 2.0


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    """One gateway for all tests but those that end it, or that need other settings."""
    with temporary_data_dir() as data_dir, started(data_dir) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def pinging() -> Iterator[GatewayProcess]:
    """One that pings its clients all the time, and waits for them but a moment."""
    with (
        temporary_data_dir() as data_dir,
        started(
            data_dir,
            GATEWAY_PING_INTERVAL_SECONDS=str(PING_SECONDS),
            GATEWAY_PING_TIMEOUT_SECONDS=str(PONG_SECONDS),
            GATEWAY_ATTACH_TIMEOUT_SECONDS="2",
            **MEASURED,
        ) as gateway,
    ):
        yield gateway


def started(data_dir: Path, **env: str) -> GatewayProcess:
    common = {
        "GATEWAY_WARM_BROWSERS": "0",
        "GATEWAY_MAX_SOCKETS_PER_LEASE": "10000",
        "GATEWAY_MAX_SOCKETS": "20000",
        # A browser that a test plays knows other commands than Chromium.
        "GATEWAY_CDP_UNKNOWN": "allow",
        # A browser that is played listens in the network of this process.
        "GATEWAY_BROWSER_NETWORK": "off",
        "GATEWAY_LARGE_COMMAND_SECONDS": "60",
    }
    return GatewayProcess.start(data_dir, **common, **env)


@contextlib.asynccontextmanager
async def at(gateway: GatewayProcess) -> AsyncIterator[Remote]:
    """A client of it, of whose runtimes nothing is left afterwards."""
    async with Remote(gateway) as remote:
        yield remote
        await remote.clear()
    assert "Traceback" not in "".join(line for line in gateway.log.splitlines() if '"level": "debug"' not in line)


@pytest_asyncio.fixture
async def remote(gateway: GatewayProcess) -> AsyncIterator[Remote]:
    async with at(gateway) as remote:
        yield remote


async def played(remote: Remote, url: str) -> str:
    """A runtime whose browser is at this address."""
    runtime = await remote.runtime()
    await point_at(remote.gateway, runtime, url)
    return runtime


async def answered(client: RawClient, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
    """A command's result, on a socket that is read by hand."""
    message = {"id": 1, "method": method, "params": params}
    await client.command(json.dumps(message if session is None else message | {"sessionId": session}).encode())
    while True:
        _, payload = await client.message()
        answer = json.loads(payload)
        if answer.get("id") == 1:
            result: dict[str, Any] = answer["result"]
            return result


async def page_of(client: RawClient) -> str:
    """A session with the browser's page."""
    (page,) = [info for info in (await answered(client, "Target.getTargets"))["targetInfos"] if info["type"] == "page"]
    return str((await answered(client, "Target.attachToTarget", targetId=page["targetId"], flatten=True))["sessionId"])


async def evaluate(client: RawClient, session: str, expression: str) -> None:
    """Ask for it, and leave the answer for later."""
    params = {"expression": expression, "returnByValue": True}
    message = {"id": 2, "method": "Runtime.evaluate", "params": params, "sessionId": session}
    await client.command(json.dumps(message).encode())


async def refused(url: str) -> tuple[int, str, str | None]:
    """Status, code and Retry-After of a refusal."""
    with pytest.raises(InvalidStatus) as refusal:
        await connect(url, proxy=None, open_timeout=30)
    response = refusal.value.response
    return response.status_code, json.loads(response.body or b"")["code"], response.headers.get("Retry-After")


def echoed(**params: Any) -> bytes:
    """A command as it leaves the gateway, so that it comes back the same from a browser that echoes."""
    return json.dumps({"id": 1, "method": "Echo.echo", "params": params}, separators=(",", ":")).encode()


async def is_served(lease: Lease) -> None:
    """A client that behaves is."""
    async with connect(lease.url, proxy=None) as socket:
        await socket.send(echoed(x="y").decode())
        assert await asyncio.wait_for(socket.recv(), 5) == echoed(x="y").decode()


# 1. A browser that is killed in the midst of a message


@pytest.mark.parametrize("pace", [None, 32 * 1024], ids=["fast", "slow"])
async def test_a_browser_killed_within_a_message_closes_with_4404(
    gateway: GatewayProcess, remote: Remote, pace: float | None
) -> None:
    runtime = await remote.runtime()
    lease = await remote.lease(runtime)
    async with RawClient.attached(lease.url, receive_buffer=32 * 1024) as client:
        await evaluate(client, await page_of(client), f"'x'.repeat({24 * MIB})")
        await client.take(MIB)
        # So slow that the gateway has much to hand over still when it would cut off who takes nothing at all.
        client.pace = pace
        asyncio.get_running_loop().call_later(8, setattr, client, "pace", None)
        (leader,) = leaders(gateway)
        os.killpg(leader.pid, signal.SIGKILL)
        # It still reads, however slowly, so it receives the close frame.
        messages, *close = await client.end()
        assert (messages, tuple(close)) == ([], GONE)
        assert MIB < client.received < 24 * MIB
    assert await how_ended(gateway, lease) == [GONE]
    assert await refused(lease.url) == (410, "runtime.gone", None)


# 2. A frozen browser


@pytest.mark.thorough
async def test_a_paused_browser_loses_no_message_and_no_client(pinging: GatewayProcess) -> None:
    async with at(pinging) as remote:
        runtime = await remote.runtime()
        idle, busy = await remote.attach(runtime), await remote.attach(runtime)
        lease = await remote.lease(runtime)
        (leader,) = leaders(pinging)
        os.killpg(leader.pid, signal.SIGSTOP)
        began = time.monotonic()
        try:
            # More than the kernel holds on the way, so that the gateway has to stop reading this client.
            asking = asyncio.create_task(ask_often(busy, 4000))
            await idle.send('{"id": 7, "method": "Browser.getVersion"}')
            # Read from now on, since a client of this library that holds a message unread answers no ping.
            receiving = asyncio.create_task(idle.recv())
            assert await refused(lease.url) == (503, "browser.unreachable", "1")
            # Longer than any client has to answer a ping: its pong may wait behind what the browser does not take.
            await for_a_while(max(STOPPED_SECONDS, 3 * PONG_SECONDS) - (time.monotonic() - began))
            assert not asking.done()
        finally:
            os.killpg(leader.pid, signal.SIGCONT)
        assert await asyncio.wait_for(asking, 60) == list(range(4000))
        assert json.loads(await asyncio.wait_for(receiving, 10))["id"] == 7
        async with connect(lease.url, proxy=None) as late:
            await ask(late, "Browser.getVersion")
        assert await remote.end_of(runtime) == ("active", None)


async def ask_often(client: ClientConnection, times: int) -> list[int]:
    """Send `times` commands of 4 KiB, reading all the while; returns the ids of the answers, in order."""
    arrived: list[int] = []

    async def receive_all() -> None:
        while len(arrived) < times:
            arrived.append(json.loads(await client.recv())["id"])

    receiving = asyncio.create_task(receive_all())
    for number in range(times):
        await client.send(json.dumps({"id": number, "method": "Browser.getVersion", "params": {"x": "x" * 4096}}))
        # Sending alone would not let the clients of this process answer their pings.
        await asyncio.sleep(0)
    await receiving
    return arrived


# 3. A client that is gone without a word


@pytest.mark.parametrize("pushed", first_of([True, False]), ids=["in the midst of a push", "idle"])
async def test_a_client_that_vanishes_is_detected(pinging: GatewayProcess, pushed: bool) -> None:
    async def talk(browser: RawBrowser) -> None:
        while pushed:
            await browser.send(framed(TEXT, b"x" * 65536))
        await echo(browser)

    async with at(pinging) as remote, raw_browser(talk) as url:
        runtime = await played(remote, url)
        lease = await remote.lease(runtime)
        before = connections_at(pinging, lease.url, url)
        async with Unplugged.before(lease.url) as (way, near):  # noqa: SIM117  (the second line would be too long)
            async with connect(near, proxy=None, max_queue=None, close_timeout=0.1, ping_interval=None) as client:
                await until_open(remote, 1)
                # As long as the way is there its pongs are.
                await for_a_while(2 * (PING_SECONDS + PONG_SECONDS))
                assert await sockets_open(remote) == 1
                way.cut()
                await until_open(remote, 0, 20)
                assert await how_ended(pinging, lease) == [(1011, "ping_timeout")]
                # A vanished client sends no close frame, so the gateway does not wait for it for long.
                await until(lambda: connections_at(pinging, lease.url, url) <= before + 1, "its sockets are closed", 10)
                client.transport.abort()


@pytest.fixture
def cable() -> Iterator[Cable]:
    if os.geteuid() != 0:
        pytest.skip("only root makes networks of its own")
    missing.program("ip", "iproute2")
    try:
        with Cable.laid() as cable:
            yield cable
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network of our own can be made here: {error}")


@pytest.mark.thorough
async def test_a_client_whose_packets_are_lost_is_detected(cable: Cable) -> None:
    env = {
        "GATEWAY_HOST": cable.here,
        "GATEWAY_TRUSTED_HOSTS": cable.here,
        "GATEWAY_METRICS": "api",
        "GATEWAY_PING_INTERVAL_SECONDS": str(PING_SECONDS),
        "GATEWAY_PING_TIMEOUT_SECONDS": str(PONG_SECONDS),
    }
    with temporary_data_dir() as data_dir, started(data_dir, **env) as gateway:
        async with at(gateway) as remote, raw_browser(echo) as url:
            lease = await remote.lease(await played(remote, url))
            before = connections_at(gateway, lease.url, url)
            port = urlsplit(lease.url).port
            assert port is not None
            async with RawClient.on(await asyncio.to_thread(cable.connected, port), lease.url) as client:
                await sends_and_receives(client)
                cable.cut()
                await until_open(remote, 0, 10)
                assert await how_ended(gateway, lease) == [(1011, "ping_timeout")]
                await until(lambda: connections_at(gateway, lease.url, url) <= before + 1, "its sockets are closed", 10)


async def until_open(remote: Remote, count: int, seconds: float = 5) -> None:
    async def open_now() -> bool:
        return await sockets_open(remote) == count

    await until(open_now, f"{count} sockets are open", seconds)


# 4. A client that never reads


async def test_a_client_that_never_reads_costs_bounded_memory_and_slows_no_other(
    gateway: GatewayProcess, remote: Remote
) -> None:
    pushed = 0

    async def push(browser: RawBrowser) -> None:
        nonlocal pushed
        while pushed < 400:
            await browser.send(framed(TEXT, b"x" * MIB))
            pushed += 1

    async with raw_browser(push) as talking, raw_browser(echo) as listening:
        lease = await remote.lease(await played(remote, talking))
        other = await remote.lease(await played(remote, listening))
        await is_served(other)
        async with Memory(gateway) as memory, RawClient.attached(lease.url, receive_buffer=65536):
            for _ in range(40):
                await is_served(other)
            await until(lambda: pushed > 0, "the browser pushes")
            assert pushed < 400
            assert memory.growth < BOUNDED


# 6. Messages of the largest size


@pytest.mark.thorough
@pytest.mark.parametrize("over", [0, 1], ids=["at the ceiling", "one over"])
async def test_a_message_of_256_mib_passes_to_the_browser_and_one_more_byte_does_not(remote: Remote, over: int) -> None:
    arrived: list[int] = []

    async def measure(browser: RawBrowser) -> None:
        while True:
            opcode, payload = await browser.message()
            if opcode == CLOSE:
                return
            arrived.append(len(payload))
            await browser.send(framed(TEXT, b'{"id":1,"result":{}}'))

    size = Settings().max_message_bytes + over
    assert size == 256 * MIB + over
    async with raw_browser(measure) as url:
        lease = await remote.lease(await played(remote, url))
        async with RawClient.attached(lease.url) as client:
            message = echoed(x="")
            command = message[:-3] + b"x" * (size - len(message)) + message[-3:]
            # One that is over is known by its head.
            with contextlib.suppress(ConnectionError):
                await client.command(command)
            if over:
                assert await client.end() == ([], 1009, "too_big")
                assert arrived == []
            else:
                assert await client.message() == (TEXT, b'{"id":1,"result":{}}')
                assert arrived == [size]


@pytest.mark.thorough
@pytest.mark.parametrize("over", [0, 1], ids=["at the ceiling", "one over"])
async def test_a_message_of_256_mib_passes_from_the_browser_and_one_more_byte_does_not(
    remote: Remote, over: int
) -> None:
    size = 256 * MIB + over

    async def send(browser: RawBrowser) -> None:
        await browser.send(framed(TEXT, b"first"))
        await browser.send(framed(TEXT, b"x" * size))
        await echo(browser)

    async with raw_browser(send) as url:
        lease = await remote.lease(await played(remote, url))
        async with RawClient.attached(lease.url) as client:
            assert await client.message() == (TEXT, b"first")
            if over:
                assert await client.end() == ([], 1009, "too_big")
            else:
                opcode, payload = await client.message()
                assert (opcode, len(payload), payload.count(b"x")) == (TEXT, size, size)


async def test_a_command_too_big_for_chromium_closes_with_its_reason(remote: Remote) -> None:
    runtime = await remote.runtime()
    lease = await remote.lease(runtime)
    async with RawClient.attached(lease.url) as client:
        with contextlib.suppress(ConnectionError):
            await client.command(json.dumps({"id": 1, "method": "A.b", "params": {"x": "x" * (101 * MIB)}}).encode())
        _, *close = await client.end()
        status, _ = await remote.end_of(runtime)
        # Chromium takes 100 MiB: it closes that socket, and lives on.
        assert (tuple(close), status) == ((1011, "upstream_error"), "active")
    async with connect(lease.url, proxy=None) as again:
        await ask(again, "Browser.getVersion")


# 7. Frames that come byte by byte


async def test_messages_sent_byte_by_byte_pass_both_ways(remote: Remote) -> None:
    words = [echoed(a="b"), echoed(long="x" * 130), echoed()]
    from_client = (
        framed(TEXT, words[0], masked=True)
        + framed(PING, b"?" * 20, masked=True)
        + framed(TEXT, words[1][:50], masked=True, fin=False)
        + framed(PING, b"!", masked=True)
        + framed(0, b"", masked=True, fin=False)
        + framed(0, words[1][50:], masked=True)
        + framed(TEXT, words[2], masked=True)
    )
    from_browser = (
        framed(TEXT, b"one") + framed(PING, b"p" * 20) + framed(TEXT, b"t" * 130) + framed(BINARY, b"")
        + framed(TEXT, b"th", fin=False) + framed(PONG, b"") + framed(0, b"ree")
    )  # fmt: skip
    arrived: list[tuple[int, bytes]] = []
    pongs: list[tuple[int, bytes]] = []

    async def talk(browser: RawBrowser) -> None:
        arrived.extend([await browser.message() for _ in words])
        here, there = (browser.writer.get_extra_info(name)[1] for name in ("sockname", "peername"))
        for place in range(len(from_browser)):
            await browser.send(from_browser[place : place + 1])
            await until(lambda: taken(here, there), "the gateway has read the byte")
        with contextlib.suppress(Gone):
            await browser.message()
        pongs.extend(browser.controls)

    async with raw_browser(talk) as url:
        lease = await remote.lease(await played(remote, url))
        async with RawClient.attached(lease.url) as client:
            for place in range(len(from_client)):
                await client.send(from_client[place : place + 1])
                await until(
                    lambda: taken(client.socket, urlsplit(lease.url).port or 0), "the gateway has read the byte"
                )
            received = [await client.message() for _ in range(4)]
            assert received == [(TEXT, b"one"), (TEXT, b"t" * 130), (BINARY, b""), (TEXT, b"three")]
            # The gateway may have had a ping of its own meanwhile.
            assert [each for each in client.controls if each[0] == PONG] == [(PONG, b"?" * 20), (PONG, b"!")]
            await client.send_close()
            assert await client.end() == ([], 1000, "")
        await until(lambda: pongs == [(PONG, b"p" * 20)], "the browser's ping was answered")
    assert arrived == [(TEXT, word) for word in words]


# 8. Very many sockets


@pytest.mark.thorough
@pytest.mark.timeout(600)
async def test_very_many_sockets_are_served_and_each_gets_its_own_close() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with temporary_data_dir() as data_dir, started(data_dir, GATEWAY_PING_INTERVAL_SECONDS="600") as gateway:
            async with Remote(gateway) as remote, raw_browser(echo) as url, contextlib.AsyncExitStack() as stack:
                runtime = await played(remote, url)
                lease, revoked = await remote.lease(runtime), await remote.lease(runtime)
                before = Memory(gateway)
                began = time.monotonic()
                clients = await attached(stack, [revoked] + [lease] * (SOCKETS - 1))
                attaching, growth = time.monotonic() - began, before.growth
                assert await sockets_open(remote) == SOCKETS
                began = time.monotonic()
                await asyncio.gather(*(sends_and_receives(client) for client in clients))
                answering = time.monotonic() - began
                (await remote.api.delete(revoked.path)).raise_for_status()
                assert await asyncio.wait_for(clients[0].end(), 5) == ([], *REVOKED)
                await until_open(remote, SOCKETS - 1)
                await asyncio.gather(*(sends_and_receives(client) for client in clients[1:]))
                began = time.monotonic()
                gateway.signal(signal.SIGTERM)
                ends = {await closes_normally(clients[1])}
                # A client that was closed must not be routed back here.
                with contextlib.suppress(httpx.TransportError):
                    assert (await remote.api.get("/readyz")).status_code == 503
                ends |= set(await asyncio.gather(*(closes_normally(client) for client in clients[2:])))
                draining = time.monotonic() - began
                assert ends == {(1001, "draining")}
            assert gateway.wait(Settings().shutdown_grace_seconds) == 0
            assert "not all runtimes could be stopped within the grace" not in gateway.log
        print(
            f"{SOCKETS} sockets: attached in {attaching:.1f} s, {growth / SOCKETS / 1024:.1f} KiB each, "
            f"answered in {answering:.1f} s, drained in {draining:.1f} s"
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def attached(stack: contextlib.AsyncExitStack, leases: list[Lease]) -> list[RawClient]:
    """A socket of each lease, some of them at once."""
    gate = asyncio.Semaphore(32)

    async def attach(lease: Lease) -> RawClient:
        async with gate:
            return await stack.enter_async_context(RawClient.attached(lease.url))

    return await asyncio.gather(*(attach(lease) for lease in leases))


async def sends_and_receives(client: RawClient) -> None:
    await client.command(echoed(x="y"))
    assert await client.message() == (TEXT, echoed(x="y"))


async def closes_normally(client: RawClient) -> tuple[int, str]:
    _, code, reason = await client.end()
    await client.send_close()
    return code, reason


# 9. A database that is frozen, or gone


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", first_of(["is gone", "is frozen"]))
async def test_without_its_database_a_gateway_keeps_open_sockets(how: str) -> None:
    with temporary_data_dir() as data_dir, temporary_data_dir() as directory:
        database = EmbeddedPostgres(directory, 870000)
        url = await asyncio.to_thread(database.start)

        async def away() -> None:
            if how == "is frozen":
                signal_database(directory, signal.SIGSTOP)
            else:
                await asyncio.to_thread(database.stop)

        async def back() -> None:
            if how == "is frozen":
                signal_database(directory, signal.SIGCONT)
            else:
                assert await asyncio.to_thread(database.start) == url

        try:
            with started(data_dir, GATEWAY_DATABASE_URL=url) as gateway:
                async with at(gateway) as remote, raw_browser(echo) as browser:
                    await without_database(remote, url, browser, away, back)
        finally:
            signal_database(directory, signal.SIGCONT)
            await asyncio.to_thread(database.stop)


async def without_database(
    remote: Remote, url: str, browser: str, away: Callable[[], Awaitable[None]], back: Callable[[], Awaitable[None]]
) -> None:
    gateway = remote.gateway
    runtime = await remote.runtime()
    await point_at(gateway, runtime, browser, url)
    expiring, leaving, staying = [await remote.lease(runtime) for _ in range(3)]
    async with (
        attached_near_its_end(gateway, expiring, STOPPED_SECONDS / 2, url) as (one, expires),
        connect(staying.url, proxy=None) as other,
    ):
        ending = asyncio.create_task(end_of(one))
        async with connect(leaving.url, proxy=None):
            await echoes(other)
            await away()
            began = time.monotonic()
        await echoes(other)
        status, code, retry_after = await refused(staying.url)
        assert (status, code) == (503, "database.unavailable")
        assert retry_after is not None
        close, ended = await ending
        assert close == EXPIRED
        # The database that does not answer has the clock of this machine.
        assert ended >= expires
        while time.monotonic() - began < STOPPED_SECONDS:
            await echoes(other)
            await for_a_while(0.2)
        await back()

        async def lets_in() -> bool:
            with contextlib.suppress(InvalidStatus):
                async with connect(staying.url, proxy=None, open_timeout=30) as late:
                    await echoes(late)
                return True
            return False

        await until(lets_in, "it lets clients in again", 40)
        await echoes(other)
    # What ended meanwhile is written, as it was.
    assert await how_ended(gateway, expiring, url, 40) == [EXPIRED]
    assert await how_ended(gateway, leaving, url, 40) == [(1000, "client_closed")]
    async with rows_of(gateway, url) as rows:
        written = await rows.fetchval(
            "SELECT extract(epoch FROM ended_at)::float8 FROM lease_sockets WHERE lease_id = $1", id_of(expiring)
        )
    assert written > expires - 0.1
    assert await remote.end_of(runtime) == ("active", None)


async def echoes(client: ClientConnection) -> None:
    await client.send(echoed(still="here").decode())
    assert await asyncio.wait_for(client.recv(), 5) == echoed(still="here").decode()


async def test_an_attach_whose_last_check_is_blocked_is_503(pinging: GatewayProcess) -> None:
    async with at(pinging) as remote, raw_browser(echo) as url:
        lease = await remote.lease(await played(remote, url))
        async with rows_of(pinging) as rows, rows.transaction():
            await rows.execute("SELECT id FROM leases WHERE id = $1 FOR UPDATE", id_of(lease))
            assert await refused(lease.url) == (503, "database.unavailable", "2")
        await is_served(lease)
        async with rows_of(pinging) as rows:
            # The refused attach is not counted as a socket.
            assert await rows.fetchval("SELECT attaches FROM leases WHERE id = $1", id_of(lease)) == 1


# 10. A clock that jumps

JUMPING_CLOCK = """
import datetime
import os
import time

_file = os.environ["JUMP_FILE"]


def _offset():
    with open(_file) as file:
        return float(file.read() or 0)


def _jumping(real, unit):
    return lambda: real() + type(real())(_offset() * unit)


time.time = _jumping(time.time, 1)
time.time_ns = _jumping(time.time_ns, 10**9)
_datetime = datetime.datetime


class _Kind(type(_datetime)):
    def __instancecheck__(cls, value):
        return isinstance(value, _datetime)


class datetime_(_datetime, metaclass=_Kind):
    @classmethod
    def now(cls, tz=None):
        return _datetime.now(tz) + datetime.timedelta(seconds=_offset())

    @classmethod
    def utcnow(cls):
        return _datetime.utcnow() + datetime.timedelta(seconds=_offset())


datetime.datetime = datetime_
"""


@pytest.mark.parametrize("hours", first_of([1, -1]))
async def test_a_clock_that_jumps_by_an_hour_moves_no_deadline(hours: int) -> None:
    with temporary_data_dir() as data_dir, temporary_data_dir() as patch:
        (patch / "sitecustomize.py").write_text(JUMPING_CLOCK)
        jump = patch / "jump"
        jump.write_text("0")
        with started(data_dir, PYTHONPATH=str(patch), JUMP_FILE=str(jump)) as gateway:
            async with at(gateway) as remote, raw_browser(echo) as url:
                # Both of its deadlines are within the jump.
                runtime = await remote.runtime(idleTimeoutSeconds=600, maxLifetimeSeconds=3000)
                await point_at(gateway, runtime, url)
                unused = await remote.runtime(idleTimeoutSeconds=600, maxLifetimeSeconds=3000)
                short, long = await remote.lease(runtime), await remote.lease(runtime)
                async with (
                    attached_near_its_end(gateway, short, 3) as (one, expires),
                    connect(long.url, proxy=None) as other,
                ):
                    ending = asyncio.create_task(end_of(one))
                    before = await clock_of(remote)
                    jump.write_text(str(hours * 3600))

                    async def jumped(before: float = before) -> bool:
                        return abs(await clock_of(remote) - before - hours * 3600) < 600

                    await until(jumped, "the gateway's clock jumps")
                    close, ended = await ending
                    assert close == EXPIRED
                    assert ended >= expires
                    await two_rounds(gateway)
                    await echoes(other)
                    for each in (runtime, unused):
                        assert await remote.end_of(each) == ("active", None)
                    # And what is minted now has its time by the database's clock as well.
                    fresh = await remote.lease(runtime)
                    async with attached_near_its_end(gateway, fresh, 1.5) as (late, expires):
                        close, ended = await end_of(late)
                        assert close == EXPIRED
                        assert ended >= expires
                    async with rows_of(gateway) as rows:
                        left = await rows.fetchval(
                            "SELECT extract(epoch FROM expires_at - now())::float8 FROM leases WHERE id = $1",
                            id_of(long),
                        )
                    assert 3500 < left <= 3600
                assert await how_ended(gateway, short) == [EXPIRED]


async def clock_of(remote: Remote) -> float:
    """What the gateway takes for the time, at most a second old: that often its server renews the date."""
    return parsedate_to_datetime((await remote.api.get("/healthz")).headers["Date"]).timestamp()


async def two_rounds(gateway: GatewayProcess) -> None:
    """Return once its supervisor has made two rounds more, each of which beats its heart."""
    async with rows_of(gateway) as rows:
        for _ in range(2):
            before = await rows.fetchval("SELECT max(heartbeat_at) FROM gateways")

            async def beaten(before: Any = before) -> bool:
                return bool(await rows.fetchval("SELECT max(heartbeat_at) > $1 FROM gateways", before))

            await until(beaten, "a round of the supervisor")


async def end_of(client: ClientConnection) -> tuple[tuple[int, str], float]:
    """With what words a socket ends, and when."""
    close = await closed(client, STOPPED_SECONDS + 10)
    return close, time.time()


# 11. A gateway that is killed


async def test_sockets_of_a_gateway_that_is_killed_are_written_as_ended_by_its_next_start() -> None:
    with temporary_data_dir() as data_dir:
        with started(data_dir) as gateway:
            async with Remote(gateway) as remote, contextlib.AsyncExitStack() as stack:
                leases = [await remote.lease(await remote.runtime()) for _ in range(2)]
                clients = await attached(stack, leases * 10)
                # An upgrade is answered a moment before its row is committed; the lock is what the two share.
                async with rows_of(gateway) as rows:

                    async def all_written(rows: Any = rows) -> bool:
                        return bool(await rows.fetchval("SELECT count(*) FROM lease_sockets") == len(clients))

                    await until(all_written, "the rows of all sockets are written", 10)
                gateway.kill()
                for client in clients:
                    with pytest.raises(Gone):
                        await client.end()
        with started(data_dir) as again:
            for lease in leases:
                assert await how_ended(again, lease) == [(1006, "gateway_crashed")] * 10
            async with rows_of(again) as rows:
                assert await rows.fetchval("SELECT count(*) FROM lease_sockets WHERE ended_at IS NULL") == 0
                assert await rows.fetchval("SELECT count(*) FROM lease_sockets WHERE ended_at < opened_at") == 0


# 12. Ends in the midst of a message, and on time


async def test_a_revoke_within_a_message_closes_at_once(gateway: GatewayProcess, remote: Remote) -> None:
    async def half(browser: RawBrowser) -> None:
        message = framed(TEXT, b"x" * (20 * MIB))
        await browser.send(message[: 10 * MIB])
        await browser.message()

    async with raw_browser(half) as url:
        lease = await remote.lease(await played(remote, url))
        async with RawClient.attached(lease.url) as client:
            await client.take(5 * MIB)
            ending = asyncio.create_task(client.end())
            (await remote.api.delete(lease.path)).raise_for_status()
            assert await ending == ([], *REVOKED)
            await client.send_close()
            with pytest.raises(Gone):
                await client.frame()
    assert await how_ended(gateway, lease) == [REVOKED]


async def test_leases_end_at_their_time_and_never_before(gateway: GatewayProcess, remote: Remote) -> None:
    late: list[float] = []

    async def expires(lease: Lease, seconds: float) -> None:
        async with attached_near_its_end(gateway, lease, seconds) as (client, at_most):
            close, ended = await end_of(client)
            assert close == EXPIRED
            # The gateway's own database has the clock of this machine.
            late.append(ended - at_most)

    async with raw_browser(echo) as url:
        runtime = await played(remote, url)
        leases = [await remote.lease(runtime) for _ in range(30)]
        await asyncio.gather(*(expires(lease, 6 + place * 0.037) for place, lease in enumerate(leases)))
    assert len(late) == 30
    assert min(late) >= 0


# 13. What was on its way


@pytest.mark.parametrize("how", ["revoked", "stopped"])
async def test_messages_in_flight_arrive_before_the_end(gateway: GatewayProcess, remote: Remote, how: str) -> None:
    sent = [f"{number} ".encode() * 30 for number in range(1000)]
    all_sent = asyncio.Event()
    go = asyncio.Event()

    async def talk(browser: RawBrowser) -> None:
        await go.wait()
        await browser.send(b"".join(framed(TEXT, text) for text in sent))
        all_sent.set()
        with contextlib.suppress(Gone):
            await browser.message()

    async with raw_browser(talk) as url:
        runtime = await played(remote, url)
        lease = await remote.lease(runtime)
        async with RawClient.attached(lease.url) as client:
            go.set()
            await all_sent.wait()
            if how == "revoked":
                (await remote.api.delete(lease.path)).raise_for_status()
            else:
                await remote.post(f"{runtime}/stop", {})
            messages, *close = await client.end()
            assert tuple(close) == (REVOKED if how == "revoked" else GONE)
            assert messages == sent


@pytest.mark.parametrize(
    ("wrong", "close"),
    [(b"\x83\x00", (1011, "upstream_error")), (b"\x81\x7f" + (256 * MIB + 1).to_bytes(8, "big"), (1009, "too_big"))],
    ids=["no frame", "too big"],
)
async def test_messages_of_a_browser_pass_until_its_protocol_error_only(
    remote: Remote, wrong: bytes, close: tuple[int, str]
) -> None:
    async def talk(browser: RawBrowser) -> None:
        # The bytes behind it look like messages, but can not be trusted.
        await browser.send(framed(TEXT, b"one") + framed(TEXT, b"two") + wrong + framed(TEXT, b"three" * 40) * 100_000)

    async with raw_browser(talk) as url:
        lease = await remote.lease(await played(remote, url))
        async with RawClient.attached(lease.url) as client:
            assert await client.end() == ([b"one", b"two"], *close)


async def test_a_browser_that_never_reads_keeps_no_memory_of_an_ended_socket(
    gateway: GatewayProcess, remote: Remote
) -> None:
    left = asyncio.Event()

    async def never_read(browser: RawBrowser) -> None:
        await left.wait()

    async with raw_browser(never_read) as url:
        lease = await remote.lease(await played(remote, url))
        before = connections_at(gateway, lease.url, url)
        async with RawClient.attached(lease.url) as client:
            with contextlib.suppress(TimeoutError):
                while True:
                    await asyncio.wait_for(client.command(echoed(x="x" * MIB)), 1)
            (await remote.api.delete(lease.path)).raise_for_status()
            assert await client.end() == ([], *REVOKED)
        await until(lambda: connections_at(gateway, lease.url, url) <= before + 1, "its sockets are closed", 10)
        left.set()


# 14. Clients that flood


@pytest.mark.parametrize("what", first_of(["pings", "junk", "answers"]))
async def test_a_client_that_floods_and_never_reads_costs_bounded_memory(
    gateway: GatewayProcess, remote: Remote, what: str
) -> None:
    flood = {
        "pings": framed(PING, b"?" * 125, masked=True) * 2000,
        "junk": framed(TEXT, b"[]", masked=True) * 30_000,
        # Each is answered by more than it has.
        "answers": framed(TEXT, b"[]", masked=True) * 30_000,
    }[what]

    async def half_a_message(browser: RawBrowser) -> None:
        if what == "answers":
            # Answers of the gateway have to wait for its end.
            await browser.send(framed(TEXT, b"x" * (20 * MIB))[: 19 * MIB])
        with contextlib.suppress(Gone):
            await browser.message()

    async with raw_browser(half_a_message) as url, raw_browser(echo) as listening:
        lease = await remote.lease(await played(remote, url))
        other = await remote.lease(await played(remote, listening))
        await is_served(other)
        async with Memory(gateway) as memory, RawClient.attached(lease.url, receive_buffer=65536) as client:
            sent = 0
            with contextlib.suppress(TimeoutError):
                # Until the gateway takes no more, for it must not.
                while sent < 100 * MIB:
                    await asyncio.wait_for(client.send(flood), 2)
                    sent += len(flood)
            assert sent < 100 * MIB
            await is_served(other)
            assert memory.growth < BOUNDED


async def test_a_client_that_floods_and_reads_gets_all_answers(remote: Remote) -> None:
    async with raw_browser(echo) as url:
        lease = await remote.lease(await played(remote, url))
        async with RawClient.attached(lease.url) as client:
            pings = [str(number).encode() for number in range(20_000)]
            junk, last = framed(TEXT, b"[]", masked=True) * 5000, framed(TEXT, echoed(last=True), masked=True)
            sending = asyncio.create_task(
                client.send(b"".join(framed(PING, ping, masked=True) for ping in pings) + junk + last)
            )
            answers = []
            while (message := await client.message()) != (TEXT, echoed(last=True)):
                answers.append(json.loads(message[1])["error"]["code"])
            await sending
            # Of pings that are read together the last one is answered, as RFC 6455 has it.
            answered = [int(ping) for opcode, ping in client.controls if opcode == PONG]
            assert len(answered) == len(client.controls)
            assert answered == sorted(set(answered))
            assert answered[-1] == len(pings) - 1
            assert answers == [-32600] * 5000


# 5. A request that comes byte by byte


@pytest.mark.thorough
async def test_an_upgrade_that_comes_byte_by_byte_is_cut_off_in_time() -> None:
    with temporary_data_dir() as data_dir, started(data_dir, GATEWAY_REQUEST_HEADER_SECONDS="2") as gateway:
        async with at(gateway) as remote, raw_browser(echo) as url:
            lease = await remote.lease(await played(remote, url))
            began = time.monotonic()
            async with RawClient.connected(lease.url) as client:
                answer = asyncio.create_task(client.take(12))
                with contextlib.suppress(ConnectionError):
                    for byte in RawClient.request(lease.url):
                        await client.send(bytes([byte]))
                        # A byte a second.
                        await asyncio.wait({answer}, timeout=1)
                        if answer.done():
                            break
                assert time.monotonic() - began >= 2
                await answer
                assert client.unread.startswith(b"HTTP/1.1 408 ")
            # Nothing of it is left, and an upgrade that is fast enough is accepted.
            assert await sockets_open(remote) == 0
            await is_served(lease)
