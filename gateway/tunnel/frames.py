"""Websocket frames (RFC 6455) without I/O: following them, reading them, writing them.

Browser to client only headers are followed (`FrameFollower`); payloads pass as they are. Client to browser messages
are read (`MessageReader`), since each is a command that is checked. Toward a browser frames are masked, as the RFC
wants it, with a key of zeros: the mask is against caches between the two, and there are none on this way.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the wheel of websockets
    from websockets.utils import apply_mask

Buffer = bytes | bytearray | memoryview

_FIN = 0x80
_MASKED = 0x80
_LONGEST_CONTROL = 125
_WHOLE_TEXT = _FIN | 0x1
# The first two bytes of a whole text message of no bytes, and of one whose length has two bytes of its own.
_TEXT = 0x8100
_TEXT_126 = 0x817E
# The same of a client, whose frames are masked.
_MASKED_TEXT = _TEXT | _MASKED
_MASKED_TEXT_126 = _TEXT_126 | _MASKED
# How the one event of a browser's begins that is listened to on its way.
ATTACHED = b'{"method":"Target.attachedToTarget"'
# Of such an event in pieces, as much is kept.
_LONGEST_ATTACHED = 256 * 1024
_first_four = Struct(">HH").unpack_from
# Headers by how their length is written, without a key and with one.
_short, _short_masked = Struct(">BB").pack, Struct(">BBI").pack
_medium, _medium_masked = Struct(">BBH").pack, Struct(">BBHI").pack
_long, _long_masked = Struct(">BBQ").pack, Struct(">BBQI").pack
# Payloads whose length has two bytes at most.
_SHORT = 65535
# Payloads up to here are joined with their header: one small copy is cheaper than one more buffer to write.
_JOINED = 4096


class Opcode:
    """What a frame is. Plain numbers: looking up a member of an Enum takes longer than unmasking a command."""

    CONTINUATION: Final = 0x0
    TEXT: Final = 0x1
    BINARY: Final = 0x2
    CLOSE: Final = 0x8
    PING: Final = 0x9
    PONG: Final = 0xA


# In the place of an opcode: a message above the ceiling, which is passed over.
OVERSIZED = -1

_DATA = (Opcode.TEXT, Opcode.BINARY)
_CONTROL = (Opcode.CLOSE, Opcode.PING, Opcode.PONG)


class FrameError(Exception):
    """Raised when the other side breaks the protocol."""

    # Of a browser: what came whole before the fault, and is still to be passed on.
    passed: Sequence[Buffer] = ()


class TooBig(FrameError):
    """Raised when a browser's message is above the ceiling, as soon as its length is known."""


def header(first: int, length: int, masked: bool = False) -> bytes:
    """The header of a frame whose first byte (FIN and opcode) is given; a mask is the key of zeros."""
    if length < 126:
        return _short_masked(first, _MASKED | length, 0) if masked else _short(first, length)
    if length <= _SHORT:
        return _medium_masked(first, _MASKED | 126, length, 0) if masked else _medium(first, 126, length)
    return _long_masked(first, _MASKED | 127, length, 0) if masked else _long(first, 127, length)


def frame(opcode: int, payload: bytes, masked: bool = False) -> Sequence[bytes]:
    """A whole message as buffers to write; never fragmented, since Chrome takes no fragments."""
    head = header(_FIN | opcode, len(payload), masked)
    return (head + payload,) if len(payload) <= _JOINED else (head, payload)


def close_frame(code: int, reason: str = "", masked: bool = False) -> bytes:
    payload = code.to_bytes(2) + reason.encode()
    return header(_FIN | Opcode.CLOSE, len(payload), masked) + payload


def read_close(payload: bytes) -> tuple[int, str]:
    """Code and reason of a close frame's payload; 1005 when it has none. Raises FrameError."""
    if not payload:
        return 1005, ""
    code = int.from_bytes(payload[:2])
    if len(payload) == 1 or not (1000 <= code < 1004 or 1007 <= code < 1015 or 3000 <= code < 5000):
        raise FrameError(f"a close frame with the code {code}")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise FrameError("a close frame whose reason is not UTF-8") from None


