"""All addresses of this gateway at which agents call their models."""

from __future__ import annotations

import asyncio
import ssl

import httpx

from gateway.core import background
from gateway.egress import socket_owners
from gateway.egress.outbound import Outbound
from gateway.egress.proxy import UidOf
from gateway.relay.endpoint import Endpoint, Keys, RelayAddress, RelayLimits, RelayUsage
from gateway.relay.server import configuration
from gateway.relay.upstream import Pause, Target, Upstream
from gateway.settings import RelaySettings

__all__ = ["Endpoint", "Keys", "Relay", "RelayAddress", "RelayLimits", "RelayUsage", "Target"]


class Relay:
    """Opens an address for each agent. Those of callers are reached through `outbound`, under the egress rules."""

    def __init__(
        self,
        settings: RelaySettings,
        outbound: Outbound,
        uid_of: UidOf = socket_owners.uid_of,
        pause: Pause = asyncio.sleep,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`tls`: what the certificates of providers are verified by; by default the certificates that all trust."""
        self._settings = settings
        self._outbound = outbound
        self._uid_of = uid_of
        self._pause = pause
        self._config = configuration()
        self._tls = tls
        self._open: set[Endpoint] = set()

    async def open(
        self, target: Target, keys: Keys, *, limits: RelayLimits | None = None, uid: int | None = None
    ) -> Endpoint:
        """An address for one agent, which the caller closes. `uid`: the user of the agent's process, as root.

        Its calls act in the name of the caller, as the audit log has it.
        """
        settings = self._settings
        if self._tls is None:
            self._tls = await asyncio.to_thread(httpx.create_ssl_context)
        upstream = Upstream(
            target,
            self._outbound,
            self._tls,
            settings.relay_calls_at_once,
            settings.relay_retries,
            settings.relay_retry_seconds,
            self._pause,
        )
        endpoint = Endpoint(
            settings, target, keys, limits or RelayLimits(), upstream, self._outbound, uid, self._uid_of
        )
        await background.start_on_behalf(endpoint.listen(self._config))
        self._open.add(endpoint)
        return endpoint

    async def close(self, endpoint: Endpoint) -> None:
        """End an address and all that is open at it; idempotent."""
        self._open.discard(endpoint)
        await endpoint.close()

    async def aclose(self) -> None:
        await asyncio.gather(*(self.close(endpoint) for endpoint in list(self._open)))
