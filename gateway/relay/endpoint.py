"""The address of one agent's calls to its model: a listener on the loopback address, with a token of its own."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
import structlog
import uvicorn
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope
from uvicorn.server import ServerState

from gateway.core.ai_providers import PROTOCOLS, error_message
from gateway.core.errors import GatewayError
from gateway.core.secret import remember, remembering
from gateway.egress.outbound import Outbound
from gateway.egress.proxy import LOOPBACK, UidOf
from gateway.relay import requests, usage
from gateway.relay.answers import Answer, passed_headers
from gateway.relay.event_streams import EventStream, gathered
from gateway.relay.masking import KeyMask
from gateway.relay.refusals import Refused, error_body
from gateway.relay.requests import Prepared
from gateway.relay.server import RelayProtocol
from gateway.relay.upstream import NO_ANSWER, ProviderAnswer, Target, Upstream
from gateway.relay.usage import Reader, Tokens
from gateway.settings import RelaySettings
from gateway.telemetry import metrics

_log = structlog.get_logger("gateway.relay")

_TOKEN_BYTES = 32
_BACKLOG = 32
# What is longer is no error that anybody reads, and is replaced.
_ERROR_BYTES = 16 * 1024
_QUOTED = 300
_READ_AHEAD_BYTES = 64 * 1024


class Keys(Protocol):
    """The key of an agent's provider."""

    async def open(self) -> str | None:
        """The key, for one call; None for a server that takes none. Raises GatewayError when it may not be used."""


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """Of one agent, below those of the settings; None for no other. `seconds` from the opening of its address on."""

    calls: int | None = None
    tokens: int | None = None
    seconds: float | None = None


@dataclass(slots=True)
class RelayUsage:
    """What an agent has used. `estimated`: calls whose provider reported no tokens. `refused`: by code."""

    calls: int = 0
    tokens: Tokens = field(default_factory=Tokens)
    estimated: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, tokens: Tokens, *, estimated: bool) -> None:
        now = self.tokens
        self.tokens = Tokens(now.read + tokens.read, now.written + tokens.written, now.cached + tokens.cached)
        self.estimated += estimated


@dataclass(frozen=True, slots=True)
class RelayAddress:
    """What an agent's process is given. `base_url` has no path: libraries add `/v1` or `/v1beta`, or are given it."""

    base_url: str
    token: str = field(repr=False)


