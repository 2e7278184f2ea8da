"""Traffic counts of a runtime's egress listener."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple


class Totals(NamedTuple):
    """Bytes from and to the browser, and how many requests were refused."""

    sent: int = 0
    received: int = 0
    refused: int = 0


class Usage:
    """Counts of one listener, refusals by rule."""

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0
        self.refused: Counter[str] = Counter()
        # Called with rule and target of each refusal; query and path of the target are as the page wrote them.
        self.on_refusal: Callable[[str, str | None], None] | None = None

    def totals(self) -> Totals:
        return Totals(self.sent, self.received, self.refused.total())