class FrameFollower:
    """Follows the frames that a browser sends, so that frames of our own can be put between any two of them.

    What it returns ends with a whole frame, always. A frame of which only a part has come leaves as a fragment of what
    is there, so no frame is ever left half sent, and a close frame can follow at once, in the midst of a message too.
    Pings and close frames are for us, are taken out, and are found in `controls`. Whole events of the name
    `Target.attachedToTarget`, none of which is shorter than 126 bytes, pass and are found in `attached` as well.
    """

    __slots__ = ("_held", "_largest", "_left", "_left_fin", "_open", "_piece", "_size", "attached", "controls")

    def __init__(self, largest: int) -> None:
        self._largest = largest
        # The beginning of a frame of which too little has come to know what it is: at most a control frame's length.
        self._held = b""
        # What is still to come of a frame that began to leave, and whether its message ends with it.
        self._left = 0
        self._left_fin = False
        self._open = False
        self._size = 0
        self.controls: list[tuple[int, bytes]] = []
        self.attached: list[bytes] = []
        # What has come of an event that may be such a one.
        self._piece: bytearray | None = None

    @property
    def between_messages(self) -> bool:
        """Whether a whole message may follow what was returned; a control frame always may."""
        return not self._open

    def feed(self, data: bytes) -> Sequence[Buffer]:
        """What the client is to get for what the browser sent. Raises FrameError, TooBig, with what came before."""
        if self._held:
            data = self._held + data
            self._held = b""
        end = len(data)
        if end > 3 and not self._open and end <= self._largest:
            # The usual case: one message, alone.
            first, length = _first_four(data)
            if first == _TEXT_126 and end == 4 + length:
                if data.startswith(ATTACHED, 4):
                    self.attached.append(data[4:])
                return (data,)
            if _TEXT < first < _TEXT_126 and end == 2 + first - _TEXT:
                return (data,)
        position = self._whole_messages(data, 0, end) if not self._left else 0
        if position == end:
            return (data,)
        view = memoryview(data)
        out: list[Buffer] = [view[:position]] if position else []
        while position < end:
            if self._left:
                position = self._continued(view, position, end, out)
                continue
            after = self._whole_messages(data, position, end)
            if after > position:
                out.append(view[position:after])
            else:
                try:
                    after = self._frame(view, position, end, out)
                except FrameError as error:
                    error.passed = out
                    raise
                if not after:
                    self._held = bytes(view[position:])
                    break
            position = after
        return out

    def _whole_messages(self, data: bytes, position: int, end: int) -> int:
        """Where the whole messages end that begin at `position`: those of one short frame each.

        The usual case, and the only one that is hot.
        """
        if self._open or self._largest < _SHORT:
            return position
        # Four bytes at once: what the frame is, and its length where that has two bytes.
        last = end - 16
        before = position
        while position <= last:
            before = position
            first, length = _first_four(data, position)
            if first == _TEXT_126:
                # The T of "Target.", where an event's name begins: numbers, since this is done for every message.
                if data[position + 15] == 84:
                    self._look(data, position + 4, position + 4 + length, end)
                position += 4 + length
            elif _TEXT <= first < _TEXT_126:
                position += 2 + first - _TEXT
            else:
                return position
        return position if position <= end else before

    def _look(self, data: bytes, payload: int, after: int, end: int) -> None:
        if after <= end and data.startswith(ATTACHED, payload):
            self.attached.append(data[payload:after])

    def _continued(self, view: memoryview, position: int, end: int, out: list[Buffer]) -> int:
        """More of a frame that began to leave, as a fragment."""
        taken = min(self._left, end - position)
        self._left -= taken
        last = self._left_fin and not self._left
        if self._piece is not None:
            self._collect(view[position : position + taken], last)
        out.append(header(_FIN if last else 0, taken))
        out.append(view[position : position + taken])
        if last:
            self._open = False
            self._size = 0
        return position + taken

    def _frame(self, view: memoryview, position: int, end: int, out: list[Buffer]) -> int:
        """One frame, or as much of it as there is. Returns where it ends, 0 when too little of it is there."""
        if end - position < 2:
            return 0
        first, second = view[position], view[position + 1]
        opcode, fin = first & 0x0F, first & _FIN
        if first & 0x70 or second & _MASKED:
            raise FrameError("a frame with reserved bits, or a masked one")
        length = second
        payload = position + 2
        if second >= 126:
            payload += 2 if second == 126 else 8
            if end < payload:
                return 0
            length = int.from_bytes(view[position + 2 : payload])
        if opcode in _CONTROL:
            if not fin or length > _LONGEST_CONTROL:
                raise FrameError("a control frame in fragments, or a long one")
            if end < payload + length:
                return 0
            self.controls.append((opcode, bytes(view[payload : payload + length])))
            return payload + length
        if opcode not in (Opcode.CONTINUATION, *_DATA) or (opcode == Opcode.CONTINUATION) is not self._open:
            raise FrameError(f"a frame with the opcode {opcode} where it may not be")
        self._size += length
        if self._size > self._largest:
            raise TooBig
        if payload + length <= end:
            if opcode == Opcode.TEXT and fin and view[payload : payload + len(ATTACHED)] == ATTACHED:
                self.attached.append(bytes(view[payload : payload + length]))
            out.append(view[position : payload + length])
            self._open = not fin
            if fin:
                self._size = 0
            return payload + length
        if end == payload:
            # Nothing of it yet but its header, which says no more than we can hold back.
            self._size -= length
            return 0
        if opcode == Opcode.TEXT and fin and ATTACHED.startswith(view[payload:end][: len(ATTACHED)]):
            self._piece = bytearray()
            self._collect(view[payload:end], False)
        out.append(header(opcode, end - payload))
        out.append(view[payload:end])
        self._open = True
        self._left = length - (end - payload)
        self._left_fin = bool(fin)
        return end

    def _collect(self, data: memoryview, last: bool) -> None:
        """More of an event that begins as `attached` ones do, as far as is known."""
        assert self._piece is not None
        self._piece += data
        if len(self._piece) > _LONGEST_ATTACHED:
            self._piece = None
        elif last:
            if self._piece.startswith(ATTACHED):
                self.attached.append(bytes(self._piece))
            self._piece = None


