"""Which addresses a page may reach: hosts as URLs write them, kinds of addresses, and the operator's rules.

Pure: nothing here resolves a name or opens a socket. `Rules` judges a name before it is resolved, and each address that
it resolved to; deny beats allow, and what is always refused beats both. What is public is allowed unless denied.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Self

Address = IPv4Address | IPv6Address
Host = str | IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network

_NAME_BYTES = 253
_LABELS = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
_ALL_ONES = 0xFFFFFFFF

_SPECIAL_V4 = tuple(
    (IPv4Network(network), kind)
    for network, kind in (
        ("0.0.0.0/8", "loopback"),  # Linux takes it for this host
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "private"),  # behind a carrier's NAT
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link_local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "reserved"),  # documentation
        ("192.31.196.0/24", "reserved"),
        ("192.52.193.0/24", "reserved"),
        ("192.88.99.0/24", "reserved"),  # 6to4 relays
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "reserved"),
        ("198.18.0.0/15", "reserved"),  # benchmarks
        ("198.51.100.0/24", "reserved"),  # documentation
        ("203.0.113.0/24", "reserved"),  # documentation
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_SPECIAL_V6 = tuple(
    (IPv6Network(network), kind)
    for network, kind in (
        ("::/128", "loopback"),
        ("::1/128", "loopback"),
        ("64:ff9b:1::/48", "private"),  # a network's own NAT64
        ("fc00::/7", "private"),
        ("fe80::/10", "link_local"),
        ("fec0::/10", "private"),
        ("ff00::/8", "multicast"),
        ("2001::/23", "reserved"),  # Teredo, ORCHID, benchmarks and the like
        ("2001:db8::/32", "reserved"),  # documentation
        ("2002::/16", "reserved"),  # 6to4
        ("3fff::/20", "reserved"),  # documentation
    )
)
_GLOBAL_V6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")

# What these answer is credentials of the machine. They stay refused whatever a setting allows.
_METADATA = frozenset(
    map(
        IPv4Address,
        (
            "169.254.169.254",
            "169.254.169.253",
            "169.254.170.2",
            "169.254.170.23",
            "169.254.0.23",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
        ),
    )
) | frozenset(map(IPv6Address, ("fd00:ec2::254", "fd00:ec2::253", "fd00:ec2::23", "fd20:ce::254")))
_METADATA_NAMES = frozenset(
    (
        "instance-data",
        "instance-data.ec2.internal",
        "metadata",
        "metadata.azure.internal",
        "metadata.goog",
        "metadata.google.internal",
        "metadata.internal",
        "metadata.oraclecloud.com",
        "metadata.packet.net",
        "metadata.tencentyun.com",
    )
)


class Refusal(Exception):
    """Raised for what may not be reached. `rule` is stable; the message is for the page, and tells no address that
    the page did not name itself."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule
        self.message = message


def parse_host(text: str) -> Host:
    """A URL's host as a browser reads it: an address in any of its spellings, or a name in lower case.

    Raises Refusal for what is neither: percent signs, zones, letters beyond ASCII (browsers send those as punycode).
    """
    if text.startswith("[") and text.endswith("]"):
        try:
            return _canonical(IPv6Address("" if "%" in text else text[1:-1]))
        except ValueError:
            raise _malformed() from None
    name = text.lower().removesuffix(".")
    if len(name) > _NAME_BYTES or not name.isascii() or not _LABELS.fullmatch(name):
        raise _malformed()
    parts = name.split(".")
    if _NUMBER.fullmatch(parts[-1]):
        return IPv4Address(_ipv4(parts))
    return name


def _ipv4(parts: list[str]) -> int:
    """One to four numbers, each decimal, octal (0...) or hex (0x...); the last one fills what is left."""
    if len(parts) > 4:
        raise _malformed()
    *firsts, last = map(_number, parts)
    if any(number > 255 for number in firsts) or last >= 256 ** (5 - len(parts)):
        raise _malformed()
    return sum(number << 8 * (3 - place) for place, number in enumerate(firsts)) + last


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise _malformed()
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    try:
        return int(text, 8 if text.startswith("0") else 10)
    except ValueError:
        raise _malformed() from None


def _malformed() -> Refusal:
    return Refusal("egress.malformed_host", "The host of the address is malformed.")


