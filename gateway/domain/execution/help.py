"""What can be called on a runtime: the calls of its driver, for those who write steps."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from gateway.automation.calls import Call
from gateway.automation.vocabularies import DEFAULT_DRIVER, VOCABULARIES

BindingType = Literal["page", "context", "handle", "subscription"]


@dataclass(frozen=True, slots=True)
class CallHelp:
    """A call. `arguments` is a JSON Schema of them by name, in the order in which they may be given by position.

    `on` is the kind of object that it is about; `example` a step.
    """

    name: str
    on: str
    summary: str
    arguments: dict[str, Any]
    binds: BindingType | None
    example: dict[str, Any]


async def calls_of(driver: str | None, beginning: str = "") -> list[CallHelp]:
    """The calls of a driver, or of the default one, whose names begin so."""
    # Their schemas take long to make, and are kept.
    calls = await asyncio.to_thread(_calls_of, driver or DEFAULT_DRIVER)
    return [call for call in calls if call.name.startswith(beginning)]


@cache
def _calls_of(driver: str) -> tuple[CallHelp, ...]:
    vocabulary = VOCABULARIES[driver]
    found = (vocabulary.get(name) for name in vocabulary.names())
    return tuple(_help(call) for call in found if call is not None)


def _help(call: Call) -> CallHelp:
    # Declared on pages of the tests.
    args = json.loads(json.dumps(call.example.args).replace("{pages}", "https://example.com"))
    example: dict[str, Any] = {"call": call.name, **({"args": args} if args else {})}
    if call.example.ref is not None:
        example["ref"] = call.example.ref
    return CallHelp(call.name, call.on, call.summary, call.schema(), call.binds, example)
