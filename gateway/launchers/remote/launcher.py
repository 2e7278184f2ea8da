"""Browsers of agents that the operator has started: each agent runs one, for one runtime, and then ends.

A launch is idempotent by the runtime's id: where an agent has this runtime's browser already, it is taken over.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway.core.errors import LaunchFailed, NotSupported
from gateway.core.launch import Failure, LaunchSpec
from gateway.egress.proxy import EgressProxy
from gateway.launchers import failures
from gateway.launchers.local import command_line, runtime_directory, user_agent
from gateway.launchers.remote import messages
from gateway.launchers.remote.connecting import AgentAddress
from gateway.launchers.remote.messages import Message, ProtocolError
from gateway.launchers.remote.remote_browser import Control, RemoteBrowser
from gateway.settings import Settings

# More than the agent takes for it: it reports its own.
_LATER_SECONDS = 5.0


class RemoteLauncher:
    """Launches browsers by agents (see base.Launcher). `agents` may become others."""

    def __init__(self, settings: Settings, egress: EgressProxy, agents: Sequence[AgentAddress]) -> None:
        self._settings = settings
        self._egress = egress
        self._agents = agents
        self._live: dict[str, RemoteBrowser] = {}
        self._starting: set[str] = set()
        self._choosing = asyncio.Lock()

    async def check(self, spec: LaunchSpec) -> None:
        if spec.extensions:
            raise NotSupported(
                "A browser can't have extensions: browsers of agents have none.",
                "extensions.not_available",
                details={"reason": "browsers of agents have none", "advice": "Leave them out."},
            )
        if spec.upstream is not None:
            await self._egress.check_upstream(spec.upstream)

    async def launch(self, spec: LaunchSpec) -> RemoteBrowser:
        async with self._choosing:
            agent, control = await self._chosen(spec)
            self._starting.add(agent.name)
        try:
            browser = self._live[agent.name] = await self._launch(spec, agent, control)
            return browser
        except (ProtocolError, EOFError, OSError) as error:
            control.close()
            raise _broken(error) from error
        except BaseException:
            control.close()
            raise
        finally:
            self._starting.discard(agent.name)

    async def _launch(self, spec: LaunchSpec, agent: AgentAddress, control: Control) -> RemoteBrowser:
        """Raises LaunchFailed, and what Control raises."""
        override: dict[str, Any] | None = None
        if not self._settings.headless_user_agent and spec.user_agent is None:
            override = user_agent.override(messages.taken(control.state, "version", str))
        if control.state.get("runtime") is None:
            control.tell(self._order(spec, control.state))
        if control.state.get("started") is None:
            control.state = await self._started(control)
        listener = self._egress.unbound_listener(spec.runtime_id)
        listener.adopt(spec.runtime_id, spec.traffic, spec.upstream)
        return RemoteBrowser(agent, control, listener, None, override)

    async def _chosen(self, spec: LaunchSpec) -> tuple[AgentAddress, Control]:
        """The agent that has this runtime's browser, or else a free one. Raises LaunchFailed."""
        free: tuple[AgentAddress, Control] | None = None
        for agent in self._agents:
            live = self._live.get(agent.name)
            if agent.name in self._starting or (live is not None and not live.removed.is_set()):
                continue
            with contextlib.suppress(OSError, EOFError, ProtocolError, TimeoutError):
                control = await Control.open(agent)
                if control.state.get("runtime") == str(spec.runtime_id):
                    if free is not None:
                        free[1].close()
                    return agent, control
                if control.state.get("runtime") is None and free is None:
                    free = agent, control
                else:
                    control.close()
        if free is None:
            raise LaunchFailed(
                f"None of the {len(self._agents)} agents is free.",
                failure=Failure.NOT_FOUND,
                advice="Start more agents, or stop a runtime.",
            )
        return free

    def _order(self, spec: LaunchSpec, state: Message) -> Message:
        """Raises ProtocolError."""
        home = Path(messages.taken(state, "home", str))
        version = messages.taken(state, "version", str)
        features: tuple[str, ...] = ()
        if not self._settings.headless_user_agent:
            features = user_agent.blank_hints("headless-shell", spec)
            if spec.user_agent is None:
                spec = dataclasses.replace(spec, user_agent=user_agent.ordinary(version))
        arguments = command_line.arguments(
            command_line.base_arguments(messages.taken(state, "exitPort", int)),
            spec,
            spec.viewport or self._settings.viewport_size,
            home / "profile",
            sandbox=not self._settings.unsafe_no_sandbox,
            storage_bytes=self._settings.runtime_max_disk_bytes // 2,
            features=features,
        )
        return {
            "do": "launch",
            "runtime": str(spec.runtime_id),
            "arguments": arguments,
            "environment": command_line.environment(spec, home, command_line.NO_PROGRAMS),
            "preferences": json.dumps(runtime_directory.PREFERENCES),
            "seconds": int(self._settings.launch_timeout_seconds),
        }

    async def _started(self, control: Control) -> Message:
        """The agent's state once its browser has started. Raises LaunchFailed."""
        seconds = self._settings.launch_timeout_seconds
        try:
            async with asyncio.timeout(seconds + _LATER_SECONDS):
                while True:
                    content = await control.next()
                    if content.get("is") == "state":
                        return content
                    if content.get("is") == "failed":
                        raise _failed(content, seconds)
        except TimeoutError as error:
            raise failures.classify_timeout("", seconds) from error

    async def sweep(self) -> int:
        """An agent ends by itself once no gateway wants its browser."""
        return 0

    async def close(self) -> None:
        await asyncio.gather(*(browser.stop() for browser in self._live.values()))
        await asyncio.gather(*(browser.removed.wait() for browser in self._live.values()))


def _failed(content: Message, seconds: float) -> LaunchFailed:
    printed, status = str(content.get("printed")), content.get("status")
    if isinstance(status, int):
        return failures.classify_exit(printed, status)
    return failures.classify_timeout(printed, seconds)


def _broken(error: Exception) -> LaunchFailed:
    return LaunchFailed(
        f"The agent of a browser can't be used: {error}.",
        failure=Failure.EXITED,
        advice="Look at what the agent has printed.",
    )
