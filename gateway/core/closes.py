"""Why websockets close: codes and reasons, a contract for clients (docs/close-codes.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class _CloseReason(Enum):
    """Code and reason of a close frame."""

    _value_: tuple[int, str]

    @property
    def code(self) -> int:
        return self.value[0]

    @property
    def reason(self) -> str:
        return self.value[1]


class Close(_CloseReason):
    """Why a lease's socket closes."""

    CLIENT_CLOSED = (1000, "client_closed")
    TARGET_CLOSED = (1000, "target_closed")
    DRAINING = (1001, "draining")
    PROTOCOL_ERROR = (1002, "protocol_error")
    INVALID_TEXT = (1007, "invalid_text")
    TOO_BIG = (1009, "too_big")
    UPSTREAM_ERROR = (1011, "upstream_error")
    PING_TIMEOUT = (1011, "ping_timeout")
    OVERLOADED = (1013, "overloaded")
    LEASE_EXPIRED = (4401, "lease_expired")
    LEASE_REVOKED = (4403, "lease_revoked")
    RUNTIME_GONE = (4404, "runtime_gone")
    IDLE_TIMEOUT = (4408, "idle_timeout")


class ViewerClose(_CloseReason):
    """Why a live view's socket closes; its page shows the reason."""

    LEFT = (1000, "viewer_left")
    DRAINING = (1001, "draining")
    HOST_LOST = (1011, "host_lost")
    BROWSER_LOST = (1011, "browser_lost")
    TOO_BIG = (1009, "too_big")
    MESSAGE_INVALID = (4400, "message_invalid")
    EXPIRED = (4401, "viewer_expired")
    CONTROL_REFUSED = (4403, "control_refused")
    RUN_ENDED = (4404, "run_ended")
    TOO_MANY = (4429, "too_many_viewers")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a lease's socket ended, and its traffic: bytes in each direction and the number of commands."""

    close: Close
    bytes_from_client: int = 0
    bytes_to_client: int = 0
    commands: int = 0


class CloseSignal(Protocol):
    """Reports that a socket must close."""

    def watch(self, callback: Callable[[Close], None]) -> None:
        """Call `callback` once when the socket must close; at once if it must already."""
