"""Each bound of an agent: under it, at it, over it."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from gateway.core.ai_providers import ProviderName
from gateway.relay.relay import RelayLimits
from gateway.relay.usage import Tokens
from tests.support.model_server import Asked, ModelServer, Raw, Slow, Text
from tests.support.relay import CALLS, MODEL, relayed
from tests.support.waiting import until

HELD = 40


@pytest.mark.parametrize("of_invocation", [True, False])
async def test_calls(models: ModelServer, of_invocation: bool) -> None:
    options: Any = {"limits": RelayLimits(calls=2)} if of_invocation else {"relay_max_calls": 2}
    async with relayed(models, **options) as used:
        statuses = [(await used.call()).status_code for _ in range(4)]
        assert statuses == [200, 200, 403, 403]
        assert used.endpoint.usage.calls == 2
        assert used.endpoint.usage.refused == {"relay.max_calls": 2}
    assert len(models.seen) == 2


async def test_an_invocation_is_not_bounded_wider_than_the_gateway(models: ModelServer) -> None:
    async with relayed(models, relay_max_calls=1, limits=RelayLimits(calls=10)) as used:
        assert [(await used.call()).status_code for _ in range(2)] == [200, 403]
    async with relayed(models, relay_max_tokens=1, limits=RelayLimits(tokens=10**6)) as used:
        assert [(await used.call()).status_code for _ in range(2)] == [200, 403]


async def test_calls_that_are_refused_count_none(models: ModelServer) -> None:
    async with relayed(models, limits=RelayLimits(calls=1)) as used:
        assert (await used.call(model="other")).status_code == 403
        assert (await used.call()).status_code == 200


@pytest.mark.parametrize(("more", "statuses"), [(1, [200, 200]), (0, [200, 403]), (-1, [200, 403])])
async def test_tokens(models: ModelServer, more: int, statuses: list[int]) -> None:
    async with relayed(models) as used:
        await used.call()
        of_one = used.endpoint.usage.tokens.total
    async with relayed(models, limits=RelayLimits(tokens=of_one + more)) as used:
        assert [(await used.call()).status_code for _ in range(2)] == statuses


@pytest.mark.parametrize(
    ("provider", "path", "field"),
    [
        ("openai", "/v1/chat/completions", "max_tokens"),
        ("openai", "/v1/chat/completions", "max_completion_tokens"),
        ("openai", "/v1/responses", "max_output_tokens"),
        ("anthropic", "/v1/messages", "max_tokens"),
        ("google", None, "maxOutputTokens"),
    ],
)
async def test_no_answer_is_asked_for_with_more_tokens_than_are_left(
    models: ModelServer, provider: ProviderName, path: str | None, field: str
) -> None:
    async with relayed(models, provider, limits=RelayLimits(tokens=1000)) as used:
        for asked_for in (999, 1000, 1001, 10**9):
            bound = {field: asked_for}
            answer = await used.call(path, **({"generationConfig": bound} if provider == "google" else bound))
            assert answer.status_code == 200
    sent = [asked.body.get("generationConfig", asked.body)[field] for asked in models.seen]
    used_before = [0]
    for asked in models.seen:
        used_before.append(used_before[-1] + asked.read_tokens() + len(f"You wrote: {asked.text}") // 4 + 1)
    left = [1000 - before for before in used_before]
    assert sent == [999, left[1], left[2], left[3]]


@pytest.mark.parametrize(("more", "status"), [(-1, 200), (0, 200), (1, 413)])
@pytest.mark.parametrize("chunked", [False, True])
async def test_bytes_of_a_request(models: ModelServer, more: int, status: int, chunked: bool) -> None:
    most = 2048
    async with relayed(models, relay_request_bytes=most) as used:
        body = json.dumps(CALLS["openai"][1]).encode()
        body += b" " * (most + more - len(body))

        async def pieces() -> Any:
            yield body[:1000]
            yield body[1000:]

        answer = await used.client.post(
            "/v1/chat/completions", content=pieces() if chunked else body, headers=used.headers()
        )
        assert answer.status_code == status
        if status == 413:
            assert answer.json()["error"]["code"] == "relay.request_too_large"
            assert str(most) in answer.json()["error"]["message"]


@pytest.mark.parametrize(("more", "status"), [(-1, 200), (0, 200), (1, 502)])
async def test_bytes_of_an_answer(models: ModelServer, more: int, status: int) -> None:
    most = 4096
    body = b'{"choices": []' + b" " * (most + more - 15) + b"}"
    assert len(body) == most + more
    models.next(Raw([body]))
    async with relayed(models, relay_answer_bytes=most) as used:
        answer = await used.call()
        assert answer.status_code == status
        assert (answer.content == body) == (status == 200)
        if status == 502:
            assert answer.json()["error"]["code"] == "relay.answer_too_large"


@pytest.mark.parametrize(("more", "is_cut"), [(-1, False), (0, False), (1, True)])
async def test_bytes_of_a_stream(models: ModelServer, more: int, is_cut: bool) -> None:
    most = 4096
    event = b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n'
    events = [event] * (most // len(event))
    rest = most + more - len(events) * len(event)
    last = b": " + b"x" * (rest - 4) + b"\n\n"
    models.next(Raw([*events, last], headers={"content-type": "text/event-stream"}))
    async with relayed(models, relay_answer_bytes=most) as used:
        async with used.streamed() as answer:
            received = await answer.aread()
        assert received.startswith(b"".join(events)[: most // 2])
        assert (received == b"".join(events) + last) != is_cut
        assert (b"relay.answer_too_large" in received) == is_cut
    # The provider is not read to its end, but what fitted was counted.
    assert used.endpoint.usage.estimated == 1


async def test_calls_at_once(models: ModelServer) -> None:
    gate = threading.Event()
    models.next(*[Slow(gate)] * HELD)
    async with relayed(models, relay_calls_at_once=2) as used:

        async def call() -> bytes:
            async with used.streamed() as answer:
                return bytes(await answer.aread())

        calls = [asyncio.create_task(call()) for _ in range(4)]
        await until(lambda: len(models.seen) == 2, "two calls are with the provider")
        assert used.endpoint.usage.calls == 4
        gate.set()
        assert all(b"[DONE]" in received for received in await asyncio.gather(*calls))
    assert len(models.seen) == 4


async def test_tokens_that_ran_out_while_a_call_waited(models: ModelServer) -> None:
    gate = threading.Event()
    models.next(Slow(gate))
    async with relayed(models, relay_calls_at_once=1, limits=RelayLimits(tokens=1)) as used:

        async def first() -> bytes:
            async with used.streamed() as answer:
                return bytes(await answer.aread())

        one = asyncio.create_task(first())
        await until(lambda: len(models.seen) == 1)
        two = asyncio.create_task(used.call())
        await until(lambda: used.endpoint.usage.calls == 2, "the second call waits")
        gate.set()
        assert b"[DONE]" in await one
        assert (await two).json()["error"]["code"] == "relay.max_tokens"
    assert len(models.seen) == 1


@pytest.mark.parametrize("is_stream", [False, True])
async def test_time_of_a_call(models: ModelServer, is_stream: bool) -> None:
    never = threading.Event()
    first = b'data: {"choices": []}\n\n'
    kind = {"content-type": "text/event-stream" if is_stream else "application/json"}
    models.next(Raw([first, never], headers=kind))
    try:
        async with relayed(models, relay_call_seconds=0.3) as used:
            if is_stream:
                async with used.streamed() as answer:
                    received = await answer.aread()
                assert received.startswith(first)
                assert b"relay.timeout" in received
            else:
                answer = await used.call()
                assert (answer.status_code, answer.json()["error"]["code"]) == (504, "relay.timeout")
            assert (await used.call()).status_code == 200
    finally:
        never.set()


@pytest.mark.parametrize("provider", ["openai", "anthropic", "google"])
async def test_tokens_of_an_answer_without_a_report_are_estimated(models: ModelServer, provider: ProviderName) -> None:
    models.next(Raw([b"{}" + b" " * 398]), Raw([b"{}" + b" " * 398]))
    async with relayed(models, provider) as used:
        await used.call()
        size = len(models.seen[0].raw)
        assert used.endpoint.usage.tokens == Tokens(size // 4, 100)
        assert used.endpoint.usage.estimated == 1
        # A picture's bytes are not its tokens.
        await used.call(picture="A" * 100_000)
        assert used.endpoint.usage.tokens.read - size // 4 < size


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -5, "completion_tokens": 1},
        {"prompt_tokens": 10**12, "completion_tokens": 1},
        {"prompt_tokens": "many", "completion_tokens": 1},
        {"prompt_tokens": True, "completion_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": 1.5},
        {"completion_tokens": 1},
        {},
        [],
        "x",
    ],
)
async def test_tokens_that_can_not_be_are_estimated(models: ModelServer, usage: Any) -> None:
    models.next(Raw([json.dumps({"choices": [], "usage": usage}).encode()]))
    async with relayed(models) as used:
        assert (await used.call()).status_code == 200
        assert used.endpoint.usage.estimated == 1
        assert used.endpoint.usage.tokens.read == len(models.seen[0].raw) // 4


async def test_an_agent_that_leaves_streams_is_counted_too(models: ModelServer) -> None:
    gate = threading.Event()
    models.rules = [long]
    models.next(Slow(gate))
    async with relayed(models, "anthropic") as used:
        async with used.streamed() as answer:
            async for _ in answer.aiter_raw():
                break
        await until(lambda: used.endpoint.usage.tokens.total > 0, "the call is counted")
        assert used.endpoint.usage.tokens.read == models.seen[0].read_tokens()
        assert used.endpoint.usage.estimated == 1
    gate.set()
    assert MODEL in models.seen[0].raw.decode()


def long(asked: Asked) -> Text:
    return Text("long " * 10_000)
