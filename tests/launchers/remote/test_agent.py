"""Agents as processes of this machine, with real browsers: who may speak to them, and what outlives a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import random
import secrets
import signal
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import psutil
import pytest

from gateway.core.errors import LaunchFailed
from gateway.egress.proxy import EgressProxy
from gateway.launchers.base import LaunchSpec
from gateway.launchers.remote import messages
from gateway.launchers.remote.connecting import AgentAddress, connected, streams
from gateway.launchers.remote.launcher import RemoteLauncher
from gateway.launchers.remote.proofs import HELLO_BYTES, GatewaySide, Purpose
from gateway.launchers.remote.remote_browser import Control
from gateway.settings import Settings
from tests.support.browser_agents import AgentProcess, start_agent
from tests.support.certificates import Authority
from tests.support.devtools import DevTools
from tests.support.gateway_process import temporary_data_dir
from tests.support.waiting import SECONDS, until

pytestmark = pytest.mark.unprivileged
NAME = "agent"
# Connections that an agent keeps which have not proved anything.
MOST_SILENT = 64


@asynccontextmanager
async def running(
    *options: str, network: str = "--trusted-network", browser: Path | None = None
) -> AsyncIterator[tuple[AgentProcess, AgentAddress]]:
    key = secrets.token_bytes(32)
    with temporary_data_dir() as directory:
        agent = await start_agent(directory / NAME, key, NAME, *options, network=network, browser=browser)
        try:
            yield agent, AgentAddress("127.0.0.1", await agent.listening(), NAME, key)
        finally:
            await agent.close()


@asynccontextmanager
async def launcher_of(address: AgentAddress, directory: Path, **options: float) -> AsyncIterator[RemoteLauncher]:
    settings = Settings(data_dir=directory, **options)
    egress = EgressProxy(settings)
    launcher = RemoteLauncher(settings, egress, [address])
    yield launcher
    await launcher.close()
    await egress.close()


async def answered(address: AgentAddress, data: bytes) -> bytes:
    """All that an agent says to a connection that says this."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(data)
    writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), SECONDS)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def lost(control: Control) -> None:
    """Raises what ends it."""
    while True:
        await control.next()


async def killed_gateway(address: AgentAddress, runtime: UUID) -> None:
    """A gateway takes the agent's browser for a runtime, and is killed."""
    given = json.dumps({"port": address.port, "name": NAME, "runtime": str(runtime)})
    held = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.held_agent", given,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert held.stdin is not None
    assert held.stdout is not None
    held.stdin.write(address.key.hex().encode() + b"\n")
    assert await asyncio.wait_for(held.stdout.readline(), SECONDS) == b"held\n"
    held.send_signal(signal.SIGKILL)
    await held.wait()


