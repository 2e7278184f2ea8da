"""Websocket frames (RFC 6455) without I/O: following, reading and writing them.

- `FrameFollower`: a browser's frames, of which only headers are read; payloads are forwarded as they are.
- `MessageReader`: a client's messages, unmasked, since each command is checked.
- `MessageCollector`: a browser's messages for the gateway itself.

Frames toward a browser are masked, as the RFC requires, with a key of zeros: masking protects caches between the two
sides, and there are none on this path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the wheel of websockets
    from websockets.utils import apply_mask

Buffer = bytes | bytearray | memoryview

_FIN = 0x80
_RESERVED = 0x70
_MASKED = 0x80
_MAX_CONTROL = 125
_WHOLE_TEXT = _FIN | 0x1
# The first two bytes of an empty text message, and of one whose length takes two more bytes.
_TEXT = 0x8100
_TEXT_126 = 0x817E
# The same from a client, whose frames are masked.
_MASKED_TEXT = _TEXT | _MASKED
_MASKED_TEXT_126 = _TEXT_126 | _MASKED
# A mask that changes nothing.
_NO_KEY = b"\0\0\0\0"
# The beginning of the one browser event that is copied while it is forwarded.
ATTACHED = b'{"method":"Target.attachedToTarget"'
# What is kept of such an event, whose page decides how long it is: of its beginning, and of its end.
ATTACHED_HEAD = 512
ATTACHED_TAIL = 64
_first_four = Struct(">HH").unpack_from
# Headers by the size of their length field, without and with a mask.
_short, _short_masked = Struct(">BB").pack, Struct(">BBI").pack
_medium, _medium_masked = Struct(">BBH").pack, Struct(">BBHI").pack
_long, _long_masked = Struct(">BBQ").pack, Struct(">BBQI").pack
# The longest payload whose length takes two bytes.
_SHORT = 65535
# Payloads up to this size are joined with their header: a small copy is cheaper than another buffer to write.
_JOINED = 4096


class Opcode:
    """Frame opcodes. Plain numbers: looking up a member of an Enum takes longer than unmasking a command."""

    CONTINUATION: Final = 0x0
    TEXT: Final = 0x1
    BINARY: Final = 0x2
    CLOSE: Final = 0x8
    PING: Final = 0x9
    PONG: Final = 0xA


# In place of an opcode: a message above the maximum size, which is skipped.
OVERSIZED = -1

_DATA = (Opcode.TEXT, Opcode.BINARY)
_CONTROL = (Opcode.CLOSE, Opcode.PING, Opcode.PONG)


class FrameError(Exception):
    """Raised when the other side breaks the protocol."""

    # From a browser: what arrived whole before the fault, and should still be forwarded.
    forwardable: Sequence[Buffer] = ()


class TooBig(FrameError):
    """Raised when a browser's message is above the maximum size, as soon as its length is known."""


# Headers


def _opcode(first: int, second: int, masked: int, in_message: bool) -> int:
    """The opcode in a header's first two bytes, checked (RFC 6455, 5.2, 5.4 and 5.5). Raises FrameError.

    `masked` is _MASKED where frames must be masked, else 0; `in_message`: whether a fragmented message is open.
    """
    if first & _RESERVED:
        raise FrameError("a frame with reserved bits")
    if second & _MASKED != masked:
        raise FrameError("a frame that is not masked" if masked else "a masked frame")
    opcode = first & 0x0F
    if opcode in _CONTROL:
        if not first & _FIN or second & 0x7F > _MAX_CONTROL:
            raise FrameError("a control frame that is fragmented or too long")
    elif opcode not in (Opcode.CONTINUATION, *_DATA) or (opcode == Opcode.CONTINUATION) is not in_message:
        raise FrameError(f"a frame with the opcode {opcode} where it is not allowed")
    return opcode


def _header_size(second: int) -> int:
    """Bytes of a header without its mask, by its second byte."""
    length = second & 0x7F
    return 2 if length < 126 else 4 if length == 126 else 10


def _length(data: Buffer, position: int, payload: int) -> int:
    """The payload length in the header at `position`, whose length field ends at `payload`."""
    return data[position + 1] & 0x7F if payload - position == 2 else int.from_bytes(data[position + 2 : payload])


