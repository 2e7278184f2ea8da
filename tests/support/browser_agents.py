"""Agents of browsers (`gateway agent`), as processes of this machine, and a launcher that has one for each launch."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.core.unprivileged import grant_search
from gateway.egress.proxy import EgressProxy
from gateway.launchers.base import LaunchSpec
from gateway.launchers.local import browsers
from gateway.launchers.remote.connecting import AgentAddress
from gateway.launchers.remote.launcher import RemoteLauncher
from gateway.launchers.remote.proofs import verifier
from gateway.launchers.remote.remote_browser import RemoteBrowser
from gateway.settings import Settings
from tests.support.gateway_process import temporary_data_dir

_UIDS = itertools.count(1_250_000 + os.getpid() % 10_000 * 4)


class AgentProcess:
    """An agent, and what it has printed."""

    def __init__(self, process: asyncio.subprocess.Process, directory: Path, uid: int | None) -> None:
        self.process = process
        self.directory = directory
        self.uid = uid
        self.printed: list[str] = []
        self.address: AgentAddress
        self._reading = asyncio.create_task(self._read())
        self._listens = asyncio.Event()
        self._port = 0

    async def listening(self) -> int:
        """Its port, once it listens."""
        await self._listens.wait()
        assert self._port, self.printed
        return self._port

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.printed.append(line.decode())
            if "listening on" in self.printed[-1]:
                self._port = int(self.printed[-1].rpartition(":")[2])
                self._listens.set()
        self._listens.set()

    async def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        await self.process.wait()
        await self._reading


async def start_agent(
    directory: Path,
    key: bytes,
    name: str,
    *options: str,
    network: str = "--trusted-network",
    browser: Path | None = None,
) -> AgentProcess:
    """One that listens on any port of loopback, and by default has the headless shell. The caller closes it."""
    if browser is None:
        found = browsers.find(None)
        assert found is not None
        browser = found.get("headless-shell").path
    uid = _made(directory)
    own = ["--directory", str(directory), "--browser", str(browser), "--port", "0"]
    user = [] if uid is None else ["--browser-uid", str(uid)]
    environment = {"GATEWAY_AGENT_VERIFIER": verifier(key, name).text, "PATH": os.environ["PATH"]}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "agent", *own, *user, network, *options,
        env=environment, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    return AgentProcess(process, directory, uid)


def _made(directory: Path) -> int | None:
    """Make the directory of an agent; returns the user of its browser, if it is not the agent's."""
    directory.mkdir()
    if os.geteuid() != 0:
        return None
    uid = next(_UIDS)
    directory.chmod(0o711)
    grant_search(directory, uid)
    return uid


class AgentForEach(RemoteLauncher):
    """A launcher that starts an agent for each launch."""

    def __init__(self, settings: Settings, egress: EgressProxy, directory: Path) -> None:
        self.key = secrets.token_bytes(32)
        self.started: list[AgentProcess] = []
        self.addresses: list[AgentAddress] = []
        self._directory = directory
        super().__init__(settings, egress, self.addresses)

    async def launch(self, spec: LaunchSpec) -> RemoteBrowser:
        name = f"agent-{len(self.started)}"
        agent = await start_agent(self._directory / name, self.key, name)
        self.started.append(agent)
        self.addresses.append(AgentAddress("127.0.0.1", await agent.listening(), name, self.key))
        return await super().launch(spec)


@asynccontextmanager
async def agent_for_each(**options: Any) -> AsyncIterator[AgentForEach]:
    with temporary_data_dir() as directory:
        settings = Settings(data_dir=directory, **options)
        egress = EgressProxy(settings)
        launcher = AgentForEach(settings, egress, directory)
        try:
            yield launcher
            await launcher.close()
        finally:
            for agent in launcher.started:
                await agent.close()
            await egress.close()
