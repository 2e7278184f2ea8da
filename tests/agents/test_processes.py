"""The processes of agents, with a toy in the place of a library: what each limit does, and that nothing is left."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import psutil
import pytest
import pytest_asyncio
import structlog

from gateway.agents.installation import BROWSER_USE_WORKER, Installation
from gateway.agents.jobs import Job, Library, ModelAccess, Tool
from gateway.agents.messages import AgentFailed, Step, ToolCall
from gateway.agents.preloaded import Preloaded
from gateway.agents.processes import AgentProcess, Agents
from gateway.agents.programs import Command, Program
from gateway.core.errors import NotSupported
from gateway.launchers.local.user_ids import UserIds
from gateway.settings import Settings
from tests.support import toy_agent
from tests.support.waiting import for_a_while, until

pytestmark = pytest.mark.unprivileged

# A range of this process's tests alone: others may run beside it.
BASE = 1_400_000 + os.getpid() % 10_000 * 100
TOY = Path(toy_agent.__file__)
# The process that forks, as it is, but for the library.
FORKING = f"""
names = {{"__name__": "worker"}}
exec({BROWSER_USE_WORKER.read_text()!r}, names)
async def work():
    exec({TOY.read_text()!r}, {{"__name__": "__main__"}})
names.update(load=lambda: None, work=work)
"""
SERVING = FORKING + "names['serve']()"
# A gateway with one agent, which prints how far it is. Arguments: the program, its kind, a directory, a user id.
GATEWAY = """
import asyncio, os, sys
from pathlib import Path
from gateway.agents.jobs import Job, ModelAccess
from gateway.agents.preloaded import Preloaded
from gateway.agents.processes import Agents
from gateway.agents.programs import Command
from gateway.launchers.local.user_ids import UserIds
from gateway.settings import Settings
program, forks, directory, base = sys.argv[1], sys.argv[2] == "forked", Path(sys.argv[3]), int(sys.argv[4])
async def main():
    command = [sys.executable, "-I", "-S", "-c", program]
    settings = Settings()
    started = Preloaded(lambda: command, settings) if forks else Command(lambda: command)
    agents = Agents(settings, directory / "agents", base, {"stagehand": started})
    if os.geteuid() == 0:
        agents.users = UserIds(base, 90, directory)
        await agents.users.open()
    await agents.start()
    async def works(step):
        print("it works", flush=True)
    print("it begins", flush=True)
    process = await agents.prepare("stagehand")
    # Deaf: it never reads that the gateway is gone.
    job = Job("stagehand", "agent", "", ModelAccess("openai", "gpt", "", ""), "step(); signal.pause()")
    await process.run(job, works, works)
