"""How a gateway stops: in order, within its grace period, leaving nothing, whichever signal stops it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import httpx
import psutil
import pytest

from gateway import __version__
from gateway.app import Gateway
from gateway.settings import Settings
from gateway.store.embedded import EmbeddedPostgres
from tests.support.gateway_process import (
    MEASURED,
    ROOT,
    START_SECONDS,
    GatewayProcess,
    GatewayProcessError,
    environment_with,
    prepare_child,
    temporary_data_dir,
)
from tests.support.launchers import SlowLauncher, WorkingLauncher
from tests.support.remote import Remote, closed, stall
from tests.support.tiers import first_of
from tests.support.waiting import until, wait_until

GRACE = 10
# What a gateway logs that did not stop its runtimes in that time.
TOO_LATE = "not all runtimes could be stopped within the grace"


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A fresh one, for a first start."""
    with temporary_data_dir() as path:
        yield path


@pytest.fixture(scope="module")
def used_data_dir() -> Iterator[Path]:
    """One with a database and keys in it, for any further start; every test leaves it as a stop does."""
    with temporary_data_dir() as path:
        with started(path):
            pass
        yield path


@contextlib.contextmanager
def started(data_dir: Path, *flags: str, **env: str) -> Iterator[GatewayProcess]:
    with GatewayProcess.start(
        data_dir, *flags, GATEWAY_SHUTDOWN_GRACE_SECONDS=str(GRACE), **MEASURED, **env
    ) as gateway:
        yield gateway


