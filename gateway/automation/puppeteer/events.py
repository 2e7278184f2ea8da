"""Calls `subscription.*`, and `binding.free`."""

from __future__ import annotations

from typing import Any

from gateway.automation import options as o
from gateway.automation.calls import NO_OPTIONS, Vocabulary

calls = Vocabulary("puppeteer")
call = calls.call

_NAME = {"call": "page.$", "args": ["#name"], "as": "element"}
_CONSOLE = [
    {"call": "page.on", "args": ["console"], "as": "logs"},
    {"call": "page.evaluate", "args": ["console.log('one')"]},
]


@call("subscription.next", may_bind="handle", ref="logs", before=_CONSOLE)
async def next_(on: Any, options: o.Timeout = NO_OPTIONS) -> Any:
    """The oldest event that was not returned yet; waits for one. Binds its object with `as`."""
    return await on.next()


@call("subscription.events", ref="logs", before=_CONSOLE)
async def events(on: Any) -> Any:
    """All events that were not returned yet."""
    return on.taken()


@call("binding.free", ref="element", before=[_NAME])
async def free(on: Any) -> None:
    """Free the binding that `ref` names."""
