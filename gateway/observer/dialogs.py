"""Dialogs of pages: recorded without changing who answers them.

`Page.enable` makes a page's dialogs wait for the session. Without it the browser, which has no window to show them in,
dismisses them at once. So a watcher that enables Page on a session dismisses them instead, unless a client gets the
dialogs of the page: then they wait for the client, as they would without the watcher. When a session with `Page.enable`
closes, Chromium dismisses an open dialog, even if other sessions have enabled Page.
"""

from __future__ import annotations

from typing import Any

from gateway.core.observation import Clients
from gateway.observer.devtools import DevTools


def settle(opening: dict[str, Any], clients: Clients, page_id: str, devtools: DevTools, session: str) -> None:
    """To be called for each `Page.javascriptDialogOpening` of a watcher's session."""
    if opening["hasBrowserHandler"] or clients.handle_dialogs_of(page_id):
        return
    # A page that asks whether to leave it is left.
    accept = opening["type"] == "beforeunload"
    devtools.send("Page.handleJavaScriptDialog", {"accept": accept}, session)


def settle_large(opening: bytes, clients: Clients, page_id: str, devtools: DevTools, session: str) -> None:
    """The same for an event that is too large to be read, by its first bytes. A prompt alone has a text of any size."""
    if b'"hasBrowserHandler":true' not in opening and not clients.handle_dialogs_of(page_id):
        devtools.send("Page.handleJavaScriptDialog", {"accept": False}, session)