class MessageReader:
    """Reads what a client sends: whole messages, pings, pongs and close frames, unmasked, in their order.

    A message above the ceiling is told by OVERSIZED as soon as its length is known, and passed over, so that the close
    frame behind it is still found.
    """

    __slots__ = (
        "_collected",
        "_data",
        "_filled",
        "_fin",
        "_key",
        "_largest",
        "_length",
        "_opcode",
        "_oversized",
        "held",
    )

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._data = bytearray()
        # A data frame of which a part has come: its key, its length and how much of it is there.
        self._key: bytes | None = None
        self._length = 0
        self._filled = 0
        self._fin = False
        # A message of which a part has come.
        self._opcode = 0
        self._collected: bytearray | None = None
        self._oversized = False
        # Bytes of a message that is not whole yet.
        self.held = 0

    def pass_over(self) -> None:
        """Keep no message from here on; control frames are still read."""
        self._largest = -1
        if self._collected is not None:
            self._oversized = True
            self._collected.clear()
        self.held = 0

    def alone(self, data: bytes) -> bytes | None:
        """The payload, where the data is one short text message and nothing else, which is the usual case."""
        end = len(data)
        if end < 8 or self._key is not None or self._data or self._collected is not None:
            return None
        first, length = _first_four(data)
        if first == _MASKED_TEXT_126:
            return _unmasked(data[8:], data[4:8]) if end == 8 + length and length <= self._largest else None
        if _MASKED_TEXT < first < _MASKED_TEXT_126 and end == 6 + first - _MASKED_TEXT:
            return _unmasked(data[6:], data[2:6])
        return None

    def feed(self, data: bytes) -> list[tuple[int, bytes | bytearray]]:
        """Opcode and payload of everything that is whole now. Raises FrameError, after which it is of no more use."""
        found: list[tuple[int, bytes | bytearray]] = []
        view = memoryview(data)
        position, end = 0, len(data)
        while position < end or (self._key is not None and self._filled == self._length):
            if self._key is not None:
                position = self._payload(view, position, end, found)
            else:
                position = self._head(view, position, end, found)
        return found

    def _head(self, view: memoryview, position: int, end: int, found: list[tuple[int, bytes | bytearray]]) -> int:
        """Take what is needed of a frame's head, and of a whole control frame; the rest waits in `_data`."""
        while True:
            needed = self._missing()
            if needed == 0:
                break
            taken = min(needed, end - position)
            self._data += view[position : position + taken]
            position += taken
            if taken < needed:
                return position
        self._begin(found)
        return position

    def _missing(self) -> int:
        """How many more bytes the frame's head needs; a control frame needs its payload with it."""
        data = self._data
        if len(data) < 2:
            return 2 - len(data)
        if data[0] & 0x70 or not data[1] & _MASKED:
            raise FrameError("a frame with reserved bits, or one that is not masked")
        length = data[1] & 0x7F
        needed = 6 + (0 if length < 126 else 2 if length == 126 else 8)
        if data[0] & 0x0F in _CONTROL and length <= _LONGEST_CONTROL:
            needed += length
        return needed - len(data)

    def _begin(self, found: list[tuple[int, bytes | bytearray]]) -> None:
        head = bytes(self._data)
        self._data = bytearray()
        first, length = head[0], head[1] & 0x7F
        opcode, fin = first & 0x0F, bool(first & _FIN)
        if opcode in _CONTROL:
            if not fin or length > _LONGEST_CONTROL:
                raise FrameError("a control frame in fragments, or a long one")
            found.append((opcode, _unmasked(head[6:], head[2:6])))
            return
        begun = self._collected is not None
        if opcode not in (Opcode.CONTINUATION, *_DATA) or (opcode == Opcode.CONTINUATION) is not begun:
            raise FrameError(f"a frame with the opcode {opcode} where it may not be")
        if length >= 126:
            length = int.from_bytes(head[2:-4])
        if self._collected is None:
            self._opcode = opcode
            self._collected = bytearray()
        if len(self._collected) + length > self._largest and not self._oversized:
            self._oversized = True
            self._collected.clear()
            found.append((OVERSIZED, b""))
        self._key, self._length, self._filled, self._fin = head[-4:], length, 0, fin

    def _payload(self, view: memoryview, position: int, end: int, found: list[tuple[int, bytes | bytearray]]) -> int:
        assert self._key is not None
        assert self._collected is not None
        taken = min(self._length - self._filled, end - position)
        turn = self._filled % 4
        if not self._oversized:
            self._collected += _unmasked(view[position : position + taken], self._key[turn:] + self._key[:turn])
        self._filled += taken
        if self._filled == self._length:
            self._key = None
            if self._fin:
                if not self._oversized:
                    found.append((self._opcode, self._collected))
                self._collected = None
                self._oversized = False
        self.held = len(self._collected) if self._collected is not None else 0
        return position + taken


