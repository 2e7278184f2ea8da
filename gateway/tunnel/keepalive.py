"""Pings of a client's socket, without I/O: when one is due, and when a missing answer ends the socket."""

from __future__ import annotations

from enum import Enum, auto

# A timer of the loop may fire slightly early; the next one is not set for the same moment.
_MIN_DELAY = 0.005


class Beat(Enum):
    """The next step."""

    NOTHING = auto()
    PING = auto()
    TIMEOUT = auto()


class Keepalive:
    """Times are seconds of the loop's clock. `received` is set for everything that the client sends."""

    __slots__ = ("_next_ping", "_ping_seconds", "_pong_seconds", "_sent_at_ping", "_unanswered", "received")

    def __init__(self, ping_seconds: float, pong_seconds: float) -> None:
        self._ping_seconds = ping_seconds
        self._pong_seconds = pong_seconds
        self._next_ping = 0.0
        # When the first ping without an answer was sent.
        self._unanswered: float | None = None
        self._sent_at_ping = 0
        self.received = True

    def start(self, now: float) -> float:
        """Returns the delay until the first beat."""
        self._next_ping = now + self._ping_seconds
        return self._ping_seconds

    def beat(self, now: float, sent: int, *, is_full: bool, is_paused: bool) -> Beat:
        """`sent`: bytes sent to the client so far; `is_full`: whether it is slower than they come; `is_paused`: whether
        it is not being read, for reasons of the gateway's own."""
        is_slow = is_full and sent > self._sent_at_ping
        if self.received or is_slow or is_paused:
            # A slow client gets the ping after all that it was sent before. The pong of a client that is not read,
            # since its browser is busy, waits behind its commands.
            self._unanswered = None
        elif self._unanswered is not None and now >= self._unanswered + self._pong_seconds:
            return Beat.TIMEOUT
        if now < self._next_ping:
            return Beat.NOTHING
        self.received = False
        self._sent_at_ping = sent
        self._next_ping = now + self._ping_seconds
        if self._unanswered is None:
            self._unanswered = now
        return Beat.PING

    def delay(self, now: float) -> float:
        """Seconds until the next beat."""
        due = self._next_ping
        if self._unanswered is not None:
            due = min(due, self._unanswered + self._pong_seconds)
        return max(_MIN_DELAY, due - now)
