"""A network for each runtime: a network namespace of Linux that leads nowhere.

It has a loopback device of its own, where the browser's DevTools port and the listener of its egress proxy are, and no
route to anything else. So a process that escaped from Chromium's sandbox reaches no port of the machine or of another
browser, not even with a packet. Abstract unix sockets are the namespace's own, too.

A socket belongs for good to the namespace that its thread was in when it was made. So the gateway listens and connects
inside by sockets that one thread of it makes there, and nothing forwards between two networks. A process belongs to
the namespace of the thread that started it. A namespace has no name; it ends with its last process, socket and
descriptor, also after a SIGKILL of the gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import io
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

Result = TypeVar("Result")

_CLONE_NEWNET = 0x40000000
_CURRENT = "/proc/thread-self/ns/net"

# Namespaces that are made before they are needed: while the kernel removes others, making one can take 30 ms.
_AHEAD = 2

# A browser without any device but loopback takes itself for offline, and its pages too. So there is one with an address
# (RFC 5737) and no route, whose other end is in the same namespace.
_DEVICE, _OTHER_END = b"eth0\0", b"eth1\0"
_ADDRESS = socket.inet_aton("192.0.2.1")
# Below the least of IPv6, so that the kernel configures none: an address that comes later would abort requests.
_MTU = 1279

_LOOPBACK_INDEX = 1
_UP = 1
_NEW_LINK, _NEW_ADDRESS = 16, 20
_REQUEST = 1 | 4  # NLM_F_REQUEST, NLM_F_ACK
_CREATE = _REQUEST | 0x200 | 0x400  # NLM_F_EXCL, NLM_F_CREATE
_NAME, _MAX_UNIT, _INFO = 3, 4, 18  # IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO
_KIND, _DATA, _PEER = 1, 2, 1  # IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_MESSAGE = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_IP = struct.Struct("=BBBBI")

_libc = ctypes.CDLL(None, use_errno=True)


class Network:
    """One namespace (see core.browser_network.BrowserNetwork). `close` gives it up; what is in it keeps it alive."""

    def __init__(self, namespace: io.FileIO, inside: ThreadPoolExecutor) -> None:
        """`namespace` is an open file of it; `inside` has the one thread that enters namespaces."""
        self._namespace = namespace
        self._inside = inside

    async def new_socket(self) -> socket.socket:
        making = asyncio.wrap_future(self._submit(_stream_socket))
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(_close)
            raise

    async def connect(self, host: str, port: int) -> socket.socket:
        made = await self.new_socket()
        try:
            await asyncio.get_running_loop().sock_connect(made, (host, port))
        except BaseException:
            made.close()
            raise
        return made

    def spawn(self, *args: Any, **options: Any) -> int:
        """os.posix_spawn, of a process in this namespace; blocks for as long."""
        return self._submit(partial(os.posix_spawn, *args, **options)).result()

    def close(self) -> None:
        """Idempotent."""
        self._namespace.close()

    def _submit(self, work: Callable[[], Result]) -> Future[Result]:
        if self._namespace.closed:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the browser has ended")
        # One of its own, since the network may be closed before the work begins.
        return self._inside.submit(_enter, os.dup(self._namespace.fileno()), work)


class Networks:
    """Makes networks, some of them ahead; needs root with CAP_SYS_ADMIN and CAP_NET_ADMIN."""

    def __init__(self, ahead: int = _AHEAD) -> None:
        self._wanted = ahead
        # Two, since making one waits for a lock of the kernel's, and a socket inside must not.
        self._makers = ThreadPoolExecutor(1, "network-makers")
        self._inside = ThreadPoolExecutor(1, "networks")
        self._ahead: deque[Future[io.FileIO]] = deque()

    async def take(self) -> Network:
        """A new one, for one runtime; raises OSError."""
        making = self._ahead.popleft() if self._ahead else self._makers.submit(_made)
        try:
            namespace = await asyncio.shield(asyncio.wrap_future(making))
        except asyncio.CancelledError:
            self._ahead.append(making)
            raise
        while len(self._ahead) < self._wanted:
            self._ahead.append(self._makers.submit(_made))
        return Network(namespace, self._inside)

    def close(self) -> None:
        """All that were taken are closed before."""
        for pool in (self._makers, self._inside):
            pool.shutdown(wait=False)
        while self._ahead:
            self._ahead.popleft().add_done_callback(_close)


def why_none(setting: str) -> str | None:
    """Why runtimes have no networks of their own, in words that follow a colon; None where they have.

    `setting` is GATEWAY_BROWSER_NETWORK. Blocks for a moment.
    """
    if setting == "off":
        return "GATEWAY_BROWSER_NETWORK is `off`"
    if os.geteuid() != 0:
        return "the gateway is not root"
    with ThreadPoolExecutor(1) as thread:
        try:
            thread.submit(_made).result().close()
        except OSError as error:
            return _reason(error)
    return None


def open_namespace(path: str = _CURRENT) -> io.FileIO:
    """The namespace of this thread, or of `/proc/<pid>/ns/net`."""
    return io.FileIO(path)


def _enter(namespace: int, work: Callable[[], Result]) -> Result:
    """Closes the descriptor `namespace`."""
    with open_namespace() as home, io.FileIO(namespace) as entered:
        _set(entered)
        try:
            return work()
        finally:
            _set(home)


def _reason(error: OSError) -> str:
    if error.errno in (errno.EPERM, errno.EACCES):
        return "it needs the capabilities CAP_SYS_ADMIN and CAP_NET_ADMIN"
    if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
        return f"the kernel lacks network namespaces or virtual ethernet ({error.strerror})"
    return error.strerror or type(error).__name__


def _made() -> io.FileIO:
    """A new namespace with its devices, which this thread leaves again."""
    with open_namespace() as home:
        _check(_libc.unshare(_CLONE_NEWNET), "unshare")
        try:
            _add_devices()
            return open_namespace()
        finally:
            _set(home)


def _add_devices() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as kernel:
        _ask(kernel, _NEW_LINK, _REQUEST, _LINK.pack(0, 0, _LOOPBACK_INDEX, _UP, _UP))
        unit = _attribute(_MAX_UNIT, struct.pack("=I", _MTU))
        down = _LINK.pack(0, 0, 0, 0, 0)
        other_end = _attribute(_PEER, down + _attribute(_NAME, _OTHER_END) + unit)
        kind = _attribute(_INFO, _attribute(_KIND, b"veth\0") + _attribute(_DATA, other_end))
        _ask(kernel, _NEW_LINK, _CREATE, down + _attribute(_NAME, _DEVICE) + unit + kind)
        for name in (_OTHER_END, _DEVICE):
            _ask(kernel, _NEW_LINK, _REQUEST, _LINK.pack(0, 0, 0, _UP, _UP) + _attribute(_NAME, name))
        address = _attribute(_IFA_LOCAL, _ADDRESS) + _attribute(_IFA_ADDRESS, _ADDRESS)
        index = socket.if_nametoindex(_DEVICE.rstrip(b"\0").decode())
        _ask(kernel, _NEW_ADDRESS, _CREATE, _IP.pack(socket.AF_INET, 32, 0, 0, index) + address)


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _ask(kernel: socket.socket, kind: int, flags: int, body: bytes) -> None:
    """Send one request to the kernel (rtnetlink(7)); raises OSError with its refusal."""
    kernel.send(_MESSAGE.pack(_MESSAGE.size + len(body), kind, flags, 0, 0) + body)
    (code,) = struct.unpack_from("=i", kernel.recv(8192), _MESSAGE.size)
    if code:
        raise OSError(-code, os.strerror(-code))


def _stream_socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, socket.IPPROTO_TCP)


def _set(namespace: io.FileIO) -> None:
    _check(_libc.setns(namespace.fileno(), _CLONE_NEWNET), "setns")


def _check(result: int, call: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")


def _close(made: Future[io.FileIO] | asyncio.Future[socket.socket]) -> None:
    with contextlib.suppress(OSError):
        made.result().close()
