"""Answers of providers: errors, further attempts, and what hostile or broken ones send."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import socket
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote

import anthropic
import openai
import pytest

from gateway.core.ai_providers import ProviderName
from gateway.telemetry.logs import configure
from tests.support.fake_providers import ERRORS, Name
from tests.support.model_server import Cut, Failure, ModelServer, Raw, Text
from tests.support.relay import ALL_KEYS, MODEL, relayed

SSE = {"content-type": "text/event-stream"}
NAMED: tuple[Name, ...] = ("openai", "anthropic", "google")
KEY = ALL_KEYS["openai"]


@pytest.mark.parametrize("provider", NAMED)
@pytest.mark.parametrize("status", [401, 403, 429, 500])
async def test_a_providers_error_passes_with_its_status(models: ModelServer, provider: Name, status: Any) -> None:
    async with relayed(models, provider, relay_retries=0) as used:
        models.next(Failure(status, {"retry-after": "7", "set-cookie": "a=b", "server": "x"}))
        answer = await used.call()
        assert (answer.json(), answer.status_code) == ERRORS[provider][status]
        assert answer.headers["retry-after"] == "7"
        assert "set-cookie" not in answer.headers
        assert answer.headers["x-should-retry"] == "false"
        assert used.endpoint.failure is not None
        assert used.endpoint.failure.code == "relay.provider_error"
        assert used.endpoint.failure.message.startswith(f"{used.endpoint.target.title} answered {status}: ")


async def test_client_libraries_read_errors_as_the_providers(models: ModelServer) -> None:
    async with (
        relayed(models) as used,
        openai.AsyncOpenAI(api_key=used.token, base_url=f"{used.base_url}/v1") as client,
    ):
        models.next(*[Failure(429)] * 3)
        asks: Any = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(**asks)
        # The relay's own attempts, without those of the library.
        assert len(models.seen) == 3
        with pytest.raises(openai.PermissionDeniedError) as refused:
            await client.chat.completions.create(**{**asks, "model": "other"})
        assert refused.value.code == "relay.model_forbidden"
        models.next(Raw([b'data: {"choices": []}\n\n', b"x" * 20_000], headers=SSE))
    async with (
        relayed(models, "anthropic", relay_answer_bytes=10_000) as used,
        anthropic.AsyncAnthropic(api_key=used.token, base_url=used.base_url) as client2,
    ):

        async def read() -> None:
            async with client2.messages.stream(**asks, max_tokens=5) as stream:
                async for _ in stream:
                    pass

        with pytest.raises(anthropic.APIStatusError, match=r"relay\.answer_too_large"):
            await read()


@pytest.mark.parametrize("is_stream", [False, True])
async def test_what_may_pass_is_tried_again(models: ModelServer, is_stream: bool) -> None:
    async with relayed(models) as used:
        for calls, status in enumerate([429, 500, 502, 503, 504, 529], 1):
            models.seen.clear()
            used.pauses.clear()
            models.next(Failure(status), Failure(status))
            if is_stream:
                async with used.streamed() as answer:
                    assert b"You wrote" in await answer.aread()
            else:
                answer = await used.call()
            assert answer.status_code == 200
            assert used.endpoint.usage.calls == calls
            first, second = used.pauses
            assert 0.5 <= first <= 0.625
            assert 1.0 <= second <= 1.25
            assert len(models.seen) == 3
            assert len({asked.raw for asked in models.seen}) == 1
        assert used.endpoint.failure is None


async def test_what_will_not_pass_is_tried_once(models: ModelServer) -> None:
    async with relayed(models) as used:
        for calls, status in enumerate([400, 401, 403, 404, 409, 413, 422, 501], 1):
            models.next(Failure(status))
            assert (await used.call()).status_code == status
            assert (len(models.seen), used.pauses) == (calls, [])


async def test_a_provider_that_wants_no_further_attempt_gets_none(models: ModelServer) -> None:
    models.next(Failure(429, {"x-should-retry": "false"}))
    async with relayed(models) as used:
        assert (await used.call()).status_code == 429
        assert len(models.seen) == 1


@pytest.mark.parametrize("retries", [0, 1, 3])
async def test_attempts_are_bounded(models: ModelServer, retries: int) -> None:
    models.next(*[Failure(429, {"retry-after": "2"})] * 10)
    async with relayed(models, relay_retries=retries) as used:
        assert (await used.call()).status_code == 429
        assert len(models.seen) == retries + 1
        assert len(used.pauses) == retries


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"retry-after": "7"}, 7.0, 8.75),
        ({"retry-after": "0"}, 0.0, 0.0),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5, 1.875),
        ({"retry-after": "10"}, 10.0, 12.5),
        ({"retry-after": "soon"}, 0.5, 0.625),
        ({"retry-after": "-1"}, 0.5, 0.625),
        ({"retry-after": "1" * 400}, 0.5, 0.625),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}, 0.0, 0.0),
    ],
)
async def test_the_wait_is_the_providers(
    models: ModelServer, headers: dict[str, str], least: float, most: float
) -> None:
    models.next(Failure(429, headers))
    async with relayed(models, relay_retry_seconds=10) as used:
        assert (await used.call()).status_code == 200
        [pause] = used.pauses
        assert least <= pause <= most


async def test_the_wait_may_be_until_a_time(models: ModelServer) -> None:
    models.next(Failure(503, {"retry-after": format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)}))
    async with relayed(models, relay_retry_seconds=600) as used:
        # More than the longest wait, so that the error is passed on instead.
        assert (await used.call()).status_code == 503
        assert used.pauses == []


@pytest.mark.parametrize(("seconds", "attempts"), [("29", 2), ("30", 2), ("31", 1)])
async def test_a_wait_that_is_too_long_is_none(models: ModelServer, seconds: str, attempts: int) -> None:
    models.next(Failure(429, {"retry-after": seconds}))
    async with relayed(models, relay_retry_seconds=30) as used:
        await used.call()
        assert len(models.seen) == attempts


async def test_a_server_that_is_not_there_is_tried_again_and_named(models: ModelServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with relayed(models, base_url=f"http://127.0.0.1:{port}") as used:
        answer = await used.call()
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (502, "relay.provider_unreachable")
        assert error["message"] == "OpenAI can't be reached (ConnectError)."
        assert len(used.pauses) == 2


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000])
async def test_an_answer_that_is_not_http_is_an_error(models: ModelServer, answer: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with relayed(models, base_url=base_url, relay_retries=1) as used:
            found = await used.call()
            assert (found.status_code, found.json()["error"]["code"]) == (502, "relay.provider_unreachable")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("provider", NAMED)
async def test_a_redirect_is_not_followed(models: ModelServer, provider: Name, status: int) -> None:
    where = {"location": f"{models.base_url(provider)}/elsewhere", "content-type": "application/json"}
    models.next(Raw([b"{}"], status, where))
    async with relayed(models, provider) as used:
        answer = await used.call()
        assert answer.status_code == 502
        assert f"answered {status}, which is not followed" in answer.text
        assert "location" not in answer.headers
        assert len(models.seen) == 1


@pytest.mark.parametrize(
    ("chunks", "headers", "code"),
    [
        ([b"<html>"], {"content-type": "text/html"}, "relay.answer_invalid"),
        ([b"{}"], {}, "relay.answer_invalid"),
        ([b"{"], {"content-type": "application/json"}, "relay.answer_invalid"),
        ([b"[" * 100_000], {"content-type": "application/json"}, "relay.answer_invalid"),
        ([b"\xff\xfe"], {"content-type": "application/json"}, "relay.answer_invalid"),
        ([b""], {"content-type": "application/json"}, "relay.answer_invalid"),
        ([b"\x1f\x8b"], {"content-type": "application/json", "content-encoding": "gzip"}, "relay.answer_invalid"),
        ([b"{}"], {"content-type": "application/json", "content-length": "50"}, "relay.answer_cut"),
    ],
)
async def test_hostile_answers(models: ModelServer, chunks: list[bytes], headers: dict[str, str], code: str) -> None:
    models.next(Raw(chunks, headers=headers))
    async with relayed(models) as used:
        answer = await used.call()
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, code)
        # It goes on.
        assert (await used.call()).status_code == 200


@pytest.mark.parametrize(
    "document", [[], 5, None, "x", {"usage": 5}, {"choices": {"0": 1}}, {"choices": [{"message": {"tool_calls": "x"}}]}]
)
async def test_answers_of_wrong_types_are_the_clients_to_judge(models: ModelServer, document: Any) -> None:
    models.next(Raw([json.dumps(document).encode()]))
    async with relayed(models) as used:
        answer = await used.call()
        assert (answer.status_code, answer.json()) == (200, document)


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"<html>nginx</html>", "text/html"), (b"{" + b" " * 20_000, "application/json"), (b"[]", "application/json")],
)
async def test_an_error_in_no_shape_is_put_into_the_providers(models: ModelServer, body: bytes, kind: str) -> None:
    models.next(Raw([body], 404, {"content-type": kind}))
    async with relayed(models, "anthropic") as used:
        answer = await used.call()
        assert answer.status_code == 404
        assert answer.json()["error"]["message"] == "relay.provider_error: Anthropic answered 404."


@pytest.mark.parametrize("provider", NAMED)
@pytest.mark.parametrize("after", [1, 3])
async def test_a_stream_that_is_cut_ends_with_an_error(models: ModelServer, provider: Name, after: int) -> None:
    models.rules = [lambda asked: Text(f"You wrote: {asked.text}" * 10)]
    models.next(Cut(after))
    async with relayed(models, provider) as used:
        async with used.streamed() as answer:
            received = await answer.aread()
        *_, last = received.strip().split(b"\n\n")
        assert b"relay.answer_cut" in last
        assert last.startswith(b"event: error\ndata: {" if provider == "anthropic" else b"data: {")
        # What had come was passed on, and counted.
        assert len(received.strip().split(b"\n\n")) >= after
        assert used.endpoint.usage.estimated == 1


async def test_events_pass_one_by_one_as_they_come(models: ModelServer) -> None:
    gates = [threading.Event() for _ in range(3)]
    events = [b'data: {"choices": [], "n": %d}\n\n' % at for at in range(3)]
    pieces = [piece for gate, event in zip(gates, events, strict=True) for piece in (gate, event[:9], event[9:])]
    models.next(Raw(pieces, headers=SSE))
    async with relayed(models) as used, used.streamed() as answer:
        stream = answer.aiter_raw()
        for gate, event in zip(gates, events, strict=True):
            gate.set()
            received = b""
            while len(received) < len(event):
                received += await anext(stream)
            assert received == event


FORMS = [
    KEY,
    KEY.upper(),
    f"Bearer {KEY}",
    f"before{KEY}after",
    quote(KEY, safe=""),
    base64.b64encode(KEY.encode()).decode(),
    base64.b64encode(f"user:{KEY}".encode()).decode(),
    KEY.encode().hex(),
    "".join(f"%{byte:02X}" for byte in KEY.encode()),
    "".join(f"&#x{ord(character):x};" for character in KEY),
    base64.b64encode(KEY.encode("utf-16-le")).decode(),
]


def repeating(form: str, where: str) -> Raw:
    body = json.dumps({"error": {"message": f"It is {form}."}, "choices": [], "x": [form, {form: form}]}).encode()
    half = len(body) // 2
    return {
        "answer": Raw([body[:half], body[half:]]),
        "stream": Raw([b"data: " + body[:half], body[half:] + b"\n\n"], headers=SSE),
        "cut stream": Raw([b"data: " + body[:half], body[half:]], headers=SSE),
        "error": Raw([body], 401),
        "words": Raw([f"no key {form}".encode()], 400, {"content-type": "text/plain"}),
        "header": Raw([b"{}"], headers={"content-type": "application/json", "x-request-id": form}),
    }[where]


@pytest.mark.parametrize("where", ["answer", "stream", "cut stream", "error", "words", "header"])
async def test_a_key_that_a_server_repeats_does_not_come_back(models: ModelServer, where: str) -> None:
    async with relayed(models) as used:
        for form in FORMS:
            models.next(repeating(form, where))
            answer = await used.call()
            everything = f"{answer.text} {answer.headers} {used.endpoint.failure}".lower()
            assert KEY.lower() not in everything
            # The part of the base64 form that the key alone decides.
            assert form.lower()[8:-8] not in everything
            assert where == "words" or "[key]" in everything


async def test_pieces_of_a_key_are_taken_out_of_errors(models: ModelServer) -> None:
    models.next(Raw([json.dumps({"error": {"message": f"Wrong: {KEY[:20]}... or {KEY[-9:]}"}}).encode()], 401))
    async with relayed(models) as used:
        answer = await used.call()
        assert answer.json() == {"error": {"message": "Wrong: [key]... or [key]"}}


async def test_a_word_that_a_local_server_takes_for_a_key_is_left_in_answers(models: ModelServer) -> None:
    models.keys.add("content")
    async with relayed(models, "openai-compatible", key="content") as used:
        assert "content" in (await used.call()).json()["choices"][0]["message"]


@pytest.mark.parametrize("provider", NAMED)
async def test_neither_key_nor_token_is_logged(
    models: ModelServer, provider: ProviderName, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    configure("debug", "json")
    caplog.set_level(logging.DEBUG)
    key = ALL_KEYS[provider]
    models.next(Raw([b"{}"]), Failure(500), Failure(401), Raw([f'{{"error": "{key}"}}'.encode()], 400), Cut(1))
    async with relayed(models, provider) as used:
        for _ in range(4):
            await used.call()
        async with used.streamed() as answer:
            await answer.aread()
        assert (await used.call(tools=5)).status_code == 400
        token = used.token
    said = caplog.text + "".join(capfd.readouterr())
    assert "HTTP Request: POST" in said
    # By the libraries of this test, whose client has the token, at most; they mask it.
    assert key not in said
    assert token not in said


async def test_a_bug_is_an_error_in_the_providers_shape(models: ModelServer, caplog: pytest.LogCaptureFixture) -> None:
    async with relayed(models) as used:
        used.keys.error = RuntimeError("of the test")  # type: ignore[assignment]
        answer = await used.call()
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "relay.failed")
        used.keys.error = None
        models.rules = [lambda asked: Text("It goes on.")]
        assert "It goes on." in (await used.call()).text
