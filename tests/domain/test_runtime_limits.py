"""What a runtime may take of the machine, and what of it a runtime can read: by trying."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import shlex
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest

from gateway.core.errors import ConfigurationError, LaunchFailed
from gateway.launchers.base import BrowserName, LaunchSpec
from gateway.launchers.local import browsers, control_groups, limits, processes
from gateway.launchers.local.browsers import Browsers
from gateway.launchers.local.control_groups import ControlGroup, ControlGroups
from gateway.launchers.local.launcher import LocalLauncher
from gateway.launchers.local.local_browser import LocalBrowser
from gateway.settings import Settings
from tests.support import servers
from tests.support.browser_kinds import EACH_KIND, KINDS
from tests.support.devtools import DevTools
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.waiting import until, wait_until

MIB = 1024 * 1024
FILE_BYTES = 16 * MIB
# The kernel counts by user, and other tests on this machine may have browsers of the usual ones.
UID_BASE = 930_000
# What a blank page takes, and some more.
FEW_THREADS = 100

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives browsers users of their own")
pytestmark = pytest.mark.unprivileged


@pytest.fixture(scope="module")
def found() -> Browsers:
    there = browsers.find(None)
    assert there is not None
    return there


@contextlib.asynccontextmanager
async def opened(found: Browsers, **options: int) -> AsyncIterator[LocalLauncher]:
    with temporary_data_dir() as data_dir:
        launcher = LocalLauncher(
            Settings(data_dir=data_dir, warm_browsers=0, uid_base=UID_BASE, egress_allow=("127.0.0.1",), **options),
            found,
        )
        await launcher.open()
        try:
            yield launcher
        finally:
            await launcher.close()


def members(browser: LocalBrowser) -> list[psutil.Process]:
    """The launch script and every process of its browser."""
    try:
        leader = psutil.Process(browser.group)
        return [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def limits_of(process: psutil.Process) -> dict[str, list[str]]:
    """Soft and hard limit by name, as the kernel reports them."""
    lines = Path(f"/proc/{process.pid}/limits").read_text().splitlines()[1:]
    return {line[:26].strip(): line[26:].split()[:2] for line in lines}


@dataclass(frozen=True, slots=True)
class Rights:
    """What the kernel lets a process do. `capabilities`: all sets but the bounding one, which grants nothing."""

    no_new_privileges: bool
    groups: str
    capabilities: set[int]
    namespace: str


def rights_of(pid: int) -> Rights | None:
    """None for a process that is gone: some of a browser's live for moments."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        namespace = os.readlink(f"/proc/{pid}/ns/user")
    except (FileNotFoundError, ProcessLookupError):
        return None
    status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    capabilities = {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
    return Rights(status["NoNewPrivs"] == "1", status["Groups"], capabilities, namespace)


def threads_of(uid: int) -> int:
    count = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            # A zombie is gone but for its parent.
            if process.uids().real == uid and process.status() != psutil.STATUS_ZOMBIE:
                count += process.num_threads()
    return count


# Limits of the kernel


@pytest.mark.parametrize("name", EACH_KIND)
async def test_limits_hold_for_the_browser_and_all_that_it_starts(found: Browsers, name: BrowserName) -> None:
    options = {"runtime_max_processes": 3000, "runtime_max_files": 4000, "runtime_max_file_bytes": 64 * MIB}
    async with opened(found, **options) as launcher:
        browser = await launcher.launch(LaunchSpec(uuid4(), name))
        async with DevTools.attach(browser) as client:
            await client.evaluate("1", await client.first_page())
            leader, *own = members(browser)
            assert len(own) > 3
            for process in own:
                actual = limits_of(process)
                assert actual["Max core file size"] == ["0", "0"]
                assert actual["Max open files"] == ["4000", "4000"]
                assert actual["Max file size"] == [str(64 * MIB)] * 2
                if limits.has_own_user():
                    assert actual["Max processes"] == ["3000", "3000"]
            # Root's own processes are not the runtime's to count.
            own_limit = resource.getrlimit(resource.RLIMIT_NPROC)[1]
            assert limits_of(leader)["Max processes"][1] == ("unlimited" if own_limit < 0 else str(own_limit))


def test_a_limit_of_the_gateway_itself_is_not_raised() -> None:
    script = (
        "import resource; from gateway.launchers.local import limits; from gateway.settings import Settings;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300));"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 600, 1024 * 600));"
        "print(limits.script_lines(Settings()))"
    )
    output = subprocess.run([".venv/bin/python", "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.startswith("ulimit -c 0 && ulimit -n 300 && ulimit -f 1200 || exit\n")


@as_root
def test_a_user_gets_no_more_processes_than_allowed_and_others_are_not_touched() -> None:
    settings = Settings(runtime_max_processes=64, uid_base=UID_BASE)
    first = settings.uid_base + settings.uid_count - 20

    def forked(uid: int, wanted: int) -> int:
        """How many processes a shell of this user could start side by side."""
        loop = f"i=0; while [ $i -lt {wanted} ]; do sleep 300 >/dev/null 2>&1 & i=$((i+1)); echo $i; done"
        command = f"{limits.as_user(settings, uid)} /bin/sh -c {shlex.quote(loop)}"
        # Bash tries again for seconds, dash ends at once.
        with subprocess.Popen(["/bin/sh", "-c", command], stdout=subprocess.PIPE, start_new_session=True) as process:
            output, _ = process.communicate(timeout=60)
            os.killpg(process.pid, signal.SIGKILL)
        # Also what has ended counts, until it is reaped.
        wait_until(lambda: not processes.group_exists(process.pid), "its processes are gone", 20)
        return int(output.split()[-1])

    assert forked(first, 62) == 62
    assert forked(first, 63) == 63
    # With the shell itself.
    assert forked(first, 64) == 63
    assert forked(first, 200) == 63
    assert forked(first + 1, 40) == 40


@as_root
async def test_a_page_that_wants_too_many_threads_harms_its_own_browser_at_most(found: Browsers) -> None:
    async with opened(found, runtime_max_processes=FEW_THREADS) as launcher:
        greedy, other = [await launcher.launch(LaunchSpec(uuid4(), "headless-shell")) for _ in range(2)]
        uid = members(greedy)[1].uids().real
        async with DevTools.attach(greedy) as client:
            page = await client.first_page()
            await client.evaluate("1", page)
            before = {process.pid for process in members(greedy) if "--type=renderer" in process.cmdline()}
            many = "for (let i = 0; i < 1000; i++) new Worker(URL.createObjectURL(new Blob(['setInterval(()=>0)'])))"
            command = {"id": 99, "sessionId": page, "method": "Runtime.evaluate", "params": {"expression": many}}
            await client.socket.send(json.dumps(command))
            most = 0

            def has_all_or_broke() -> bool:
                """Whether it has as many threads as it gets, or something of it broke for want of one."""
                nonlocal most
                most = max(most, threads_of(uid))
                return most >= FEW_THREADS - 3 or not before <= {process.pid for process in members(greedy)}

            await until(has_all_or_broke, "it has all threads that it gets", 40)
            assert most <= FEW_THREADS
        async with DevTools.attach(other) as client:
            assert await client.evaluate("6 * 7", await client.first_page()) == 42
        third = await launcher.launch(LaunchSpec(uuid4(), "headless-shell"))
        assert not third.ended.done()
        assert not other.ended.done()


def crowded(directory: Path, browser: Path) -> Path:
    """A browser that starts many other processes first, which end with its runtime."""
    script = directory / "browser"
    busy = "i=0; while [ $i -lt 50 ]; do /bin/sleep 300 & i=$((i+1)); done"
    script.write_text(f'#!/bin/sh\n{busy}\nexec {shlex.quote(str(browser))} "$@"\n')
    script.chmod(0o755)
    directory.chmod(0o755)
    return script


@as_root
async def test_a_browser_that_does_not_fit_is_a_launch_failure_of_its_own_class(found: Browsers) -> None:
    with tempfile.TemporaryDirectory() as directory:
        binary = replace(found.default, path=crowded(Path(directory), found.default.path))
        async with opened(
            Browsers(binary, binary, None), runtime_max_processes=64, launch_timeout_seconds=10
        ) as launcher:
            with pytest.raises(LaunchFailed) as error:
                await launcher.launch(LaunchSpec(uuid4()))
        assert error.value.failure == "out_of_processes"


# Files


class Downloads:
    """A server whose `/<n>` is a download of n bytes of unknown length."""

    async def __aenter__(self) -> Downloads:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await servers.close(self._server)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
            left = int(path[1:])
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
                b"Content-Disposition: attachment; filename=large\r\n"
                # Else a file of the cache is full first.
                b"Cache-Control: no-store\r\nConnection: close\r\n\r\n"
            )
            while left:
                part = min(left, 256 * 1024)
                writer.write(b"x" * part)
                await writer.drain()
                left -= part
        writer.close()


async def download(client: DevTools, url: str) -> tuple[str, int]:
    """How a download ended, and what came of it."""
    page = await client.new_page()
    command = {"id": 1_000_000, "sessionId": page, "method": "Page.navigate", "params": {"url": url}}
    await client.socket.send(json.dumps(command))
    async with asyncio.timeout(60):
        while True:
            message = json.loads(await client.socket.recv())
            params = message.get("params", {})
            if message.get("method") == "Browser.downloadProgress" and params["state"] != "inProgress":
                return params["state"], params["receivedBytes"]


def largest_below(directory: Path) -> int:
    return max(path.stat().st_size for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", EACH_KIND)
async def test_a_download_past_the_limit_fails_and_ends_nothing_else(found: Browsers, name: BrowserName) -> None:
    async with opened(found, runtime_max_file_bytes=FILE_BYTES) as launcher, Downloads() as server:
        browser = await launcher.launch(LaunchSpec(uuid4(), name))
        home = Path(members(browser)[1].environ()["HOME"])
        async with DevTools.attach(browser) as client:
            kept = await client.first_page()
            await client.evaluate("globalThis.kept = 1", kept)
            await client.send(
                "Browser.setDownloadBehavior",
                behavior="allow",
                downloadPath=str(home / "downloads"),
                eventsEnabled=True,
            )
            main = members(browser)[1].pid
            for size in (FILE_BYTES - 1, FILE_BYTES):
                assert await download(client, f"{server.url}/{size}") == ("completed", size)
            state, _ = await download(client, f"{server.url}/{FILE_BYTES + 1}")
            assert state == "canceled"
            state, _ = await download(client, f"{server.url}/{FILE_BYTES * 4}")
            assert state == "canceled"
            assert await client.evaluate("kept", kept) == 1
            assert await download(client, f"{server.url}/1000") == ("completed", 1000)
        assert members(browser)[1].pid == main
        assert largest_below(home) <= FILE_BYTES


# What a runtime can read


@as_root
async def test_no_process_of_a_runtime_has_a_right_of_its_own(found: Browsers) -> None:
    async with opened(found) as launcher:
        for name in KINDS:
            browser = await launcher.launch(LaunchSpec(uuid4(), name))
            async with DevTools.attach(browser) as client:
                await client.evaluate("1", await client.first_page())
                seen = [seen for process in members(browser)[1:] if (seen := rights_of(process.pid)) is not None]
                assert len(seen) > 3
                for rights in seen:
                    assert rights.no_new_privileges
                    assert rights.groups == ""
                    # Within a namespace of its own, which its user made, a process may have rights over that.
                    if rights.namespace == os.readlink("/proc/self/ns/user"):
                        assert rights.capabilities == {0}


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    env = {"GATEWAY_WARM_BROWSERS": "0", "GATEWAY_UID_BASE": str(UID_BASE)}
    with temporary_data_dir() as data_dir, GatewayProcess.start(data_dir, **env) as started:
        yield started


@as_root
def test_a_runtimes_user_reads_nothing_of_the_gateway_and_of_other_runtimes(gateway: GatewayProcess) -> None:
    with httpx.Client(base_url=gateway.base_url, headers=gateway.headers, timeout=60, trust_env=False) as api:
        space = api.post("/v1/spaces", json={}).json()["id"]
        own, other = (api.post(f"/v1/spaces/{space}/runtimes", json={}).json()["id"] for _ in range(2))
    runtimes = gateway.data_dir / "runtimes"
    homes = {name: runtimes / name / "home" for name in (own, other)}
    uid = homes[own].stat().st_uid
    assert uid != homes[other].stat().st_uid
    (database,) = [process.pid for process in gateway.descendants() if process.cmdline()[0].endswith("/postgres")]
    (browser,) = [
        process.pid
        for process in gateway.descendants()
        if process.uids().real == homes[other].stat().st_uid and not any("--type" in part for part in process.cmdline())
    ]

    def succeeds(*command: object) -> bool:
        line = limits.as_user(Settings(uid_base=UID_BASE), uid) + shlex.join(str(part) for part in command)
        return subprocess.run(["/bin/sh", "-c", line], capture_output=True, cwd="/").returncode == 0

    assert succeeds("ls", homes[own] / "profile")
    assert succeeds("touch", homes[own] / "downloads" / "mine")
    data_dir = gateway.data_dir
    tried: dict[str, list[tuple[object, ...]]] = {
        "keys": [("cat", data_dir / name) for name in ("api-key", "master-keys")],
        "directories": [("ls", path) for path in (data_dir, data_dir / "postgres", data_dir / "tmp", runtimes)],
        "database": [("ls", data_dir / "postgres" / "base"), ("cat", data_dir / "postgres" / "PG_VERSION")],
        "others": [
            *(("ls", homes[other] / name) for name in ("", "profile", "downloads", "tmp")),
            ("cat", homes[other] / "profile" / "DevToolsActivePort"),
            ("ls", runtimes / other),
            ("sh", "-c", f"echo 1 >{runtimes / other}/exit"),
        ],
        "writing": [
            ("touch", path / "theirs") for path in (data_dir, runtimes, runtimes / own, runtimes / other, homes[other])
        ],
        "processes": [
            *(
                ("cat", f"/proc/{pid}/{file}")
                for pid in (gateway.pid, database, browser)
                for file in ("environ", "maps")
            ),
            *(("ls", f"/proc/{pid}/{file}") for pid in (gateway.pid, database, browser) for file in ("fd/", "cwd/")),
            *(("kill", "-0", pid) for pid in (gateway.pid, database, browser)),
        ],
        "launch script": [("sh", "-c", f"echo >>{runtimes / own}/launch"), ("rm", "-f", runtimes / own / "launch")],
    }
    for path in (data_dir / "api-key", data_dir / "master-keys", data_dir / "postgres" / "PG_VERSION"):
        assert path.exists()
    assert [line for lines in tried.values() for line in lines if succeeds(*line)] == []


# Control groups


def fake_tree(place: Path, *, controllers: str = "cpu memory pids") -> Path:
    """Files as the kernel has them, without a kernel behind; the gateway is in the group /service."""
    own = place / "mounted" / "service"
    own.mkdir(parents=True)
    (own / "cgroup.controllers").write_text(controllers)
    for name in ("cgroup.procs", "cgroup.subtree_control"):
        (own / name).write_text("")
    (place / "mountinfo").write_text(
        f"25 30 0:23 / /proc rw - proc proc rw\n31 30 0:26 / {own.parent} rw - cgroup2 x rw\n"
    )
    (place / "cgroup").write_text("1:pids:/elsewhere\n0::/service\n")
    return own


def test_the_gateways_own_group_is_found(tmp_path: Path) -> None:
    own = fake_tree(tmp_path)
    assert control_groups.own_group(tmp_path) == own
    (tmp_path / "cgroup").write_text("0::/service/gateway-itself\n")
    assert control_groups.own_group(tmp_path) == own


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda place: (place / "mountinfo").write_text("25 30 0:23 / /proc rw - proc proc rw\n"), "no cgroup v2"),
        (lambda place: (place / "cgroup").write_text("0::/gone\n"), "can't be read"),
        (
            lambda place: (place / "mounted/service/cgroup.controllers").write_text("cpu pids"),
            "offers no memory controller",
        ),
        (
            lambda place: (place / "mounted/service/cgroup.controllers").write_text("hugetlb\n"),
            "offers no memory and no pids controller",
        ),
        (lambda place: (place / "mounted/service/cgroup.subtree_control").unlink(), "subtree_control can't be written"),
    ],
)
def test_missing_limited_groups_are_refused_with_the_reason(tmp_path: Path, change: object, reason: str) -> None:
    fake_tree(tmp_path)
    assert callable(change)
    change(tmp_path)
    with pytest.raises(ConfigurationError, match=reason):
        control_groups.own_group(tmp_path)


