"""The proxy through which everything that a browser sends goes: plain HTTP and CONNECT, on the loopback address.

Every runtime has a listener of its own; requests that arrive there are judged and counted as that runtime's. The port
is its credential, since Chromium can be given no other: `--proxy-server` takes no password and neither does a PAC
script; a driver that answers `Fetch.authRequired` does so only in pages that it controls, and gets in the way of
clients that intercept requests themselves; a password put into the browser's cache of passwords is missing in every
context that a client makes. So the kernel vouches for it:

- Where each runtime has a network of its own (launchers/local/networks.py), its listener is in there, and no other
  runtime's process is.
- Otherwise, as root, each runtime's browser has a user id of its own, and the kernel is asked which user owns each
  connection (socket_owners.py). A process of another runtime that finds the port gets 407.
- A page has no sockets but through its own listener, and no listener connects to a port of the gateway or to a DevTools
  port, whatever is allowed. This holds without root, too, where all browsers have the same user.

A browser's connection is tied to one outbound connection, so that either end sees keep-alive, resets and half-closes as
without a proxy. Answers, bodies and tunnels are forwarded as they arrive, with backpressure.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Callable, Coroutine
from ipaddress import ip_address
from typing import Any
from uuid import UUID

import psutil
import structlog

from gateway.core import background
from gateway.core.browser_network import BrowserNetwork
from gateway.core.failures import Failure, Server
from gateway.core.hosts import Address, Host, Refusal, is_local_name, parse_host
from gateway.core.traffic_rules import Traffic
from gateway.core.upstream_proxy import UpstreamProxy
from gateway.core.usage import Usage
from gateway.core.worker_board import Board
from gateway.egress import dialer, socket_owners
from gateway.egress.browser_connections import BrowserConnection
from gateway.egress.dialer import Factory, P, ProxyFailed, ProxyRefused, Unreachable
from gateway.egress.http_heads import RequestHead
from gateway.egress.ip_rules import Machine, Rules, kind_of
from gateway.egress.refusals import Refused
from gateway.egress.resolver import CACHE_SECONDS, Lookup, NameNotFound, Resolver, system_lookup
from gateway.egress.tcp_splice import HALF_CLOSED_SECONDS
from gateway.egress.turns import Share, Turns
from gateway.settings import EgressSettings
from gateway.telemetry import metrics

LOOPBACK = "127.0.0.1"
_BACKLOG = 256

UidOf = Callable[[tuple[str, int], tuple[str, int]], int | None]

_log = structlog.get_logger("gateway.egress")

_LOCAL = (ip_address("127.0.0.1"), ip_address("::1"))
_MACHINE_SECONDS = 5.0
# How long the name of a proxy may take to be resolved before a runtime is created without knowing its addresses.
_CHECK_SECONDS = 5.0
_LOGGED_REFUSALS = 20
# Of a refused address in a run's record.
_TARGET_CHARS = 16_384
# How many large heads of full size a runtime's connections may hold together.
_HELD_HEADS = 8


class EgressProxy:
    """The listeners of all runtimes of this gateway, and what they share."""

    def __init__(
        self,
        settings: EgressSettings,
        lookup: Lookup = system_lookup,
        cache_seconds: float = CACHE_SECONDS,
        uid_of: UidOf = socket_owners.uid_of,
        half_closed_seconds: float = HALF_CLOSED_SECONDS,
        turns: Turns | None = None,
        board: Board | None = None,
    ) -> None:
        """`board` has the ports of the other workers of this gateway, if there are any."""
        self._board = board
        self.settings = settings
        self.half_closed_seconds = half_closed_seconds
        self.rules = Rules(settings.egress_allow, settings.egress_deny)
        self.resolver = Resolver(settings.egress_lookups, lookup, cache_seconds)
        self.uid_of = uid_of
        self.turns = Turns() if turns is None else turns
        self._listeners: set[EgressListener] = set()
        self._checks = asyncio.Semaphore(_share(settings))
        self._ports: Counter[int] = Counter()
        self._endpoints: set[tuple[Host, int]] = set()
        self._addresses: frozenset[Address] = frozenset()
        self._looked_at = float("-inf")

    async def open_listener(
        self, runtime_id: UUID, uid: int | None, network: BrowserNetwork | None = None
    ) -> EgressListener:
        """A listener for one runtime: in its own network, where no other runtime is; or in the gateway's, with `uid`
        only for processes of that user."""
        opened = EgressListener(self, runtime_id, uid if network is None else None, network)
        # Its connections have the context that it is opened in, and a page's requests are not the caller's.
        await background.start(opened.open())
        self._listeners.add(opened)
        return opened

    def unbound_listener(self, runtime_id: UUID) -> EgressListener:
        """One without a port, for a browser elsewhere, whose connections are brought to it."""
        made = EgressListener(self, runtime_id, None)
        self._listeners.add(made)
        return made

    def forget(self, closed: EgressListener) -> None:
        self._listeners.discard(closed)

    def reserve_port(self, port: int) -> None:
        """A port of this machine that no page may reach: the gateway's own, or a browser's."""
        self._ports[port] += 1
        if self._board is not None:
            self._board.reserve(port)

    def release_port(self, port: int) -> None:
        self._ports[port] -= 1
        if not self._ports[port]:
            del self._ports[port]
            if self._board is not None:
                self._board.release(port)

    async def reserve_server(self, host: str, port: int) -> None:
        """A server that the gateway uses, its database say, which no page may reach by name or address."""
        named = parse_host(f"[{host}]" if ":" in host else host)
        try:
            addresses = [named] if not isinstance(named, str) else await self.resolver.resolve(named)
        except NameNotFound:
            addresses = []
        self._endpoints.update((each, port) for each in (named, *addresses))
        own = (await self.machine()).addresses
        if any(kind_of(address) == "loopback" or address in own for address in addresses):
            self.reserve_port(port)

    async def machine(self) -> Machine:
        now = asyncio.get_running_loop().time()
        if now - self._looked_at > _MACHINE_SECONDS:
            self._looked_at = now
            self._addresses = await asyncio.to_thread(_interface_addresses)
        return Machine(self._addresses, self._ports, self._endpoints, self._board or ())

    async def checked(self, host: Host, port: int, lookups: asyncio.Semaphore) -> list[Address]:
        """Every address of the host, each checked. Raises Refusal, NameNotFound. `lookups` limits those at once."""
        rules, machine = self.rules, await self.machine()
        if not isinstance(host, str):
            rules.judge_address(host, port, machine)
            return [host]
        by_name = rules.judge_name(host, port, machine)
        if is_local_name(host):
            addresses: list[Address] = list(_LOCAL)
            allowed = [address for address in addresses if not _refused(rules, address, port, machine, by_name)]
            addresses = allowed or addresses
        else:
            async with lookups:
                addresses = await self.resolver.resolve(host)
        try:
            for address in addresses:
                rules.judge_address(address, port, machine, by_name=by_name)
        except Refusal as error:
            if is_local_name(host):
                raise
            raise _name_refused() from error
        return addresses

    async def check_upstream(self, upstream: UpstreamProxy, seconds: float = _CHECK_SECONDS) -> None:
        """Raises Refusal if a runtime may not have this proxy.

        A name that can't be resolved, or not in time, is not refused: each request of the runtime is judged again.
        """
        with contextlib.suppress(NameNotFound, TimeoutError):
            async with asyncio.timeout(seconds):
                await self.checked(upstream.parsed_host, upstream.port, self._checks)

    async def close(self) -> None:
        for listener in list(self._listeners):
            await listener.close()
        self.resolver.close()


class EgressListener:
    """The listener of one runtime, through which all its traffic goes."""

    def __init__(
        self, proxy: EgressProxy, runtime_id: UUID, uid: int | None, network: BrowserNetwork | None = None
    ) -> None:
        self.runtime_id = runtime_id
        self.traffic = Traffic()
        self.upstream: UpstreamProxy | None = None
        # Whether nothing is served any more.
        self.is_shut = False
        self.usage = Usage()
        self.port = 0
        self.settings = proxy.settings
        self.half_closed_seconds = proxy.half_closed_seconds
        self.share = Share(proxy.turns)
        self.large_heads = asyncio.Lock()
        self.held_bytes = 0
        self._proxy = proxy
        self._uid = uid
        self._network = network
        self._server: asyncio.Server | None = None
        self._is_closed = False
        self._reserved: list[int] = []
        self._connections: set[BrowserConnection] = set()
        # A page that asks for many slow names must not keep others from having theirs resolved.
        self._lookups = asyncio.Semaphore(_share(proxy.settings))
        self._tasks: set[asyncio.Task[None]] = set()

    def adopt(self, runtime_id: UUID, traffic: Traffic, upstream: UpstreamProxy | None) -> None:
        """Become the listener of this runtime, before its browser is handed out."""
        self.runtime_id = runtime_id
        self.traffic = traffic
        self.upstream = upstream

    def reserve_port(self, port: int) -> None:
        """A port of the runtime's browser, which no page may reach as long as this listener is open.

        In a network of the browser's own it is no port of this machine.
        """
        if self._network is not None:
            return
        self._proxy.reserve_port(port)
        self._reserved.append(port)

    @property
    def connections(self) -> int:
        """How many connections of the browser are open."""
        return len(self._connections)

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        made = _stream_socket() if self._network is None else await self._network.new_socket()
        try:
            made.bind((LOOPBACK, 0))
            self._server = await loop.create_server(lambda: BrowserConnection(self), sock=made, backlog=_BACKLOG)
        except BaseException:
            made.close()
            raise
        self.port = self._server.sockets[0].getsockname()[1]
        self.reserve_port(self.port)

    def shut(self) -> None:
        """Break all connections, and those that still come; `close` does the rest.

        The server is closed later: asyncio's leaves a connection unclosed that it has just accepted when it is closed.
        """
        self.is_shut = True
        for connection in list(self._connections):
            connection.channel.abort()

    async def close(self) -> None:
        """Close the listener and all its connections; idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self.shut()
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for port in self._reserved:
            self._proxy.release_port(port)
        self._proxy.forget(self)

    def enter(self, connection: BrowserConnection, peer: tuple[str, int]) -> Refused | None:
        """Admit a browser's connection, or return why not."""
        if self._uid is not None and self._proxy.uid_of(peer, (LOOPBACK, self.port)) != self._uid:
            return Refused(407, "egress.foreign_process", "This port is for another runtime's processes.")
        if len(self._connections) >= self.settings.egress_max_connections:
            most = self.settings.egress_max_connections
            return Refused(503, "egress.max_connections", f"The limit of {most} connections of a runtime is reached.")
        self._connections.add(connection)
        return None

    def leave(self, connection: BrowserConnection) -> None:
        self._connections.discard(connection)

    def hold(self, count: int) -> bool:
        """Count bytes of large heads that are held, fewer if negative; False if the runtime may not hold so many."""
        self.held_bytes += count
        return count <= 0 or self.held_bytes <= _HELD_HEADS * self.settings.egress_max_head_bytes

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def note_refusal(self, refused: Refused, head: RequestHead | None) -> None:
        """Count a refusal or failure; only the first refusals are logged, since a page may cause any number."""
        proxy = self.upstream.address if refused.of_proxy and self.upstream is not None else None
        failure = Failure(refused.failure_class, refused.rule, refused.message, proxy)
        server = None if head is None else Server(head.host, head.port, head.path is None)
        if server is not None:
            now = asyncio.get_running_loop().time()
            self.usage.failures.note(server, failure, now, reported=not refused.is_failure)
        if refused.is_failure:
            metrics.egress_failures.labels(refused.rule).inc()
            return
        metrics.egress_refusals.labels(refused.rule).inc()
        self.usage.refused[refused.rule] += 1
        if self.usage.on_refusal is not None:
            self.usage.on_refusal(failure, server, head.target[:_TARGET_CHARS] if head is not None else None)
        count = self.usage.refused.total()
        if count <= _LOGGED_REFUSALS:
            target = f"{head.host}:{head.port}" if head is not None else None
            last = count == _LOGGED_REFUSALS
            _log.info(
                "egress refused", runtime_id=str(self.runtime_id), rule=refused.rule, target=target, last_logged=last
            )

    async def dial(self, head: RequestHead, make: Factory[P]) -> P:
        """Connect to the host of a request, after it was checked. Returns what `make` made of the connection.

        Raises Refusal, ProxyFailed, NameNotFound, Unreachable; TimeoutError when it takes too long.
        """
        host, port, through = head.host, head.port, self.upstream
        asks_proxy = False
        try:
            async with asyncio.timeout(self.settings.egress_timeout_seconds):
                if through is not None and through.resolves_names and isinstance(host, str):
                    addresses = await self._check_unresolved(host, port)
                else:
                    addresses = await self._checked(host, port)
                self.traffic.judge(host, port, head.path_text, addresses)
                if through is None:
                    return await dialer.open_direct(lambda: make(b"", addresses), addresses, port)
                asks_proxy = True
                made = await self._reach(through)
                try:
                    target = host if through.resolves_names else addresses[0]
                    early = await dialer.tunnel(made, through, target, port)
                except BaseException:
                    made.close()
                    raise
                return await dialer.open_on(lambda: make(early, addresses), made)
        except TimeoutError:
            if asks_proxy:
                raise ProxyFailed("egress.proxy_timeout", "The runtime's proxy did not answer in time.") from None
            raise

    async def _reach(self, through: UpstreamProxy) -> socket.socket:
        """Connect to the runtime's own proxy. Raises ProxyFailed, ProxyRefused."""
        try:
            return await dialer.connect(await self._checked(through.parsed_host, through.port), through.port)
        except Refusal as error:
            raise ProxyRefused(error.rule, f"The runtime's proxy can't be used. {error.message}") from error
        except NameNotFound as error:
            message = "The name of the runtime's proxy can't be resolved."
            raise ProxyFailed("egress.proxy_name_not_found", message) from error
        except Unreachable as error:
            raise ProxyFailed("egress.proxy_unreachable", "The runtime's proxy can't be reached.") from error

    async def _checked(self, host: Host, port: int) -> list[Address]:
        """Every address of the host, each checked. Raises Refusal, NameNotFound."""
        return await self._proxy.checked(host, port, self._lookups)

    async def _check_unresolved(self, name: str, port: int) -> list[Address]:
        """Check what can be checked of a name that the upstream proxy resolves; returns the addresses that are known
        of it. Raises Refusal."""
        rules, machine = self._proxy.rules, await self._proxy.machine()
        by_name = rules.judge_name(name, port, machine)
        if not is_local_name(name):
            return []
        rules.judge_address(_LOCAL[0], port, machine, by_name=by_name)
        return list(_LOCAL)


def _stream_socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, socket.IPPROTO_TCP)


def _share(settings: EgressSettings) -> int:
    """How many lookups one runtime may have at once."""
    return max(1, settings.egress_lookups // 4)


def _refused(rules: Rules, address: Address, port: int, machine: Machine, by_name: bool) -> bool:
    try:
        rules.judge_address(address, port, machine, by_name=by_name)
    except Refusal:
        return True
    return False


def _name_refused() -> Refusal:
    """In place of the reason, which would reveal to the page how a name of an internal network resolves."""
    return Refusal("egress.name_not_allowed", "The name leads to an address that can't be reached from here.")


def _interface_addresses() -> frozenset[Address]:
    found = [
        ip_address(entry.address.partition("%")[0])
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in (socket.AF_INET, socket.AF_INET6)
    ]
    return frozenset(found)
