"""Origins and patterns of them, against pages that would like to be taken for others."""

from __future__ import annotations

import pytest

from gateway.core.origins import Origin, OriginPattern, is_pattern, matches

BANK = "https://bank.com"

# Never the bank.
HOSTILE = [
    "https://bank.com.evil.example",
    "https://evil-bank.com",
    "https://evil.example/https://bank.com",
    "https://evil.example/bank.com",
    "https://evil.example?https://bank.com",
    "https://evil.example#https://bank.com",
    "https://bank.com@evil.example",
    "https://bank.com:x@evil.example",
    "https://user@bank.com",
    "https://bank.com:8443",
    "https://bank.com:80",
    "https://bank.com:0",
    "https://bank.com:443443",
    "https://bank.com\\.evil.example",
    "https://bank.com\\@evil.example",
    "https:\\\\bank.com",
    "https:/bank.com",
    "https:bank.com",
    "//bank.com",
    "bank.com",
    "http://bank.com",
    "ws://bank.com",
    "wss://bank.com",
    "file://bank.com",
    "file://",
    "chrome-extension://bank.com",
    "blob:https://bank.com/1",
    "data:text/html,https://bank.com",
    "about:blank",
    "about:srcdoc",
    "javascript://bank.com",
    "filesystem:https://bank.com/temporary",
    "null",
    "",
    " https://bank.com",
    "https://bank.com ",
    "https://bank.com\t",
    "https://bank.com\n",
    "https://bank.com\0",
    "https://bank.com%2eevil.example",
    "https://bank%2ecom",
    "https://bank.com%00.evil.example",
    "https://www.bank.com",
    "https://bankXcom",
    "https://bank.co",
    "https://bank.com.",
    "https://.bank.com",
    "https://bank..com",
    # Cyrillic a; a dot and a slash of other alphabets; and as browsers send the first one.
    "https://b\u0430nk.com",
    "https://xn--bnk-7cd.com",
    "https://bank.com\u2024evil.example",
    "https://bank.com\uff0fevil.example",
    "https://[::1]",
    "https://[bank.com]",
    "https://bank.com,https://evil.example",
    "https://bank.com*",
    "https://*",
    "*",
    "https://" + "a" * 300 + ".bank.com",
]  # fmt: skip


def test_only_the_origin_itself_matches() -> None:
    assert matches(BANK, [BANK], [])
    for page in HOSTILE:
        assert not matches(page, [BANK], []), page


@pytest.mark.parametrize("page", [*HOSTILE, BANK])
def test_a_pattern_of_names_below_matches_nothing_else(page: str) -> None:
    assert matches(page, [], ["https://*.bank.com"]) == (page == "https://www.bank.com")


def test_patterns() -> None:
    for pattern, right, wrong in (
        (
            "https://*.bank.com",
            ["https://a.bank.com", "https://a.b.bank.com"],
            ["https://bank.com", "https://abank.com", "http://a.bank.com", "https://a.bank.com:444"],
        ),
        (
            "https://app-*.bank.com",
            ["https://app-1.bank.com", "https://app-.bank.com"],
            [
                "https://app-1.evil.bank.com",
                "https://app.bank.com",
                "https://xapp-1.bank.com",
                "https://app-1.bank.com.x.io",
            ],
        ),
        ("https://*-app.bank.com", ["https://x-app.bank.com"], ["https://x-app2.bank.com", "https://x.y-app.bank.com"]),
        (
            "https://bank.com:*",
            ["https://bank.com", "https://bank.com:8443"],
            ["http://bank.com", "https://a.bank.com"],
        ),
        ("https://*.bank.com:8443", ["https://a.bank.com:8443"], ["https://a.bank.com"]),
        ("http://127.0.0.1:*", ["http://127.0.0.1:5000"], ["http://127.0.0.2:5000", "http://127.0.0.1.nip.io:5000"]),
        ("HTTPS://*.Bank.com", ["https://a.bank.com"], []),
        ("https://*.bücher.example", ["https://a.xn--bcher-kva.example"], ["https://a.bucher.example"]),
    ):
        for page in right:
            assert matches(page, [], [pattern]), (pattern, page)
        for page in wrong:
            assert not matches(page, [], [pattern]), (pattern, page)


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        "https://*",
        "https://*.com",
        "https://*.*.com",
        "https://a.*.com",
        "https://*.bank.*",
        "https://**.bank.com",
        "https://a*b*.bank.com",
        "*://bank.com",
        "http*://bank.com",
        "https://10.0.0.*",
        "https://*.0.0.1",
        "https://*.bank.com/*",
        "https://*@bank.com",
        "https://*.bank.com:*443",
        "https://*.bank.com:99999",
        "https://*.[::1]",
        "https://*..bank.com",
        "https://*.b_!nk.com",
        "null",
        "",
    ],
)
def test_a_pattern_that_would_match_too_much_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        OriginPattern.parse(pattern)


def test_an_origin_is_written_as_browsers_write_it() -> None:
    for given, written in (
        ("https://Bank.COM", "https://bank.com"),
        ("https://bank.com/", "https://bank.com"),
        ("https://bank.com:443", "https://bank.com"),
        ("http://bank.com:80", "http://bank.com"),
        ("https://bank.com:8443", "https://bank.com:8443"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("https://[0:0::1]:8443", "https://[::1]:8443"),
        ("http://0x7f.1", "http://127.0.0.1"),
    ):
        assert Origin.parse(given).text == written
        assert matches(written, [given], [])


@pytest.mark.parametrize("given", ["https://*.bank.com", "https://bank.com:*", "https://bank.com/a", "https://\u2260"])
def test_what_is_no_origin_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Origin.parse(given)


def test_a_star_makes_a_pattern() -> None:
    assert [is_pattern(each) for each in ("https://a.com", "https://*.a.com", "https://a.com:*")] == [False, True, True]
