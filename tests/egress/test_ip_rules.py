"""Which addresses a page may reach: each way to write a forbidden one, and what the operator's rules change."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import settings
from gateway.core.errors import ConfigurationError
from gateway.core.hosts import Entry, Host, Refusal, is_local_name, parse_host
from gateway.egress.ip_rules import Machine, Rules, is_metadata, kind_of

_LOOPBACK = "loopback_address"
_PRIVATE = "private_address"
_LINK_LOCAL = "link_local_address"
_RESERVED = "reserved_address"
_MULTICAST = "multicast_address"
_METADATA = "metadata"
_MALFORMED = "malformed_host"


def _spellings(address: str) -> list[str]:
    """An IPv4 address in the spellings that browsers know."""
    a, b, c, d = IPv4Address(address).packed
    number = int(IPv4Address(address))
    return [
        address,
        address + ".",
        str(number),
        f"{number:#x}",
        f"{number:#X}",
        f"0{number:o}",
        f"000{number:o}",
        f"{a}.{number & 0xFFFFFF}",
        f"{a}.{b}.{number & 0xFFFF}",
        f"{a:#x}.{b:#x}.{c:#x}.{d:#x}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        f"{a}.0{b:o}.{c:#x}.{d}",
        f"{a:#010x}.{b}.{c}.{d}",
        f"{a:#x}.{number & 0xFFFFFF:#x}",
    ]


def _inside_ipv6(address: str) -> list[str]:
    """An IPv4 address inside the IPv6 addresses that lead to it somewhere, but for the mapped one."""
    packed = IPv4Address(address).packed.hex()
    high, low = packed[:4], packed[4:]
    inverted = f"{int(IPv4Address(address)) ^ 0xFFFFFFFF:08x}"
    return [
        f"[::ffff:0:{high}:{low}]",
        f"[64:ff9b::{high}:{low}]",
        f"[64:ff9b::{address}]",
        f"[2001:4860::5efe:{high}:{low}]",
        f"[2001:4860::200:5efe:{high}:{low}]",
        f"[64:ff9b:1::{high}:{low}]",
        f"[2002:{high}:{low}::1]",
        f"[2001:0:{high}:{low}:0:0:1:1]",
        f"[2001:0:808:808:0:0:{inverted[:4]}:{inverted[4:]}]",
        f"[::{high}:{low}]",
    ]


def _mapped(address: str) -> list[str]:
    packed = IPv4Address(address).packed.hex()
    return [
        f"[::ffff:{address}]",
        f"[::ffff:{packed[:4]}:{packed[4:]}]",
        f"[0:0:0:0:0:ffff:{packed[:4]}:{packed[4:]}]",
        f"[::FFFF:{packed.upper()[:4]}:{packed.upper()[4:]}]",
        f"[0000:0000:0000:0000:0000:ffff:{address}]",
    ]


_FORBIDDEN_V4 = {
    "127.0.0.1": _LOOPBACK,
    "127.255.255.254": _LOOPBACK,
    "0.0.0.0": _LOOPBACK,
    "10.1.2.3": _PRIVATE,
    "172.16.0.1": _PRIVATE,
    "172.31.255.255": _PRIVATE,
    "192.168.1.1": _PRIVATE,
    "100.64.0.1": _PRIVATE,
    "169.254.1.1": _LINK_LOCAL,
    "169.254.169.254": _METADATA,
    "169.254.170.2": _METADATA,
    "100.100.100.200": _METADATA,
    "168.63.129.16": _METADATA,
    "224.0.0.1": _MULTICAST,
    "255.255.255.255": _RESERVED,
    "198.18.0.1": _RESERVED,
    "192.0.2.1": _RESERVED,
}
_OTHERS = {
    "0": _LOOPBACK,
    "0x": _LOOPBACK,
    "00": _LOOPBACK,
    "0.0": _LOOPBACK,
    "0.1.2.3": _LOOPBACK,
    "127.1": _LOOPBACK,
    "127.0.1": _LOOPBACK,
    "0x7f.1": _LOOPBACK,
    "0177.1": _LOOPBACK,
    "100.127.255.255": _PRIVATE,
    "192.0.0.1": _RESERVED,
    "192.88.99.1": _RESERVED,
    "198.19.255.255": _RESERVED,
    "198.51.100.7": _RESERVED,
    "203.0.113.7": _RESERVED,
    "239.255.255.250": _MULTICAST,
    "240.0.0.1": _RESERVED,
    "169.254.170.23": _METADATA,
    "169.254.169.253": _METADATA,
    "[::]": _LOOPBACK,
    "[::1]": _LOOPBACK,
    "[0:0:0:0:0:0:0:1]": _LOOPBACK,
    "[0000:0000:0000:0000:0000:0000:0000:0001]": _LOOPBACK,
    "[::0.0.0.1]": _LOOPBACK,
    "[fc00::1]": _PRIVATE,
    "[fd12:3456::1]": _PRIVATE,
    "[FD12:3456::1]": _PRIVATE,
    "[fe80::1]": _LINK_LOCAL,
    "[febf::1]": _LINK_LOCAL,
    "[fec0::1]": _PRIVATE,
    "[ff02::1]": _MULTICAST,
    "[2001:db8::1]": _RESERVED,
    "[3fff::1]": _RESERVED,
    "[2001::1]": _RESERVED,
    "[2001:10::1]": _RESERVED,
    "[100::1]": _RESERVED,
    "[5f00::1]": _RESERVED,
    "[4000::1]": _RESERVED,
    "[64:ff9b:1::8.8.8.8]": _PRIVATE,
    "[64:ff9b:1:a9fe:a9:fe00::]": _METADATA,
    "[64:ff9b:1:a9:fe:a9fe::]": _METADATA,
    "[64:ff9b:1:0:a9:fea9:fe00:0]": _METADATA,
    "[fd00:ec2::254]": _METADATA,
    "[fd00:ec2::23]": _METADATA,
    "[fd20:ce::254]": _METADATA,
    "localhost": _LOOPBACK,
    "LOCALHOST": _LOOPBACK,
    "localhost.": _LOOPBACK,
    "a.localhost": _LOOPBACK,
    "A.B.LocalHost.": _LOOPBACK,
    "metadata.google.internal": _METADATA,
    "Metadata.Google.Internal.": _METADATA,
    "metadata": _METADATA,
    "metadata.goog": _METADATA,
    "instance-data.ec2.internal": _METADATA,
    # Malformed, or of a form that browsers turn into another one before they ask.
    "": _MALFORMED,
    ".": _MALFORMED,
    "..": _MALFORMED,
    "127.0.0.1..": _MALFORMED,
    "127..1": _MALFORMED,
    "127.0.0.1.5": _MALFORMED,
    "127.0.0.256": _MALFORMED,
    "256.0.0.1": _MALFORMED,
    "4294967296": _MALFORMED,
    "0x100000000": _MALFORMED,
    "127.0.0.08": _MALFORMED,
    "127.0.0.0x1g": None,
    "1_27.0.0.1": _MALFORMED,
    "127.0.0.1_0": None,
    "127.0.0.+1": _MALFORMED,
    "%31%32%37.0.0.1": _MALFORMED,
    "127.0.0.1%00": _MALFORMED,
    "127%2e0%2e0%2e1": _MALFORMED,
    "\uff11\uff12\uff17.0.0.1": _MALFORMED,
    "127\u30020\u30020\u30021": _MALFORMED,
    "①②⑦.0.0.1": _MALFORMED,
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ": _MALFORMED,
    "loc\u00adalhost": _MALFORMED,
    "\u2113ocalhost": _MALFORMED,
    "[::1%lo]": _MALFORMED,
    "[::1%25lo]": _MALFORMED,
    "[fe80::1%eth0]": _MALFORMED,
    "[::ffff:127.1]": _MALFORMED,
    "[::ffff:0x7f.0.0.1]": _MALFORMED,
    "[127.0.0.1]": _MALFORMED,
    "[::1": _MALFORMED,
    "::1": _MALFORMED,
    "[[::1]]": _MALFORMED,
    "[]": _MALFORMED,
    "user@127.0.0.1": _MALFORMED,
    "127.0.0.1/": _MALFORMED,
    "127.0.0.1\\": _MALFORMED,
    "127.0.0.1 ": _MALFORMED,
    " 127.0.0.1": _MALFORMED,
    "127.0.0.1\t": _MALFORMED,
    "127.0.0.1\n": _MALFORMED,
    "127.0.0.1\x00": _MALFORMED,
    "a" * 64 + ".example": _MALFORMED,
    "a." * 127 + "example": _MALFORMED,
}

FORBIDDEN: list[tuple[str, str]] = [
    *((spelling, kind) for address, kind in _FORBIDDEN_V4.items() for spelling in _spellings(address)),
    *((spelling, kind) for address, kind in _FORBIDDEN_V4.items() for spelling in _mapped(address)),
    *((spelling, kind) for spelling, kind in _OTHERS.items() if kind is not None),
]
# Forbidden for their own sake as well, so that the reported reason does not matter.
FORBIDDEN_TRANSITIONS = [spelling for address in _FORBIDDEN_V4 for spelling in _inside_ipv6(address)]

PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "0x08080808",
    "172.15.255.255",
    "172.32.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "169.253.255.255",
    "192.169.0.1",
    "223.255.255.255",
    "[2606:4700:4700::1111]",
    "[2a00:1450:4001::1]",
    "[::ffff:8.8.8.8]",
    "[64:ff9b::8.8.8.8]",
]


def judge(rules: Rules, text: str, port: int = 80, machine: Machine | None = None) -> None:
    """As the proxy does it, for names that would resolve to a public address."""
    host: Host = parse_host(text)
    machine = machine or Machine()
    if isinstance(host, str):
        allowed = rules.judge_name(host, port, machine)
        host = ip_address("127.0.0.1" if host == "localhost" or host.endswith(".localhost") else "9.9.9.9")
        rules.judge_address(host, port, machine, by_name=allowed)
    else:
        rules.judge_address(host, port, machine)


def refused(rules: Rules, text: str, port: int = 80, machine: Machine | None = None) -> str:
    with pytest.raises(Refusal) as caught:
        judge(rules, text, port, machine)
    return caught.value.rule


def test_the_corpus_has_the_documented_size() -> None:
    assert len({text for text, _ in FORBIDDEN} | set(FORBIDDEN_TRANSITIONS)) > 450


@pytest.mark.parametrize(("text", "kind"), FORBIDDEN)
def test_a_forbidden_target_is_refused_however_it_is_written(text: str, kind: str) -> None:
    assert refused(Rules(), text) == f"egress.{kind}"


@pytest.mark.parametrize("text", FORBIDDEN_TRANSITIONS)
def test_a_forbidden_address_inside_an_ipv6_one_is_refused(text: str) -> None:
    refused(Rules(), text)


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_allowed(text: str) -> None:
    judge(Rules(), text)


@pytest.mark.parametrize("text", [text for text, kind in _OTHERS.items() if kind is None])
def test_a_name_that_resembles_an_address_is_a_name(text: str) -> None:
    assert parse_host(text) == text


@given(st.ip_addresses(v=4))
def test_every_spelling_of_an_address_is_that_address(address: IPv4Address) -> None:
    assert {parse_host(spelling) for spelling in (*_spellings(str(address)), *_mapped(str(address)))} == {address}


@given(st.ip_addresses(v=4))
def test_an_ipv6_address_is_judged_like_the_embedded_one(address: IPv4Address) -> None:
    for text in _inside_ipv6(str(address)):
        inside = parse_host(text)
        assert isinstance(inside, IPv6Address)
        assert kind_of(inside) is not None or kind_of(address) is None
        assert is_metadata(inside) or not is_metadata(address)


@given(st.text(max_size=40))
def test_any_text_is_a_host_or_refused(text: str) -> None:
    with contextlib.suppress(Refusal):
        host = parse_host(text)
        assert not isinstance(host, str) or parse_host(host) == host


METADATA = [text for text, kind in FORBIDDEN if kind == _METADATA]


@pytest.mark.parametrize("text", METADATA)
def test_metadata_stays_refused_whatever_is_allowed(text: str) -> None:
    everything = Rules(allow=("0.0.0.0/0", "::/0", "169.254.169.254", "*.internal", "metadata", "metadata.goog"))
    assert refused(everything, text) == "egress.metadata"


def test_a_name_that_is_allowed_may_be_at_a_private_address_but_not_at_metadata() -> None:
    rules = Rules(allow=("*.corp.example", "wiki.example:8080"))
    assert rules.judge_name("a.b.corp.example", 443, Machine())
    assert rules.judge_name("wiki.example", 8080, Machine())
    assert not rules.judge_name("wiki.example", 80, Machine())
    assert not rules.judge_name("corp.example", 443, Machine())
    assert not rules.judge_name("evilcorp.example", 443, Machine())
    rules.judge_address(ip_address("10.0.0.1"), 443, Machine(), by_name=True)
    with pytest.raises(Refusal):
        rules.judge_address(ip_address("169.254.169.254"), 443, Machine(), by_name=True)


def test_an_entry_allows_its_targets_only() -> None:
    rules = Rules(allow=("127.0.0.1:9000", "10.2.0.0/16", "[fd00::1]:443", "fd11::/16"))
    for text, port in (
        ("127.0.0.1", 9000),
        ("2130706433", 9000),
        ("10.2.9.9", 1),
        ("[fd00::1]", 443),
        ("[fd11::5]", 2),
    ):
        judge(rules, text, port)
    for text, port in (("127.0.0.1", 9001), ("127.0.0.2", 9000), ("[::1]", 9000), ("10.3.0.1", 80), ("[fd00::1]", 80)):
        refused(rules, text, port)


def test_an_allowed_network_is_not_allowed_through_a_translation() -> None:
    assert refused(Rules(allow=("10.0.0.0/8",)), "[64:ff9b::10.0.0.1]") == "egress.private_address"
    judge(Rules(allow=("10.0.0.0/8",)), "[::ffff:10.0.0.1]")


def test_deny_beats_allow() -> None:
    rules = Rules(
        allow=("10.0.0.0/8", "*.example"), deny=("10.1.0.0/16", "8.8.8.0/24", "bad.example", "*.ads.example:80")
    )
    for text, port in (
        ("10.1.2.3", 80),
        ("8.8.8.8", 53),
        ("[::ffff:8.8.8.8]", 53),
        ("[64:ff9b::8.8.8.8]", 53),
        ("bad.example", 80),
        ("BAD.example.", 80),
        ("x.ads.example", 80),
    ):
        assert refused(rules, text, port) == "egress.denied"
    for text, port in (("10.2.0.1", 80), ("good.example", 80), ("x.ads.example", 443), ("very.bad.example", 80)):
        judge(rules, text, port)


def test_the_machines_own_addresses_need_an_entry_of_their_own() -> None:
    machine = Machine(addresses={ip_address("10.0.0.7"), ip_address("93.184.216.34"), ip_address("127.0.0.1")})
    assert refused(Rules(), "93.184.216.34", 80, machine) == "egress.own_address"
    assert refused(Rules(), "[64:ff9b::93.184.216.34]", 80, machine) == "egress.own_address"
    judge(Rules(), "[64:ff9b::93.184.216.35]", 80, machine)
    network = Rules(allow=("10.0.0.0/8", "93.184.0.0/16"))
    judge(network, "10.0.0.8", 80, machine)
    assert refused(network, "10.0.0.7", 80, machine) == "egress.own_address"
    assert refused(network, "93.184.216.34", 80, machine) == "egress.own_address"
    judge(Rules(allow=("10.0.0.7:80",)), "10.0.0.7", 80, machine)
    judge(Rules(allow=("127.0.0.0/8",)), "127.0.0.1", 80, machine)


@pytest.mark.parametrize("text", ["127.0.0.1", "127.9.9.9", "0.0.0.0", "[::1]", "[::]", "10.0.0.7", "localhost"])
def test_a_port_of_the_gateway_is_refused_on_every_address_of_the_machine(text: str) -> None:
    machine = Machine(addresses={ip_address("10.0.0.7")}, ports={9222})
    rules = Rules(allow=("0.0.0.0/0", "::/0", "10.0.0.7", "localhost", "127.0.0.1:9222"))
    judge(rules, text, 9223, machine)
    assert refused(rules, text, 9222, machine) == "egress.gateway"
    judge(rules, "10.0.0.8", 9222, machine)


def test_an_endpoint_of_the_gateway_is_refused_on_any_address() -> None:
    machine = Machine(endpoints={(ip_address("10.0.0.5"), 5432), ("db.example", 5432)})
    rules = Rules(allow=("10.0.0.0/8", "db.example"))
    assert refused(rules, "10.0.0.5", 5432, machine) == "egress.gateway"
    assert refused(rules, "db.example", 5432, machine) == "egress.gateway"
    judge(rules, "10.0.0.5", 80, machine)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("10.0.0.1/8", "host bits"),
        ("10.0.0.0/33", "10.0.0.0/33"),
        ("010.0.0.1", "010.0.0.1"),
        ("127.1", "127.1"),
        ("example.com:0", "port"),
        ("example.com:65536", "port"),
        ("example.com:http", "port"),
        ("http://example.com", "port"),
        ("*", "neither"),
        ("*.", "neither"),
        ("a.*.example", "neither"),
        ("*example.com", "neither"),
        ("münchen.example", "neither"),
        ("exa mple", "neither"),
        ("", "neither"),
        ("[::1", "bracket"),
        ("[::1]x", "bracket"),
        ("::ffff:10.0.0.0/104", "IPv4 network"),
        ("fe80::1%eth0/64", "fe80"),
    ],
)
def test_an_invalid_entry_is_reported_with_the_valid_form(entry: str, reason: str) -> None:
    with pytest.raises(ValueError, match="is not an entry of an egress list") as caught:
        Entry.parse(entry)
    assert repr(entry) in str(caught.value)
    assert reason in str(caught.value)
    assert "*.suffix" in str(caught.value)


@given(st.text(max_size=30))
def test_any_text_is_an_entry_or_refused_with_a_message(text: str) -> None:
    words = ""
    try:
        Entry.parse(text)
    except ValueError as error:
        words = str(error)
    assert words == "" or "is not an entry of an egress list" in words


def test_an_invalid_entry_fails_the_start_with_its_name() -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings.load({"GATEWAY_EGRESS_ALLOW": "10.0.0.0/8, 10.0.0.1/8", "GATEWAY_EGRESS_DENY": "*"}, {})
    assert "GATEWAY_EGRESS_ALLOW: '10.0.0.1/8' is not an entry of an egress list" in caught.value.message
    assert "GATEWAY_EGRESS_DENY: '*' is not an entry of an egress list" in caught.value.message


def test_lists_are_split_by_commas() -> None:
    loaded, _ = settings.load({"GATEWAY_EGRESS_ALLOW": "10.0.0.0/8, *.Corp.example:443"}, {})
    assert loaded.egress_allow == ("10.0.0.0/8", "*.corp.example:443")


# What a mutation of the rules must not survive (tests/MUTANTS.md)


def carrying(address: str) -> list[str]:
    """IPv6 addresses that lead to an IPv4 one: compatible, translated, NAT64, ISATAP, 6to4, Teredo's two."""
    number = int(IPv4Address(address))
    forms = [
        number,
        0xFFFF0000 << 32 | number,
        int(IPv6Address("64:ff9b::")) | number,
        int(IPv6Address("2600:db8:1:2::5efe:0:0")) | number,
        int(IPv6Address("2600:db8:1:2:200:5efe::")) | number,
        0x2002 << 112 | number << 80 | 1,
        0x20010000 << 96 | number << 64 | 1,
        0x20010000 << 96 | 0x01010101 << 64 | ~number & 0xFFFFFFFF,
        # An ISATAP interface behind a Teredo prefix: both are checked.
        0x20010000 << 96 | 0x01010101 << 64 | 0x5EFE << 32 | number,
    ]
    prefix = int(IPv6Address("64:ff9b:1::"))
    a, b, c, d = IPv4Address(address).packed
    # RFC 6052, 2.2: bits 64 to 71 are left out.
    forms += [
        prefix | number,
        prefix | number << 24,
        prefix | a << 64 | (b << 16 | c << 8 | d) << 32,
        prefix | (a << 8 | b) << 64 | (c << 8 | d) << 40,
    ]
    return [str(IPv6Address(form)) for form in forms]