def header(first: int, length: int, masked: bool = False) -> bytes:
    """The header of a frame, given its first byte (FIN and opcode); the mask is a key of zeros."""
    if length < 126:
        return _short_masked(first, _MASKED | length, 0) if masked else _short(first, length)
    if length <= _SHORT:
        return _medium_masked(first, _MASKED | 126, length, 0) if masked else _medium(first, 126, length)
    return _long_masked(first, _MASKED | 127, length, 0) if masked else _long(first, 127, length)


_COMMAND_HEADS = tuple(header(_WHOLE_TEXT, length, masked=True) for length in range(126))


def frame(opcode: int, payload: bytes, masked: bool = False) -> Sequence[bytes]:
    """A whole message as buffers to write; never fragmented, since Chrome rejects fragments."""
    head = header(_FIN | opcode, len(payload), masked)
    return (head + payload,) if len(payload) <= _JOINED else (head, payload)


def command_frame(text: bytes) -> bytes:
    """The frame of a text message toward a browser, in one piece."""
    length = len(text)
    return (_COMMAND_HEADS[length] if length < 126 else header(_WHOLE_TEXT, length, masked=True)) + text


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


# A browser's frames, forwarded


class FrameFollower:
    """Follows the frames that a browser sends, so that other frames can be inserted between any two of them.

    The returned bytes always end with a whole frame: a frame that has arrived in part is sent as a fragment of what is
    there. So no frame is ever half sent, and a close frame can follow at any moment, even within a message.

    Pings, pongs and close frames are for the gateway: they are removed, and appended to `controls`. Of whole
    `Target.attachedToTarget` events, which are never shorter than 126 bytes, the first and last bytes are appended,
    joined, to `attached`.
    """

    __slots__ = (
        "_held",
        "_in_message",
        "_left",
        "_left_fin",
        "_max_size",
        "_piece",
        "_piece_end",
        "_size",
        "attached",
        "controls",
    )

    def __init__(self, max_size: int) -> None:
        """`max_size`: bytes of one message."""
        self._max_size = max_size
        # The beginning of a frame that is too short to be understood: at most a control frame.
        self._held = b""
        # Bytes still to come of a frame that was sent in part, and whether its message ends with it.
        self._left = 0
        self._left_fin = False
        # Whether a message was begun and is not finished, and its size so far.
        self._in_message = False
        self._size = 0
        self.controls: list[tuple[int, bytes]] = []
        self.attached: list[bytes] = []
        # The ends, as far as is known, of an event that may be a `Target.attachedToTarget`.
        self._piece: bytearray | None = None
        self._piece_end = b""

    @property
    def between_messages(self) -> bool:
        """Whether a whole message may follow what was returned; a control frame always may."""
        return not self._in_message

    @property
    def held(self) -> int:
        """Bytes that arrived and were not returned yet."""
        return len(self._held)

    def passes(self, data: bytes) -> bool:
        """Whether the data is one short text message, alone, which is forwarded as it is, without `feed`.

        The usual case, on the path of every answer.
        """
        end = len(data)
        if end < 4 or self._in_message or self._held or end > self._max_size:
            return False
        numbers: tuple[int, int] = _first_four(data)
        first, length = numbers
        if first == _TEXT_126:
            return end == 4 + length and not data.startswith(ATTACHED, 4)
        return _TEXT < first < _TEXT_126 and end == 2 + first - _TEXT

    def feed(self, data: bytes) -> Sequence[Buffer]:
        """The bytes for the client. Raises FrameError and TooBig, with what is `forwardable` before the fault."""
        if self._held:
            data = self._held + data
            self._held = b""
        end = len(data)
        position = self._whole_messages(data, 0, end) if not self._left else 0
        if position == end:
            return (data,)
        view = memoryview(data)
        out: list[Buffer] = [view[:position]] if position else []
        while position < end:
            if self._left:
                position = self._rest(view, position, end, out)
                continue
            after = self._whole_messages(data, position, end)
            if after > position:
                out.append(view[position:after])
            else:
                try:
                    after = self._frame(view, position, end, out)
                except FrameError as error:
                    error.forwardable = out
                    raise
                if not after:
                    self._held = bytes(view[position:])
                    break
            position = after
        return out

    def _whole_messages(self, data: bytes, position: int, end: int) -> int:
        """The end of the whole messages that begin at `position`, as far as each is one short frame.

        The usual case, and the hot one: it runs for every message of a browser.
        """
        if self._in_message or self._max_size < _SHORT:
            return position
        # Four bytes at once: the first two, and the length where it takes two more.
        last = end - 16
        before = position
        while position <= last:
            before = position
            first, length = _first_four(data, position)
            if first == _TEXT_126:
                # The T of "Target.", where an event's name begins. Comparing one number is cheaper than a slice.
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
            self.attached.append(_ends(data, payload, after))

    def _rest(self, view: memoryview, position: int, end: int, out: list[Buffer]) -> int:
        """More of a frame that was sent in part, as a fragment."""
        taken = min(self._left, end - position)
        self._left -= taken
        last = self._left_fin and not self._left
        if self._piece is not None:
            self._collect(view[position : position + taken], last)
        out.append(header(_FIN if last else 0, taken))
        out.append(view[position : position + taken])
        if last:
            self._in_message = False
            self._size = 0
        return position + taken

    def _frame(self, view: memoryview, position: int, end: int, out: list[Buffer]) -> int:
        """One frame, or the part of it that has arrived. Returns its end; 0 when it is too short to be understood."""
        if end - position < 2:
            return 0
        first, second = view[position], view[position + 1]
        opcode = _opcode(first, second, 0, self._in_message)
        payload = position + _header_size(second)
        if end < payload:
            return 0
        length = _length(view, position, payload)
        after = payload + length
        if opcode in _CONTROL:
            if end < after:
                return 0
            self.controls.append((opcode, bytes(view[payload:after])))
            return after
        if self._size + length > self._max_size:
            raise TooBig
        if end == payload and length:
            # A header alone is short enough to be held back.
            return 0
        self._size += length
        fin = bool(first & _FIN)
        if after <= end:
            if opcode == Opcode.TEXT and fin and view[payload : payload + len(ATTACHED)] == ATTACHED:
                self.attached.append(_ends(view, payload, after))
            out.append(view[position:after])
            self._in_message = not fin
            if fin:
                self._size = 0
            return after
        if opcode == Opcode.TEXT and fin and ATTACHED.startswith(view[payload:end][: len(ATTACHED)]):
            self._piece, self._piece_end = bytearray(), b""
            self._collect(view[payload:end], False)
        out.append(header(opcode, end - payload))
        out.append(view[payload:end])
        self._in_message = True
        self._left = after - end
        self._left_fin = fin
        return end

    def _collect(self, data: memoryview, last: bool) -> None:
        """More of an event that begins as `attached` events do, as far as is known."""
        assert self._piece is not None
        room = ATTACHED_HEAD - len(self._piece)
        self._piece += data[:room]
        self._piece_end = (self._piece_end + bytes(data[room:][-ATTACHED_TAIL:]))[-ATTACHED_TAIL:]
        if last:
            if self._piece.startswith(ATTACHED):
                self.attached.append(bytes(self._piece) + self._piece_end)
            self._piece = None