async def test_a_limit_that_can_not_be_kept_refuses_the_start(
    found: Browsers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_tree(tmp_path, controllers="hugetlb")
    monkeypatch.setattr(control_groups, "own_group", partial(control_groups.own_group, tmp_path))
    with pytest.raises(ConfigurationError, match=r"GATEWAY_RUNTIME_MEMORY_BYTES is set, but .* no memory"):
        async with opened(found, runtime_memory_bytes=1024**3):
            pass


def real_group() -> Path:
    """Where this test may make groups; skips where the machine permits none."""
    try:
        path = control_groups.own_path()
    except ConfigurationError as error:
        pytest.skip(error.message)
    try:
        (path / "probe").mkdir()
    except OSError as error:
        pytest.skip(f"{path} can't be written to ({error.strerror})")
    (path / "probe").rmdir()
    return path


def sleepers(count: int) -> list[subprocess.Popen[bytes]]:
    return [subprocess.Popen(["sleep", "300"], start_new_session=True) for _ in range(count)]


async def test_the_end_of_a_group_ends_also_what_left_the_process_group() -> None:
    group = ControlGroup(real_group() / f"gateway-test-{uuid4().hex}")
    group.path.mkdir()
    strays = sleepers(3)
    try:
        for stray in strays:
            group.entrance.write_text(str(stray.pid))
        assert not group.out_of_memory()
        ending = asyncio.create_task(group.end())
        codes = [await asyncio.to_thread(stray.wait, 10) for stray in strays]
        assert codes == [-9, -9, -9]
        assert await ending
        assert not group.path.exists()
        assert await group.end()
    finally:
        for stray in strays:
            stray.kill()
            stray.wait(5)


@as_root
async def test_a_user_ends_what_is_in_a_group_of_its_own() -> None:
    own = real_group() / f"gateway-test-{uuid4().hex}"
    group = ControlGroup(own / "runtime")
    group.path.mkdir(parents=True)
    for path in (own, group.path, *group.path.iterdir()):
        os.chown(path, UID_BASE, -1)
    (stray,) = sleepers(1)
    group.entrance.write_text(str(stray.pid))
    try:
        os.seteuid(UID_BASE)
        try:
            assert not group.remove()
        finally:
            os.seteuid(0)
        assert await asyncio.to_thread(stray.wait, 20) == -9
        assert await group.end()
    finally:
        stray.kill()
        stray.wait(5)
        own.rmdir()


async def test_a_group_without_limits_ends_what_left_its_runtime(found: Browsers) -> None:
    """Processes of another user, that only the group leads to."""
    own = real_group() / f"gateway-test-{uuid4().hex}"
    own.mkdir()
    with temporary_data_dir() as data_dir:
        settings = Settings(data_dir=data_dir, warm_browsers=0, uid_base=UID_BASE)

        def launching() -> LocalLauncher:
            return LocalLauncher(settings, found, groups=ControlGroups(own, data_dir, 0, 0))

        def joined(group: Path) -> subprocess.Popen[bytes]:
            (stray,) = sleepers(1)
            (group / "cgroup.procs").write_text(str(stray.pid))
            return stray

        launcher = launching()
        await launcher.open()
        one, other = [await launcher.launch(LaunchSpec(uuid4())) for _ in range(2)]
        groups = {group: (group / "cgroup.procs").read_text().split() for group in own.glob("runtime-*")}
        (of_one,) = [group for group, pids in groups.items() if str(one.group) in pids]
        (of_other,) = [group for group, pids in groups.items() if str(other.group) in pids]
        stray, living = joined(of_one), joined(of_other)
        try:
            await one.stop()
            assert await asyncio.to_thread(stray.wait, 20) == -9
            assert living.poll() is None
            await one.removed.wait()
            assert not of_one.exists()
            await launcher.close()
            assert await asyncio.to_thread(living.wait, 20) == -9
            # A gateway that was killed left a group, with a process in it.
            left = own / of_one.name
            left.mkdir()
            orphan = joined(left)
            later = launching()
            await later.open()
            assert await asyncio.to_thread(orphan.wait, 20) == -9
            assert list(own.glob("runtime-*")) == []
            await later.close()
        finally:
            for process in (stray, living):
                process.kill()
            own.rmdir()


def test_a_group_without_limits_is_made_where_the_gateways_own_can_be_written(tmp_path: Path) -> None:
    own = fake_tree(tmp_path, controllers="")
    assert control_groups.writable_group(tmp_path) == own
    assert not list(own.glob("gateway-probe*"))
    (tmp_path / "cgroup").write_text("0::/gone\n")
    assert control_groups.writable_group(tmp_path) is None
    (tmp_path / "mountinfo").write_text("25 30 0:23 / /proc rw - proc proc rw\n")
    assert control_groups.writable_group(tmp_path) is None


async def test_a_runtime_past_its_memory_is_ended_alone_and_says_so(found: Browsers) -> None:
    try:
        own = control_groups.own_group()
    except ConfigurationError as error:
        pytest.skip(f"the memory of a group can't be limited here: {error.message}")
    async with opened(found, runtime_memory_bytes=400 * MIB) as launcher:
        greedy, other = [await launcher.launch(LaunchSpec(uuid4())) for _ in range(2)]
        assert len(list(own.glob("runtime-*"))) >= 2
        async with DevTools.attach(greedy) as client:
            page = await client.first_page()
            eating = "globalThis.all = []; setInterval(() => all.push(new Uint8Array(16e6).fill(1)), 10)"
            await client.send("Runtime.evaluate", page, expression=eating)
            ending = await asyncio.wait_for(greedy.ended, 60)
        assert ending.code == "browser.out_of_memory"
        async with DevTools.attach(other) as client:
            assert await client.evaluate("6 * 7", await client.first_page()) == 42


def test_a_new_group_has_its_limits(tmp_path: Path) -> None:
    groups = ControlGroups(tmp_path, tmp_path, 123456789, 321)
    group = groups.make("name")
    assert group.path.parent == tmp_path
    assert {file.name: file.read_text() for file in group.path.iterdir()} == {
        "memory.max": "123456789",
        "memory.oom.group": "1",
        "pids.max": "321",
    }
    (group.path / "memory.events").write_text("low 0\noom 1\noom_kill 0\noom_group_kill 0\n")
    assert not group.out_of_memory()
    (group.path / "memory.events").write_text("low 0\noom 1\noom_kill 3\noom_group_kill 1\n")
    assert group.out_of_memory()
    assert ControlGroups(tmp_path, tmp_path / "other", 1, 1).make("name").path != group.path
