from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.hosts import Address, Host
from gateway.domain.ai import providers
from gateway.domain.ai.providers import MAX_BODY_BYTES, ProviderClient, Verdict
from gateway.egress.outbound import Outbound
from tests.support.fake_providers import HEADERS, HUGE_BYTES, KEYS, FakeProviders, Misbehaviour, Name, Status

unhurried = settings(deadline=None)  # the machine may have other things to do
TITLES: dict[Name, str] = {"openai": "OpenAI", "anthropic": "Anthropic", "google": "Google"}
# Those whose addresses are the operator's.
NAMED = tuple(KEYS)
LONGEST = 400  # our own words, the provider's 200 and what stands between


class NoOutbound:
    """Rules that nothing is to be asked of here."""

    def reserve_port(self, port: int) -> None:
        raise AssertionError("nothing listens")

    release_port = reserve_port

    async def checked(self, host: Host, port: int, lookups: asyncio.Semaphore) -> list[Address]:
        raise AssertionError(f"{host} is not a caller's address")


OUTBOUND = Outbound(NoOutbound())


@pytest.fixture(scope="module")
def running() -> Iterator[FakeProviders]:
    with FakeProviders() as fake:
        yield fake


@pytest.fixture
def fake(running: FakeProviders) -> FakeProviders:
    running.forget()
    return running


@pytest.fixture
async def client(fake: FakeProviders) -> AsyncIterator[ProviderClient]:
    client = client_of(fake, timeout_seconds=20)
    yield client
    await client.aclose()


def client_of(fake: FakeProviders, timeout_seconds: float) -> ProviderClient:
    return ProviderClient(
        fake.base_url("openai"), fake.base_url("anthropic"), fake.base_url("google"), timeout_seconds, OUTBOUND
    )


def assert_clean(verdict: Verdict, api_key: str) -> None:
    assert 1 <= len(verdict.message) <= LONGEST
    assert verdict.message.isprintable()
    verdict.message.encode()
    assert not verdict.ok
    for start in range(len(api_key) - 7):
        assert api_key[start : start + 8].lower() not in verdict.message.lower()


@pytest.mark.parametrize("provider", NAMED)
async def test_a_right_key_is_accepted_and_the_models_are_counted(
    fake: FakeProviders, client: ProviderClient, provider: Name
) -> None:
    verdict = await client.check(provider, KEYS[provider])
    number = {"openai": "2 models", "anthropic": "1 model", "google": "1 model"}[provider]
    assert verdict == Verdict(True, f"{TITLES[provider]} accepted the key and listed {number}.")


@pytest.mark.parametrize("provider", NAMED)
async def test_the_key_goes_into_the_providers_own_header_and_nowhere_else(
    fake: FakeProviders, client: ProviderClient, provider: Name
) -> None:
    await client.check(provider, KEYS[provider])
    [seen] = fake.seen
    assert seen.url == f"{fake.base_url(provider)}/models"
    assert [name for name, value in seen.headers.items() if KEYS[provider] in value] == [HEADERS[provider]]
    assert seen.headers.get("anthropic-version") == ("2023-06-01" if provider == "anthropic" else None)


@pytest.mark.parametrize("provider", NAMED)
async def test_a_wrong_key_is_refused_with_the_providers_words(
    fake: FakeProviders, client: ProviderClient, provider: Name
) -> None:
    key = KEYS[provider][:-1] + "X"
    verdict = await client.check(provider, key)
    assert_clean(verdict, key)
    words = {
        "openai": "(401): Incorrect API key provided: sk-wr",
        "anthropic": "(401): invalid x-api-key",
        "google": "(400): API key not valid. Please pass a valid API key.",
    }[provider]
    assert verdict.message.startswith(f"{TITLES[provider]} refused the key {words}")


@pytest.mark.parametrize("provider", NAMED)
@pytest.mark.parametrize(
    ("status", "beginning"),
    [
        (401, "refused the key (401): "),
        (403, "refused the key (403): "),
        (429, "has no room for this key right now (429), "),
        (500, "failed by itself (500) and did not judge the key: "),
    ],
)
async def test_an_error_status_is_explained_in_words(
    fake: FakeProviders, client: ProviderClient, provider: Name, status: Status, beginning: str
) -> None:
    fake.behaviour[provider] = status
    verdict = await client.check(provider, KEYS[provider])
    assert_clean(verdict, KEYS[provider])
    assert verdict.message.startswith(f"{TITLES[provider]} {beginning}")


@pytest.mark.parametrize("provider", NAMED)
@pytest.mark.parametrize(
    ("behaviour", "part"),
    [
        ("garbage", "not with a list of models"),
        ("deep", "not with a list of models"),
        ("no-models", "not with a list of models"),
        ("huge", f"answered 200 with more than {MAX_BODY_BYTES} bytes"),
        ("redirect", "sent a redirect (307), which is not followed"),
        ("echo", "refused the key (401): Wrong key [key], that is [key], cut: [key]..."),
        ("empty", "refused the key (403)."),
    ],
)
async def test_misbehaviour_is_a_verdict(
    fake: FakeProviders, client: ProviderClient, provider: Name, behaviour: Misbehaviour, part: str
) -> None:
    fake.behaviour[provider] = behaviour
    verdict = await client.check(provider, KEYS[provider])
    assert_clean(verdict, KEYS[provider])
    assert part in verdict.message
    assert len(fake.seen) == 1


