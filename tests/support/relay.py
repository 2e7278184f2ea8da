"""A relay to the stand-in for the providers, and what a test calls it with."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from gateway.core.ai_providers import COMPATIBLE, ProviderName
from gateway.core.errors import GatewayError
from gateway.egress import socket_owners
from gateway.egress.outbound import Outbound
from gateway.egress.proxy import EgressProxy, UidOf
from gateway.relay.relay import Endpoint, Relay, RelayLimits, Target
from gateway.relay.upstream import Pause
from gateway.settings import Settings
from tests.support.fake_providers import KEYS
from tests.support.model_server import COMPATIBLE_KEY, ModelServer

# Made once, since it takes longer than a test.
_TLS = ssl.create_default_context()

MODEL = "model-of-the-agent"
OTHER_MODEL = "another-model"
ALL_KEYS: dict[ProviderName, str] = {
    "openai": KEYS["openai"],
    "anthropic": KEYS["anthropic"],
    "google": KEYS["google"],
    COMPATIBLE: COMPATIBLE_KEY,
}
# Path and body of a plain call of each provider.
CALLS: dict[ProviderName, tuple[str, dict[str, Any]]] = {
    "openai": ("/v1/chat/completions", {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}),
    "anthropic": (
        "/v1/messages",
        {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]},
    ),
    "google": (
        f"/v1beta/models/{MODEL}:generateContent",
        {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]},
    ),
    COMPATIBLE: ("/v1/chat/completions", {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}),
}
TOKEN_HEADERS: dict[ProviderName, tuple[str, str]] = {
    "openai": ("authorization", "Bearer {}"),
    "anthropic": ("x-api-key", "{}"),
    "google": ("x-goog-api-key", "{}"),
    COMPATIBLE: ("authorization", "Bearer {}"),
}


@dataclass
class GivenKey:
    """A key that may be taken away. `opened` counts."""

    key: str | None
    error: GatewayError | None = None
    opened: int = 0

    async def open(self) -> str | None:
        self.opened += 1
        if self.error is not None:
            raise self.error
        return self.key


@dataclass
class Relayed:
    """An open address with the key behind it. `pauses`: how long the relay waited before each further attempt."""

    relay: Relay
    endpoint: Endpoint
    keys: GivenKey
    provider: ProviderName
    client: httpx.AsyncClient
    rules: EgressProxy
    pauses: list[float] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        return self.endpoint.address.base_url

    @property
    def token(self) -> str:
        return self.endpoint.address.token

    def headers(self) -> dict[str, str]:
        name, form = TOKEN_HEADERS[self.provider]
        return {name: form.format(self.token)}

    async def call(self, path: str | None = None, **changes: Any) -> httpx.Response:
        """A plain call, with other members in its body."""
        own, body = CALLS[self.provider]
        given = {name: value for name, value in {**body, **changes}.items() if value is not ...}
        return await self.client.post(path or own, json=given, headers=self.headers())

    def streamed(self, **changes: Any) -> Any:
        """A call whose answer is a stream, to be entered."""
        path, body = CALLS[self.provider]
        if self.provider == "google":
            path = path.replace(":generateContent", ":streamGenerateContent?alt=sse")
        else:
            changes["stream"] = True
        return self.client.stream("POST", path, json={**body, **changes}, headers=self.headers())


@contextlib.asynccontextmanager
async def relayed(
    server: ModelServer,
    provider: ProviderName = "openai",
    *,
    limits: RelayLimits | None = None,
    uid: int | None = None,
    uid_of: UidOf = socket_owners.uid_of,
    base_url: str | None = None,
    guarded: bool = False,
    key: str | None = "",
    model: str = MODEL,
    pause: Pause | None = None,
    **options: Any,
) -> AsyncIterator[Relayed]:
    """`options` are settings. Further attempts do not wait. The key is the right one unless another is given."""
    pauses: list[float] = []

    async def noted(seconds: float) -> None:
        pauses.append(seconds)

    settings = Settings(data_dir=Path("/nonexistent"), **options)
    egress = EgressProxy(settings)
    relay = Relay(settings, Outbound(egress), uid_of, pause or noted, _TLS)
    keys = GivenKey(ALL_KEYS[provider] if key == "" else key)
    target = Target(provider, model, base_url or server.base_url(provider), guarded)
    try:
        endpoint = await relay.open(target, keys, limits=limits, uid=uid)
        async with httpx.AsyncClient(
            base_url=endpoint.address.base_url, timeout=60, verify=_TLS, trust_env=False
        ) as client:
            yield Relayed(relay, endpoint, keys, provider, client, egress, pauses)
    finally:
        await relay.aclose()
        await egress.close()