class MessageCollector:
    """Collects what a browser says to us alone: whole messages, and its control frames in `controls`."""

    __slots__ = ("_fragments", "_held", "_largest", "_needed", "_size", "controls")

    def __init__(self, largest: int) -> None:
        self._largest = largest
        # A frame of which a part has come, and how much of it there has to be before it is looked at again.
        self._held = bytearray()
        self._needed = 0
        # The frames so far of a message in several.
        self._fragments: list[bytes] | None = None
        self._size = 0
        self.controls: list[tuple[int, bytes]] = []

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are whole now. Raises FrameError, TooBig, after which it is of no more use."""
        if self._held:
            self._held += data
            if len(self._held) < self._needed:
                return []
            data = bytes(self._held)
            self._held = bytearray()
        found: list[bytes] = []
        position, end = 0, len(data)
        while position < end:
            if end - position > 3 and self._fragments is None:
                # The usual case: a short message in one frame.
                first, length = _first_four(data, position)
                begin = position + 4
                if _TEXT <= first < _TEXT_126:
                    length = first - _TEXT
                    begin = position + 2
                if _TEXT <= first <= _TEXT_126 and begin + length <= end and length <= self._largest:
                    position = begin + length
                    found.append(data[begin:position])
                    continue
            payload = self._payload(data, position, end)
            if payload > end:
                self._needed = payload - position
                self._held += memoryview(data)[position:]
                break
            after = payload + self._length(data, position, payload)
            if after > end:
                self._needed = after - position
                self._held += memoryview(data)[position:]
                break
            if data[position] == _WHOLE_TEXT and self._fragments is None:
                found.append(data[payload:after])
            else:
                self._rare(data[position], data[payload:after], found)
            position = after
        return found

    def _payload(self, data: bytes, position: int, end: int) -> int:
        """Where the payload of the frame begins; beyond the end where that can't be told yet."""
        if end - position < 2:
            return position + 2
        second = data[position + 1]
        if second < 126:
            return position + 2
        if second & _MASKED:
            raise FrameError("a masked frame")
        return position + (4 if second == 126 else 10)

    def _length(self, data: bytes, position: int, payload: int) -> int:
        second = data[position + 1]
        length = second if second < 126 else int.from_bytes(data[position + 2 : payload])
        if length + self._size > self._largest:
            raise TooBig
        return length

    def _rare(self, first: int, payload: bytes, found: list[bytes]) -> None:
        """A control frame, or a part of a message."""
        opcode, fin = first & 0x0F, first & _FIN
        if first & 0x70:
            raise FrameError("a frame with reserved bits")
        if opcode in _CONTROL:
            if not fin or len(payload) > _LONGEST_CONTROL:
                raise FrameError("a control frame in fragments, or a long one")
            self.controls.append((opcode, payload))
            return
        if opcode not in (Opcode.CONTINUATION, *_DATA) or (opcode == Opcode.CONTINUATION) is (self._fragments is None):
            raise FrameError(f"a frame with the opcode {opcode} where it may not be")
        if self._fragments is None:
            self._fragments = []
        self._fragments.append(payload)
        self._size += len(payload)
        if fin:
            found.append(b"".join(self._fragments))
            self._fragments = None
            self._size = 0


def _unmasked(payload: Buffer, key: bytes) -> bytes:
    return bytes(payload) if key == b"\0\0\0\0" else apply_mask(payload, key)