@contextlib.contextmanager
def starting(
    data_dir: Path, *flags: str, prepare: Callable[[], None] = prepare_child, **env: str
) -> Iterator[GatewayProcess]:
    """A gateway that need not get as far as to listen."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "up", "--port", "0", "--data-dir", str(data_dir), *flags],
        cwd=ROOT,
        env=environment_with(MEASURED | env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=prepare,
    )
    with GatewayProcess(process, data_dir) as gateway:
        yield gateway


async def ends(database_url: str) -> set[tuple[str, str, str, str]]:
    """Status and code of runtimes and of their runs."""
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(
            "SELECT r.status, r.end_code, runs.status, runs.end_code"
            " FROM runtimes r LEFT JOIN runs ON runs.runtime_id = r.id"
        )
        return {tuple(row) for row in rows}
    finally:
        await connection.close()


STOPPED_RUNTIME = ("stopped", "gateway.stopped")
STOPPED = {STOPPED_RUNTIME * 2}


def assert_nothing_left(gateway: GatewayProcess) -> None:
    """No process, no directory of a browser, no socket and no listener is left."""
    assert gateway.leftovers() == []
    data_dir = gateway.data_dir
    assert list((data_dir / "runtimes").glob("*")) == []
    assert not (data_dir / "tmp").exists()
    assert [path for path in data_dir.rglob("*") if path.is_socket()] == []
    assert not (data_dir / "postgres" / "postmaster.pid").exists()
    if gateway.base_url:
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{gateway.base_url}/healthz", trust_env=False)
    assert "Traceback" not in gateway.log


# In order


async def test_a_stop_closes_sockets_ends_browsers_and_writes_rows_in_time(data_dir: Path, database_url: str) -> None:
    with started(data_dir, GATEWAY_DATABASE_URL=database_url) as gateway:
        async with Remote(gateway) as remote:
            runtimes = [await remote.runtime() for _ in range(3)]
            sockets = [await remote.attach(runtime) for runtime in (runtimes[0], runtimes[0], runtimes[1])]
            # One client does not read, which must not delay the others.
            await stall(await remote.attach(runtimes[2]))
            gateway.descendants()
            gateway.signal(signal.SIGTERM)
            for client in sockets:
                assert await closed(client) == (1001, "draining")
            # A client that was closed must not be routed back here.
            with contextlib.suppress(httpx.TransportError):
                assert (await remote.api.get("/readyz")).status_code == 503
        assert gateway.wait(GRACE) == 0
        assert TOO_LATE not in gateway.log
        lines = [json.loads(line) for line in gateway.log.splitlines() if '"logger": "gateway.server"' in line]
        steps = {line["event"]: line for line in lines if line["event"] not in ("metrics", "networks of browsers")}
        assert list(steps) == ["started", "stopping", "stopped"]
        assert steps["started"]["version"] == __version__
        assert steps["started"]["address"] == gateway.base_url
        assert steps["started"]["gateway_id"] == (data_dir / "gateway-id").read_text().strip()
        assert steps["stopped"]["seconds"] >= 0
        assert_nothing_left(gateway)
        assert await ends(database_url) == STOPPED


@pytest.fixture
def launcher(request: pytest.FixtureRequest) -> WorkingLauncher:
    return getattr(request, "param", WorkingLauncher)()


@pytest.mark.parametrize("launcher", [SlowLauncher], indirect=True)
async def test_a_draining_gateway_is_not_ready_and_accepts_nothing_new(
    gateway: Gateway, client: httpx.AsyncClient, launcher: SlowLauncher
) -> None:
    space = (await client.post("/v1/spaces", json={})).json()["id"]
    creating = asyncio.create_task(client.post(f"/v1/spaces/{space}/runtimes", json={}))
    await until(lambda: launcher.waiting == 1, "the launch has begun")
    assert (await client.get("/readyz")).status_code == 200
    # This launch holds the stop up.
    draining = asyncio.create_task(gateway.drain())
    await asyncio.sleep(0)
    ready = await client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"]["draining"]["ok"] is False
    assert (await client.get("/healthz")).status_code == 200
    refused = await client.post(f"/v1/spaces/{space}/runtimes", json={})
    assert (refused.status_code, refused.json()["code"]) == (503, "gateway.draining")
    assert refused.headers["Retry-After"]
    assert not draining.done()
    launcher.go.set()
    await draining
    runtime = (await creating).json()["id"]
    ended = (await client.get(f"/v1/spaces/{space}/runtimes/{runtime}")).json()
    assert (ended["status"], ended["summary"]["endReason"]["code"]) == ("stopped", "gateway.stopped")
    assert launcher.browsers == {}


async def test_a_socket_that_does_not_close_does_not_keep_browsers_running(
    gateway: Gateway, client: httpx.AsyncClient, launcher: WorkingLauncher
) -> None:
    space = (await client.post("/v1/spaces", json={})).json()["id"]
    (await client.post(f"/v1/spaces/{space}/runtimes", json={})).raise_for_status()
    attachment = gateway.services.leases.attachments.enter("A" * 12)
    # It waits for sockets for some seconds, and not for ever.
    await gateway.services.runtimes.drain()
    assert launcher.browsers == {}
    gateway.services.leases.attachments.leave(attachment)


# Every signal that stops it


def signal_group(gateway: GatewayProcess) -> None:
    """Ctrl-C in a terminal: an interrupt for the whole foreground process group."""
    os.killpg(gateway.pid, signal.SIGINT)


def signal_tree(gateway: GatewayProcess) -> None:
    """systemd's `KillMode=control-group`: every process of the service, the database's too."""
    for process in (psutil.Process(gateway.pid), *gateway.descendants()):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)


def close_terminal(gateway: GatewayProcess) -> None:
    os.killpg(gateway.pid, signal.SIGHUP)


async def stopped_by(stop: Callable[[GatewayProcess], None], data_dir: Path) -> None:
    """A gateway with browsers and a socket, which is stopped and leaves nothing."""
    with started(data_dir) as gateway:
        async with Remote(gateway) as remote:
            await remote.runtime()
            client = await remote.attach(await remote.runtime())
            gateway.descendants()
            stop(gateway)
            assert (await closed(client, GRACE))[0] in (1001, 4404)
        assert gateway.wait(GRACE) == 0
        assert_nothing_left(gateway)


@pytest.mark.parametrize("stop", first_of([signal_group, close_terminal]))
async def test_a_stop_from_a_terminal_leaves_nothing(
    used_data_dir: Path, stop: Callable[[GatewayProcess], None]
) -> None:
    await stopped_by(stop, used_data_dir)
    database = EmbeddedPostgres(used_data_dir, Settings().uid_base)
    try:
        assert await ends(await asyncio.to_thread(database.start)) == STOPPED
    finally:
        await asyncio.to_thread(database.stop)


@pytest.mark.thorough
async def test_a_stop_of_gateway_and_database_leaves_nothing_and_does_not_crash(used_data_dir: Path) -> None:
    await stopped_by(signal_tree, used_data_dir)
    # The database may have stopped before the row was written; the next start finds that the gateway stopped.
    with started(used_data_dir) as gateway:
        async with Remote(gateway) as remote:
            spaces = (await remote.api.get("/v1/spaces")).json()["spaces"]
            for space in spaces:
                for runtime in (await remote.api.get(f"/v1/spaces/{space['id']}/runtimes")).json()["runtimes"]:
                    assert (runtime["status"], runtime["summary"]["endReason"]["code"]) == STOPPED_RUNTIME


@pytest.mark.thorough
async def test_further_signals_during_a_slow_stop_leave_no_orphans(used_data_dir: Path) -> None:
    with started(used_data_dir) as gateway:
        async with Remote(gateway) as remote:
            await stall(await remote.attach(await remote.runtime()))
            gateway.descendants()
            code = None
            while code is None:
                gateway.signal(signal.SIGTERM)
                gateway.signal(signal.SIGINT)
                with contextlib.suppress(GatewayProcessError):
                    code = await asyncio.to_thread(gateway.wait, 0.05)
            assert TOO_LATE not in gateway.log
        assert code == 0
        assert_nothing_left(gateway)


UNLIKED = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD)


def as_a_script_starts_it_in_the_background() -> None:
    """And worse: what `nohup` and parents with faults add."""
    prepare_child()
    for number in UNLIKED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, UNLIKED)


def ignored_or_blocked(process: psutil.Process) -> set[int]:
    masks = re.findall(r"^Sig(?:Ign|Blk):\t(\w+)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    assert len(masks) == 2
    return {number for number in UNLIKED for mask in masks if int(mask, 16) >> (number - 1) & 1}


async def test_started_in_the_background_of_a_script_it_stops_and_its_children_ignore_nothing(
    used_data_dir: Path,
) -> None:
    with starting(used_data_dir, prepare=as_a_script_starts_it_in_the_background) as gateway:
        gateway.base_url = gateway.wait_for_output(re.compile(r"^Listening on (\S+)"), START_SECONDS).group(1)
        async with Remote(gateway) as remote:
            await remote.attach(await remote.runtime())
            # These are for the script alone.
            gateway.signal(signal.SIGINT)
            gateway.signal(signal.SIGHUP)
            assert (await remote.api.get("/readyz")).status_code == 200
            children = psutil.Process(gateway.pid).children()
            assert {"postgres", "sh"} <= {child.name() for child in children}
            assert {child.name(): found for child in children if (found := ignored_or_blocked(child))} == {}
        assert gateway.terminate() == 0
        assert_nothing_left(gateway)


def has_child(gateway: GatewayProcess, name: str) -> bool:
    for process in gateway.descendants():
        with contextlib.suppress(psutil.Error):
            if name in " ".join(process.cmdline()):
                return True
    return False


@pytest.mark.parametrize(
    ("stage", "number"),
    [("initdb", signal.SIGINT), ("-k", signal.SIGTERM), ("/launch --", signal.SIGINT)],
    ids=["initdb", "postgres", "browser"],
)
def test_a_signal_while_it_starts_leaves_nothing(
    data_dir: Path, used_data_dir: Path, stage: str, number: signal.Signals
) -> None:
    with starting(data_dir if stage == "initdb" else used_data_dir) as gateway:
        wait_until(lambda: has_child(gateway, stage), f"{stage} runs", START_SECONDS)
        gateway.signal(number)
        gateway.signal(number)
        code = gateway.wait(GRACE)
        # A start may have been over before the signal arrived, where it took the test long to see the process.
        assert code == (0 if "Listening on" in gateway.log else 128 + number)
        assert_nothing_left(gateway)


# And starts again


def test_a_second_start_is_ready_and_prints_no_key(used_data_dir: Path) -> None:
    with started(used_data_dir) as gateway:
        assert httpx.get(f"{gateway.base_url}/readyz", trust_env=False).status_code == 200
        assert "First API key" not in gateway.log
