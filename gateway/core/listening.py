"""Whether this machine can listen on an address, and what the operator changes where it can't."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why nothing can listen on an address: a sentence, what to change, and whether another process has the port."""

    sentence: str
    advice: str
    taken: bool = False


def obstacle(host: str, port: int) -> Obstacle | None:
    """None when a server could listen there now. It binds the port for a moment."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        _bind(host, port)
    except (socket.gaierror, UnicodeError):
        return Obstacle(
            f"{host!r} is neither an address of this machine nor a name of one.",
            "Set GATEWAY_HOST to an address of this machine, or to 0.0.0.0 for all of them.",
        )
    except OSError as error:
        return _explained(error, host, where)
    return None


def _explained(error: OSError, host: str, where: str) -> Obstacle:
    if error.errno == errno.EADDRINUSE:
        return Obstacle(f"{where} is taken by another process.", "Set GATEWAY_PORT to a free port.", taken=True)
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL):
        return Obstacle(
            f"Nothing can listen on {where}: {host} is not an address of this machine.",
            "Set GATEWAY_HOST to an address of this machine, or to 0.0.0.0 for all of them.",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return Obstacle(
            f"This user may not listen on {where} ({error.strerror}).", "Set GATEWAY_PORT to a port from 1024 on."
        )
    return Obstacle(f"Nothing can listen on {where} ({error.strerror}).", "Change GATEWAY_HOST or GATEWAY_PORT.")


def _bind(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)
