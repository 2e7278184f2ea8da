"""Objects of a browser that steps have bound to names, in the process that carries them out."""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from playwright.async_api import (
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Download,
    ElementHandle,
    FileChooser,
    Frame,
    FrameLocator,
    JSHandle,
    Locator,
    Page,
    Request,
    Response,
)

from gateway.automation.calls import BindingType

# Of one runtime.
MOST = 1000
_REMEMBERED = 1000
_MOST_EVENTS = 1000

_PAGE_PARTS = ("keyboard", "mouse", "touchscreen")


class StepError(Exception):
    """Why a step failed, with a stable code (docs/execute.md)."""

    # By position, since details have names of their own, also `code`.
    def __init__(self, code: str, message: str, /, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


class Subscription:
    """Events of a page or context, kept until they are asked for: the newest ones."""

    def __init__(
        self, emitter: Any, event: str, page: Page | None, on_event: Callable[[Any], Any] | None = None
    ) -> None:
        """`on_event` is called with each event; what it returns is awaited by the library."""
        self.page = page
        self.event = event
        self.missed = 0
        self._emitter = emitter
        self._on_event = on_event
        self._waiting: deque[Any] = deque(maxlen=_MOST_EVENTS)
        self._arrived = asyncio.Event()
        self._handler = self._answer if on_event is not None else self._note
        emitter.on(event, self._handler)

    def _note(self, item: Any = None) -> None:
        if len(self._waiting) == _MOST_EVENTS:
            self.missed += 1
        self._waiting.append(item)
        self._arrived.set()

    async def _answer(self, item: Any = None) -> None:
        self._note(item)
        if self._on_event is not None:
            await self._on_event(item)

    async def next(self) -> Any:
        """The oldest event that was not returned yet."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popleft()

    def taken(self) -> list[Any]:
        """All events that were not returned yet."""
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    def close(self) -> None:
        self._emitter.remove_listener(self.event, self._handler)
        self._waiting.clear()


def subscribed(page: Page, event: str, options: Mapping[str, Any]) -> Subscription:
    """A subscription to a page's events. Dialogs are accepted or dismissed, as `options` (Listening) says."""

    async def answer(dialog: Dialog) -> None:
        if options.get("dialog") == "accept":
            await dialog.accept(options.get("promptText"))
        else:
            await dialog.dismiss()

    return Subscription(page, event, page, answer if event == "dialog" else None)


# Kind of object that a call is about -> its class.
_CLASSES: dict[str, type] = {
    "page": Page,
    "context": BrowserContext,
    "locator": Locator,
    "frame": Frame,
    "frameLocator": FrameLocator,
    "elementHandle": ElementHandle,
    "jsHandle": JSHandle,
    "request": Request,
    "response": Response,
    "download": Download,
    "dialog": Dialog,
    "fileChooser": FileChooser,
    "consoleMessage": ConsoleMessage,
    "subscription": Subscription,
    **dict.fromkeys(_PAGE_PARTS, Page),
}


def kind_of(item: Any) -> str | None:
    """The kind of a library's object; None for a value."""
    return next(
        (kind for kind, class_ in _CLASSES.items() if isinstance(item, class_) and kind not in _PAGE_PARTS), None
    )


def is_kind(item: Any, kind: str) -> bool:
    return isinstance(item, _CLASSES[kind])


def type_of(item: Any) -> BindingType:
    if isinstance(item, Page):
        return "page"
    if isinstance(item, BrowserContext):
        return "context"
    return "subscription" if isinstance(item, Subscription) else "handle"


def page_of(item: Any) -> Page | None:
    """The page that an object belongs to, where the object says so."""
    match item:
        case Page():
            return item
        case Locator() | Frame() | Subscription() | Download() | FileChooser() | Dialog() | ConsoleMessage():
            return item.page
        case FrameLocator():
            return item.owner.page
        case _:
            return None


@dataclass(frozen=True, slots=True)
class Binding:
    alias: str
    id: str
    type: BindingType
    item: Any
    page: Page | None

    def described(self) -> dict[str, str]:
        return {"alias": self.alias, "id": self.id, "type": self.type}


class Bindings:
    """By alias and by id. Those of a page or context that closes are freed, and remembered as stale."""

    def __init__(self) -> None:
        self._found: dict[str, Binding] = {}
        self._stale: OrderedDict[str, str] = OrderedDict()

    def __len__(self) -> int:
        return len({binding.id for binding in self._found.values()})

    def bind(self, item: Any, alias: str | None, page: Page | None, item_id: str | None = None) -> Binding:
        """Raises StepError where there are too many. A further binding of one alias takes its place."""
        if len(self) >= MOST:
            raise StepError(
                "execute.too_many_bindings", f"A runtime may have {MOST} bindings; free some with `binding.free`."
            )
        binding_id = item_id or str(uuid.uuid4())
        binding = Binding(alias or binding_id, binding_id, type_of(item), item, page or page_of(item))
        if alias is not None and alias in self._found:
            self._drop(self._found[alias], "another object was bound to its alias")
        for name in (binding.alias, binding.id):
            self._stale.pop(name, None)
            self._found[name] = binding
        return binding

    def get(self, name: str) -> Binding:
        """Raises StepError."""
        found = self._found.get(name)
        if found is not None:
            return found
        if name in self._stale:
            raise StepError("execute.binding_stale", f"The binding {name!r} is stale: {self._stale[name]}.", ref=name)
        raise StepError("execute.binding_unknown", f"Nothing is bound to {name!r}.", ref=name)

    def free(self, name: str) -> Binding:
        """Raises StepError."""
        binding = self.get(name)
        self._drop(binding, "it was freed")
        return binding

    def page_closed(self, page: Page) -> None:
        for binding in set(self._found.values()):
            if binding.page is page:
                self._drop(binding, "its page was closed")

    def context_closed(self, context: BrowserContext) -> None:
        for binding in set(self._found.values()):
            if binding.item is context:
                self._drop(binding, "its context was closed")

    def _drop(self, binding: Binding, why: str) -> None:
        if isinstance(binding.item, Subscription):
            binding.item.close()
        for name in (binding.alias, binding.id):
            if self._found.get(name) is binding:
                del self._found[name]
                self._stale[name] = why
        while len(self._stale) > _REMEMBERED:
            self._stale.popitem(last=False)
