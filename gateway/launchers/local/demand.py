"""How many browsers of each variant are worth keeping warm, by the launches that came lately.

A variant gets as many as were launched within a second at its busiest moment of the last five minutes: so many are gone
before the first of them is replaced.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from gateway.core.launch import Variant

# How long replacing a browser takes where the machine is busy.
LEAD_SECONDS = 1.0
MEMORY_SECONDS = 300.0
# Variants that are remembered, so that a caller with ever new ones costs little.
_MOST_VARIANTS = 32


class _Arrivals:
    """The launches of one variant."""

    def __init__(self, most: int) -> None:
        # More than the maximum at once do not count.
        self._recent: deque[float] = deque(maxlen=most)
        # Launches within LEAD_SECONDS, and when: each is smaller than the one before it, so the first is the largest.
        self._peaks: deque[tuple[float, int]] = deque()
        self._before = self.last = -MEMORY_SECONDS

    def add(self, now: float) -> None:
        self._before, self.last = self.last, now
        self._recent.append(now)
        while self._recent[0] <= now - LEAD_SECONDS:
            self._recent.popleft()
        count = len(self._recent)
        while self._peaks and self._peaks[-1][1] <= count:
            self._peaks.pop()
        self._peaks.append((now, count))

    def peak(self, now: float) -> int:
        """0 once there was none for MEMORY_SECONDS."""
        while self._peaks and self._peaks[0][0] <= now - MEMORY_SECONDS:
            self._peaks.popleft()
        return self._peaks[0][1] if self._peaks else 0

    def is_repeated(self, now: float) -> bool:
        """Whether two came within MEMORY_SECONDS."""
        return self._before > now - MEMORY_SECONDS


class Demand:
    """Numbers of browsers to keep warm: at least `least` of the default variant, and at most `most` of all. Others
    get some once they are asked for a second time. Times are seconds of any one clock."""

    def __init__(self, default: Variant, least: int, most: int) -> None:
        self.default = default
        self._least = min(least, most)
        self._most = most
        # The one that came last is last.
        self._arrivals: OrderedDict[Variant, _Arrivals] = OrderedDict()

    def note(self, variant: Variant, now: float) -> None:
        """A launch came."""
        if not self._most:
            return
        self._arrivals.setdefault(variant, _Arrivals(self._most)).add(now)
        self._arrivals.move_to_end(variant)
        if len(self._arrivals) > _MOST_VARIANTS:
            self._arrivals.popitem(last=False)

    def targets(self, now: float) -> dict[Variant, int]:
        """How many to keep of each variant, the default one first and then the one that came last."""
        targets = {self.default: self._least}
        for variant, arrivals in reversed(list(self._arrivals.items())):
            if not (peak := arrivals.peak(now)):
                del self._arrivals[variant]
            elif variant == self.default:
                targets[variant] = max(peak, self._least)
            elif arrivals.is_repeated(now):
                targets[variant] = peak
        return self._within_most(targets)

    def _within_most(self, targets: dict[Variant, int]) -> dict[Variant, int]:
        """Takes from the largest, of which from the one that came first; the default variant keeps its least."""
        for _ in range(sum(targets.values()) - self._most):
            shrinkable = [each for each in targets if targets[each] > (self._least if each == self.default else 0)]
            largest = max(reversed(shrinkable), key=lambda each: targets[each])
            targets[largest] -= 1
        return targets
