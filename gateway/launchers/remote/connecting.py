"""A gateway's connections to an agent: each proves itself first, and is then as if it had just been made."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from gateway.core.browser_network import Opened
from gateway.core.errors import ConfigurationError
from gateway.launchers.remote.proofs import ANSWER_BYTES, MIN_KEY_BYTES, GatewaySide, NotProven, Purpose
from gateway.settings import BrowserSettings

_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class AgentAddress:
    """Where an agent listens, its name, and the key of the gateways. `tls` trusts the authority of its certificate,
    which names the agent; None on a network that is trusted."""

    host: str
    port: int
    name: str
    key: bytes = field(repr=False)
    tls: ssl.SSLContext | None = None


def agents_of(settings: BrowserSettings) -> list[AgentAddress]:
    """The agents of an operator's settings. Raises ConfigurationError."""
    if not settings.browser_agents:
        return []
    if settings.browser_agents_key_file is None:
        raise ConfigurationError("GATEWAY_BROWSER_AGENTS needs GATEWAY_BROWSER_AGENTS_KEY_FILE.")
    try:
        key = settings.browser_agents_key_file.read_bytes().strip()
        tls: ssl.SSLContext | None = None
        if settings.browser_agents_ca_file is not None:
            tls = ssl.create_default_context(cafile=settings.browser_agents_ca_file)
    except OSError as error:
        # ssl's errors name no file.
        raise ConfigurationError(
            f"The key or the authority of GATEWAY_BROWSER_AGENTS can't be read: {error}."
        ) from error
    if len(key) < MIN_KEY_BYTES:
        raise ConfigurationError(
            f"GATEWAY_BROWSER_AGENTS_KEY_FILE has a key of {len(key)} bytes; {MIN_KEY_BYTES} are the least."
        )
    found = []
    for entry in settings.browser_agents:
        name, _, address = entry.partition("@")
        host, _, port = address.rpartition(":")
        found.append(AgentAddress(host.strip("[]"), int(port), name, key, tls))
    return found


async def connected(
    agent: AgentAddress, purpose: Purpose, protocol: Callable[[], Opened]
) -> tuple[asyncio.Transport, Opened]:
    """As an event loop's create_connection. Raises OSError, ConnectionRefusedError for what is not this agent."""
    side = GatewaySide(agent.key, agent.name, purpose)
    transport: asyncio.Transport | None = None
    try:
        async with asyncio.timeout(_SECONDS):
            transport, handshake = await asyncio.get_running_loop().create_connection(
                lambda: _Handshake(side),
                agent.host,
                agent.port,
                ssl=agent.tls,
                server_hostname=agent.name if agent.tls is not None else None,
            )
            await handshake.over
    except NotProven as error:
        assert transport is not None
        transport.abort()
        raise ConnectionRefusedError(f"the agent is refused: {error}") from error
    except BaseException:
        if transport is not None:
            transport.abort()
        raise
    made = protocol()
    transport.set_protocol(made)
    transport.resume_reading()
    made.connection_made(transport)
    return transport, made


async def streams(
    agent: AgentAddress, purpose: Purpose, limit: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The same, to be read and written. Raises OSError."""
    reader = asyncio.StreamReader(limit)
    transport, protocol = await connected(agent, purpose, lambda: asyncio.StreamReaderProtocol(reader))
    return reader, asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())


class _Handshake(asyncio.Protocol):
    def __init__(self, side: GatewaySide) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._side = side
        self._answer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._side.hello)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if len(self._answer) < ANSWER_BYTES or self.over.done():
            return
        try:
            if len(self._answer) > ANSWER_BYTES:
                raise NotProven("it says more than its proof")
            self._transport.write(self._side.proof(self._answer))
        except NotProven as error:
            self.over.set_exception(error)
        else:
            # What it sends now is for the next protocol.
            self._transport.pause_reading()
            self.over.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(error or ConnectionResetError("the agent has closed the connection"))
