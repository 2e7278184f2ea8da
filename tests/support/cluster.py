"""Several real gateways on one database, each in a process of its own, with a data directory and browsers of its own.

with Cluster(database_url) as cluster:
    a, b = cluster.add(), cluster.add()
"""

from __future__ import annotations

import base64
import contextlib
import os
from pathlib import Path
from types import TracebackType

from tests.support.gateway_process import MEASURED, GatewayProcess, temporary_data_dir
from tests.support.remote import Lease


class Cluster:
    """Gateways that share master keys and the API key that the first of them wrote."""

    def __init__(self, database_url: str) -> None:
        self._shared = {
            "GATEWAY_DATABASE_URL": database_url,
            # The tests' own pages.
            "GATEWAY_EGRESS_ALLOW": "127.0.0.1",
            "GATEWAY_MASTER_KEYS": f"main:{base64.b64encode(os.urandom(32)).decode()}",
        }
        self._api_key: str | None = None
        self._stack = contextlib.ExitStack()

    def add(self, **env: str) -> GatewayProcess:
        """One more gateway; it is closed with the cluster, if not before."""
        gateway = self.start(self._stack.enter_context(temporary_data_dir()), **env)
        if self._api_key is None:
            self._api_key = gateway.api_key
        (gateway.data_dir / "api-key").write_text(self._api_key)
        return gateway

    def start(self, data_dir: Path, **env: str) -> GatewayProcess:
        """A gateway in a directory; one that has ended there comes back."""
        return self._stack.enter_context(GatewayProcess.start(data_dir, **MEASURED, **self._shared, **env))

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()


def at(gateway: GatewayProcess, lease: Lease) -> str:
    """The lease's address at this gateway."""
    return f"ws{gateway.base_url.removeprefix('http')}/v1/connect/{lease.token}"
