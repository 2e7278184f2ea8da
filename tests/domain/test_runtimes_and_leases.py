"""Runtimes and leases as a state machine, on a real PostgreSQL: two gateways without browsers, in any order of events.

Hypothesis chooses what happens, a model says what must be true afterwards. GATEWAY_TEST_EXAMPLES makes it thorough.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from uuid import UUID

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway.core.endings import Ending
from gateway.core.errors import GatewayError
from gateway.domain.leases.service import Grant
from gateway.domain.secrets import KeySource
from gateway.settings import Settings
from gateway.store.database import Database
from tests.support.launchers import WorkingLauncher
from tests.support.nodes import ENDED, Minted, Node, joined
from tests.support.own_database import own_database
from tests.support.waiting import until

EXAMPLES = int(os.environ.get("GATEWAY_TEST_EXAMPLES", "8"))
STEPS = 30
MAX_RUNTIMES = 3
MAX_SOCKETS = 3
LIVE = ("starting", "active")
Item = TypeVar("Item")
# Which of the things that there are a rule is about.
PICK = st.integers(0, 1000)


@dataclass
class Modelled:
    """A runtime as the model has it. `ended` from the moment on at which its gateway may know; its row may follow."""

    id: UUID
    path: str
    space: str
    host: Node
    ended: bool = False


@dataclass
class Lease:
    minted: Minted
    runtime: Modelled
    over: bool = False


@dataclass
class Socket:
    grant: Grant
    lease: Lease
    node: Node


@dataclass
class House:
    """What one example works on: a database, two gateways, and the model of them."""

    database: Database
    settings: Settings
    keys: KeySource
    api_key: str
    stack: AsyncExitStack
    nodes: list[Node] = field(default_factory=list)
    spaces: list[str] = field(default_factory=list)
    runtimes: list[Modelled] = field(default_factory=list)
    leases: list[Lease] = field(default_factory=list)
    sockets: list[Socket] = field(default_factory=list)
    # Status of each row as it was seen last.
    seen: dict[UUID, tuple[str, str | None]] = field(default_factory=dict)

    async def join(self, gateway_id: UUID | None = None) -> None:
        node = await self.stack.enter_async_context(
            joined(self.settings, self.database, self.keys, self.api_key, gateway_id)
        )
        await node.gateway.supervisor.end_left()
        await node.round()
        self.nodes.append(node)

    async def execute(self, statement: str, **values: Any) -> list[Any]:
        return await self.nodes[0].execute(statement, **values)

    def end(self, runtime: Modelled) -> None:
        runtime.ended = True
        for lease in self.leases:
            lease.over = lease.over or lease.runtime is runtime

    def live_on(self, node: Node) -> list[Modelled]:
        return [runtime for runtime in self.runtimes if runtime.host is node and not runtime.ended]


def browsers(node: Node) -> dict[UUID, Any]:
    launcher = node.launcher
    assert isinstance(launcher, WorkingLauncher)
    return launcher.browsers


class Machine(RuleBasedStateMachine):
    template_url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        # A loop of its own, since the machine is not a coroutine.
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self.house = self._run(self._open())

    def _run(self, work: Awaitable[Item]) -> Item:
        async def bounded() -> Item:
            async with asyncio.timeout(60):
                return await work

        return self._runner.run(bounded())

    async def _open(self) -> House:
        directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        own = await self._stack.enter_async_context(own_database(self.template_url, directory))
        configured = Settings(data_dir=directory, max_runtimes=MAX_RUNTIMES, max_sockets_per_lease=MAX_SOCKETS)
        house = House(own.database, configured, own.keys, own.api_key, self._stack)
        await house.join()
        await house.join()
        return house

    def teardown(self) -> None:
        try:
            self._run(self._settled())
        finally:
            self._run(self._stack.aclose())
            self._runner.close()

    # What may happen

    @initialize()
    def begin_with_a_socket_on_each(self) -> None:
        for where in range(2):
            self.make_a_space(where)
            self.create(where, where)
            self.mint(where, where)
            self.attach(where)

    @rule(pick=PICK)
    def make_a_space(self, pick: int) -> None:
        response = self._run(self._node(pick).api.post("/v1/spaces", json={}))
        self.house.spaces.append(response.json()["id"])

    @precondition(lambda self: self.house.spaces)
    @rule(where=PICK, pick=PICK)
    def create(self, where: int, pick: int) -> None:
        node, space = self._node(where), self._one(self.house.spaces, pick)
        response = self._run(node.api.post(f"/v1/spaces/{space}/runtimes", json={}))
        if len(self.house.live_on(node)) == MAX_RUNTIMES:
            assert (response.status_code, response.json()["code"]) == (429, "gateway.max_runtimes")
            return
        assert response.status_code == 200, response.text
        made = response.json()
        assert made["status"] == "active"
        path = f"/v1/spaces/{space}/runtimes/{made['id']}"
        self.house.runtimes.append(Modelled(UUID(made["id"]), path, space, node))

    @precondition(lambda self: self.house.runtimes)
    @rule(pick=PICK)
    def stop(self, pick: int) -> None:
        runtime = self._one(self.house.runtimes, pick)
        if runtime.host not in self.house.nodes:
            return
        response = self._run(runtime.host.api.post(f"{runtime.path}/stop", json={}))
        assert response.status_code == 200, response.text
        assert response.json()["status"] in ("stopped", "failed")
        self.house.end(runtime)

    @precondition(lambda self: any(self.house.live_on(node) for node in self.house.nodes))
    @rule(pick=PICK)
    def crash_a_browser(self, pick: int) -> None:
        runtime = self._one([each for node in self.house.nodes for each in self.house.live_on(node)], pick)

        async def crash() -> None:
            browsers(runtime.host)[runtime.id].end(Ending("runtime.browser_crashed", "It crashed."))
            await until(lambda: runtime.id not in runtime.host.hosted, "the end is written")

        self._run(crash())
        self.house.end(runtime)

    @precondition(lambda self: any(self.house.live_on(node) for node in self.house.nodes))
    @rule(pick=PICK)
    def let_a_runtime_come_of_age(self, pick: int) -> None:
        runtime = self._one([each for node in self.house.nodes for each in self.house.live_on(node)], pick)
        statement = "UPDATE runtimes SET created_at = created_at - interval '1 year' WHERE id = :id"
        self._run(self.house.execute(statement, id=runtime.id))
        self._run(runtime.host.round())
        self.house.end(runtime)

    @rule(pick=PICK, comes_back=st.booleans())
    def crash_a_gateway(self, pick: int, comes_back: bool) -> None:
        """Another one takes its place, with its id or with one of its own, once it has been silent for long."""
        gone = self._node(pick)

        async def crash() -> None:
            self.house.nodes.remove(gone)
            gone.launcher.crash()
            await self.house.execute(
                "UPDATE gateways SET heartbeat_at = heartbeat_at - interval '1 hour' WHERE id = :id", id=gone.id
            )
            await self.house.join(gone.id if comes_back else None)
            await self._rounds()

        self._run(crash())
        self.house.sockets = [socket for socket in self.house.sockets if socket.node is not gone]
        for runtime in self.house.runtimes:
            if runtime.host is gone:
                self.house.end(runtime)

    @precondition(lambda self: self.house.spaces)
    @rule(where=PICK, pick=PICK)
    def delete_a_space(self, where: int, pick: int) -> None:
        node, space = self._node(where), self._one(self.house.spaces, pick)

        async def delete() -> httpx.Response:
            deleting = asyncio.create_task(node.api.delete(f"/v1/spaces/{space}"))
            while not deleting.done():
                # A browser of the other gateway is ended in a round of its own.
                await self._rounds()
            return await deleting

        response = self._run(delete())
        assert response.status_code == 200, response.text
        self.house.spaces.remove(space)
        for runtime in self.house.runtimes:
            if runtime.space == space:
                self.house.end(runtime)
        self.house.runtimes = [runtime for runtime in self.house.runtimes if runtime.space != space]

    @precondition(lambda self: self.house.runtimes)
    @rule(where=PICK, pick=PICK)
    def mint(self, where: int, pick: int) -> None:
        node, runtime = self._node(where), self._one(self.house.runtimes, pick)
        response = self._run(node.api.post(f"{runtime.path}/connections", json={"protocol": "cdp"}))
        if runtime.ended:
            assert response.status_code == 409, response.text
            return
        assert response.status_code == 200, response.text
        made = response.json()
        token = made["endpoint"]["url"].rsplit("/", 1)[1]
        path = f"{runtime.path}/connections/{made['id']}"
        self.house.leases.append(Lease(Minted(UUID(made["id"]), path, token), runtime))

    @precondition(lambda self: self.house.leases)
    @rule(pick=PICK)
    def attach(self, pick: int) -> None:
        lease = self._one(self.house.leases, pick)
        node = lease.runtime.host if lease.runtime.host in self.house.nodes else self._node(pick)
        full = self._is_full(lease)
        if lease.over or full:
            with pytest.raises(GatewayError) as refusal:
                self._run(node.socket(lease.minted))
            assert refusal.value.status in ((401, 410) if lease.over else (429,))
            return
        grant = self._run(node.socket(lease.minted))
        self.house.sockets.append(Socket(grant, lease, node))

    @precondition(lambda self: any(self.house.live_on(node) for node in self.house.nodes))
    @rule(pick=PICK)
    def mint_and_attach(self, pick: int) -> None:
        runtime = self._one([each for node in self.house.nodes for each in self.house.live_on(node)], pick)
        self.mint(pick, self.house.runtimes.index(runtime))
        self.attach(len(self.house.leases) - 1)

    @precondition(lambda self: self.house.sockets)
    @rule(pick=PICK)
    def leave(self, pick: int) -> None:
        socket = self._one(self.house.sockets, pick)
        self.house.sockets.remove(socket)
        self._run(self._call(lambda: socket.node.leases.leave(socket.grant, ENDED)))

    @precondition(lambda self: self.house.leases)
    @rule(where=PICK, pick=PICK)
    def revoke(self, where: int, pick: int) -> None:
        node, lease = self._node(where), self._one(self.house.leases, pick)
        self._run(self._revoke(node, lease))

    @precondition(lambda self: any(not lease.over for lease in self.house.leases))
    @rule(where=PICK, pick=PICK)
    def revoke_while_a_client_attaches(self, where: int, pick: int) -> None:
        """Whichever comes first: the socket is refused, or it hears of the revoke."""
        lease = self._one([lease for lease in self.house.leases if not lease.over], pick)
        host = lease.runtime.host

        async def race() -> None:
            attaching, _ = await asyncio.gather(
                host.socket(lease.minted), self._revoke(self._node(where), lease), return_exceptions=True
            )
            if isinstance(attaching, Grant):
                self.house.sockets.append(Socket(attaching, lease, host))
            else:
                assert isinstance(attaching, GatewayError), attaching

        self._run(race())
        assert lease.over

    @precondition(lambda self: any(not lease.over for lease in self.house.leases))
    @rule(where=PICK, pick=PICK)
    def revoke_between_the_two_checks(self, where: int, pick: int) -> None:
        """The second check looks at the row, since a revoke by another gateway may not have been heard of."""
        lease = self._one([lease for lease in self.house.leases if not lease.over], pick)
        host = lease.runtime.host

        async def between() -> None:
            grant = await host.leases.attach(lease.minted.token)
            await self._revoke(self._node(where), lease)
            with pytest.raises(GatewayError):
                async with host.leases.admit(grant):
                    pass
            host.leases.leave(grant, None)

        if not self._is_full(lease):
            self._run(between())

    @precondition(lambda self: self.house.leases)
    @rule(pick=PICK)
    def expire(self, pick: int) -> None:
        lease = self._one(self.house.leases, pick)
        self._run(self.house.execute("UPDATE leases SET expires_at = now() WHERE id = :id", id=lease.minted.id))
        lease.over = True

    @rule(pick=PICK)
    def supervise(self, pick: int) -> None:
        node = self._node(pick)
        self._run(node.round())
        for socket in self.house.sockets:
            if socket.node is node:
                assert (socket.grant.attachment.closing is not None) == socket.lease.over

    # What must be true

    @invariant()
    def statuses_only_move_forward(self) -> None:
        for row in self._run(self.house.execute("SELECT id, status, end_code FROM runtimes")):
            before, code = self.house.seen.get(row.id, ("starting", None))
            assert before in LIVE or (before, code) == (row.status, row.end_code)
            assert (before, row.status) != ("active", "starting")
            self.house.seen[row.id] = (row.status, row.end_code)

    @invariant()
    def each_gateway_counts_its_browsers(self) -> None:
        for node in self.house.nodes:
            expected = {runtime.id for runtime in self.house.live_on(node)}
            assert set(browsers(node)) == node.hosted == expected
            assert node.live == len(expected)

    @invariant()
    def no_socket_is_open_on_a_runtime_that_has_ended(self) -> None:
        for socket in self.house.sockets:
            if socket.lease.runtime.ended:
                assert socket.grant.attachment.closing is not None

    async def _settled(self) -> None:
        """After a round of each gateway there is no live row without a browser, and no socket of a lease that ended."""
        await self._rounds()
        rows = await self.house.execute("SELECT id FROM runtimes WHERE status IN ('starting', 'active')")
        assert {row.id for row in rows} == {each for node in self.house.nodes for each in browsers(node)}
        for socket in self.house.sockets:
            assert (socket.grant.attachment.closing is not None) == socket.lease.over
            socket.node.leases.leave(socket.grant, ENDED)
        await self._rounds()
        open_rows = await self.house.execute("SELECT id FROM lease_sockets WHERE ended_at IS NULL")
        assert open_rows == []

    async def _rounds(self) -> None:
        for node in self.house.nodes:
            await node.round()

    async def _revoke(self, node: Node, lease: Lease) -> None:
        response = await node.api.delete(lease.minted.path)
        # With its space a lease is gone too.
        assert response.status_code == (200 if lease.runtime.space in self.house.spaces else 404), response.text
        lease.over = True
        for socket in self.house.sockets:
            if socket.lease is lease and socket.node is node:
                assert socket.grant.attachment.closing is not None, "a revoke is not answered before"

    @staticmethod
    async def _call(function: Callable[[], None]) -> None:
        function()

    def _is_full(self, lease: Lease) -> bool:
        return sum(socket.lease is lease for socket in self.house.sockets) == MAX_SOCKETS

    def _node(self, pick: int) -> Node:
        return self._one(self.house.nodes, pick)

    @staticmethod
    def _one(items: list[Item], pick: int) -> Item:
        return items[pick % len(items)]


# A failure is shrunk, which takes its time.
@pytest.mark.timeout(600)
def test_whatever_happens_rows_browsers_leases_and_sockets_agree(template_url: str) -> None:
    Machine.template_url = template_url
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            # The same examples in each run; more of them with GATEWAY_TEST_EXAMPLES.
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
