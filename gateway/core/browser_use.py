"""Whether anything uses a browser: while nothing does, its pages may be frozen."""

from __future__ import annotations

from collections.abc import Callable


class BrowserUse:
    """The present uses of a browser, such as a lease's socket or the pictures of a live view.

    `count` changes with each use that begins, and with each single action. `wake` is called before either, and
    returns when the browser's pages run.
    """

    def __init__(self) -> None:
        self.count = 0
        self.wake: Callable[[], None] | None = None
        self._users: set[object] = set()

    @property
    def is_used(self) -> bool:
        return bool(self._users)

    def begin(self, user: object) -> None:
        """A use that lasts until `end`. Idempotent."""
        self.act()
        self._users.add(user)

    def end(self, user: object) -> None:
        """Idempotent."""
        self._users.discard(user)

    def act(self) -> None:
        """A single action."""
        self.count += 1
        if self.wake is not None:
            self.wake()