@pytest.mark.parametrize("text", carrying("169.254.169.254"))
def test_metadata_inside_an_ipv6_address_is_metadata(text: str) -> None:
    assert is_metadata(IPv6Address(text))


@pytest.mark.parametrize("text", carrying("8.8.4.4"))
def test_a_denied_address_is_denied_inside_an_ipv6_one_too(text: str) -> None:
    rules = Rules(deny=["8.8.4.4"])
    with pytest.raises(Refusal) as refusal:
        rules.judge_address(ip_address(text), 443, Machine(), by_name=True)
    assert refusal.value.rule == "egress.denied"


def test_a_mapped_address_is_the_ipv4_one() -> None:
    assert is_metadata(IPv6Address("::ffff:169.254.169.254"))
    assert kind_of(IPv6Address("::ffff:10.0.0.1")) is not None


@pytest.mark.parametrize(
    ("denied", "text"),
    [
        # Loopback and the unspecified address carry none.
        ("0.0.0.1", "::1"),
        ("0.0.0.0", "::"),
        # One bit beside a prefix there is nothing inside.
        ("8.8.4.4", "2003:808:404::1"),
        ("8.8.4.4", "2001:1:808:404::1"),
        ("8.8.4.4", "2600::ffff:1:808:404"),
        ("8.8.4.4", "::1:808:404"),
    ],
)
def test_an_address_embeds_only_the_one_of_its_form(denied: str, text: str) -> None:
    Rules(deny=[denied]).judge_address(IPv6Address(text), 443, Machine(), by_name=True)


