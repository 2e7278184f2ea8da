"""A gateway of a checkout, started as a user starts it, with AI providers that it can test keys with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.fake_providers import KEYS, FakeProviders
from tests.support.gateway_process import ROOT, GatewayProcess, temporary_data_dir

# Small limits, so that it takes little to exceed them; the recorded answers repeat them. None for rates, since all
# requests come from one address.
SETTINGS = {
    "GATEWAY_MAX_BODY_BYTES": "4096",
    "GATEWAY_MAX_FILE_BYTES": "65536",
    "GATEWAY_RATE_LIMIT_PER_SECOND": "0",
    "GATEWAY_AUTH_FAILURES_PER_MINUTE": "0",
}


@dataclass(frozen=True, slots=True)
class Running:
    base_url: str
    api_key: str


@contextmanager
def running_gateway(checkout: Path = ROOT) -> Iterator[Running]:
    """A gateway with the code of `checkout` and a data directory of its own; both are gone at the end."""
    with temporary_data_dir() as data_dir, FakeProviders() as providers:
        addresses = {f"GATEWAY_{name.upper()}_BASE_URL": providers.base_url(name) for name in KEYS}
        with GatewayProcess.start_checkout(checkout, data_dir, **SETTINGS, **addresses) as process:
            yield Running(process.base_url, process.api_key)