class Endpoint:
    """Open until `close`. `failure` is the last error that a call ended with, the provider's own included."""

    def __init__(
        self,
        settings: RelaySettings,
        target: Target,
        keys: Keys,
        limits: RelayLimits,
        upstream: Upstream,
        outbound: Outbound,
        uid: int | None,
        uid_of: UidOf,
    ) -> None:
        self.target = target
        self.usage = RelayUsage()
        self.failure: Refused | None = None
        self.is_shut = False
        self._settings = settings
        self._keys = keys
        self._most_calls = min(settings.relay_max_calls, limits.calls or settings.relay_max_calls)
        self._most_tokens = min(settings.relay_max_tokens, limits.tokens or settings.relay_max_tokens)
        self._seconds = limits.seconds
        self._upstream = upstream
        self._outbound = outbound
        self._uid = uid
        self._uid_of = uid_of
        self._token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._places = asyncio.Semaphore(settings.relay_calls_at_once)
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._port = 0

    @property
    def address(self) -> RelayAddress:
        return RelayAddress(f"http://{LOOPBACK}:{self._port}", self._token)

    async def listen(self, config: uvicorn.Config) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: RelayProtocol(self, config, self._state), LOOPBACK, 0, backlog=_BACKLOG
        )
        self._port = self._server.sockets[0].getsockname()[1]
        # No page may reach it, and no base URL of a caller may be it.
        self._outbound.rules.reserve_port(self._port)
        if self._seconds is not None:
            self._expiry = loop.call_later(self._seconds, self.shut)

    def shut(self) -> None:
        """End everything that is open, and refuse what still comes; `close` does the rest.

        A server of asyncio that is closed leaves a connection unclosed that it has just accepted, so that comes later.
        """
        self.is_shut = True
        for connection in list(self._state.connections):
            connection.transport.abort()

    async def close(self) -> None:
        """End the address and all calls; idempotent. Returns when nothing of them is left."""
        self.shut()
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        if self._expiry is not None:
            self._expiry.cancel()
        await asyncio.gather(*self._state.tasks, return_exceptions=True)
        await self._upstream.aclose()
        self._outbound.rules.release_port(self._port)

    def admits(self, peer: tuple[str, int] | None) -> bool:
        """Whether a connection of this peer is served: as root only processes of the agent's own user."""
        if self.is_shut or peer is None or len(self._state.connections) > _BACKLOG:
            return False
        return self._uid is None or self._uid_of(peer, (LOOPBACK, self._port)) == self._uid

    async def serve(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "http":
            return
        answer = Answer(send, self.target.provider)
        outcome = "refused"
        with remembering():
            try:
                outcome = await self._served(scope, receive, answer)
            except Refused as refused:
                self._note(refused)
                await answer.refuse(refused)
            except Exception:
                _log.exception("a call could not be relayed", provider=self.target.provider)
                await answer.refuse(Refused(500, "relay.failed", "The call failed in the gateway."))
        metrics.relay_calls.labels(self.target.provider, outcome).inc()

    async def _served(self, scope: Any, receive: ASGIReceiveCallable, answer: Answer) -> str:
        self._check_token(scope["headers"])
        path, query, method = scope["path"], scope["query_string"], scope["method"]
        # Before its body is read.
        requests.allowed_call(self.target.provider, self.target.model, method, path, query)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        body = await self._body(headers, receive)
        self._check_calls()
        self._check_tokens()
        left = self._most_tokens - self.usage.tokens.total
        prepared = requests.prepared(self.target.provider, self.target.model, method, path, query, headers, body, left)
        self.usage.calls += 1
        is_gone = False
        try:
            async with asyncio.timeout(self._settings.relay_call_seconds) as bound:

                async def watch() -> None:
                    nonlocal is_gone
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    is_gone = True
                    bound.reschedule(0)

                watching = asyncio.create_task(watch())
                try:
                    async with self._places:
                        # Again, since calls before this one may have ended while it waited.
                        self._check_tokens()
                        return await self._relayed(prepared, answer)
                finally:
                    watching.cancel()
        except TimeoutError:
            if is_gone:
                return "aborted"
            seconds = self._settings.relay_call_seconds
            raise Refused(504, "relay.timeout", f"The model did not answer within {seconds:g} seconds.") from None

    def _check_token(self, headers: list[tuple[bytes, bytes]]) -> None:
        token = self._token.encode()
        shown = requests.bearer_tokens(headers)
        # All of them, so that the time says nothing.
        if not sum(hmac.compare_digest(each, token) for each in shown):
            raise Refused(401, "relay.unauthorized", "This address needs the token that was given out with it.")

    def _check_calls(self) -> None:
        if self.usage.calls >= self._most_calls:
            raise Refused(403, "relay.max_calls", f"This agent has made its {self._most_calls} calls to the model.")

    def _check_tokens(self) -> None:
        if self.usage.tokens.total >= self._most_tokens:
            raise Refused(403, "relay.max_tokens", f"This agent has used its {self._most_tokens} tokens.")

    async def _body(self, headers: dict[str, str], receive: ASGIReceiveCallable) -> bytes:
        most = self._settings.relay_request_bytes
        too_large = Refused(413, "relay.request_too_large", f"A request to the model may have {most} bytes.")
        if headers.get("content-encoding", "identity") != "identity":
            raise Refused(415, "relay.encoding_forbidden", "A compressed request is not relayed.")
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > most:
            raise too_large
        body = bytearray()
        while True:
            message: Any = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(400, "relay.body_incomplete", "The request ended too early.")
            body += message.get("body", b"")
            if len(body) > most:
                raise too_large
            if not message.get("more_body", False):
                return bytes(body)

    async def _relayed(self, prepared: Prepared, answer: Answer) -> str:
        key = await self._opened()
        mask = KeyMask(key)
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            # A compressed answer could grow past every bound, and would be passed on in larger pieces.
            "Accept-Encoding": "identity",
            "User-Agent": "gateway",
            **(PROTOCOLS[self.target.provider].headers_with(key) if key is not None else {}),
            **dict(prepared.headers),
        }
        async with self._sent(prepared, headers) as response:
            if response.status >= 400:
                await self._pass_error(response, mask, answer)
                return "provider_error"
            if response.status != 200:
                message = f"{self.target.title} answered {response.status}, which is not followed."
                raise Refused(502, "relay.answer_invalid", message)
            await self._pass(response, prepared, mask, answer)
            return "answered"

    async def _opened(self) -> str | None:
        try:
            key = await self._keys.open()
        except GatewayError as error:
            status = error.status if error.status >= 500 else 401
            raise Refused(status, error.code, error.message) from None
        if key is not None:
            remember((key,))
        return key

    @contextlib.asynccontextmanager
    async def _sent(self, prepared: Prepared, headers: dict[str, str]) -> AsyncIterator[ProviderAnswer]:
        response = await self._upstream.send(prepared.path, headers, prepared.body)
        try:
            yield response
        finally:
            await response.aclose()

    async def _pass(self, response: ProviderAnswer, prepared: Prepared, mask: KeyMask, answer: Answer) -> None:
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        encoding = response.headers.get("content-encoding", "identity")
        if kind not in ("application/json", "text/event-stream") or encoding != "identity":
            message = f"{self.target.title} answered with neither JSON nor a stream of events."
            raise Refused(502, "relay.answer_invalid", message)
        reader = prepared.reader()
        received = _Received(self._settings.relay_answer_bytes)
        is_whole = False
        try:
            if kind == "application/json":
                body = mask.bytes(b"".join([chunk async for chunk in self._chunks(response, received)]))
                if not usage.read_body(reader, body):
                    raise Refused(502, "relay.answer_invalid", f"{self.target.title} answered with broken JSON.")
                is_whole = True
                await answer.whole(200, passed_headers(response, mask), body)
            else:
                await self._pass_events(response, prepared, mask, answer, reader, received)
                is_whole = True
        finally:
            self._count(prepared, reader, received.bytes, is_whole=is_whole)
        if kind == "text/event-stream":
            await answer.end()

    async def _pass_events(
        self,
        response: ProviderAnswer,
        prepared: Prepared,
        mask: KeyMask,
        answer: Answer,
        reader: Reader,
        received: _Received,
    ) -> None:
        stream = EventStream()
        await answer.begin(passed_headers(response, mask))
        async with contextlib.aclosing(gathered(self._chunks(response, received), _READ_AHEAD_BYTES)) as pieces:
            async for piece in pieces:
                if events := stream.feed(piece):
                    await answer.more(usage.read_events(reader, mask.bytes(events), strip=prepared.strip_usage))
        if rest := stream.rest():
            await answer.more(usage.read_events(reader, mask.bytes(rest), strip=prepared.strip_usage))

    async def _chunks(self, response: ProviderAnswer, received: _Received) -> AsyncGenerator[bytes]:
        """The answer's body as it comes; raises Refused where it is too large, or ends too early."""
        try:
            async for chunk in response.chunks():
                received.add(chunk)
                yield chunk
        except NO_ANSWER as error:
            message = f"The answer of {self.target.title} ended too early ({type(error).__name__})."
            raise Refused(502, "relay.answer_cut", message) from None

    def _count(self, prepared: Prepared, reader: Reader, answer_bytes: int, *, is_whole: bool) -> None:
        found = reader.found()
        tokens = found or usage.estimated(prepared.body, answer_bytes)
        if found is not None and not is_whole:
            # A stream may report early how many tokens were read, and how many were written at its end alone.
            written = max(found.written, usage.estimated(b"", answer_bytes).written)
            tokens = Tokens(found.read, written, found.cached)
        self.usage.add(tokens, estimated=found is None or not is_whole)
        metrics.relay_tokens.labels(self.target.provider, "read").inc(tokens.read)
        metrics.relay_tokens.labels(self.target.provider, "written").inc(tokens.written)

    async def _pass_error(self, response: ProviderAnswer, mask: KeyMask, answer: Answer) -> None:
        """A provider's error as it is, without the key; what is none in its shape is put into it."""
        title, status = self.target.title, response.status
        document = await self._error_document(response, mask)
        words = mask.text(error_message(document)[:_QUOTED])
        quoted = f": {words}" if words else "."
        self._note(Refused(status, "relay.provider_error", f"{title} answered {status}{quoted}"))
        if isinstance(document, dict):
            body = orjson.dumps(mask.document(document))
        else:
            body = error_body(self.target.provider, status, "relay.provider_error", f"{title} answered {status}.")
        await answer.whole(status, passed_headers(response, mask), body, is_final=True)

    async def _error_document(self, response: ProviderAnswer, mask: KeyMask) -> Any:
        """None for what is not JSON, or too large."""
        body = bytearray()
        try:
            async for chunk in response.chunks():
                body += chunk
                if len(body) > _ERROR_BYTES:
                    return None
            return orjson.loads(mask.bytes(bytes(body)))
        except (*NO_ANSWER, ValueError):
            return None

    def _note(self, refused: Refused) -> None:
        self.failure = refused
        self.usage.refused[refused.code] += 1


class _Received:
    """Counts the bytes of an answer."""

    __slots__ = ("bytes", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self.bytes = 0

    def add(self, chunk: bytes) -> None:
        self.bytes += len(chunk)
        if self.bytes > self.most:
            raise Refused(502, "relay.answer_too_large", f"An answer of the model may have {self.most} bytes.")
