"""A socket to a browser without a browser: a test delivers what the browser says."""

from __future__ import annotations

from gateway.observer.devtools import DevTools


class DeliveredSocket:
    """Stands in for a BrowserSocket; `from_browser` delivers bytes to its receiver, and what is written is dropped."""

    def __init__(self) -> None:
        self.transport = self
        self.is_read = True
        self.writelines = self.write

    def write(self, buffers: list[bytes]) -> None:
        pass

    def deliver(self, receiver: DevTools) -> None:
        self.from_browser = receiver.from_browser

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def leave(self) -> None:
        self.is_read = False