def test_the_smallest_compatible_address_carries_one() -> None:
    with pytest.raises(Refusal, match="operator"):
        Rules(deny=["0.0.0.2"]).judge_address(IPv6Address("::2"), 443, Machine(), by_name=True)


def test_an_entry_with_a_port_denies_that_port_alone() -> None:
    rules = Rules(deny=["8.8.4.4:443"])
    rules.judge_address(IPv4Address("8.8.4.4"), 80, Machine())
    with pytest.raises(Refusal):
        rules.judge_address(IPv4Address("8.8.4.4"), 443, Machine())


@pytest.mark.parametrize(
    ("name", "local"),
    [("localhost", True), ("a.localhost", True), ("localhost.example", False), ("alocalhost", False)],
)
def test_localhost_and_its_subdomains_are_local(name: str, local: bool) -> None:
    assert is_local_name(name) == local


def test_an_entry_is_read_with_its_port_its_brackets_and_its_last_dot() -> None:
    assert Entry.parse("wiki.example.").covers("wiki.example", 443)
    assert Entry.parse("[::1]") == Entry("[::1]", IPv6Network("::1/128"), None, None)
    assert [Entry.parse(f"10.0.0.1:{port}").port for port in (1, 65535)] == [1, 65535]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "[::1]x",
            "'[::1]x' is not an entry of an egress list: after the closing bracket only a port may follow; write a",
        ),
        (
            "[::1]]",
            "'[::1]]' is not an entry of an egress list: after the closing bracket only a port may follow; write a",
        ),
        ("[::1]:0", "'[::1]:0' is not an entry of an egress list: the port must be a number from 1 to 65535; write a"),
        (
            "a b",
            "'a b' is not an entry of an egress list: it is neither a network, an address nor a name in ASCII; write",
        ),
        ("::ffff:0:0/96", "'::ffff:0:0/96' is not an entry of an egress list: give the IPv4 network itself; write a"),
        ("!" * 200, f"'{'!' * 100}' is not an entry"),
    ],
)
def test_a_wrong_entry_is_shown_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r"bracket|port|ASCII|itself|entry") as wrong:
        Entry.parse(text)
    assert str(wrong.value).startswith(reason)
    assert str(wrong.value).endswith(
        "*.suffix, each with or without :port, and IPv6 with a port in brackets ([fd00::/8]:443)"
    )