async def test_a_huge_body_is_not_read_to_its_end(fake: FakeProviders, client: ProviderClient) -> None:
    fake.behaviour["openai"] = "huge"
    await client.check("openai", KEYS["openai"])
    [seen] = fake.seen
    assert await asyncio.to_thread(seen.ended.wait, 10)
    # What the sockets and the server's own buffer took on top is no more than a few megabytes.
    assert seen.sent < HUGE_BYTES / 2


@pytest.mark.parametrize("behaviour", ["hang", "drip"])
async def test_the_timeout_bounds_the_whole_call(fake: FakeProviders, behaviour: Misbehaviour) -> None:
    client = client_of(fake, timeout_seconds=0.5)
    fake.behaviour["openai"] = behaviour
    verdict = await client.check("openai", KEYS["openai"])
    assert verdict == Verdict(False, "OpenAI did not answer within 0.5 seconds.")
    [seen] = fake.seen
    assert await asyncio.to_thread(seen.ended.wait, 10), "the connection was kept"
    del fake.behaviour["openai"]
    assert (await client.check("anthropic", KEYS["anthropic"])).ok
    await client.aclose()


async def test_a_hanging_provider_does_not_hold_up_another(fake: FakeProviders) -> None:
    client = client_of(fake, timeout_seconds=30)
    fake.behaviour["google"] = "hang"
    hanging = [asyncio.create_task(client.check("google", KEYS["google"])) for _ in range(5)]
    assert (await client.check("openai", KEYS["openai"])).ok
    for task in hanging:
        task.cancel()
    assert all(
        isinstance(done, asyncio.CancelledError) for done in await asyncio.gather(*hanging, return_exceptions=True)
    )
    await client.aclose()


async def unreachable(base_url: str, timeout_seconds: float = 5) -> Verdict:
    client = ProviderClient(base_url, base_url, base_url, timeout_seconds, OUTBOUND)
    verdict = await client.check("openai", KEYS["openai"])
    await client.aclose()
    assert_clean(verdict, KEYS["openai"])
    return verdict


async def test_a_refused_connection_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    verdict = await unreachable(f"http://127.0.0.1:{port}")
    assert verdict.message == "OpenAI could not be reached: Connection refused"


async def test_a_provider_without_tls_is_reported(fake: FakeProviders) -> None:
    verdict = await unreachable(fake.base_url("openai").replace("http:", "https:"))
    assert verdict.message.startswith("OpenAI could not be reached: [SSL")


@pytest.mark.parametrize("base_url", ["http://", "ftp://127.0.0.1", "http://127.0.0.1:99999", "http://\udc80"])
async def test_an_address_that_is_none_is_a_verdict(base_url: str) -> None:
    assert (await unreachable(base_url)).message.startswith("OpenAI could not be reached")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000 + b"\r\n\r\n",
    ],
)
async def test_an_answer_that_is_not_http_is_a_verdict(answer: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        verdict = await unreachable(f"http://127.0.0.1:{port}")
    assert verdict.message.startswith("OpenAI could not be reached")


async def test_a_packed_body_is_not_unpacked() -> None:
    packed = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\nconnection: close\r\n\r\n\x1f\x8b" + b"\0" * 100

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"accept-encoding: identity" in (await reader.readuntil(b"\r\n\r\n")).lower()
        writer.write(packed)
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        verdict = await unreachable(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert "not with a list of models" in verdict.message


async def test_a_providers_cookie_is_not_sent_with_the_next_call() -> None:
    requests: list[bytes] = []

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        body = json.dumps({"data": []}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nset-cookie: tenant=one; Path=/\r\nconnection: close\r\n\r\n" + body)
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        client = ProviderClient(base_url, base_url, base_url, 10, OUTBOUND)
        for _ in range(2):
            assert (await client.check("openai", KEYS["openai"])).ok
        await client.aclose()
    assert len(requests) == 2
    assert not any(b"cookie" in request.lower() for request in requests)


@pytest.mark.parametrize(
    "key",
    ["", " ", "sk-ключ", "sk-a\r\nx-evil: 1", "sk-a b", "sk-a\0", "sk-\ud800", "sk-a\x7f", "sk-a\n", "sk-\u017f"],
)
@pytest.mark.parametrize("provider", NAMED)
async def test_a_key_that_no_header_can_carry_is_not_sent(
    fake: FakeProviders, client: ProviderClient, provider: Name, key: str
) -> None:
    verdict = await client.check(provider, key)
    assert not verdict.ok
    assert verdict.message.startswith("The key ")
    assert fake.seen == []


@unhurried
@given(key=st.from_regex(r"[A-Za-z0-9._+/=-]{8,300}", fullmatch=True), words=st.text())
def test_no_part_of_a_key_gets_into_a_quote(key: str, words: str) -> None:
    quote = providers.quote(f"{words}{key}{words} {key[3:]} {key[:-2].upper()}{words}", key)
    assert_clean(Verdict(False, quote), key)


async def test_nothing_logged_has_the_key(
    fake: FakeProviders, client: ProviderClient, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (None, "httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, name)
    for provider in NAMED:
        await client.check(provider, KEYS[provider])
    assert "/models" in caplog.text
    for key in KEYS.values():
        assert key not in caplog.text


async def test_a_closed_client_opens_again(fake: FakeProviders, client: ProviderClient) -> None:
    assert (await client.check("openai", KEYS["openai"])).ok
    await client.aclose()
    await client.aclose()
    assert (await client.check("openai", KEYS["openai"])).ok