def _ends(data: Buffer, start: int, end: int) -> bytes:
    """The first and the last bytes of an event, joined; all of a short one."""
    after_head = min(start + ATTACHED_HEAD, end)
    return bytes(data[start:after_head]) + bytes(data[max(after_head, end - ATTACHED_TAIL) : end])


# A client's messages


class MessageReader:
    """Reads what a client sends: whole messages, pings, pongs and close frames, unmasked and in order.

    A message above the maximum size is reported as OVERSIZED as soon as its length is known, and skipped, so that the
    close frame after it is still found.
    """

    __slots__ = (
        "_data",
        "_filled",
        "_fin",
        "_key",
        "_length",
        "_max_size",
        "_message",
        "_opcode",
        "_oversized",
        "held",
    )

    def __init__(self, max_size: int) -> None:
        """`max_size`: bytes of one message."""
        self._max_size = max_size
        # An incomplete header, or an incomplete control frame.
        self._data = bytearray()
        # A data frame that has arrived in part: its mask, its length and how much of it has arrived.
        self._key: bytes | None = None
        self._length = 0
        self._filled = 0
        self._fin = False
        # A message that has arrived in part.
        self._opcode = 0
        self._message: bytearray | None = None
        self._oversized = False
        # Bytes kept of an incomplete message.
        self.held = 0

    @property
    def missing(self) -> int:
        """Bytes that the payload of a frame still lacks."""
        return self._length - self._filled if self._key is not None else 0

    def discard(self) -> None:
        """Keep no message from now on; control frames are still read."""
        self._max_size = -1
        if self._message is not None:
            self._oversized = True
            self._message.clear()
        self.held = 0

    def single(self, data: bytes) -> bytes | None:
        """The payload, if the data is exactly one short text message, which is the usual case; None otherwise."""
        end = len(data)
        if end < 8 or self._key is not None or self._data or self._message is not None:
            return None
        first, length = _first_four(data)
        if first == _MASKED_TEXT_126:
            start = 8
        else:
            start, length = 6, first - _MASKED_TEXT
            if not 0 < length < 126:
                return None
        if end != start + length or length > self._max_size:
            return None
        key = data[start - 4 : start]
        return data[start:] if key == _NO_KEY else apply_mask(data[start:], key)

    def feed(self, data: bytes) -> list[tuple[int, bytes | bytearray]]:
        """Opcode and payload of everything that is complete now. Raises FrameError, after which it can't be used."""
        found: list[tuple[int, bytes | bytearray]] = []
        view = memoryview(data)
        position, end = 0, len(data)
        # A frame without payload is complete with its header, at the end of the data too.
        while position < end or (self._key is not None and self._filled == self._length):
            if self._key is not None:
                position = self._payload(view, position, end, found)
            else:
                position = self._head(view, position, end, found)
        return found

    def _head(self, view: memoryview, position: int, end: int, found: list[tuple[int, bytes | bytearray]]) -> int:
        """Take a header, or a whole control frame; an incomplete one waits in `_data`."""
        while needed := self._missing():
            taken = min(needed, end - position)
            self._data += view[position : position + taken]
            position += taken
            if taken < needed:
                return position
        self._begin(found)
        return position

    def _missing(self) -> int:
        """How many more bytes the header needs; a control frame is taken with its payload."""
        data = self._data
        if len(data) < 2:
            return 2 - len(data)
        needed = _header_size(data[1]) + 4
        if _opcode(data[0], data[1], _MASKED, self._message is not None) in _CONTROL:
            needed += data[1] & 0x7F
        return needed - len(data)

    def _begin(self, found: list[tuple[int, bytes | bytearray]]) -> None:
        head = bytes(self._data)
        self._data = bytearray()
        opcode, payload = head[0] & 0x0F, _header_size(head[1])
        key = head[payload : payload + 4]
        if opcode in _CONTROL:
            found.append((opcode, _unmasked(head[6:], key)))
            return
        length = _length(head, 0, payload)
        if self._message is None:
            self._opcode = opcode
            self._message = bytearray()
        if len(self._message) + length > self._max_size and not self._oversized:
            self._oversized = True
            self._message.clear()
            found.append((OVERSIZED, b""))
        self._key, self._length, self._filled, self._fin = key, length, 0, bool(head[0] & _FIN)

    def _payload(self, view: memoryview, position: int, end: int, found: list[tuple[int, bytes | bytearray]]) -> int:
        assert self._key is not None
        assert self._message is not None
        taken = min(self._length - self._filled, end - position)
        turn = self._filled % 4
        if not self._oversized:
            self._message += _unmasked(view[position : position + taken], self._key[turn:] + self._key[:turn])
        self._filled += taken
        if self._filled == self._length:
            self._key = None
            if self._fin:
                if not self._oversized:
                    found.append((self._opcode, self._message))
                self._message = None
                self._oversized = False
        self.held = len(self._message) if self._message is not None else 0
        return position + taken