def processes_in(directory: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(str(directory) in part for part in process.cmdline()):
                found.append(process)
    return found


async def test_a_gateway_that_is_killed_leaves_its_browser_to_another_one(tmp_path: Path) -> None:
    runtime = uuid4()
    async with running() as (_, address):
        await killed_gateway(address, runtime)
        async with launcher_of(address, tmp_path) as launcher:
            browser = await launcher.launch(LaunchSpec(runtime))
            async with DevTools.attach(browser) as client:
                assert await client.evaluate("window.kept", await client.first_page()) == "as it was"


async def test_without_a_gateway_a_browser_ends_after_its_time() -> None:
    async with running("--adoption-seconds", "1") as (agent, address):
        # Until the other gateway has started, which takes longer than the time of the test.
        first = await Control.open(address)
        await killed_gateway(address, uuid4())
        first.close()
        assert await asyncio.wait_for(agent.process.wait(), SECONDS) == 0
        assert processes_in(agent.directory) == []


async def test_the_newest_gateway_has_control() -> None:
    async with running() as (_, address):
        first, second = await Control.open(address), await Control.open(address)
        with pytest.raises((EOFError, OSError)):
            await lost(first)
        assert (await second.next())["is"] == "alive"
        first.close()
        second.close()


def program(directory: Path, *lines: str) -> Path:
    """One that says a browser's version, and does this when it is started as one."""
    path = directory / "program"
    path.write_text("\n".join(["#!/bin/sh", 'case $1 in --version) echo "Program 1.2.3.4"; exit;; esac', *lines, ""]))
    path.chmod(0o755)
    return path


@pytest.fixture
def programs() -> Iterator[Path]:
    """A directory whose programs every user may run."""
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        directory.chmod(0o755)
        yield directory


@pytest.mark.parametrize(
    ("lines", "failure", "words"),
    [
        (["echo Out of luck >&2", "exit 3"], "exited", "Out of luck"),
        (["kill -SEGV $$"], "exited", "SIGSEGV"),
        (["exec /nonexistent/browser"], "not_found", "binary is not there"),
        (["exec /bin/sleep 60"], "timeout", "not ready within 2 seconds"),
    ],
)
async def test_a_browser_that_does_not_start_fails_with_its_class(
    lines: list[str], failure: str, words: str, tmp_path: Path, programs: Path
) -> None:
    browser = program(programs, *lines)
    async with running(browser=browser) as (agent, address):
        async with launcher_of(address, tmp_path, launch_timeout_seconds=2) as launcher:
            with pytest.raises(LaunchFailed, match=words) as raised:
                await launcher.launch(LaunchSpec(uuid4()))
            assert raised.value.details["class"] == failure
            with pytest.raises(LaunchFailed, match="None of the 1 agents is free"):
                await launcher.launch(LaunchSpec(uuid4()))
        # The agent itself has the directory on its command line.
        await until(lambda: len(processes_in(agent.directory)) == 1, "no process of the browser is left")


async def test_a_browser_that_is_killed_from_outside_has_been_killed(tmp_path: Path) -> None:
    async with running() as (agent, address), launcher_of(address, tmp_path) as launcher:
        browser = await launcher.launch(LaunchSpec(uuid4()))
        (script,) = psutil.Process(agent.process.pid).children()
        script.children()[0].kill()
        ending = await asyncio.wait_for(browser.ended, SECONDS)
        assert (ending.code, ending.asked) == ("browser.killed", False)
        assert "SIGKILL" in ending.message


async def test_a_browser_ends_with_its_agent(tmp_path: Path) -> None:
    async with running() as (agent, address), launcher_of(address, tmp_path) as launcher:
        browser = await launcher.launch(LaunchSpec(uuid4()))
        agent.process.kill()
        ending = await asyncio.wait_for(browser.ended, SECONDS)
        assert (ending.code, ending.asked) == ("browser.killed", False)
        assert "can't be reached" in ending.message
        await until(lambda: processes_in(agent.directory) == [], "nothing of the browser is left")


async def test_only_a_gateway_is_heard() -> None:
    async with running() as (agent, address):
        assert await answered(address, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" + bytes(60)) == b""
        hello = GatewaySide(address.key, NAME, Purpose.CONTROL).hello
        # Its own proof comes first, which says nothing of the browser; then nothing.
        assert len(hello) == HELLO_BYTES
        assert len(await answered(address, hello + bytes(32))) == 64
        for purpose in Purpose:
            stranger = AgentAddress(address.host, address.port, NAME, secrets.token_bytes(32))
            with pytest.raises(ConnectionRefusedError, match="not the agent of this name"):
                await connected(stranger, purpose, asyncio.Protocol)
        control = await Control.open(address)
        assert control.state["runtime"] is None
        control.close()
        assert any("does not speak" in line for line in agent.printed)


async def test_whoever_says_nothing_keeps_no_gateway_out() -> None:
    async with running() as (_, address):
        silent = [await asyncio.open_connection(address.host, address.port) for _ in range(MOST_SILENT + 1)]
        assert await asyncio.wait_for(silent[0][0].read(), SECONDS) == b""
        assert not any(reader.at_eof() for reader, _ in silent[1:])
        (await Control.open(address)).close()
        assert await asyncio.wait_for(silent[1][0].read(), SECONDS) == b""
        for _, writer in silent:
            writer.close()


async def test_devtools_before_a_launch_are_refused() -> None:
    async with running() as (_, address):
        made = asyncio.get_running_loop().create_future()

        class Lost(asyncio.Protocol):
            def connection_lost(self, _: Exception | None) -> None:
                made.set_result(True)

        await connected(address, Purpose.DEVTOOLS, Lost)
        assert await asyncio.wait_for(made, SECONDS)


ORDERS: list[messages.Message] = [
    {},
    {"do": 1},
    {"do": "unknown"},
    {"do": "launch"},
    {"do": "launch", "arguments": ["x"] * 257, "environment": {}, "preferences": "", "seconds": 1, "runtime": ""},
    {"do": "launch", "arguments": [], "environment": {"A": "b\0"}, "preferences": "", "seconds": 1, "runtime": ""},
    {"do": "launch", "arguments": [], "environment": {}, "preferences": "", "seconds": True, "runtime": ""},
    {"do": "read", "segments": []},
    {"do": "read", "segments": ["..", "profile"]},
    {"do": "read", "segments": ["a/b"]},
    {"do": "write", "segments": ["a"]},
    {"do": "write", "segments": ["a"], "rename": 1},
    {"id": 10**30},
    {"id": -1},
]


async def test_what_an_agent_may_not_be_told_ends_that_connection_alone() -> None:
    """By a gateway that has proved itself, as if that were broken or taken over: garbage, and wrong orders."""
    seed = secrets.randbits(32)
    chance = random.Random(seed)
    garbage = [chance.randbytes(chance.randrange(1, 200)) for _ in range(20)]
    async with running() as (agent, address):
        for purpose in (Purpose.CONTROL, Purpose.FILE, Purpose.EGRESS):
            for data in [*garbage, *(messages.message(order) for order in ORDERS), messages.chunk(b"x")]:
                reader, writer = await streams(address, purpose, 64 * 1024)
                writer.write(data)
                # What is not whole yet ends with the connection.
                writer.write_eof()
                with contextlib.suppress(ConnectionError):
                    await asyncio.wait_for(reader.read(), SECONDS)
                writer.close()
        control = await Control.open(address)
        assert (control.state["runtime"], control.state["started"]) == (None, None), f"seed {seed}"
        control.close()
        assert agent.process.returncode is None
        assert not any("Traceback" in line for line in agent.printed), agent.printed


async def test_with_tls_an_agent_is_who_its_authority_says(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "another one")
    files = {name: str(authority.issued(name)) for name in (NAME, "another-agent")}
    for name, file in files.items():
        async with running("--tls-key", file, network=f"--tls-certificate={file}") as (_, address):
            trusted = dataclasses.replace(address, tls=authority.trusting())
            if name != NAME:
                with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
                    await Control.open(trusted)
                continue
            (await Control.open(trusted)).close()
            with pytest.raises(ssl.SSLCertVerificationError):
                await Control.open(dataclasses.replace(address, tls=other.trusting()))
            with pytest.raises(ConnectionError):
                await Control.open(address)


async def test_an_agent_is_ready_only_once_what_is_forbidden_can_not_be_reached() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    key = secrets.token_bytes(32)
    with temporary_data_dir() as directory:
        agent = await start_agent(directory / NAME, key, NAME, "--forbidden", f"127.0.0.1:{port}")
        try:
            await until(lambda: any("not ready" in line for line in agent.printed), "it sees that it can be reached")
            assert not any("listening" in line for line in agent.printed)
            server.close()
            assert await asyncio.wait_for(agent.listening(), SECONDS) > 0
        finally:
            await agent.close()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ((), "needs --tls-certificate"),
        (("--adoption-seconds", "0"), "adoption-seconds"),
        (("--adoption-seconds", "86401"), "adoption-seconds"),
        (("--silence-seconds", "-1"), "silence-seconds"),
    ],
)
async def test_options_that_can_not_be_used_are_named(options: tuple[str, ...], why: str) -> None:
    with temporary_data_dir() as directory:
        agent = await start_agent(directory / NAME, bytes(range(32)), NAME, *options, network="--port=0")
        assert await asyncio.wait_for(agent.process.wait(), SECONDS) == 2
        await agent.close()
        assert why in "".join(agent.printed)
