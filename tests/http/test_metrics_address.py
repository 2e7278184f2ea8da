"""Where /metrics is served: with the API, at an address of its own, or nowhere."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from gateway.core.errors import ConfigurationError
from gateway.core.listening import METRICS_OPTIONS
from gateway.http import health
from gateway.http.health import MetricsApp
from gateway.server import Server, metrics_configuration
from gateway.settings import Settings
from gateway.settings.listening import metrics_place
from gateway.settings.types import address_of

OWN = "127.0.0.1:9464"


@pytest.mark.parametrize(
    ("host", "up", "serve"),
    [
        ("127.0.0.1", "api", OWN),
        ("127.8.8.8", "api", OWN),
        ("::1", "api", OWN),
        ("localhost", "api", OWN),
        ("0.0.0.0", OWN, OWN),
        ("::", OWN, OWN),
        ("192.0.2.1", OWN, OWN),
        ("gateway.example", OWN, OWN),
    ],
)
def test_only_up_on_loopback_has_them_with_the_api_by_default(host: str, up: str, serve: str) -> None:
    settings = Settings(host=host)
    assert metrics_place(settings, production=False) == up
    assert metrics_place(settings, production=True) == serve


@pytest.mark.parametrize("place", ["api", "off", "0.0.0.0:9000", "[::1]:0", "exporter:65535"])
def test_a_place_of_ones_own_counts_everywhere(place: str) -> None:
    settings = Settings(metrics=place)
    assert metrics_place(settings, production=False) == metrics_place(settings, production=True) == place


def test_an_address_has_host_and_port() -> None:
    assert address_of("[2001:db8::1]:9464") == ("2001:db8::1", 9464)
    assert address_of("exporter:1") == ("exporter", 1)


@pytest.mark.parametrize(
    "wrong",
    ["", "on", "9464", ":9464", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "::1:9464", "http://a:1", "a:1/b"],
)
def test_anything_else_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError, match=r"must be `api`, `off` or an address"):
        Settings(metrics=wrong)


def test_the_api_has_no_route_to_them_where_they_are_elsewhere() -> None:
    assert "/metrics" in {route.path for route in health.routes(with_metrics=True)}
    assert "/metrics" not in {route.path for route in health.routes(with_metrics=False)}


async def test_their_own_address_serves_nothing_else() -> None:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(MetricsApp()), base_url="http://exporter:9464"
    ) as client:
        scraped = await client.get("/metrics")
        assert scraped.headers["content-type"].startswith("text/plain")
        assert "gateway_runtimes_live" in scraped.text
        assert scraped.headers["x-content-type-options"] == "nosniff"
        for path in ("/", "/healthz", "/readyz", "/docs", "/v1/spaces"):
            assert (await client.get(path)).status_code == 404
        assert (await client.post("/metrics")).status_code == 405


async def test_a_taken_address_is_refused_with_its_option(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        server = Server(metrics_configuration(Settings(data_dir=tmp_path), place), METRICS_OPTIONS)
        with pytest.raises(ConfigurationError) as refused:
            await server.serve()
    assert refused.value.message == f"{place} is taken by another process. Set GATEWAY_METRICS to a free port."
    # The sentence alone says it.
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