def _canonical(address: Address) -> Address:
    """An IPv4 address that is written as an IPv6 one is that IPv4 address: the system connects to it so."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_local_name(name: str) -> bool:
    """`localhost` and what is below it is this machine, whatever a name server says."""
    return name == "localhost" or name.endswith(".localhost")


def _embedded(address: Address) -> list[IPv4Address]:
    """The IPv4 addresses inside an IPv6 one: mapped, translated, compatible, 6to4, Teredo, NAT64, ISATAP."""
    if isinstance(address, IPv4Address):
        return []
    number = int(address)
    low = IPv4Address(number & _ALL_ONES)
    found = []
    high = number >> 32
    if high in (0xFFFF, 0xFFFF0000) or (high == 0 and number > 1) or address in _NAT64:
        found.append(low)
    if number >> 32 & _ALL_ONES in (0x5EFE, 0x02005EFE):
        found.append(low)
    if address in _LOCAL_NAT64:
        # Where in it the address is depends on the length of the network's own prefix (RFC 6052): 96, 64, 56, 48.
        found += [
            low,
            IPv4Address(number >> 24 & _ALL_ONES),
            IPv4Address((number >> 64 & 0xFF) << 24 | number >> 32 & 0xFFFFFF),
            IPv4Address((number >> 64 & 0xFFFF) << 16 | number >> 40 & 0xFFFF),
        ]
    if number >> 112 == 0x2002:
        found.append(IPv4Address(number >> 80 & _ALL_ONES))
    if number >> 96 == 0x20010000:
        found += [IPv4Address(number >> 64 & _ALL_ONES), IPv4Address(~number & _ALL_ONES)]
    return found


def kind_of(address: Address) -> str | None:
    """What an address is when it is not public: loopback, private, link_local, multicast, reserved; else None."""
    if isinstance(address, IPv4Address):
        return next((kind for network, kind in _SPECIAL_V4 if address in network), None)
    if (kind := next((kind for network, kind in _SPECIAL_V6 if address in network), None)) is not None:
        return kind
    inside = next(filter(None, map(kind_of, _embedded(address))), None)
    if inside is not None or address in _NAT64:
        return inside
    return None if address in _GLOBAL_V6 else "reserved"


def is_metadata(address: Address) -> bool:
    return address in _METADATA or any(inside in _METADATA for inside in _embedded(address))


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of an allow or deny list: a network, an address, a name or `*.suffix`, each with a port or for all."""

    text: str
    network: _Network | None
    name: str | None
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError that names the entry and says what would be right."""
        host, port = _split_port(text)
        name: str | None = host.lower().removesuffix(".")
        assert name is not None
        network: _Network | None = None
        if "/" in name or ":" in name or _NUMBER.fullmatch(name.rpartition(".")[2]):
            try:
                network = ip_network(name)
            except ValueError as error:
                raise _wrong(text, str(error)) from None
            if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
                raise _wrong(text, "give the IPv4 network itself")
            name = None
        elif not _LABELS.fullmatch(name.removeprefix("*.")):
            raise _wrong(text, "it is neither a network, an address nor a name in ASCII")
        return cls(text, network, name, port)

    def covers(self, host: Host, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        if isinstance(host, str):
            return self.name is not None and covers_name(self.name, host)
        return self.network is not None and host in self.network

    def is_the_address(self, address: Address) -> bool:
        """Whether it names this one address, and not a network that it is in."""
        return self.network is not None and self.network.num_addresses == 1 and address in self.network


def covers_name(pattern: str, name: str) -> bool:
    """Whether a name is the pattern, or below it when the pattern is `*.suffix`."""
    return name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern


def _split_port(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise _wrong(text, "after the closing bracket only a port may follow")
        return host, _port(text, rest[1:]) if rest else None
    if text.count(":") > 1:
        return text, None
    host, colon, port = text.partition(":")
    return host, _port(text, port) if colon else None


def _port(text: str, port: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise _wrong(text, "the port must be a number from 1 to 65535")
    return int(port)


def _wrong(text: str, reason: str) -> ValueError:
    return ValueError(
        f"{text[:100]!r} is no entry of an egress list: {reason}; write a network (10.0.0.0/8), an address, a name or "
        "*.suffix, each with or without :port, and IPv6 with a port in brackets ([fd00::/8]:443)"
    )


@dataclass(frozen=True, slots=True)
class Machine:
    """What is the gateway's and its machine's own: addresses of interfaces, and ports and endpoints that nobody may
    reach through the proxy, whatever is allowed."""

    addresses: Collection[Address] = frozenset()
    ports: Collection[int] = frozenset()
    endpoints: Collection[tuple[Host, int]] = frozenset()


class Rules:
    """The operator's rules."""

    def __init__(self, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> None:
        self._allow = tuple(map(Entry.parse, allow))
        self._deny = tuple(map(Entry.parse, deny))

    def judge_name(self, name: str, port: int, machine: Machine) -> bool:
        """Whether the name itself is allowed, so that it may be at any address; raises Refusal when it is refused."""
        if name in _METADATA_NAMES:
            raise Refusal("egress.metadata", "Metadata services of clouds can't be reached from here.")
        if (name, port) in machine.endpoints:
            raise _gateways_own()
        if any(entry.covers(name, port) for entry in self._deny):
            raise _denied()
        return any(entry.covers(name, port) for entry in self._allow)

    def judge_address(self, address: Address, port: int, machine: Machine, *, by_name: bool = False) -> None:
        """Raises Refusal unless the address may be connected to. `by_name`: its name is allowed."""
        address = _canonical(address)
        if is_metadata(address):
            raise Refusal("egress.metadata", "Metadata services of clouds can't be reached from here.")
        kind = kind_of(address)
        inside = [address, *_embedded(address)]
        own = kind != "loopback" and any(host in machine.addresses for host in inside)
        if any((host, port) in machine.endpoints for host in inside):
            raise _gateways_own()
        if port in machine.ports and any(kind_of(host) == "loopback" or host in machine.addresses for host in inside):
            raise _gateways_own()
        if any(entry.covers(host, port) for entry in self._deny for host in inside):
            raise _denied()
        if (kind is None and not own) or by_name:
            return
        allowing = [entry for entry in self._allow if entry.covers(address, port)]
        if not allowing or (own and not any(entry.is_the_address(address) for entry in allowing)):
            raise _not_public("own" if own else kind or "reserved")


_KINDS = {
    "loopback": "a loopback address",
    "private": "an address of a private network",
    "link_local": "a link-local address",
    "multicast": "a multicast address",
    "reserved": "a reserved address",
    "own": "an address of the gateway's own machine",
}


def _not_public(kind: str) -> Refusal:
    return Refusal(f"egress.{kind}_address", f"This is {_KINDS[kind]}, which can't be reached from here.")


def _denied() -> Refusal:
    return Refusal("egress.denied", "The operator of the gateway does not allow this address.")


def _gateways_own() -> Refusal:
    return Refusal("egress.gateway", "This is a port of the gateway itself, which can't be reached from here.")
