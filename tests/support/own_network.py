"""A network of its own for one thread, whose only way out is an interface that keeps what leaves.

Nothing else on the machine uses it, so each packet that it keeps was sent by what the thread started.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

_TUN = Path("/dev/net/tun")
needed = pytest.mark.skipif(
    os.geteuid() != 0 or not _TUN.exists(), reason="only root makes a network of its own, with /dev/net/tun"
)

ADDRESS = "198.51.100.2"
_NAME = b"out0"

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN_WITHOUT_HEADER = 0x1001
_SIOCADDRT = 0x890B
_SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8914, 0x8916, 0x891C
_UP_AND_RUNNING = 0x1 | 0x40
_PROTOCOLS = {1: "icmp", 2: "igmp", 6: "tcp", 17: "udp"}
_LARGEST = 65536


class Packet(NamedTuple):
    """A packet that left: `protocol` is udp, tcp, igmp, icmp or a number, `port` is 0 where there are no ports."""

    protocol: str
    address: str
    port: int


class Outside:
    """The end of the interface, from where nothing ever answers."""

    def __init__(self) -> None:
        self._packets: list[Packet] = []
        self._tun = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self._tun, _TUNSETIFF, struct.pack("16sH22x", _NAME, _IFF_TUN_WITHOUT_HEADER))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            _up(control, b"lo")
            fcntl.ioctl(control, _SIOCSIFADDR, struct.pack("16s16s8x", _NAME, _address(ADDRESS)))
            fcntl.ioctl(control, _SIOCSIFNETMASK, struct.pack("16s16s8x", _NAME, _address("255.255.255.0")))
            _up(control, _NAME)
            # A default route: struct rtentry with its destination, gateway, mask and flags.
            route = struct.pack(
                "@L16s16s16sH", 0, _address("0.0.0.0"), _address("198.51.100.1"), _address("0.0.0.0"), 3
            )
            fcntl.ioctl(control, _SIOCADDRT, route.ljust(120, b"\0"))

    @property
    def packets(self) -> list[Packet]:
        """All that left until now; of IPv6, whose kernel speaks for itself, only UDP and TCP."""
        while True:
            try:
                packet = os.read(self._tun, _LARGEST)
            except BlockingIOError:
                return self._packets
            found = _parsed(packet)
            if found is not None:
                self._packets.append(found)

    def close(self) -> None:
        os.close(self._tun)


def run_in_own_network(work: Callable[[Outside], Awaitable[None]]) -> None:
    """Run it in an event loop of a thread that has its own network; for tests that are marked as `needed`."""

    def run() -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "no network namespace can be made")
        outside = Outside()
        try:
            asyncio.run(_awaited(work, outside))
        finally:
            outside.close()

    # The thread ends with its work, so nothing else gets into its network.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(run).result()


async def _awaited(work: Callable[[Outside], Awaitable[None]], outside: Outside) -> None:
    await work(outside)


def _up(control: socket.socket, name: bytes) -> None:
    fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name, _UP_AND_RUNNING))


def _address(text: str) -> bytes:
    """As a struct sockaddr_in."""
    return struct.pack("@H2x4s8x", socket.AF_INET, socket.inet_aton(text))


def _parsed(packet: bytes) -> Packet | None:
    if packet[0] >> 4 == 4:
        protocol, address = packet[9], socket.inet_ntop(socket.AF_INET, packet[16:20])
        rest = packet[(packet[0] & 15) * 4 :]
    else:
        protocol, address = packet[6], socket.inet_ntop(socket.AF_INET6, packet[24:40])
        if protocol not in (6, 17):
            return None
        rest = packet[40:]
    port = struct.unpack("!H", rest[2:4])[0] if protocol in (6, 17) else 0
    return Packet(_PROTOCOLS.get(protocol, str(protocol)), address, port)
