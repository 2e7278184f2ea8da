"""Hosts as URLs write them, and entries of egress lists: networks, addresses, names and `*.suffix`.

Pure: nothing here resolves a name or opens a socket.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Self

Address = IPv4Address | IPv6Address
Host = str | IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network

_NAME_BYTES = 253
_LABELS = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")


class Refusal(Exception):
    """Raised for a forbidden destination. `rule` is stable; the message is for the page, and contains no address that
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
            return canonical(IPv6Address("" if "%" in text else text[1:-1]))
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


def canonical(address: Address) -> Address:
    """An IPv4 address that is written as an IPv6 one is that IPv4 address: the system connects to it so."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


_ALL_ONES = 0xFFFFFFFF
_NAT64 = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")


def embedded_addresses(address: Address) -> list[IPv4Address]:
    """The IPv4 addresses inside an IPv6 one: mapped, translated, compatible, 6to4, Teredo, NAT64, ISATAP."""
    if isinstance(address, IPv4Address):
        return []
    number = int(address)
    low = IPv4Address(number & _ALL_ONES)
    found = []
    high = number >> 32
    if high in (0xFFFF, 0xFFFF0000) or (high == 0 and number > 1) or is_nat64(address):
        found.append(low)
    if number >> 32 & _ALL_ONES in (0x5EFE, 0x02005EFE):
        found.append(low)
    if address in _LOCAL_NAT64:
        # The position depends on the length of the network's own prefix (RFC 6052): 96, 64, 56, 48.
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


def is_nat64(address: Address) -> bool:
    """Whether a translator takes it to the IPv4 address inside (RFC 6052, the well-known prefix)."""
    return address in _NAT64


def is_local_name(name: str) -> bool:
    """`localhost` and what is below it is this machine, whatever a name server says."""
    return name == "localhost" or name.endswith(".localhost")


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
        f"{text[:100]!r} is not an entry of an egress list: {reason}; write a network (10.0.0.0/8), an address, a name "
        "or *.suffix, each with or without :port, and IPv6 with a port in brackets ([fd00::/8]:443)"
    )
