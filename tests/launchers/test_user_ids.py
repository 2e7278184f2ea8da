"""User ids of browsers: none is free again while a process has it, and none is used by two gateways."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
import structlog

from gateway.core.errors import LaunchFailed
from gateway.launchers.base import LaunchSpec
from gateway.launchers.local import browsers
from gateway.launchers.local.launcher import LocalLauncher
from gateway.launchers.local.local_browser import LocalBrowser
from gateway.launchers.local.user_ids import UserIds
from gateway.settings import Settings
from tests.support.devtools import DevTools
from tests.support.gateway_process import temporary_data_dir
from tests.support.waiting import until, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives browsers users of their own")

# A range of this process's tests alone: others may run beside it.
BASE = 1_200_000 + os.getpid() % 10_000 * 100
COUNT = 12

ESCAPE = """
import os, resource, signal, sys, time
how, user, group, count = sys.argv[1], *map(int, sys.argv[2:])
os.set_blocking(count, False)
def tell():
    try:
        os.write(count, b".")
    except BlockingIOError:
        pass
# Those that multiply leave room for the machine's other processes.
if how == "multiplies":
    resource.setrlimit(resource.RLIMIT_NPROC, (300, 300))
os.setgroups([])
os.setresgid(group, group, group)
os.setresuid(user, user, user)
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
if how == "forks":
    # Each lives for a moment, and its child goes on, so that no list of processes is ever true.
    while True:
        tell()
        if os.fork():
            os._exit(0)
        os.setsid()
if how == "multiplies":
    while True:
        tell()
        try:
            os.fork()
        except OSError:
            time.sleep(0.01)
while True:
    tell()
    time.sleep(0.01)