def test_a_host_is_as_long_as_a_name_may_be_and_an_address_has_four_numbers() -> None:
    label = "a" * 49 + "."
    longest = label * 5 + "abc"
    assert len(longest) == 253
    assert parse_host(longest) == longest
    for text in (longest + "d", "1.2.3.4.0"):
        with pytest.raises(Refusal) as refusal:
            parse_host(text)
        assert refusal.value.rule == "egress.malformed_host"


def test_each_refusal_has_its_exact_message() -> None:
    machine = Machine(ports=[8787], endpoints=[("db.example", 5432)])
    name, address = Rules(deny=["bad.example"]).judge_name, Rules(deny=["8.8.4.4"]).judge_address
    refusals = []
    for judge_one in (
        lambda: parse_host("a%b"),
        lambda: name("metadata.goog", 80, machine),
        lambda: name("db.example", 5432, machine),
        lambda: name("bad.example", 80, machine),
        lambda: address(IPv4Address("169.254.169.254"), 80, machine),
        lambda: address(IPv4Address("127.0.0.1"), 8787, machine),
        lambda: address(IPv4Address("8.8.4.4"), 80, machine),
        lambda: address(IPv4Address("10.0.0.1"), 80, machine),
        lambda: address(IPv6Address("4000::1"), 80, machine),
    ):
        with pytest.raises(Refusal) as refusal:
            judge_one()
        refusals.append((refusal.value.rule, refusal.value.message))
        assert str(refusal.value) == refusal.value.message
    metadata = "Metadata services of clouds can't be reached from here."
    gateway = "This is a port of the gateway itself, which can't be reached from here."
    unless = "which can't be reached from here unless the gateway's operator allows it."
    denied = "The operator of the gateway does not allow this address."
    assert refusals == [
        ("egress.malformed_host", "The host of the address is malformed."),
        ("egress.metadata", metadata),
        ("egress.gateway", gateway),
        ("egress.denied", denied),
        ("egress.metadata", metadata),
        ("egress.gateway", gateway),
        ("egress.denied", denied),
        ("egress.private_address", f"This is an address of a private network, {unless}"),
        ("egress.reserved_address", f"This is a reserved address, {unless}"),
    ]