asyncio.run(main())
"""
LEASE = "ws://127.0.0.1:9/v1/lease?token=lease-token-1234567890"
TOKEN = "relay-token-1234567890"
MIB = 1024**2
KILLS = int(os.environ.get("GATEWAY_TEST_KILLS", "10"))
PNG = "iVBORw0KGgo="


def job(code: str, **given: Any) -> Job:
    model = ModelAccess("openai", "gpt", "http://127.0.0.1:9", TOKEN)
    return Job("stagehand", "agent", LEASE, model, code, **given)


class Running:
    """Agents on the toy, and what they have said."""

    def __init__(self, directory: Path, *arguments: str, forking: str | None = None, **given: Any) -> None:
        self.directory = directory / "agents"
        settings = Settings(**given)
        self.steps: list[Step] = []
        self.calls: list[ToolCall] = []
        # -S and -I: nothing of this environment's packages, which another user may not read.
        command = [sys.executable, "-I", "-S", "-c", forking or TOY.read_text(), *arguments]
        self.preloaded = None if forking is None else Preloaded(lambda: command, settings)
        program: Program = self.preloaded or Command(lambda: command)
        self.users = UserIds(BASE, 90, directory) if os.geteuid() == 0 else None
        self.agents = Agents(settings, self.directory, BASE, {"stagehand": program})
        self.agents.users = self.users

    async def open(self) -> None:
        if self.users is not None:
            await self.users.open()
        await self.agents.start()

    async def close(self) -> None:
        await self.agents.stop()
        if self.users is not None:
            self.users.close()

    async def on_step(self, step: Step) -> None:
        self.steps.append(step)

    async def on_call(self, call: ToolCall) -> dict[str, Any]:
        self.calls.append(call)
        return {"output": {"doubled": call.input * 2}}

    async def run(self, code: str, **given: Any) -> Any:
        process = await self.agents.prepare("stagehand")
        try:
            return await process.run(job(code, **given), self.on_step, self.on_call)
        finally:
            await process.close()
            self.has_nothing(process)

    async def fails(self, code: str, **given: Any) -> AgentFailed:
        with pytest.raises(AgentFailed) as failed:
            await self.run(code, **given)
        return failed.value

    @property
    def parent(self) -> psutil.Process:
        """The process that forks."""
        assert self.preloaded is not None
        assert self.preloaded.parent_pid is not None
        return psutil.Process(self.preloaded.parent_pid)

    def has_nothing(self, process: AgentProcess) -> None:
        assert not psutil.pid_exists(process.pid)
        assert not process.directory.exists()
        if process.uid is not None:
            assert processes_of({process.uid}) == []

    def is_empty(self) -> None:
        assert len(self.agents) == 0
        assert list(self.directory.iterdir()) == []
        if self.users is not None:
            assert processes_of(set(self.users.block)) == []


def processes_of(users: set[int]) -> list[psutil.Process]:
    """Without zombies, which are those of init."""
    found = psutil.process_iter(["uids", "status"])
    return [
        each
        for each in found
        if users.intersection(each.info["uids"] or ()) and each.info["status"] != psutil.STATUS_ZOMBIE
    ]


@pytest_asyncio.fixture
async def running(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    made = Running(tmp_path, **getattr(request, "param", {}))
    await made.open()
    yield made
    await made.close()
    made.is_empty()


@pytest_asyncio.fixture
async def forking(tmp_path: Path) -> AsyncIterator[Running]:
    made = Running(tmp_path, forking=SERVING)
    await made.open()
    yield made
    await made.close()
    made.is_empty()


def limits(**settings: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("running", [settings], indirect=True, ids=[", ".join(settings)])


async def test_a_job_has_steps_calls_and_a_result(running: Running) -> None:
    tool = Tool("double", "Doubles", {"type": "object"})
    code = f"""
step(1, total=3, url="https://example.com/", screenshot="{PNG}")
say({{"type": "call", "id": "a", "tool": job["tools"][0]["name"], "input": 21}})
result([hear(), job["model"], job["schema"], job["targetId"], job["maxSteps"]])
"""
    result = await running.run(code, tools=(tool,), schema={"type": "object"}, target_id="T", screenshots=True)
    answer, model, *others = result
    assert answer == {"id": "a", "output": {"doubled": 42}}
    assert others == [{"type": "object"}, "T", 20]
    # What only the process may know does not come back.
    assert model == {"provider": "openai", "name": "gpt", "address": "http://127.0.0.1:9", "token": "***"}
    assert running.calls == [ToolCall("a", "double", 21)]
    assert running.steps == [Step(1, 3, "act", "why", "https://example.com/", b"\x89PNG\r\n\x1a\n")]


async def test_a_process_has_nothing_but_its_place(running: Running) -> None:
    uid, groups, environment, cwd, files, has_rights = await running.run(
        """
