"""The outbound connection of a browser's connection: gets requests, and its answers are forwarded as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol, cast

from gateway.core.hosts import Address
from gateway.egress.channels import Channel
from gateway.egress.http_heads import AnswerHeads, RequestHead
from gateway.egress.turns import Share

# A server may send interim answers without end, in a few bytes each.
_HEADS_A_TURN = 32


class Browser(Protocol):
    """The browser's side, which learns what the server sends and does."""

    def forward(self, data: bytes) -> None:
        """A piece of the answer."""

    def answered(self) -> None:
        """The final head of an answer was forwarded."""

    def fail(self, message: str) -> None:
        """The server's response is one that must not be forwarded."""

    def switch(self, server: ServerConnection, early: bytes) -> None:
        """The server has switched protocols; `early` came behind its answer."""

    def server_is_full(self, full: bool) -> None:
        """Whether the server takes no more for now of what the browser sends."""

    def server_ended(self) -> bool:
        """The server sends nothing more. Returns whether it may still be sent something."""

    def server_broke(self) -> None:
        """The server's connection was reset."""

    def end(self) -> None:
        """The server's connection was closed."""


class ServerConnection(asyncio.Protocol):
    """The outbound connection, for the requests of one browser connection to one host."""

    def __init__(
        self, browser: Browser, share: Share, head: RequestHead, addresses: Sequence[Address], early: bytes
    ) -> None:
        self.channel: Channel
        self.addresses = addresses
        # Received before it was a connection of this protocol.
        self.early = early
        self._browser: Browser | None = browser
        self._share = share
        self._origin = (head.host, head.port)
        self._upgrade = False
        self._heads = AnswerHeads()
        self._browser_full = False
        # Whether interim heads were left for the loop's next turn.
        self._heads_left = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.channel = Channel(cast(asyncio.Transport, transport), self._share, self.take)

    def serves(self, head: RequestHead) -> bool:
        return self._origin == (head.host, head.port)

    @property
    def has_answered(self) -> bool:
        """Whether the final head of the newest request's answer has come."""
        return self._heads.final

    def send(self, head: RequestHead, wire: bytes) -> None:
        self._heads = AnswerHeads()
        self._upgrade = head.upgrade
        self.channel.write(wire)

    def leave(self, *, broken: bool) -> None:
        """End the connection as the browser ended its own, with no further effect on that one."""
        self._browser = None
        if broken:
            self.channel.reset()
        else:
            self.channel.close()

    def data_received(self, data: bytes) -> None:
        self.channel.receive(data)

    def take(self, data: bytes) -> None:
        if self._browser is None:
            return
        if self._heads.final:
            self._browser.forward(data)
        else:
            self._heads.add(data)
            if not self._heads_left:
                self._read_heads()

    def _read_heads(self) -> None:
        browser = self._browser
        if browser is None:
            return
        self._heads_left = False
        status = None
        passed = []
        for _ in range(_HEADS_A_TURN):
            if (found := self._heads.next()) is None:
                break
            status, data = found
            if status == 407:
                break
            passed.append(data)
            if self._heads.final or (status == 101 and self._upgrade):
                break
        else:
            self._heads_left = True
            self.channel.in_turn(self._read_heads)
        if passed:
            browser.forward(b"".join(passed))
        self._set_reading()
        if status == 407:
            browser.fail("The server answered 407, which only a proxy may.")
        elif self._heads.final:
            browser.answered()
        elif status == 101 and self._upgrade:
            browser.switch(self, self._heads.rest())

    def browser_is_full(self, full: bool) -> None:
        """Whether the browser takes no more for now of what the server sends."""
        self._browser_full = full
        self._set_reading()

    def _set_reading(self) -> None:
        if self._browser_full or self._heads_left:
            self.channel.pause()
        else:
            self.channel.resume()

    def pause_writing(self) -> None:
        if self._browser is not None:
            self._browser.server_is_full(True)

    def resume_writing(self) -> None:
        if self._browser is not None:
            self._browser.server_is_full(False)

    def eof_received(self) -> bool:
        self.channel.flush()
        if (now := self.channel.protocol) is not self:
            # What waited was the switch to another protocol.
            return bool(now.eof_received())
        if self._browser is None:
            return False
        # A head that was cut short is the browser's to judge, too.
        if rest := self._heads.rest():
            self._browser.forward(rest)
        return self._browser.server_ended()

    def connection_lost(self, error: Exception | None) -> None:
        browser = self._browser
        if browser is None:
            return
        if error is None and self.channel.broken is None:
            self._browser = None
            browser.end()
            return
        # Data that was received before a write failed.
        if rest := self.channel.unread():
            self.take(rest)
        if self._browser is not None:
            self._browser = None
            browser.server_broke()