# A browser's messages, for the gateway itself


class MessageCollector:
    """Collects a browser's messages for the gateway itself; pings, pongs and close frames go to `controls`.

    `limit` is asked for the maximum size of a large message, by its first bytes. A message above it is passed over
    without being held; its first and its last bytes, joined, go to `skipped`.
    """

    __slots__ = (
        "_fragments",
        "_held",
        "_left",
        "_limit",
        "_max_size",
        "_needed",
        "_size",
        "_skipped_head",
        "_skipped_tail",
        "controls",
        "skipped",
    )

    # A message above this size is large; in bytes, as the others.
    LARGE = 256 * 1024
    # What is kept of a message that is passed over: of its beginning, which `limit` gets, and of its end.
    HEAD = 4096
    TAIL = 64

    def __init__(self, max_size: int, limit: Callable[[bytes], int] | None = None) -> None:
        """`max_size`: bytes of one message; with `limit`, of one in fragments."""
        self._max_size = max_size
        self._limit = limit
        # A frame that has arrived in part, and how many bytes it must have before it is looked at again.
        self._held = bytearray()
        self._needed = 0
        # The frames so far of a fragmented message, and their size.
        self._fragments: list[bytes] | None = None
        self._size = 0
        # Bytes that are still to come of a message that is passed over, and its ends.
        self._left = 0
        self._skipped_head = b""
        self._skipped_tail = b""
        self.skipped: list[bytes] = []
        self.controls: list[tuple[int, bytes]] = []

    @property
    def missing(self) -> int:
        """Bytes that a frame, whose beginning has arrived, still lacks, as far as is known."""
        return self._left or (self._needed - len(self._held) if self._held else 0)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are complete now. Raises FrameError and TooBig, after which it can't be used."""
        if self._held:
            self._held += data
            if len(self._held) < self._needed:
                return []
            data = bytes(self._held)
            self._held = bytearray()
        found: list[bytes] = []
        end = len(data)
        position = self._pass_over(data, 0, end) if self._left else 0
        while position < end:
            if end - position > 3 and self._fragments is None:
                # The usual case: a short message in one frame.
                first, length = _first_four(data, position)
                begin = position + 4
                if _TEXT <= first < _TEXT_126:
                    length = first - _TEXT
                    begin = position + 2
                if _TEXT <= first <= _TEXT_126 and begin + length <= end and length <= self._max_size:
                    position = begin + length
                    found.append(data[begin:position])
                    continue
            after = self._frame(data, position, end, found)
            if after > end:
                self._needed = after - position
                self._held += memoryview(data)[position:]
                break
            position = after
        return found

    def _frame(self, data: bytes, position: int, end: int, found: list[bytes]) -> int:
        """One frame. Returns its end; beyond `end`, as far as is known, where it has not arrived whole."""
        if end - position < 2:
            return position + 2
        first, second = data[position], data[position + 1]
        opcode = _opcode(first, second, 0, self._fragments is not None)
        payload = position + _header_size(second)
        if payload > end:
            return payload
        length = _length(data, position, payload)
        if self._limit is not None and first == _WHOLE_TEXT and length > self.LARGE:
            begun = payload + self.HEAD
            if begun > end:
                return begun
            self._skipped_head = data[payload:begun]
            if length > self._limit(self._skipped_head):
                self._skipped_tail = b""
                self._left = length - self.HEAD
                return self._pass_over(data, begun, end)
        elif opcode not in _CONTROL and self._size + length > self._max_size:
            raise TooBig
        after = payload + length
        if after > end:
            return after
        if opcode in _CONTROL:
            self.controls.append((opcode, data[payload:after]))
        elif first == _WHOLE_TEXT:
            found.append(data[payload:after])
        else:
            self._fragment(data[payload:after], bool(first & _FIN), found)
        return after

    def _pass_over(self, data: bytes, position: int, end: int) -> int:
        """More of a message that is above its limit. Returns its end, or that of the data."""
        after = min(end, position + self._left)
        self._left -= after - position
        self._skipped_tail = (self._skipped_tail + data[max(position, after - self.TAIL) : after])[-self.TAIL :]
        if not self._left:
            self.skipped.append(self._skipped_head + self._skipped_tail)
        return after

    def _fragment(self, payload: bytes, fin: bool, found: list[bytes]) -> None:
        if self._fragments is None:
            self._fragments = []
        self._fragments.append(payload)
        self._size += len(payload)
        if fin:
            found.append(b"".join(self._fragments))
            self._fragments = None
            self._size = 0


def _unmasked(payload: Buffer, key: bytes) -> bytes:
    return bytes(payload) if key == _NO_KEY else apply_mask(payload, key)
