"""Traffic counts of a runtime's egress listener."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from gateway.core.failures import Failure, RecentFailures, Server


class Totals(NamedTuple):
    """Bytes from and to the browser, and how many requests were refused."""

    sent: int = 0
    received: int = 0
    refused: int = 0


class Usage:
    """Counts of one listener, refusals by rule; and what failed lately."""

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0
        self.refused: Counter[str] = Counter()
        # Called with each refusal, and with the server and target of the request where these could be read. Query and
        # path of the target are as the page wrote them.
        self.on_refusal: Callable[[Failure, Server | None, str | None], None] | None = None
        self.failures = RecentFailures()

    def totals(self) -> Totals:
        return Totals(self.sent, self.received, self.refused.total())
