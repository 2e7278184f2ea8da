"""Secrets of the vault that an agent has typed into a page: it names a key, the gateway finds the element and types.

The element is the one of a selector, or the one that has the focus. The gateway marks it over its own connection, in a
world of the page where its scripts have replaced nothing, and then enters the text as it does for steps.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Final
from uuid import UUID

from gateway.core.observation import Observed
from gateway.core.secret_entry import MARK, SecretEntry
from gateway.domain.execution.step_secrets import NotEntered, StepSecrets
from gateway.domain.runtimes.service import Runtime
from gateway.domain.runtimes.state import RuntimeStates
from gateway.domain.tools.webhooks import ToolFailed
from gateway.observer.devtools import DevToolsError
from gateway.observer.observers import BrowserObservers

_SECONDS: Final = 10.0
_WORLD: Final = "gateway"

# Down to the element of the frames that can be reached from here: those of other sites are processes of their own.
_MARKED = """((selector, mark, value) => {
  const inside = (root, find) => {
    const found = find(root);
    if (found) return found;
    for (const each of root.querySelectorAll('*')) {
      if (each.shadowRoot) { const deeper = inside(each.shadowRoot, find); if (deeper) return deeper; }
      let below = null;
      try { below = each.contentDocument; } catch { below = null; }
      if (below) { const deeper = inside(below, find); if (deeper) return deeper; }
    }
    return null;
  };
  const focused = () => {
    let found = document.activeElement;
    for (;;) {
      let next = found?.shadowRoot?.activeElement;
      try { next ||= found?.contentDocument?.activeElement; } catch { next = null; }
      if (!next) return found;
      found = next;
    }
  };
  const xpath = selector?.startsWith('xpath=') ? selector.slice(6) : selector?.startsWith('/') ? selector : null;
  const found = selector === null ? focused() : xpath === null
    ? inside(document, root => root.querySelector(selector))
    : document.evaluate(xpath, document, null, XPathResult.FIRST_ORDERED_NODE_TYPE, null).singleNodeValue;
  if (!found?.setAttribute || found === document.body) return false;
  found.setAttribute(mark, value);
  return true;
})"""


class PageSecrets:
    def __init__(self, entering: StepSecrets, observers: BrowserObservers, states: RuntimeStates) -> None:
        self._entering = entering
        self._observers = observers
        self._states = states

    async def enter(self, observed: Observed, runtime: Runtime, key: str, field: str, selector: str | None) -> None:
        """Type a field of a secret into the page that clients work in.

        Raises NotFound, Forbidden, RequestInvalid of the vault; ToolFailed where the page takes no text.
        """
        page = self._states.default_page(observed.runtime_id)
        if page is None:
            raise ToolFailed("vault.no_element", "The browser has no page.")
        mark = secrets.token_hex(16)
        try:
            async with asyncio.timeout(_SECONDS):
                found = await self._mark(observed.runtime_id, page[1], selector, mark)
        except (DevToolsError, TimeoutError):
            found = False
        if not found:
            message = (
                "There is no such element" if selector is not None else "No element has the focus; click one first"
            )
            raise ToolFailed("vault.no_element", f"{message}.")

        entry = SecretEntry(key, field, 0, page[1], mark, replaces=True)
        try:
            await self._entering.enter(observed, runtime, None, entry, _SECONDS, for_agent=True)
        except NotEntered as error:
            raise ToolFailed("vault.not_entered", error.message) from None

    async def _mark(self, runtime_id: UUID, page_id: str, selector: str | None, mark: str) -> bool:
        observation = self._observers.of(runtime_id)
        if observation is None:
            return False
        devtools = observation.devtools
        attached = await devtools.call("Target.attachToTarget", {"targetId": page_id, "flatten": True})
        session: str = attached["sessionId"]
        try:
            made = await devtools.call("Page.createIsolatedWorld", {"frameId": page_id, "worldName": _WORLD}, session)
            given = ", ".join(json.dumps(each) for each in (selector, MARK, mark))
            answer = await devtools.call(
                "Runtime.evaluate",
                {
                    "expression": f"{_MARKED}({given})",
                    "contextId": made["executionContextId"],
                    "returnByValue": True,
                },
                session,
            )
        finally:
            devtools.send("Target.detachFromTarget", {"sessionId": session})
        return answer["result"].get("value") is True
