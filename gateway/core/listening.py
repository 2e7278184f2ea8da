"""Whether this machine can listen on an address, and what the operator changes where it can't."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass

# The options that a host and a port come from.
OPTIONS = ("GATEWAY_HOST", "GATEWAY_PORT")
METRICS_OPTIONS = ("GATEWAY_METRICS", "GATEWAY_METRICS")


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why nothing can listen on an address: a sentence, what to change, and whether another process has the port."""

    sentence: str
    advice: str
    taken: bool = False


def obstacle(host: str, port: int, options: tuple[str, str] = OPTIONS) -> Obstacle | None:
    """None when a server could listen there now. It binds the port for a moment. `options` have host and port."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        _bind(host, port)
    except (socket.gaierror, UnicodeError):
        return Obstacle(
            f"{host!r} is neither an address of this machine nor a name of one.",
            f"Set {options[0]} to an address of this machine, or to 0.0.0.0 for all of them.",
        )
    except OSError as error:
        return _explained(error, host, where, options)
    return None


def _explained(error: OSError, host: str, where: str, options: tuple[str, str]) -> Obstacle:
    for_host, for_port = options
    if error.errno == errno.EADDRINUSE:
        return Obstacle(f"{where} is taken by another process.", f"Set {for_port} to a free port.", taken=True)
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL):
        return Obstacle(
            f"Nothing can listen on {where}: {host} is not an address of this machine.",
            f"Set {for_host} to an address of this machine, or to 0.0.0.0 for all of them.",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return Obstacle(
            f"This user may not listen on {where} ({error.strerror}).", f"Set {for_port} to a port from 1024 on."
        )
    return Obstacle(
        f"Nothing can listen on {where} ({error.strerror}).", f"Change {' or '.join(dict.fromkeys(options))}."
    )


def _bind(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)
