"""Frames of RFC 6455, and a blocking client that costs as little as can be: what is measured shares its cores."""

from __future__ import annotations

import base64
import json
import os
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

CONTINUATION, TEXT, CLOSE, PING, PONG = 0x0, 0x1, 0x8, 0x9, 0xA

_READ_BYTES = 1 << 20
_MASKED = 0x80


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole frame at the front of what was received; `end` is where the next one begins."""

    opcode: int
    payload: bytes
    end: int
    final: bool


def frame(payload: bytes, opcode: int = TEXT, *, masked: bool = False) -> bytes:
    """A whole message in one frame. The mask is zero, which is legal and leaves the payload as it is."""
    size, mask = len(payload), _MASKED if masked else 0
    if size < 126:
        head = bytes((0x80 | opcode, mask | size))
    elif size < 1 << 16:
        head = bytes((0x80 | opcode, mask | 126)) + size.to_bytes(2)
    else:
        head = bytes((0x80 | opcode, mask | 127)) + size.to_bytes(8)
    return head + (bytes(4) if masked else b"") + payload


def parse(received: bytearray) -> Frame | None:
    """The frame at the front, unmasked; None while it is not all there."""
    if len(received) < 2:
        return None
    size, at = received[1] & 0x7F, 2
    if size > 125:
        at = 4 if size == 126 else 10
        if len(received) < at:
            return None
        size = int.from_bytes(received[2:at])
    key_at = at
    if received[1] & _MASKED:
        at += 4
    end = at + size
    if len(received) < end:
        return None
    payload = bytes(memoryview(received)[at:end])
    if at > key_at:
        payload = _unmasked(payload, bytes(received[key_at:at]))
    return Frame(received[0] & 0x0F, payload, end, final=received[0] > 0x7F)


def _unmasked(payload: bytes, key: bytes) -> bytes:
    size = len(payload)
    stream = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(stream)).to_bytes(size)


class Client:
    """One socket to a browser, or to what stands before it."""

    def __init__(self, url: str, *, timeout: float = 60.0) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((str(parts.hostname), int(parts.port or 80)), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()
        self._last_id = 0
        try:
            self._shake_hands(parts.netloc, parts.path)
        except BaseException:
            self.socket.close()
            raise

    def close(self) -> None:
        """Send a close frame; do not wait for an answer."""
        try:
            self.socket.sendall(frame((1000).to_bytes(2), CLOSE, masked=True))
        except OSError:
            pass  # It is gone already, which is what was asked for.
        finally:
            self.socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(self, method: str, params: dict[str, Any], session: str | None = None) -> bytes:
        """The frame of a command with the next id, ready to be sent."""
        self._last_id += 1
        command: dict[str, Any] = {"id": self._last_id, "method": method, "params": params}
        if session is not None:
            command["sessionId"] = session
        return frame(json.dumps(command).encode(), masked=True)

    def call(self, method: str, params: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        """The result of a command, past events; raises RuntimeError where the browser, or the tunnel, refuses it."""
        self.socket.sendall(self.request(method, params, session))
        while True:
            answer: dict[str, Any] = json.loads(self.receive())
            if answer.get("id") == self._last_id:
                break
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def receive(self) -> bytes:
        """The next text message; pings are answered. Raises ConnectionError at the end of the socket."""
        message = b""
        while True:
            found = parse(self._received)
            if found is None:
                self._read()
                continue
            del self._received[: found.end]
            if found.opcode in (TEXT, CONTINUATION):
                message += found.payload
                if found.final:
                    return message
            else:
                self._take_control(found)

    def answer_pings(self) -> None:
        """For a socket on which nothing was asked, once something has come."""
        self._read()
        while found := parse(self._received):
            del self._received[: found.end]
            self._take_control(found)

    def swallow(self, end: bytes) -> tuple[int, bytes]:
        """Reads until a read ends with `end`; how many bytes came, and the last of them. Nothing is looked into."""
        space = memoryview(bytearray(_READ_BYTES))
        count, last = len(self._received), bytes(self._received[-_TAIL_BYTES:])
        self._received.clear()
        while not last.endswith(end):
            size = self.socket.recv_into(space)
            if not size:
                raise ConnectionError("the socket ended in the midst of a stream")
            count += size
            last = last[-_TAIL_BYTES:] + bytes(space[max(0, size - _TAIL_BYTES) : size])
        return count, last[-_TAIL_BYTES:]

    def _take_control(self, found: Frame) -> None:
        if found.opcode == PING:
            self.socket.sendall(frame(found.payload, PONG, masked=True))
        elif found.opcode == CLOSE:
            code, reason = int.from_bytes(found.payload[:2]), found.payload[2:].decode(errors="replace")
            raise ConnectionError(f"closed with {code} {reason}")

    def _read(self) -> None:
        data = self.socket.recv(_READ_BYTES)
        if not data:
            raise ConnectionError("the socket ended without a close frame")
        self._received += data

    def _shake_hands(self, host: str, path: str) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        lines = (
            f"GET {path or '/'} HTTP/1.1",
            f"Host: {host}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
        )
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            self._read()
        status = self._received.split(b"\r\n", 1)[0]
        if b" 101 " not in status + b" ":
            raise ConnectionError(f"the upgrade was answered with {status.decode(errors='replace')!r}")
        del self._received[: end + 4]


_TAIL_BYTES = 256
