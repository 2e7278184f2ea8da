"""Launchers that keep the interface of gateway/launchers/base.py, opened for tests of what they have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from gateway.launchers.base import Launcher
from tests.support.browser_agents import agent_for_each
from tests.support.launchers import local_launcher
from tests.support.waiting import until


@dataclass(frozen=True)
class Conforming:
    """A launcher, and a wait until nothing is left of its browsers that have ended."""

    launcher: Launcher
    nothing_left: Callable[[], Awaitable[None]]


@asynccontextmanager
async def _local() -> AsyncIterator[Conforming]:
    async with local_launcher(warm_browsers=0, egress_allow=("127.0.0.1",)) as launcher:

        async def nothing_left() -> None:
            await until(lambda: list(launcher.runtimes_dir.iterdir()) == [], "the directories of browsers are gone")

        yield Conforming(launcher, nothing_left)


@asynccontextmanager
async def _remote() -> AsyncIterator[Conforming]:
    async with agent_for_each(egress_allow=("127.0.0.1",)) as launcher:

        async def nothing_left() -> None:
            """An agent is the container of its browser: it ends with it."""
            await until(
                lambda: all(agent.process.returncode is not None for agent in launcher.started), "the agents have ended"
            )

        yield Conforming(launcher, nothing_left)


LAUNCHERS: dict[str, Callable[[], AbstractAsyncContextManager[Conforming]]] = {
    "local": _local,
    "remote": _remote,
}
