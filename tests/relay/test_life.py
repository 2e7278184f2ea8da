"""From the opening of an address to its end, and who reaches it."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from typing import Any

import httpx
import pytest

from gateway.core.ai_providers import COMPATIBLE
from gateway.core.errors import NotFound
from gateway.core.hosts import Refusal, parse_host
from gateway.relay.relay import RelayLimits
from tests.support.model_server import ModelServer, Raw, Slow
from tests.support.relay import Relayed, relayed
from tests.support.waiting import until

SSE = {"content-type": "text/event-stream"}


@pytest.fixture
def gate() -> Any:
    gate = threading.Event()
    yield gate
    gate.set()


async def begun(used: Relayed, received: asyncio.Queue[bytes]) -> None:
    """Reads a stream to its end, whatever that is."""
    async with used.streamed() as answer:
        async for chunk in answer.aiter_raw():
            received.put_nowait(chunk)


async def test_closing_ends_open_streams_at_once(models: ModelServer, gate: threading.Event) -> None:
    models.next(Slow(gate))
    async with relayed(models) as used:
        received: asyncio.Queue[bytes] = asyncio.Queue()
        reading = asyncio.create_task(begun(used, received))
        await received.get()
        await used.relay.close(used.endpoint)
        with pytest.raises(httpx.TransportError):
            await reading
        # The provider is left too, and what was read is counted.
        await until(lambda: models.left == 1, "the provider's connection is closed")
        assert used.endpoint.usage.estimated == 1
        with pytest.raises(httpx.ConnectError):
            await used.call()
        await used.relay.close(used.endpoint)


async def test_closing_ends_a_call_that_waits_for_its_answer(models: ModelServer, gate: threading.Event) -> None:
    models.next(Raw([gate]))
    async with relayed(models) as used:
        call = asyncio.create_task(used.call())
        await until(lambda: len(models.seen) == 1)
        await used.relay.close(used.endpoint)
        with pytest.raises(httpx.TransportError):
            await call
        await until(lambda: models.left == 1, "the provider's connection is closed")


async def test_closing_ends_a_call_between_two_attempts(models: ModelServer) -> None:
    waits = asyncio.Event()

    async def pause(seconds: float) -> None:
        waits.set()
        await asyncio.Event().wait()

    models.next(Raw([b"{}"], 429))
    async with relayed(models, pause=pause) as used:
        call = asyncio.create_task(used.call())
        await waits.wait()
        await used.relay.close(used.endpoint)
        with pytest.raises(httpx.TransportError):
            await call


async def test_a_client_that_goes_away_ends_the_providers_answer(models: ModelServer, gate: threading.Event) -> None:
    models.next(Slow(gate), Raw([gate]))
    async with relayed(models) as used:
        async with used.streamed() as answer:
            async for _ in answer.aiter_raw():
                break
        await until(lambda: models.left == 1, "the provider's connection is closed")
        call = asyncio.create_task(used.call())
        await until(lambda: len(models.seen) == 2)
        call.cancel()
        await until(lambda: models.left == 2, "the provider's connection is closed")
        # Its place is free.
        models.next()
        assert (await used.call()).status_code == 200


async def test_an_address_ends_by_itself_when_its_time_is_over(models: ModelServer, gate: threading.Event) -> None:
    models.next(Slow(gate))
    async with relayed(models, limits=RelayLimits(seconds=0.5)) as used:
        with pytest.raises(httpx.TransportError):
            await begun(used, asyncio.Queue())
        assert used.endpoint.is_shut
        with pytest.raises(httpx.TransportError):
            await used.call()


async def test_a_key_that_is_deleted_meanwhile_ends_with_the_next_call(
    models: ModelServer, gate: threading.Event
) -> None:
    models.next(Slow(gate))
    async with relayed(models) as used:
        received: asyncio.Queue[bytes] = asyncio.Queue()
        reading = asyncio.create_task(begun(used, received))
        await received.get()
        used.keys.error = NotFound("The AI connection was deleted.", "ai_connection.deleted")
        answer = await used.call()
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "ai_connection.deleted")
        gate.set()
        await reading
        assert len(models.seen) == 1


async def test_the_key_is_opened_for_each_call_and_not_kept(models: ModelServer) -> None:
    async with relayed(models) as used:
        for calls in (1, 2):
            await used.call()
            assert used.keys.opened == calls
        models.keys.add("another-key-of-the-same-row")
        used.keys.key = "another-key-of-the-same-row"
        await used.call()
        assert models.seen[-1].key == "another-key-of-the-same-row"
        assert used.keys.opened == 3


@pytest.mark.parametrize(("owner", "is_served"), [(1001, True), (1002, False), (None, False)])
async def test_only_processes_of_the_agents_user_are_served(
    models: ModelServer, owner: int | None, is_served: bool
) -> None:
    asked: list[tuple[str, int]] = []

    def uid_of(peer: tuple[str, int], local: tuple[str, int]) -> int | None:
        asked.append(local)
        return owner

    async with relayed(models, uid=1001, uid_of=uid_of) as used:
        if is_served:
            assert (await used.call()).status_code == 200
        else:
            with pytest.raises(httpx.TransportError):
                await used.call()
        assert asked == [("127.0.0.1", int(used.base_url.rpartition(":")[2]))]


async def test_the_kernel_says_whose_connection_it_is(models: ModelServer) -> None:
    async with relayed(models, uid=os.getuid()) as used:
        assert (await used.call()).status_code == 200
    async with relayed(models, uid=os.getuid() + 1) as used:
        with pytest.raises(httpx.TransportError):
            await used.call()


async def test_an_address_is_on_loopback_alone_and_no_two_are_alike(models: ModelServer) -> None:
    async with relayed(models) as one, relayed(models) as two:
        for used in (one, two):
            assert used.base_url.startswith("http://127.0.0.1:")
            assert len(used.token) == 43
            assert used.token not in repr(used.endpoint.address)
        assert one.base_url != two.base_url
        assert one.token != two.token


async def test_heads_and_connections_are_bounded(models: ModelServer) -> None:
    async with relayed(models) as used:
        port = int(used.base_url.rpartition(":")[2])

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await asyncio.open_connection("127.0.0.1", port)

        async def ended(reader: asyncio.StreamReader) -> bool:
            try:
                return await reader.read(1) == b""
            except ConnectionResetError:
                return True

        reader, writer = await connect()
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nx: " + b"y" * 400_000)
        assert await ended(reader)
        writer.close()
        held = [await connect() for _ in range(32)]
        reader, writer = await connect()
        assert await ended(reader)
        for _, each in [*held, (reader, writer)]:
            each.close()
        # A body is not a head.
        assert (await used.call(messages=[{"role": "user", "content": "x" * 400_000}])).status_code == 200


async def test_a_request_that_never_ends_holds_up_no_close(models: ModelServer) -> None:
    async with relayed(models) as used:
        port = int(used.base_url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as held:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {used.token}\r\n"
            held.sendall(f"{head}content-length: 100\r\n\r\n{{".encode())
            assert (await used.call()).status_code == 200
            await used.relay.close(used.endpoint)


async def test_callers_addresses_are_under_the_egress_rules(models: ModelServer) -> None:
    async with relayed(models, COMPATIBLE, guarded=True) as used:
        answer = await used.call()
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "egress.loopback_address")
        assert (models.seen, used.pauses) == ([], [])


async def test_a_local_model_that_the_operator_allowed_is_reached(models: ModelServer) -> None:
    async with relayed(models, COMPATIBLE, guarded=True, egress_allow=f"127.0.0.1:{models.port}") as used:
        for _ in range(2):
            assert (await used.call()).status_code == 200
        async with used.streamed() as answer:
            assert b"[DONE]" in await answer.aread()
        assert used.endpoint.usage.estimated == 0
    metadata = "http://169.254.169.254/v1"
    async with relayed(models, COMPATIBLE, guarded=True, base_url=metadata, egress_allow="169.254.0.0/16") as used:
        assert (await used.call()).json()["error"]["code"] == "egress.metadata"


async def test_no_caller_and_no_page_reaches_an_address_of_the_relay(models: ModelServer) -> None:
    async with relayed(models, egress_allow="127.0.0.0/8") as used:
        port = int(used.base_url.rpartition(":")[2])
        rules = used.rules
        for _ in range(2):
            with pytest.raises(Refusal, match="port of the gateway"):
                await rules.checked(parse_host("127.0.0.1"), port, asyncio.Semaphore())
        await used.relay.close(used.endpoint)
        assert await rules.checked(parse_host("127.0.0.1"), port, asyncio.Semaphore())


async def test_a_large_stream_waits_for_a_slow_client(models: ModelServer) -> None:
    event = b'data: {"choices": [], "x": "' + b"y" * 60_000 + b'"}\n\n'
    sent = 0

    def many(asked: Any) -> Any:
        nonlocal sent
        for _ in range(400):
            sent += 1
            yield event

    models.next(Raw(many, headers=SSE))
    async with relayed(models, relay_answer_bytes=1024**3) as used, used.streamed() as answer:
        stream = answer.aiter_raw()
        await anext(stream)
        before = -1
        while before != sent:
            before = sent
            await asyncio.to_thread(threading.Event().wait, 0.2)
        # 24 MB are not read before they are wanted: what is on the way are the buffers of sockets.
        assert sent < 350
        received = 0
        async for chunk in stream:
            received += len(chunk)
        assert sent == 400
        assert received > 300 * len(event)


async def test_an_address_of_the_operator_is_reached_by_the_operators_proxy(
    models: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # To a proxy the whole address is sent; this one serves its path itself.
    monkeypatch.setenv("http_proxy", f"http://us%40er:secret-of-the-proxy@127.0.0.1:{models.port}")
    async with relayed(models, base_url="http://models.invalid:81/openai") as used:
        assert (await used.call()).status_code == 200
    assert models.seen[-1].headers["host"] == "models.invalid:81"
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with relayed(models) as used:
        assert (await used.call()).status_code == 200
    # An address of a caller's is reached by no proxy of the operator.
    monkeypatch.delenv("no_proxy")
    async with relayed(models, COMPATIBLE, guarded=True, egress_allow=("127.0.0.1",)) as used:
        assert (await used.call()).status_code == 200
