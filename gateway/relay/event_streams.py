"""Server-sent events, passed on as they come: each piece of a stream up to the end of its last whole event."""

from __future__ import annotations

_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_LONGEST_END = 4


class EventStream:
    """Cuts a stream behind events. A client can do nothing with a part of one, so that holding it back delays nothing,
    and whatever is looked for inside an event is in one piece."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> bytes:
        """The whole events that there are now."""
        if not self._held and data.endswith(_ENDS):
            return data
        # What is held has no end but one that is cut through.
        start = max(0, len(self._held) - _LONGEST_END + 1)
        self._held += data
        end = max(found + len(each) if (found := self._held.rfind(each, start)) >= 0 else 0 for each in _ENDS)
        events = bytes(self._held[:end])
        del self._held[:end]
        return events

    def rest(self) -> bytes:
        """What followed the last event when the stream ended."""
        rest = bytes(self._held)
        self._held.clear()
        return rest
