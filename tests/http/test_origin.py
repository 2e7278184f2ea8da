"""Whose web pages may use a lease."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from starlette.requests import HTTPConnection

from gateway.core.errors import Forbidden
from gateway.http.origin import check_origin
from gateway.settings import Settings

PUBLIC = {"public_url": "https://browsers.example.com/gateway"}
LISTED = {"allowed_origins": ("https://app.example.org", "http://dev.example.org:3000", "devtools://devtools")}


def request(*origins: str, host: str = "localhost:8787", scheme: str = "http") -> HTTPConnection:
    headers = [(b"host", host.encode()), *((b"origin", origin.encode("latin-1")) for origin in origins)]
    return HTTPConnection(
        {"type": "http", "scheme": scheme, "path": "/", "query_string": b"", "headers": headers, "server": None}
    )


def refusal(asked: HTTPConnection, **options: Any) -> Forbidden | None:
    try:
        check_origin(asked, Settings(**options))
    except Forbidden as error:
        return error
    return None


@pytest.mark.parametrize("options", [{}, PUBLIC, LISTED], ids=["plain", "public", "listed"])
def test_what_comes_from_no_page_passes(options: dict[str, Any]) -> None:
    assert refusal(request(), **options) is None
    assert refusal(request(host="stranger.example"), **options) is None


@pytest.mark.parametrize(
    ("origin", "options", "asked"),
    [
        ("http://localhost:8787", {}, {}),
        ("HTTP://LocalHost:8787", {}, {}),
        ("http://127.0.0.1:8787", {}, {}),
        ("http://[::1]:8787", {}, {}),
        ("http://localhost", {}, {"host": "localhost"}),
        ("http://localhost:80", {}, {"host": "localhost"}),
        ("http://localhost", {}, {"host": "localhost:80"}),
        ("https://localhost", {}, {"host": "localhost:443", "scheme": "https"}),
        ("https://localhost", {}, {"host": "localhost", "scheme": "wss"}),
        ("http://localhost:8787", {}, {"scheme": "ws"}),
        ("https://browsers.example.com", PUBLIC, {}),
        ("https://browsers.example.com:443", PUBLIC, {"host": "stranger.example"}),
        ("https://BROWSERS.example.com", PUBLIC, {}),
        ("https://app.example.org", LISTED, {}),
        ("https://app.example.org:443", LISTED, {}),
        ("https://App.Example.org", LISTED, {"host": "stranger.example"}),
        ("http://dev.example.org:3000", LISTED | PUBLIC, {}),
        ("devtools://devtools", LISTED, {}),
    ],
)
def test_our_own_pages_and_those_that_are_listed_pass(
    origin: str, options: dict[str, Any], asked: dict[str, str]
) -> None:
    assert refusal(request(origin, **asked), **options) is None


@pytest.mark.parametrize(
    ("origin", "options", "asked"),
    [
        ("null", {}, {}),
        ("null", LISTED, {}),
        ("", {}, {}),
        ("*", LISTED, {}),
        ("http://evil.example", {}, {}),
        ("http://evil.example:8787", {}, {}),
        # The page of a name that was turned to us: its Host is the same as its Origin, and neither is trusted.
        ("http://evil.example:8787", {}, {"host": "evil.example:8787"}),
        ("http://localhost", {}, {}),
        ("http://localhost:8788", {}, {}),
        ("https://localhost:8787", {}, {}),
        ("https://localhost:80", {}, {"host": "localhost"}),
        ("http://localhost:443", {}, {"host": "localhost", "scheme": "https"}),
        ("http://localhost:8787/", {}, {}),
        ("http://localhost:8787/path", {}, {}),
        ("http://user@localhost:8787", {}, {}),
        ("http://localhost:8787@evil.example", {}, {}),
        ("http://evil.example@localhost:8787", {}, {}),
        ("http://localhost:8787.evil.example", {}, {}),
        ("http://localhost.evil.example:8787", {}, {}),
        ("http://xlocalhost:8787", {}, {}),
        ("http://localhost:08787x", {}, {}),
        ("http://localhost:8787 http://evil.example", {}, {}),
        ("http://localhost:8787\xa0", {}, {}),
        ("ws://localhost:8787", {}, {}),
        ("file://", {}, {}),
        ("http://localhost:8787", {}, {"host": "stranger.example"}),
        ("http://browsers.example.com", PUBLIC, {}),
        ("https://browsers.example.com:8443", PUBLIC, {}),
        ("https://browsers.example.com/gateway", PUBLIC, {}),
        ("https://browsers.example.com.evil.example", PUBLIC, {}),
        ("https://evil-browsers.example.com", PUBLIC, {}),
        ("http://localhost:8787", PUBLIC, {}),
        ("http://app.example.org", LISTED, {}),
        ("https://app.example.org:8443", LISTED, {}),
        ("https://x.app.example.org", LISTED, {}),
        ("http://dev.example.org", LISTED, {}),
        ("devtools://devtools.evil", LISTED, {}),
    ],
)
def test_a_foreign_page_is_refused(origin: str, options: dict[str, Any], asked: dict[str, str]) -> None:
    refused = refusal(request(origin, **asked), **options)
    assert refused is not None
    assert (refused.status, refused.code) == (403, "connect.origin_refused")
    assert refused.details == {"origin": origin, "setting": "GATEWAY_ALLOWED_ORIGINS"}
    assert repr(origin) in refused.message
    assert "GATEWAY_ALLOWED_ORIGINS" in refused.message


@pytest.mark.parametrize(
    "origins",
    [
        ("http://localhost:8787", "http://localhost:8787"),
        ("http://localhost:8787", "http://evil.example"),
        ("http://evil.example", "http://localhost:8787"),
        ("", "http://localhost:8787"),
    ],
)
def test_several_origins_are_refused(origins: tuple[str, ...]) -> None:
    refused = refusal(request(*origins))
    assert refused is not None
    assert refused.details["origin"] == ", ".join(origins)


def test_a_long_origin_is_shortened_in_the_error() -> None:
    refused = refusal(request("http://" + "x" * 10_000))
    assert refused is not None
    assert len(refused.message) < 300


@pytest.mark.parametrize(
    "listed", ["*", "null", "example.org", "https://example.org/", "https://u@example.org", "http://"]
)
def test_what_is_no_origin_can_not_be_listed(listed: str) -> None:
    with pytest.raises(ValidationError, match="scheme://host"):
        Settings(allowed_origins=f"https://app.example.org,{listed}")


def test_origins_are_listed_split_by_commas_in_any_case() -> None:
    settings = Settings(allowed_origins=" https://App.example.org , http://[::1]:3000 ")
    assert settings.allowed_origins == ("https://app.example.org", "http://[::1]:3000")
