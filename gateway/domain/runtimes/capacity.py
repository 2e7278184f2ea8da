"""How many runtimes this gateway may have live, and starting, at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from gateway.core.errors import LimitReached

_RETRY_STARTING_SECONDS = 1
_RETRY_LIVE_SECONDS = 5


class Capacity:
    def __init__(self, max_live: int, max_starting: int) -> None:
        self.max_live = max_live
        self.max_starting = max_starting
        self.live = 0
        self.starting = 0

    @property
    def free(self) -> int:
        return self.max_live - self.live

    @contextlib.contextmanager
    def start(self) -> Iterator[None]:
        """A place for a runtime, kept as long as the block starts it, and after it when it ends well.

        Raises LimitReached. The caller returns the place with `release` when the runtime has ended.
        """
        if self.live >= self.max_live:
            raise LimitReached(
                f"This gateway may have {self.max_live} runtimes live at once, and has them.",
                "gateway.max_runtimes",
                details={"limit": self.max_live},
                retry_after=_RETRY_LIVE_SECONDS,
            )
        if self.starting >= self.max_starting:
            raise LimitReached(
                f"This gateway may start {self.max_starting} runtimes at once, and does.",
                "gateway.max_starting",
                details={"limit": self.max_starting},
                retry_after=_RETRY_STARTING_SECONDS,
            )
        self.live += 1
        self.starting += 1
        try:
            yield
        except BaseException:
            self.live -= 1
            raise
        finally:
            self.starting -= 1

    def release(self) -> None:
        self.live -= 1
