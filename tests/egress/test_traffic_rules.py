"""The lists by which a runtime narrows what its pages may reach."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.hosts import Refusal, parse_host
from gateway.core.traffic_rules import Traffic, UrlPattern


def passes(traffic: Traffic, host: str, port: int = 443, path: str | None = None) -> bool:
    try:
        traffic.judge(parse_host(host), port, path)
    except Refusal:
        return False
    return True


@pytest.mark.parametrize(
    ("pattern", "host", "port", "path", "covered"),
    [
        ("example.com", "example.com", 443, None, True),
        ("Example.COM.", "example.com", 80, "/x", True),
        ("example.com", "a.example.com", 443, None, False),
        ("*.example.com", "a.b.example.com", 443, None, True),
        ("*.example.com", "example.com", 443, None, False),
        ("*.example.com", "evilexample.com", 443, None, False),
        ("*", "anything.example", 1, None, True),
        ("*://*/*", "anything.example", 1, None, True),
        ("example.com:8443", "example.com", 8443, None, True),
        ("example.com:8443", "example.com", 443, None, False),
        ("https://example.com", "example.com", 443, None, True),
        ("https://example.com", "example.com", 80, "/", False),
        ("https://example.com:*/*", "example.com", 80, "/", True),
        ("wss://example.com/", "example.com", 443, None, True),
        ("http://example.com/ads", "example.com", 80, "/ads/1", True),
        ("http://example.com/ads*", "example.com", 80, "/ads/1", True),
        ("http://example.com/ads", "example.com", 80, "/news", False),
        ("http://example.com/ads", "example.com", 80, None, False),
        ("127.1", "127.0.0.1", 80, "/", True),
        ("[::1]:80", "[0::1]", 80, "/", True),
        ("http://[::1]/", "[::1]", 80, "/", True),
    ],
)
def test_a_pattern_matches_its_hosts(pattern: str, host: str, port: int, path: str | None, covered: bool) -> None:
    assert UrlPattern.parse(pattern).covers(parse_host(host), port, path) is covered


def test_the_block_list_beats_the_allow_list_and_an_empty_list_has_no_effect() -> None:
    both = Traffic(allow=["*.example.com"], block=["ads.example.com"])
    assert passes(both, "www.example.com")
    assert not passes(both, "ads.example.com")
    assert not passes(both, "example.org")
    assert passes(Traffic(), "example.org")
    assert not passes(Traffic(block=["*"]), "example.org")


def test_addresses_are_compared_as_addresses() -> None:
    assert not passes(Traffic(block=["8.8.8.8"]), "0x08080808")
    assert UrlPattern.parse("8.8.8.8").host == ip_address("8.8.8.8")


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("", "neither a host"),
        ("ftp://example.com", "neither a host"),
        ("exa mple.com", "neither a host"),
        ("user@example.com", "neither a host"),
        ("https://example.com/path", "plain http"),
        ("example.com/path", "plain http"),
        ("http://example.com/a*b", "only at its end"),
        ("example.com:0", "port"),
        ("example.com:70000", "port"),
        ("exa*.com", "malformed"),
        ("münchen.de", "malformed"),
        ("*.127.0.0.1", "not before an address"),
    ],
)
def test_an_invalid_pattern_is_reported_with_the_valid_form(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match="can't be used") as caught:
        UrlPattern.parse(pattern)
    assert reason in str(caught.value)
    assert repr(pattern) in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_a_pattern_or_refused_with_a_message(text: str) -> None:
    words = ""
    try:
        UrlPattern.parse(text)
    except ValueError as error:
        words = str(error)
    assert words == "" or "can't be used" in words