# Kind of each address, and the IPv4 addresses inside it.
_TABLE: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "8.8.4.4": (None, ()),
    "10.0.0.1": ("private", ()),
    "127.0.0.1": ("loopback", ()),
    "169.254.1.1": ("link_local", ()),
    "169.254.169.254": ("metadata", ()),
    "192.0.2.1": ("reserved", ()),
    "224.0.0.1": ("multicast", ()),
    "::1": ("loopback", ()),
    "fc00::1": ("private", ()),
    "2606:4700::1": (None, ()),
    "4000::1": ("reserved", ()),
    "64:ff9b::808:404": (None, ("8.8.4.4",)),
    "64:ff9b::a00:1": ("private", ("10.0.0.1",)),
    "64:ff9b::7f00:1": ("loopback", ("127.0.0.1",)),
    "64:ff9b::a9fe:a9fe": ("metadata", ("169.254.169.254",)),
}
_PORTS = (80, 8787)
_ENTRIES = (*(text if ":" not in text else f"{text}/128" for text in _TABLE), "0.0.0.0/0", "::/0", "10.0.0.0/8:80")


def _some(*values: str) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(values), max_size=2)


@given(
    text=st.sampled_from(list(_TABLE)),
    port=st.sampled_from(_PORTS),
    own=_some(*_TABLE),
    ports=st.frozensets(st.sampled_from(_PORTS), max_size=1),
    endpoints=st.frozensets(st.tuples(st.sampled_from(list(_TABLE)), st.sampled_from(_PORTS)), max_size=2),
    allow=_some(*_ENTRIES),
    deny=_some(*_ENTRIES),
    by_name=st.booleans(),
)
def test_an_address_is_judged_by_the_first_row_that_applies(
    text: str,
    port: int,
    own: frozenset[str],
    ports: frozenset[int],
    endpoints: frozenset[tuple[str, int]],
    allow: frozenset[str],
    deny: frozenset[str],
    by_name: bool,
) -> None:
    kind, inside = _TABLE[text]
    meant = (text, *inside)
    is_own = kind != "loopback" and bool(own.intersection(meant))
    on_machine = is_own or any(_TABLE[each][0] == "loopback" or each in own for each in meant)
    allowing = [entry for entry in map(Entry.parse, allow) if entry.covers(ip_address(text), port)]
    rows: list[tuple[bool, str | None]] = [
        (kind == "metadata", "egress.metadata"),
        (any((each, port) in endpoints for each in meant), "egress.gateway"),
        (port in ports and on_machine, "egress.gateway"),
        (any(Entry.parse(entry).covers(ip_address(each), port) for entry in deny for each in meant), "egress.denied"),
        (by_name, None),
        (is_own and any(entry.is_the_address(ip_address(text)) for entry in allowing), None),
        (is_own, "egress.own_address"),
        (kind is None or bool(allowing), None),
        (True, f"egress.{kind}_address"),
    ]
    expected = next(rule for applies, rule in rows if applies)
    machine = Machine(
        frozenset(map(ip_address, own)), ports, frozenset((ip_address(host), number) for host, number in endpoints)
    )
    rule = None
    try:
        Rules(allow, deny).judge_address(ip_address(text), port, machine, by_name=by_name)
    except Refusal as refusal:
        rule = refusal.rule
    assert rule == expected