files = [os.readlink(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd") if int(each) < 3]
result([os.getuid(), os.getgroups(), dict(os.environ), os.getcwd(), len(os.listdir("/proc/self/fd")),
        [line for line in open("/proc/self/status") if line.startswith("Cap") and int(line.split()[1], 16)]])
"""
    )
    assert set(environment) - {"LC_CTYPE"} == {"HOME", "TMPDIR"}
    assert cwd == environment["HOME"] == environment["TMPDIR"]
    # 0 to 2, a duplicate of the socket, and the directory that is being listed.
    assert files <= 5
    if os.geteuid() == 0:
        assert uid in range(BASE + 1, BASE + 90)
        assert groups == []
        # The bounding set is no right.
        assert [line for line in has_rights if not line.startswith("CapBnd")] == []


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("sys.exit(3)", "ended", "ended without a result"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "ended", "ended without a result"),
        ("raw(b'no JSON' + bytes([10]))", "unreadable", "no JSON"),
        ("raw(b'[' * 100_000 + bytes([10]))", "unreadable", "no JSON"),
        ("say([])", "unreadable", "no object"),
        ("say({'type': 'strange'})", "unreadable", "unknown type"),
        ("say({'type': 'step', 'number': -1})", "unreadable", "without a number"),
        ("say({'type': 'step', 'number': True})", "unreadable", "without a number"),
        ("say({'type': 'call', 'id': 'i' * 101, 'tool': 't'})", "unreadable", "without an id"),
        ("step(screenshot='?')", "unreadable", "no base64"),
        ("step(screenshot='R0lGODlh')", "unreadable", "neither PNG nor JPEG"),
        ("say({'type': 'failed', 'kind': 'model', 'message': 'no ' + job['model']['token']})", "model", "^no [*]{3}$"),
        ("say({'type': 'failed', 'kind': 'time', 'message': 'it says'})", "failed", "^it says$"),
        ("say({'type': 'failed', 'message': 7})", "failed", "without a reason"),
        ("[say({'type': 'call', 'id': str(i), 'tool': 't', 'input': []}) for i in range(40)]", "output", "16 calls"),
    ],
)
async def test_what_a_process_says_is_a_strangers(running: Running, code: str, kind: str, says: str) -> None:
    failed = None

    async def waits(_: ToolCall) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    running.on_call = waits  # type: ignore[method-assign,assignment]
    failed = await running.fails(code)
    assert failed.kind == kind
    with pytest.raises(AgentFailed, match=says):
        raise failed


@limits(agents_line_bytes=4096)
@pytest.mark.parametrize(("length", "fits"), [(4095, True), (4096, True), (4097, False), (10 * MIB, False)])
async def test_a_line_has_a_maximum(running: Running, length: int, fits: bool) -> None:
    around = len('{"type": "result", "value": ""}\n')
    code = f"result('x' * {length - around})"
    if fits:
        assert await running.run(code) == "x" * (length - around)
    else:
        assert (await running.fails(code)).kind == "output"


@limits(agents_line_bytes=4096, agents_screenshot_bytes=30_000)
@pytest.mark.parametrize(("length", "fits"), [(29_999, True), (30_000, True), (30_001, False), (60_000, False)])
async def test_a_picture_has_a_maximum(running: Running, length: int, fits: bool) -> None:
    code = f"picture = bytes([255, 216, 255]) + bytes({length} - 3)"
    code += "; step(screenshot=base64.b64encode(picture).decode()); result(1)"
    if fits:
        assert await running.run(code, screenshots=True) == 1
        assert [len(step.screenshot or b"") for step in running.steps] == [length]
    else:
        assert (await running.fails(code, screenshots=True)).kind == "output"


@limits(agents_line_bytes=4096, agents_total_bytes=8192)
@pytest.mark.parametrize(("lines", "fits"), [(2, True), (3, False)])
async def test_all_lines_together_have_a_maximum(running: Running, lines: int, fits: bool) -> None:
    code = f"[step(padding='x' * 3900) for _ in range({lines})]; result(1)"
    if fits:
        assert await running.run(code) == 1
    else:
        assert "8192 bytes" in (await running.fails(code)).message


@limits(agents_lines_per_second=5)
@pytest.mark.parametrize(("steps", "seconds"), [(3, 0), (4, 1), (8, 1), (9, 2)])
async def test_lines_beyond_a_maximum_in_a_second_wait(running: Running, steps: int, seconds: int) -> None:
    # With the one that says that it is ready, and that of the result.
    began = time.monotonic()
    assert await running.run(f"[step(n) for n in range({steps})]; result(1)") == 1
    assert len(running.steps) == steps
    assert time.monotonic() - began >= seconds


@limits(agents_text_characters=100)
async def test_texts_are_cut(running: Running) -> None:
    await running.run("step(1, action='a' * 100, reason='b' * 101, url='u' * 9999); result(1)")
    (step,) = running.steps
    assert step.action == "a" * 100
    assert step.reason == "b" * 99 + "…"
    assert len(step.url or "") == 2048


@limits(agents_output_bytes=1024)
@pytest.mark.parametrize("length", [1023, 1024, 1025])
async def test_the_last_of_what_is_printed_is_kept(running: Running, length: int) -> None:
    with structlog.testing.capture_logs() as logs:
        await running.fails(f"print('a' + 'b' * {length - 2}, flush=True); os._exit(1)")
    (output,) = [each["output"] for each in logs if "output" in each]
    assert (len(output), output.startswith("a")) == (min(length, 1024), length <= 1024)


@limits(agents_memory_bytes=128 * MIB)
async def test_memory_has_a_maximum(running: Running) -> None:
    assert await running.run(f"kept = bytearray({64 * MIB}); result(len(kept))") == 64 * MIB
    failed = await running.fails(f"kept = bytearray({192 * MIB}); signal.pause()")
    assert (failed.kind, "134217728" in failed.message) == ("memory", True)


@limits(agents_seconds=0.5)
async def test_the_time_of_a_job_has_a_maximum(running: Running) -> None:
    assert (await running.fails("signal.pause()")).kind == "time"


def test_a_directory_that_is_reached_by_a_link_is_named_by_its_real_path(tmp_path: Path) -> None:
    # Node.js may read that alone; its check of the program's path would look at the link too.
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert Installation(Settings(agents_dir=tmp_path / "link")).bundle == tmp_path / "real/stagehand/worker.mjs"


@pytest.mark.parametrize(("argument", "kind"), [("silent", "start"), ("begin-with-a-step", "unreadable")])
async def test_a_process_must_begin(tmp_path: Path, argument: str, kind: str) -> None:
    made = Running(tmp_path, argument, agents_start_seconds=0.5)
    await made.open()
    # A job would have its step as the first message.
    failed = await made.fails("step(); signal.pause()")
    assert failed.kind == kind
    await made.close()
    made.is_empty()


class Killed:
    """A gateway with one agent, in a process of its own that the test kills."""

    def __init__(self, directory: Path, kind: str) -> None:
        self.directory = directory
        program = TOY.read_text() if kind == "executed" else SERVING
        self._process = subprocess.Popen(
            [sys.executable, "-c", GATEWAY, program, kind, str(directory), str(BASE)],
            cwd=Path(__file__).parent.parent.parent,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hears(self, line: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"{line}\n"

    def agents(self) -> list[int]:
        """Processes of its agents that live, those that have just begun too."""
        place = str(self.directory / "agents")
        found = psutil.process_iter(["cwd", "status"])
        return [
            each.pid
            for each in found
            if (each.info["cwd"] or "").startswith(place) and each.info["status"] != psutil.STATUS_ZOMBIE
        ]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.mark.parametrize("kind", ["executed", "forked"])
async def test_a_process_that_hears_nothing_ends_with_its_gateway(tmp_path: Path, kind: str) -> None:
    gateway = Killed(tmp_path, kind)
    gateway.hears("it begins")
    gateway.hears("it works")
    assert len(gateway.agents()) == (1 if kind == "executed" else 2)
    gateway.kill()
    await until(lambda: not gateway.agents(), "no process of an agent is left")


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["executed", "forked"])
async def test_nothing_is_left_of_one_whose_gateway_is_killed_at_any_moment(tmp_path: Path, kind: str) -> None:
    moments = random.Random(14)
    for _ in range(KILLS):
        gateway = Killed(tmp_path, kind)
        gateway.hears("it begins")
        await for_a_while(moments.uniform(0, 0.3))
        gateway.kill()
        await until(lambda gateway=gateway: not gateway.agents(), "no process of an agent is left")  # type: ignore[misc]


async def test_processes_that_leave_the_group_end_too(running: Running) -> None:
    code = "os.fork() or (os.setsid(), os.fork()) ; step(os.getpid()); signal.pause()"
    process = await running.agents.prepare("stagehand")
    if process.uid is None:
        await process.close()
        return
    task = asyncio.create_task(process.run(job(code), running.on_step, running.on_call))
    await until(lambda: len(running.steps) == 3, "all three have begun")
    task.cancel()
    await process.close()
    running.has_nothing(process)


@pytest.mark.parametrize("turns", range(0, 40, 2))
async def test_nothing_is_left_after_a_cancel_at_any_point(running: Running, turns: int) -> None:
    await cancelled_after(running, turns)


async def cancelled_after(running: Running, turns: int) -> None:
    async def use() -> None:
        process = await running.agents.prepare("stagehand")
        try:
            await process.run(job("step(); signal.pause()"), running.on_step, running.on_call)
        finally:
            await process.close()

    task = asyncio.create_task(use())
    for _ in range(turns):
        await asyncio.sleep(0)
    if turns > 30:
        await until(lambda: bool(running.steps), "the process works")
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    await running.agents.stop()
    running.is_empty()


async def test_the_end_is_carried_out_where_its_caller_is_cancelled(running: Running) -> None:
    process = await running.agents.prepare("stagehand")
    closing = asyncio.create_task(process.close())
    await asyncio.sleep(0)
    closing.cancel()
    await process.close()
    await process.close()
    running.has_nothing(process)


async def test_what_a_caller_raises_ends_the_process(running: Running) -> None:
    async def breaks(_: Any) -> Any:
        raise LookupError("can't be kept")

    running.on_step = breaks  # type: ignore[method-assign,assignment]
    with pytest.raises(LookupError):
        await running.run("step(); signal.pause()")
    running.on_call = breaks  # type: ignore[method-assign,assignment]
    with pytest.raises(LookupError):
        await running.run("say({'type': 'call', 'id': 'a', 'tool': 't'}); signal.pause()")


async def test_what_can_not_be_started_leaves_nothing(tmp_path: Path) -> None:
    made = Running(tmp_path)
    agents = Agents(Settings(), made.directory, BASE, {"stagehand": Command(lambda: ["x" * 200_000])})
    await agents.start()
    with pytest.raises(AgentFailed, match="can't be started"):
        await agents.prepare("stagehand")
    await agents.stop()
    assert list(made.directory.iterdir()) == []


async def test_what_is_not_installed_is_named_with_the_command(tmp_path: Path) -> None:
    agents = Agents(Settings(agents_dir=tmp_path / "none"), tmp_path / "agents", BASE)
    with pytest.raises(NotSupported, match=r"stagehand .* is not installed. Run `make agents`") as refused:
        await agents.prepare("stagehand")
    assert (refused.value.code, refused.value.details) == ("agents.not_installed", {"library": "stagehand"})
    library: Library
    for library in get_args(Library):
        assert f"{library} " in (agents.missing(library) or "")
        agents.installation.begins(library)
        agents.installation.has_installed(library)
        assert agents.missing(library) is None
        (tmp_path / "none" / library / "installed").write_text("older")
        assert "another version" in (agents.missing(library) or "")


async def test_a_forked_process_has_nothing_but_its_place(forking: Running) -> None:
    seen: list[tuple[int, psutil.Process]] = []

    async def look(call: ToolCall) -> dict[str, Any]:
        process = psutil.Process(call.input)
        seen.append((process.num_fds(), forking.parent))
        return {"output": [process.parent() == forking.parent, process.cwd()]}

    forking.on_call = look  # type: ignore[method-assign]
    uid, groups, environment, answer, rights, is_leader = await forking.run(
        """
say({"type": "call", "id": "a", "tool": "t", "input": os.getpid()})
result([os.getuid(), os.getgroups(), dict(os.environ), hear(),
        [line for line in open("/proc/self/status") if line.startswith("Cap") and int(line.split()[1], 16)],
        os.getsid(0) == os.getpgid(0) == os.getpid()])
"""
    )
    assert is_leader
    is_child, cwd = answer["output"]
    assert is_child
    assert cwd == environment["HOME"] == environment["TMPDIR"]
    assert not {name for name in environment if "KEY" in name.replace("API_KEY_VERIFICATION", "") or "PATH" in name}
    # 0 to 2, a duplicate of the socket, and what its event loop waits with.
    assert seen[0][0] <= 7
    if os.geteuid() == 0:
        assert uid in range(BASE + 1, BASE + 90)
        assert groups == []
        assert [line for line in rights if not line.startswith("CapBnd")] == []
        assert uid not in forking.parent.uids()
        assert 0 not in forking.parent.uids()


async def test_forked_processes_share_one_parent_and_end_by_themselves(forking: Running) -> None:
    assert await forking.run("result(1)") == 1
    parent = forking.parent
    processes = await asyncio.gather(*(forking.agents.prepare("stagehand") for _ in range(5)))
    assert len({process.uid for process in processes}) in (1 if os.geteuid() else 5, 5)
    assert {each.pid for each in parent.children()} == {process.pid for process in processes}
    codes = ["result(7)", "sys.exit(3)", "os.kill(os.getpid(), 9)", "raise ValueError", "signal.pause()"]
    runs = [
        asyncio.create_task(process.run(job(code), forking.on_step, forking.on_call))
        for process, code in zip(processes, codes, strict=True)
    ]
    await asyncio.wait(runs[:4])
    assert runs[0].result() == 7
    assert {type(run.exception()) for run in runs[1:4]} == {AgentFailed}
    await asyncio.gather(*(process.close() for process in processes))
    await asyncio.gather(*(process.close() for process in processes))
    for process in processes:
        forking.has_nothing(process)
    await asyncio.wait(runs)
    assert forking.parent == parent
    assert parent.children() == []


async def test_what_forks_ends_when_it_is_not_needed(tmp_path: Path) -> None:
    made = Running(tmp_path, forking=SERVING, agents_preloaded_idle_seconds=0.1)
    await made.open()
    process = await made.agents.prepare("stagehand")
    parent = made.parent
    # Not while one works, however long.
    steps = asyncio.create_task(process.run(job("time.sleep(0.5); step(); signal.pause()"), made.on_step, made.on_call))
    await until(lambda: bool(made.steps), "it works")
    assert parent.is_running()
    steps.cancel()
    await process.close()
    await until(lambda: not parent.is_running(), "what forks has ended")
    await until(lambda: not any(made.directory.iterdir()), "its directory is gone")
    assert await made.run("result(2)") == 2
    await made.close()
    made.is_empty()


async def test_what_forks_is_started_again_where_it_was_killed(forking: Running) -> None:
    process = await forking.agents.prepare("stagehand")
    working = asyncio.create_task(process.run(job("step(); signal.pause()"), forking.on_step, forking.on_call))
    await until(lambda: bool(forking.steps), "it works")
    killed = forking.parent
    killed.kill()
    with pytest.raises(AgentFailed) as failed:
        await working
    assert failed.value.kind == "ended"
    await process.close()
    assert await forking.run("result(3)") == 3
    assert forking.parent != killed


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise ImportError('no library')", "not at all"),
        ("names['_become'] = None; names['serve']()", "can't be started"),
        ("import signal; signal.pause()", "in time"),
    ],
)
async def test_what_can_not_fork_leaves_nothing(tmp_path: Path, code: str, says: str) -> None:
    made = Running(tmp_path, forking=FORKING + code, agents_start_seconds=0.5 if "pause" in code else 60)
    await made.open()
    with pytest.raises(AgentFailed, match=says) as failed:
        await made.agents.prepare("stagehand")
    assert failed.value.kind == "start"
    await made.close()
    made.is_empty()


@pytest.mark.parametrize("turns", range(0, 40, 8))
async def test_nothing_is_left_of_a_forked_one_after_a_cancel_at_any_point(forking: Running, turns: int) -> None:
    await cancelled_after(forking, turns)
