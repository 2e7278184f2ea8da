"""The lists by which a runtime narrows what its pages may reach."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.hosts import Refusal, parse_host
from gateway.core.traffic_rules import Traffic, UrlPattern
from gateway.core.url_paths import MAX_ENCODINGS, MAX_PATH_BYTES, MAX_READING_BYTES


def passes(
    traffic: Traffic, host: str, port: int = 443, path: str | None = None, addresses: Sequence[str] = ()
) -> bool:
    try:
        traffic.judge(parse_host(host), port, path, list(map(ip_address, addresses)))
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
        ("127.1", "127.0.0.1", 80, "/", True),
        ("[::1]:80", "[0::1]", 80, "/", True),
        ("http://[::1]/", "[::1]", 80, "/", True),
    ],
)
def test_a_pattern_matches_its_hosts(pattern: str, host: str, port: int, path: str | None, covered: bool) -> None:
    assert passes(Traffic(allow=[pattern]), host, port, path) is covered
    assert passes(Traffic(block=[pattern]), host, port, path) is not covered


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
    ("entry", "address"),
    [
        ("8.8.8.8", "8.8.8.8"),
        ("8.8.8.8", "::ffff:8.8.8.8"),
        ("8.8.8.8", "64:ff9b::808:808"),
        ("8.8.8.8", "2002:808:808::1"),
        ("[::ffff:8.8.8.8]", "8.8.8.8"),
        ("[2606:4700::1]", "2606:4700:0:0::1"),
        ("localhost", "127.0.0.1"),
        ("localhost", "127.0.0.2"),
        ("localhost.", "::1"),
        ("localhost", "0.0.0.0"),
        ("localhost", "::ffff:127.0.0.1"),
    ],
)
def test_a_blocked_address_is_blocked_under_every_name(entry: str, address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    assert not passes(Traffic(block=[entry]), host)
    assert not passes(Traffic(block=[entry]), "a.example", addresses=["9.9.9.9", address])
    assert passes(Traffic(block=[entry]), "a.example", addresses=["9.9.9.9", "2606:4700::2"])
    assert not passes(Traffic(block=[f"http://{entry}/admin"]), "a.example", 80, "/admin", [address])
    assert passes(Traffic(block=[f"http://{entry}/admin"]), "a.example", 80, "/news", [address])


def test_an_allowed_address_does_not_allow_the_names_that_lead_to_it() -> None:
    assert not passes(Traffic(allow=["8.8.8.8"]), "a.example", addresses=["8.8.8.8"])
    assert passes(Traffic(allow=["a.example"]), "a.example", addresses=["8.8.8.8"])


@pytest.mark.parametrize(
    "entry",
    ["BÜCHER.example", "bücher.example.", "bu\N{COMBINING DIAERESIS}cher.example", "xn--bcher-kva.EXAMPLE"],
)
def test_an_internationalized_name_is_compared_as_browsers_send_it(entry: str) -> None:
    assert not passes(Traffic(block=[entry]), "xn--bcher-kva.example")
    assert not passes(Traffic(block=[f"*.{entry}"]), "a.xn--bcher-kva.example.")
    assert not passes(Traffic(block=["straße.example"]), "xn--strae-oqa.example")


@pytest.mark.parametrize(
    "path",
    [
        "/admin",
        "/admin/users?x=1",
        "/%61dmin",
        "/%61%64%6D%69n",
        "/%2561dmin",
        "/%252561dmin",
        "//admin",
        "/%2fadmin",
        "/%2Fadmin",
        "/./admin",
        "/x/../admin",
        "/x/%2e%2e/admin",
        "/x/%252e%252E/admin",
        "/x/..%2fadmin",
        "/x/..%5cadmin",
        "/x\\..\\admin",
        "/..;/admin",
        "/x/..;a=b/admin",
        "/;x/admin",
        "/../../admin",
        "/public/../admin/.",
        "/a%2f..%2fadmin%2f%5c..%2f..%2fx",
        "/;a%2fb/%61dmin",
        "/a%252fb%2f..%2fx%2f..%252fadmin",
    ],
)
def test_a_blocked_path_is_blocked_in_every_spelling(path: str) -> None:
    assert not passes(Traffic(block=["http://a.example/admin"]), "a.example", 80, path)
    assert not passes(Traffic(block=["http://a.example/%61dmin*"]), "A.Example.", 80, path)
    assert not passes(Traffic(allow=["http://a.example/public/"]), "a.example", 80, path)


@pytest.mark.parametrize(
    "path",
    [
        "/public/../admin",
        "/public/..%2fadmin",
        "/public/%2e%2e/admin",
        "/public/..%252fadmin",
        "/public/..%5Cadmin",
        "/public/..;/admin",
        "/public/..",
        "/public/x/%2e%2e%2f%2e%2e/",
        "/public/a%5cb/..%2f..%2fsecret",
        "/public/;%2fb%2fc/%2e%2e;/%2e%2e;/secret",
    ],
)
def test_an_allowed_prefix_can_not_be_left(path: str) -> None:
    assert not passes(Traffic(allow=["http://a.example/public"]), "a.example", 80, path)


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        ("/public", "/public/x"),
        ("/public/", "/public/a%2Fb;c=d/e?next=/../%2e%2e/admin"),
        ("/public/", "/public/a/../b/."),
        ("/a/ä", "/a/%C3%A4/x"),
        ("/a%20b/", "/a%20b/c"),
        ("/files/.", "/files/.git"),
        ("/a;x=1/", "/a;x=1/b"),
        ("/search?q=a", "/search?q=ab%252525252525"),
        ("/c%3a/", "/c%3A/d"),
    ],
)
def test_an_allowed_prefix_allows_what_is_below_it(entry: str, path: str) -> None:
    assert passes(Traffic(allow=[f"http://a.example{entry}"]), "a.example", 80, path)
    assert not passes(Traffic(block=[f"http://a.example{entry}"]), "a.example", 80, path)


def test_the_beginning_of_a_hidden_name_is_not_its_whole_directory() -> None:
    assert not passes(Traffic(allow=["http://a.example/files/."]), "a.example", 80, "/files/x")
    assert passes(Traffic(block=["http://a.example/files/."]), "a.example", 80, "/files/x")


def _without_dots(path: str) -> str:
    kept: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join(kept)


# What servers do with a path, in any order and number.
_SERVER_STEPS: dict[str, Callable[[str], str]] = {
    "decode": lambda path: unquote_to_bytes(path).decode("latin-1"),
    "take backslashes for slashes": lambda path: path.replace("\\", "/"),
    "merge slashes": lambda path: re.sub("/+", "/", path),
    "drop parameters": lambda path: "/".join(segment.split(";")[0] for segment in path.split("/")),
    "resolve": _without_dots,
}


@settings(max_examples=300)
@given(
    st.lists(
        st.sampled_from(["%2f", "%5C", "%2e", "..", "%", "25", "2f", "/", "\\", ";", "%3b", "a", "adm", "in"]),
        max_size=12,
    ),
    st.lists(st.sampled_from(sorted(_SERVER_STEPS)), max_size=6),
)
def test_no_order_of_a_servers_steps_leaves_the_lists(tokens: list[str], steps: list[str]) -> None:
    """Each server either gets a path outside the blocked prefix and inside the allowed one, or no request."""
    for start in ("/", "/public/"):
        sent = start + "".join(tokens)
        served = sent
        for step in steps:
            served = _SERVER_STEPS[step](served)
        served = _SERVER_STEPS["merge slashes"](served)
        if passes(Traffic(block=["http://a.example/admin"]), "a.example", 80, sent):
            assert not served.startswith("/admin")
        if passes(Traffic(allow=["http://a.example/public/"]), "a.example", 80, sent):
            assert f"{served}/".startswith("/public/")


def test_parameters_of_a_blocked_path_are_part_of_it() -> None:
    assert passes(Traffic(block=["http://a.example/a;x=1"]), "a.example", 80, "/a/b")


def test_other_paths_and_cases_are_other_paths() -> None:
    lists = Traffic(block=["http://a.example/admin", "http://a.example/search?q=x"])
    for path in ("/", "/news", "/x/admin", "/Admin", "/?/admin", "/search?q=y", "/search", "/news?x=/../admin"):
        assert passes(lists, "a.example", 80, path)


def test_a_path_that_no_server_reads_is_refused_where_paths_matter() -> None:
    lists = Traffic(block=["http://a.example/admin"], allow=["http://b.example/public", "c.example"])
    most = "/" + "a" * (MAX_PATH_BYTES - 1)
    encoded = "/%" + "25" * (MAX_ENCODINGS - 1) + "61"
    assert passes(Traffic(block=["http://a.example/admin"]), "a.example", 80, f"{most}?{'%25' * MAX_PATH_BYTES}")
    assert passes(Traffic(block=["http://a.example/admin"]), "a.example", 80, encoded)
    for path in (f"{most}a", encoded.replace("%", "%25", 1)):
        for host in ("a.example", "b.example"):
            with pytest.raises(Refusal) as caught:
                lists.judge(host, 80, path)
            assert caught.value.rule == "egress.unreadable_path"
        assert passes(lists, "c.example", 80, path)


@pytest.mark.parametrize(("more", "is_read"), [(1, True), (2, True), (3, False)])
def test_a_path_may_have_readings_up_to_a_maximum(more: int, is_read: bool) -> None:
    """The parameter is decoded never to three times or dropped; the backslash stays or becomes a slash."""
    path = "/" + "a" * 6545 + "\\b" + ";%252541" + "x" * more
    assert MAX_READING_BYTES == 10 * 6548 + 2 * (8 + 6 + 4 + 2) + 8 * 2
    lists = Traffic(block=["http://a.example/admin"])
    if is_read:
        assert passes(lists, "a.example", 80, path)
        return
    with pytest.raises(Refusal) as caught:
        lists.judge(parse_host("a.example"), 80, path)
    assert caught.value.rule == "egress.unreadable_path"


def test_a_blocked_path_blocks_the_websockets_of_its_port() -> None:
    """Their tunnel shows no path; https has another port."""
    for entry, port, blocked in (
        ("http://a.example/admin", 80, True),
        ("http://a.example/admin", 443, False),
        ("http://a.example:8080/admin", 8080, True),
        ("http://a.example:*/admin", 8080, True),
        ("http://a.example:*/admin", 443, False),
    ):
        assert passes(Traffic(block=[entry]), "a.example", port, None) is not blocked
        assert not passes(Traffic(allow=[entry]), "a.example", port, None)


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
        ("a\N{ZERO WIDTH SPACE}..de", "malformed"),
        ("http://example.com/%2525252525", "too often"),
        ("*.127.0.0.1", "not before an address"),
    ],
)
def test_an_invalid_pattern_is_reported_with_the_valid_form(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match="can't be used") as caught:
        UrlPattern.parse(pattern)
    assert reason in str(caught.value)
    assert repr(pattern) in str(caught.value)


def test_a_pattern_may_be_as_long_as_a_path() -> None:
    longest = f"http://example.com/{'a' * (MAX_PATH_BYTES - 1)}"
    assert UrlPattern.parse(longest).path is not None
    with pytest.raises(ValueError, match="too long"):
        UrlPattern.parse(f"{longest}a")


@given(st.text(max_size=40))
def test_any_text_is_a_pattern_or_refused_with_a_message(text: str) -> None:
    words = ""
    try:
        UrlPattern.parse(text)
    except ValueError as error:
        words = str(error)
    assert words == "" or "can't be used" in words
