"""Asks the kernel which user owns the other end of a connection on the loopback address."""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import IPv4Address

_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST = 1
_HEADER = struct.Struct("=IHHII")
_ASKED = struct.Struct("=BBBxI")  # family, protocol, extensions, states
_COOKIE = b"\xff" * 8
_UID_AT = _HEADER.size + 64
_STATES = 0xFFFFFFFF


def uid_of(address: tuple[str, int], peer: tuple[str, int]) -> int | None:
    """User id of the process with the TCP socket at `address` that is connected to `peer` (IPv4); None for no such
    socket. Asks the kernel for this one socket by netlink, and reads its whole table only where netlink is denied."""
    try:
        return uid_from_netlink(address, peer)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
            raise
    return uid_from_table(address, peer)


def uid_from_netlink(address: tuple[str, int], peer: tuple[str, int]) -> int | None:
    ends = struct.pack("!HH", address[1], peer[1]) + b"".join(
        IPv4Address(host).packed.ljust(16, b"\0") for host in (address[0], peer[0])
    )
    asked = _ASKED.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, _STATES) + ends + bytes(4) + _COOKIE
    message = _HEADER.pack(_HEADER.size + len(asked), _SOCK_DIAG_BY_FAMILY, _REQUEST, 0, 0) + asked
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG) as kernel:
        kernel.sendto(message, (0, 0))
        answer = kernel.recv(8192)
    if _HEADER.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY:
        code = -int(struct.unpack_from("=i", answer, _HEADER.size)[0])
        if code == errno.ENOENT:
            return None
        raise OSError(code, "the kernel did not return the owner of a socket")
    return int(struct.unpack_from("=I", answer, _UID_AT)[0])


def uid_from_table(address: tuple[str, int], peer: tuple[str, int]) -> int | None:
    wanted = [_in_table(address), _in_table(peer)]
    with open("/proc/net/tcp") as table:
        for line in table:
            fields = line.split()
            if fields[1:3] == wanted:
                return int(fields[7])
    return None


def _in_table(address: tuple[str, int]) -> str:
    number = struct.unpack("=I", socket.inet_aton(address[0]))[0]
    return f"{number:08X}:{address[1]:04X}"
