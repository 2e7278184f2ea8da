"""What went through a runtime's exit."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple


class Totals(NamedTuple):
    """Bytes from and to the browser, and how many requests were refused."""

    sent: int = 0
    received: int = 0
    refused: int = 0


class Usage:
    """Counts of one exit, refusals by rule."""

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0
        self.refused: Counter[str] = Counter()

    def totals(self) -> Totals:
        return Totals(self.sent, self.received, self.refused.total())