"""


@pytest.fixture(autouse=True)
async def _nothing_is_left() -> AsyncIterator[None]:
    """A test that fails leaves no process of its range."""
    yield
    with tempfile.TemporaryDirectory() as directory:
        ids = UserIds(BASE, COUNT, Path(directory))
        await ids.open()
        ids.close()


@pytest.fixture
async def make_ids() -> AsyncIterator[Callable[..., UserIds]]:
    """Makes what one gateway has."""
    made = []
    with tempfile.TemporaryDirectory() as directory:

        def make(**options: Any) -> UserIds:
            made.append(UserIds(BASE, COUNT, Path(directory), **options))
            return made[-1]

        yield make
        for ids in made:
            ids.close()


def of_user(uid: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if uid in process.uids() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


UNENDABLE = """
import os, sys, time
os.setresuid(0, int(sys.argv[1]), 0)
print("ready", flush=True)
time.sleep(600)
"""


class Escaped:
    """A process of a user that ignores signals and has left its parent and session, and lives on as `how` says.

    It counts while it lives, or those that it forks do, since no list of processes shows one that keeps forking.
    """

    def __init__(self, uid: int, how: str) -> None:
        self._count, theirs = os.pipe()
        os.set_blocking(self._count, False)
        command = [sys.executable, "-c", ESCAPE, how, str(uid), str(BASE), str(theirs)]
        subprocess.run(command, cwd="/", env={}, stdin=subprocess.DEVNULL, pass_fds=[theirs], check=True)
        os.close(theirs)
        wait_until(self.lives, "it runs")

    def lives(self) -> bool:
        """Whether it has counted since the last call."""
        try:
            return os.read(self._count, 65536) != b""
        except BlockingIOError:
            return False

    def has_ended(self) -> bool:
        """Whether no process is left that could count."""
        try:
            while os.read(self._count, 65536):
                pass
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        os.close(self._count)


async def start_escaped(uid: int, how: str) -> Escaped:
    return await asyncio.to_thread(Escaped, uid, how)


def user_of(browser: LocalBrowser) -> int:
    (main,) = psutil.Process(browser.group).children()
    return main.uids().real


@asynccontextmanager
async def launcher(**options: Any) -> AsyncIterator[LocalLauncher]:
    found = browsers.find(None)
    assert found is not None
    with temporary_data_dir() as data_dir:
        settings = Settings(data_dir=data_dir, warm_browsers=0, uid_base=BASE, uid_count=COUNT)
        ids = UserIds(BASE, COUNT, data_dir, **options)
        launcher = LocalLauncher(settings, found, user_ids=ids)
        await launcher.open()
        yield launcher
        await launcher.close()


@pytest.mark.parametrize("how", ["stays", "forks", "multiplies"])
async def test_a_process_that_left_its_runtime_ends_with_it(how: str) -> None:
    async with launcher() as launching:
        browser = await launching.launch(LaunchSpec(uuid4()))
        uid = user_of(browser)
        escaped = await start_escaped(uid, how)
        await browser.stop()
        await until(lambda: list(launching.runtimes_dir.iterdir()) == [], "the runtime is cleared")
        assert of_user(uid) == []
        assert escaped.has_ended()
        escaped.close()
        # Not the id that became free, but the next one.
        later = await launching.launch(LaunchSpec(uuid4()))
        assert user_of(later) != uid
        await later.stop()


async def test_an_id_whose_processes_can_not_be_ended_stays_out_of_use() -> None:
    async with launcher(end_seconds=0) as launching:
        browser = await launching.launch(LaunchSpec(uuid4()))
        uid = user_of(browser)
        # It has the id, but the user may not end it, as nobody may end one that waits for a disk.
        kept = await asyncio.create_subprocess_exec(
            sys.executable, "-c", UNENDABLE, str(uid), stdout=asyncio.subprocess.PIPE
        )
        assert kept.stdout is not None
        assert await kept.stdout.readline() == b"ready\n"
        escaped = await start_escaped(uid, "stays")
        with structlog.testing.capture_logs() as logs:
            await browser.stop()
            await until(lambda: logs != [], "it is logged")
        assert [entry["uid"] for entry in logs] == [uid]
        assert "stays out of use" in logs[0]["event"]
        # As many launches as there are ids: none gets it.
        for _ in range(COUNT):
            later = await launching.launch(LaunchSpec(uuid4()))
            assert user_of(later) != uid
            async with DevTools.attach(later) as client:
                assert len(await client.pages()) == 1
            await later.stop()
            await until(lambda: len(list(launching.runtimes_dir.iterdir())) == 1, "only the first one's is left")
        escaped.close()
        kept.kill()
        await kept.wait()


async def test_ids_are_given_out_in_turn(make_ids: Callable[..., UserIds]) -> None:
    ids = make_ids()
    await ids.open()
    seen = []
    for _ in range(COUNT - 2):
        seen.append(await ids.take())
        assert await ids.end(seen[-1])
        ids.free(seen[-1])
    assert sorted(seen) == list(range(BASE + 1, BASE + COUNT - 1))
    assert await ids.take() == seen[0]


async def test_two_gateways_of_a_machine_have_different_ids(make_ids: Callable[..., UserIds]) -> None:
    one, other = make_ids(), make_ids()
    await one.open()
    await other.open()
    taken = [await ids.take() for _ in range((COUNT - 2) // 2) for ids in (one, other)]
    assert len(set(taken)) == COUNT - 2
    for ids in (one, other):
        with pytest.raises(LaunchFailed, match="user ids"):
            await ids.take()
    # What a gateway had is free when it has ended.
    one.close()
    assert await other.take() in taken[::2]


async def test_gateways_of_a_machine_take_blocks_that_do_not_overlap() -> None:
    with tempfile.TemporaryDirectory() as directory:
        made = [UserIds(BASE, 250, Path(directory), max_runtimes=runtimes) for runtimes in (10, 20, 10, 10)]
        for ids in made:
            await ids.open()
        blocks = [ids.block for ids in made]
        everything = range(BASE + 1, BASE + 249)
        # The last two find no free one, and share the ids that are locked one by one.
        assert [len(block) for block in blocks] == [84, 104, len(everything), len(everything)]
        assert set(blocks[0]).isdisjoint(blocks[1])
        assert {await made[0].take() for _ in range(3)} <= set(blocks[0])
        made[0].close()
        again = UserIds(BASE, 250, Path(directory), max_runtimes=10)
        await again.open()
        assert again.block == blocks[0]
        for ids in (*made[1:], again):
            ids.close()


async def test_a_gateway_whose_block_is_taken_takes_ids_that_no_other_has() -> None:
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as closing:
        full, other = (UserIds(BASE, 160, Path(directory), max_runtimes=1) for _ in range(2))
        for ids in (full, other):
            await ids.open()
            closing.callback(ids.close)
        assert len(full.block) == len(other.block) == 66
        of_other = {await other.take() for _ in range(2)}
        assert {await full.take() for _ in full.block} == set(full.block)
        # Runtimes that have ended keep theirs while their downloads are saved; others are not refused for it.
        further = {await full.take() for _ in range(3)}
        assert len(further) == 3
        assert further.isdisjoint(full.block)
        assert further.isdisjoint(of_other)
        # One that starts later does not get them in its block.
        later = UserIds(BASE, 300, Path(directory), max_runtimes=1)
        await later.open()
        closing.callback(later.close)
        assert len(later.block) == 66
        assert further.isdisjoint(later.block)
        # One of the block comes first again.
        first = full.block[0]
        full.free(first)
        assert first in {await full.take() for _ in range(2)}


@pytest.mark.parametrize("how", ["stays", "forks"])
async def test_a_start_ends_what_an_earlier_gateway_left(make_ids: Callable[..., UserIds], how: str) -> None:
    before, after = make_ids(), make_ids()
    await before.open()
    left, living = await before.take(), await before.take()
    before.free(left)
    escaped = [await start_escaped(left, how), await start_escaped(living, "stays")]
    await after.open()
    # Reading /proc may miss one that keeps forking, which ends at the latest when its id is taken.
    while await after.take() != left:
        pass
    assert escaped[0].has_ended()
    # The other one is a gateway's that still lives.
    assert len(of_user(living)) == 1
    assert after.out_of_use == set()
    wait_until(escaped[1].lives, "it goes on")
    assert await before.end(living)
    for one in escaped:
        one.close()


async def test_an_id_that_another_program_uses_is_left_to_it(make_ids: Callable[..., UserIds]) -> None:
    ids = make_ids()
    # Below a shell that lives, as a browser is below a gateway.
    drop = f"setpriv --reuid {BASE + 3} --regid {BASE} --clear-groups"
    shell = await asyncio.create_subprocess_exec("/bin/sh", "-c", f"{drop} sleep 600; :", start_new_session=True)
    try:
        await until(lambda: of_user(BASE + 3) != [], "it runs")
        await ids.open()
        assert ids.out_of_use == {BASE + 3}
        assert len(of_user(BASE + 3)) == 1
        assert BASE + 3 not in {await ids.take() for _ in range(COUNT - 3)}
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        await shell.wait()
