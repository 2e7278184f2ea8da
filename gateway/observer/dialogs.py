"""Dialogs of pages, heard without being in their way.

A session with `Page.enable` makes a page's dialogs wait for it, where the browser has nobody to show them to and would
else dismiss them at once. So whoever of us enables Page on a session dismisses them in the browser's stead, unless a
client's session hears of them: then they wait for the client, as they would without us. When a session with
`Page.enable` goes, Chromium dismisses a dialog that is open, whoever else has enabled it.
"""

from __future__ import annotations

from typing import Any

from gateway.core.observation import Clients
from gateway.observer.devtools import DevTools


def settle(opening: dict[str, Any], clients: Clients, page_id: str, devtools: DevTools, session: str) -> None:
    """What is to be done on each `Page.javascriptDialogOpening` of a session of ours."""
    if opening["hasBrowserHandler"] or clients.handle_dialogs_of(page_id):
        return
    # A page that asks whether to be left is left.
    accept = opening["type"] == "beforeunload"
    devtools.send("Page.handleJavaScriptDialog", {"accept": accept}, session)
