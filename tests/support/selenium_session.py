"""Selenium 4's own DevTools connection on a lease, as `driver.start_devtools()` gives it, with a page of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from selenium.webdriver.common.bidi.cdp import import_devtools
from selenium.webdriver.remote.websocket_connection import WebSocketConnection

# Selenium has the commands of three versions of Chromium, and takes its newest for one that it does not know.
devtools: Any = import_devtools("latest")

ANSWER_SECONDS = 20.0
_POLL_SECONDS = 0.02


class SeleniumSession:
    """A connection whose commands go to one page in a context of its own, or to the browser with `of_browser`."""

    def __init__(self, connection: WebSocketConnection, context: str, page: str) -> None:
        self.context = context
        self._connection = connection
        self._page = page
        self._loaded = threading.Event()
        self.execute(devtools.page.enable())
        self.on(devtools.page.LoadEventFired, lambda _: self._loaded.set())

    @classmethod
    @contextmanager
    def open(cls, endpoint: str) -> Iterator[SeleniumSession]:
        connection = WebSocketConnection(endpoint, ANSWER_SECONDS, _POLL_SECONDS)
        context = connection.execute(devtools.target.create_browser_context(dispose_on_detach=True))
        target = connection.execute(devtools.target.create_target("about:blank", browser_context_id=context))
        page = connection.execute(devtools.target.attach_to_target(target, flatten=True))
        session = cls(connection, context, page)
        yield session
        session.of_browser(devtools.target.dispose_browser_context(context))
        # Its `close` may wait for its thread in vain until its timeout, on a browser of one's own too.
        connection.response_wait_timeout = 0.5
        connection.close()

    def execute(self, command: Any) -> Any:
        self._connection.session_id = self._page
        return self._connection.execute(command)

    def of_browser(self, command: Any) -> Any:
        self._connection.session_id = None
        return self._connection.execute(command)

    def on(self, event: Any, callback: Any) -> None:
        self._connection.add_callback(event, callback)

    def goto(self, url: str) -> None:
        self._loaded.clear()
        self.execute(devtools.page.navigate(url))
        assert self._loaded.wait(ANSWER_SECONDS), f"{url} was not loaded"

    def evaluate(self, expression: str) -> Any:
        remote, thrown = self.execute(
            devtools.runtime.evaluate(expression, return_by_value=True, await_promise=True, user_gesture=True)
        )
        assert thrown is None, thrown
        return remote.value
