"""Which addresses a page may reach: kinds of addresses, and the operator's rules.

Pure: nothing here resolves a name or opens a socket. `Rules` judges a name before it is resolved, and then each of its
addresses. Deny beats allow, and the fixed refusals beat both. Public addresses are allowed unless denied.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from gateway.core.hosts import Address, Entry, Host, Refusal, canonical, embedded_addresses, is_nat64

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

# These return credentials of the machine, so no setting can allow them.
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


@lru_cache(4096)
def kind_of(address: Address) -> str | None:
    """loopback, private, link_local, multicast or reserved; None for a public address."""
    if isinstance(address, IPv4Address):
        return next((kind for network, kind in _SPECIAL_V4 if address in network), None)
    if (kind := next((kind for network, kind in _SPECIAL_V6 if address in network), None)) is not None:
        return kind
    inside = next(filter(None, map(kind_of, embedded_addresses(address))), None)
    if inside is not None or is_nat64(address):
        return inside
    return None if address in _GLOBAL_V6 else "reserved"


def is_metadata(address: Address) -> bool:
    return address in _METADATA or any(inside in _METADATA for inside in embedded_addresses(address))


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine's interface addresses, and the gateway's own ports and endpoints, which the proxy never connects to,
    whatever is allowed. `other_ports` are those of the other workers of this gateway."""

    addresses: Collection[Address] = frozenset()
    ports: Collection[int] = frozenset()
    endpoints: Collection[tuple[Host, int]] = frozenset()
    other_ports: Container[int] = frozenset()

    def reserves(self, address: Address, port: int) -> bool:
        """Whether this is an endpoint of the gateway, or one of its ports on an address of this machine."""
        if (address, port) in self.endpoints:
            return True
        is_own = port in self.ports or port in self.other_ports
        return is_own and (kind_of(address) == "loopback" or address in self.addresses)


class Rules:
    """The operator's rules."""

    def __init__(self, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> None:
        self._allow = tuple(map(Entry.parse, allow))
        self._deny = tuple(map(Entry.parse, deny))

    def judge_name(self, name: str, port: int, machine: Machine) -> bool:
        """Whether the name itself is allowed, and so at any address; raises Refusal when it is denied."""
        if name in _METADATA_NAMES:
            raise Refusal("egress.metadata", "Metadata services of clouds can't be reached from here.")
        if (name, port) in machine.endpoints:
            raise _gateways_own()
        if any(entry.covers(name, port) for entry in self._deny):
            raise _denied()
        return any(entry.covers(name, port) for entry in self._allow)

    def judge_address(self, address: Address, port: int, machine: Machine, *, by_name: bool = False) -> None:
        """Raises Refusal unless the address may be connected to. `by_name`: its name is allowed."""
        address = canonical(address)
        if is_metadata(address):
            raise Refusal("egress.metadata", "Metadata services of clouds can't be reached from here.")
        # A translating network may deliver to any of the addresses inside, so what refuses holds for each of them.
        meant = [address, *embedded_addresses(address)]
        if any(machine.reserves(each, port) for each in meant):
            raise _gateways_own()
        if any(entry.covers(each, port) for entry in self._deny for each in meant):
            raise _denied()
        kind = kind_of(address)
        # Loopback is the machine's own anyway, and has a rule of its own.
        if kind != "loopback" and any(each in machine.addresses for each in meant):
            kind = "own"
        if kind is not None and not by_name and not self._allows(address, port, kind):
            raise _not_public(kind)

    def _allows(self, address: Address, port: int, kind: str) -> bool:
        """Whether an entry allows an address that is not public. An allowed network may contain the machine by chance,
        so its own addresses need an entry that names exactly them."""
        return any(
            entry.covers(address, port) and (kind != "own" or entry.is_the_address(address)) for entry in self._allow
        )


_KINDS = {
    "loopback": "a loopback address",
    "private": "an address of a private network",
    "link_local": "a link-local address",
    "multicast": "a multicast address",
    "reserved": "a reserved address",
    "own": "an address of the gateway's own machine",
}


def _not_public(kind: str) -> Refusal:
    reason = f"This is {_KINDS[kind]}, which can't be reached from here unless the gateway's operator allows it."
    return Refusal(f"egress.{kind}_address", reason)


def _denied() -> Refusal:
    return Refusal("egress.denied", "The operator of the gateway does not allow this address.")


def _gateways_own() -> Refusal:
    return Refusal("egress.gateway", "This is a port of the gateway itself, which can't be reached from here.")
