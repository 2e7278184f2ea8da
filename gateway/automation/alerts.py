"""Dialogs of pages as WebDriver has them: one stays open until a command answers it, and stops all other commands.

https://www.w3.org/TR/webdriver2/#user-prompts, with the default of `unhandledPromptBehavior`, "dismiss and notify".
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from playwright.async_api import Dialog, Page
from playwright.async_api import Error as PlaywrightError

from gateway.automation.bindings import StepError
from gateway.automation.calls import Call

_LONGEST_TEXT = 1000
# Commands that do not ask the page, and may be used while a dialog is open.
_ALLOWED = frozenset(
    {"driver.getWindowHandle", "driver.getAllWindowHandles", "driver.sleep", "targetLocator.window", "binding.free"}
)


def _of_alerts(call: Call) -> bool:
    return call.name.startswith("alert.") or call.name == "until.alertIsPresent"


class Alert:
    """An open dialog: an alert, a confirmation or a prompt. `text` is its message."""

    def __init__(self, dialog: Dialog, alerts: Alerts, page: Page) -> None:
        self.text = dialog.message
        self._dialog = dialog
        self._alerts = alerts
        self._page = page
        self._answer = dialog.default_value

    async def accept(self) -> None:
        """With the text of `send_keys`, or the default one, for a prompt."""
        await self._ended(self._dialog.accept(self._answer if self._dialog.type == "prompt" else None))

    async def dismiss(self) -> None:
        await self._ended(self._dialog.dismiss())

    def send_keys(self, text: str) -> None:
        if self._dialog.type != "prompt":
            raise ValueError(f"A dialog of the type {self._dialog.type} takes no text.")
        self._answer = text

    async def _ended(self, answer: Coroutine[Any, Any, None]) -> None:
        self._alerts.forget(self._page)
        try:
            await answer
        except PlaywrightError:
            # Another client has answered it, or its page is gone.
            raise no_alert() from None


class Alerts:
    """The open dialogs of all pages."""

    def __init__(self) -> None:
        self._open: dict[Page, Alert] = {}
        self._opened = asyncio.Event()
        # Commands that opened a dialog, which end once it is answered.
        self._waiting: set[asyncio.Future[Any]] = set()

    def watch(self, page: Page) -> None:
        """Dialogs of this page wait from now on; of itself the library dismisses them."""

        async def opened(dialog: Dialog) -> None:
            if dialog.type == "beforeunload":
                # Not an alert to WebDriver: the page is left.
                await dialog.accept()
                return
            self._open[page] = Alert(dialog, self, page)
            self._opened.set()

        page.on("dialog", opened)
        page.on("close", self.forget)

    def forget(self, page: Page) -> None:
        self._open.pop(page, None)

    def on(self, page: Page) -> Alert:
        """The open dialog of a page. Raises StepError."""
        alert = self._open.get(page)
        if alert is None:
            raise no_alert()
        return alert

    async def opened(self, page: Page) -> Alert:
        """The dialog of a page, once one is open."""
        while page not in self._open:
            self._opened.clear()
            await self._opened.wait()
        return self._open[page]

    async def carry_out(self, call: Call, work: Coroutine[Any, Any, Any], page: Page) -> Any:
        """What a command returns; None once it opens a dialog. Raises StepError where one is open that it is not
        about, which is dismissed."""
        if page in self._open and not _of_alerts(call) and call.name not in _ALLOWED:
            work.close()
            alert = self._open[page]
            await alert.dismiss()
            text = alert.text[:_LONGEST_TEXT]
            raise StepError("execute.unexpected_alert", f"A dialog was open, and was dismissed: {text}", alertText=text)
        was_open = page in self._open
        command = asyncio.ensure_future(work)
        opened = asyncio.ensure_future(self.opened(page))
        try:
            await asyncio.wait({command} if was_open else {command, opened}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            command.cancel()
            raise
        finally:
            opened.cancel()
        if command.done():
            return command.result()
        self._waiting.add(command)
        command.add_done_callback(self._command_ended)
        return None

    def _command_ended(self, command: asyncio.Future[Any]) -> None:
        self._waiting.discard(command)
        if not command.cancelled():
            # Its step has ended.
            command.exception()


def no_alert() -> StepError:
    return StepError("execute.no_alert", "No dialog is open.")
