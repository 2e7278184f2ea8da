"""Requests to the servers of callers' tools, under the egress rules, with secrets of the vault."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpcore
import orjson

from gateway.core import json_text
from gateway.core.errors import Forbidden, NotFound, RequestInvalid
from gateway.core.hosts import Refusal
from gateway.core.mounts import Mounts
from gateway.core.scope import Scope
from gateway.domain.tools.execution import Webhook
from gateway.domain.vault import Vault, VaultSecret
from gateway.egress.dialer import Unreachable
from gateway.egress.outbound import Outbound
from gateway.egress.resolver import NameNotFound

_NO_HEADERS: Mapping[str, str] = {}


@dataclass
class ToolFailed(Exception):
    """Raised where a call failed: a stable code, a sentence for people and agents, and details."""

    code: str
    message: str
    details: dict[str, Any] = field(default_factory=dict)


class Webhooks:
    """`max_bytes` is the limit of a request's body, and of an answer's."""

    def __init__(self, outbound: Outbound, vault: Vault, max_bytes: int) -> None:
        self._outbound = outbound
        self._vault = vault
        self._max_bytes = max_bytes

    async def send(self, owner: Scope, mounts: Mounts, call_id: UUID, webhook: Webhook, body: dict[str, Any]) -> Any:
        """The JSON of the server's answer. Redirects are not followed, and nothing is sent twice. Raises ToolFailed."""
        sent = json_text.dumps(body)
        if len(sent) > self._max_bytes:
            message = f"The request has {len(sent)} bytes, and may have {self._max_bytes}."
            raise ToolFailed("tool.input_too_large", message)
        headers = {"Content-Type": "application/json"}
        try:
            headers |= await self._authorization(owner, mounts, webhook)
            headers |= await self._signature(owner, mounts, call_id, webhook, sent)
        except (NotFound, Forbidden, RequestInvalid) as error:
            raise ToolFailed("tool.secret_unavailable", error.message, {"code": error.code}) from None
        try:
            async with asyncio.timeout(webhook.timeout_ms / 1000):
                response = await self._outbound.post(webhook.url, headers, sent, self._max_bytes)
        except TimeoutError:
            raise ToolFailed("tool.timeout", f"No answer came within {webhook.timeout_ms} ms.") from None
        except Refusal as error:
            raise ToolFailed("tool.address_refused", error.message, {"rule": error.rule}) from None
        except NameNotFound:
            raise ToolFailed("tool.unreachable", "The name of the server can't be resolved.") from None
        except Unreachable as error:
            raise ToolFailed("tool.unreachable", str(error)) from None
        except (OSError, httpcore.NetworkError, httpcore.ProtocolError):
            message = "The server ended the connection, or its certificate is not valid."
            raise ToolFailed("tool.unreachable", message) from None
        if not 200 <= response.status < 300:
            message = f"The server answered {response.status}."
            raise ToolFailed("tool.status", message, {"httpStatus": response.status})
        if response.body is None:
            raise ToolFailed("tool.output_too_large", f"The answer has more than {self._max_bytes} bytes.")
        try:
            return orjson.loads(response.body)
        except ValueError:
            raise ToolFailed("tool.output_invalid", "The answer is not JSON.") from None

    async def _authorization(self, owner: Scope, mounts: Mounts, webhook: Webhook) -> Mapping[str, str]:
        auth = webhook.auth
        if auth.secret is None:
            return _NO_HEADERS
        # Else a caller that may make tools could have any secret sent to a server of their own.
        parts = urlsplit(webhook.url)
        secret = await self._vault.for_request(owner, mounts, auth.secret, f"{parts.scheme}://{parts.netloc}")
        if auth.type == "basic":
            if secret.username is None or secret.password is None:
                raise RequestInvalid(f"The secret {auth.secret!r} is no login.", "vault.no_field")
            pair = base64.b64encode(f"{secret.username}:{secret.password}".encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        value = _header_value(secret, auth.secret)
        if auth.type == "header" and auth.header is not None:
            return {auth.header: value}
        return {"Authorization": f"Bearer {value}"}

    async def _signature(
        self, owner: Scope, mounts: Mounts, call_id: UUID, webhook: Webhook, sent: bytes
    ) -> Mapping[str, str]:
        moment = str(int(time.time()))
        headers = {"webhook-id": str(call_id), "webhook-timestamp": moment}
        if webhook.signing_secret is None:
            return headers
        secret = await self._vault.for_request(owner, mounts, webhook.signing_secret, None)
        signed = b".".join((str(call_id).encode(), moment.encode(), sent))
        digest = hmac.digest(_signing_key(_text(secret, webhook.signing_secret)), signed, hashlib.sha256)
        return headers | {"webhook-signature": f"v1,{base64.b64encode(digest).decode()}"}


def _text(secret: VaultSecret, key: str) -> str:
    """A secret's one text: its value, or the password of a login."""
    found = secret.value if secret.value is not None else secret.password
    if found is None:
        raise RequestInvalid(f"The secret {key!r} has no value.", "vault.no_field")
    return found


def _header_value(secret: VaultSecret, key: str) -> str:
    value = _text(secret, key)
    if not (value.isascii() and value.isprintable()):
        raise RequestInvalid(f"The secret {key!r} can't be the value of a header.", "vault.no_field")
    return value


def _signing_key(text: str) -> bytes:
    """The key of `whsec_` and base64, as Standard Webhooks write it; any other text is its own key."""
    if text.startswith("whsec_"):
        try:
            return base64.b64decode(text.removeprefix("whsec_"), validate=True)
        except ValueError:
            pass
    return text.encode()
