"""The timeline of a run, for people (contract: spaces.md, 2.10 and 3.10): a sentence and a severity for each event."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from enum import IntEnum
from typing import Any

from gateway.domain.events.service import RUN_TYPES, TYPES
from gateway.store.events import Event, Wanted


class Severity(IntEnum):
    INFO = 0
    WARNING = 1
    ERROR = 2


# Of types that are not there it is INFO.
_SEVERITIES: Mapping[str, Severity] = {
    "connection.command.refused": Severity.WARNING,
    "network.refused": Severity.WARNING,
    "events.dropped": Severity.WARNING,
    "page.error": Severity.ERROR,
    "page.crash": Severity.ERROR,
}
# Of those whose data say `status` `failed`.
_FAILED: Mapping[str, Severity] = {"tool.command": Severity.WARNING, "runtime.lifecycle": Severity.ERROR}

TYPES_IN_ACTIVITY = tuple(name for name in RUN_TYPES if TYPES[name].in_activity)


def severity(event: Event) -> Severity:
    always = _SEVERITIES.get(event.type, Severity.INFO)
    return max(always, _FAILED.get(event.type, always)) if event.data.get("status") == "failed" else always


def wanted(categories: Collection[str] | None, least: Severity) -> Wanted:
    """The events of the timeline that are of these categories and at least so severe."""
    if categories is None and least is Severity.INFO:
        return Wanted(in_activity=True)
    types = [name for name in TYPES_IN_ACTIVITY if categories is None or TYPES[name].category in categories]
    always = tuple(name for name in types if _SEVERITIES.get(name, Severity.INFO) >= least)
    failed = tuple(name for name in types if name not in always and _FAILED.get(name, Severity.INFO) >= least)
    return Wanted(always, failed, in_activity=True)


def message(event: Event) -> str:
    """What happened, as a sentence."""
    return _SENTENCES[event.type](event.data)


def _lifecycle(data: dict[str, Any]) -> str:
    return "The run began." if data.get("status") == "started" else f"The run ended: {data.get('message', '')}"


def _closed(data: dict[str, Any]) -> str:
    return f"A client left ({data.get('reason')})."


def _command(data: dict[str, Any]) -> str:
    did = "failed" if data.get("status") == "failed" else "was done"
    why = f": {data['error'].get('message')}" if "error" in data else "."
    return f"{data.get('name')} was asked for and {did}{why}"


def _dropped(data: dict[str, Any]) -> str:
    if "count" not in data:
        return "What happened in between is not known."
    of_type = f" of type {data['type']}" if "type" in data else ""
    return f"{data['count']} events{of_type} were not recorded."


def _about(beginning: str, *names: str) -> Callable[[dict[str, Any]], str]:
    """A sentence that ends with the first of these that the data have."""

    def sentence(data: dict[str, Any]) -> str:
        said = next((data[name] for name in names if data.get(name)), None)
        return f"{beginning}." if said is None else f"{beginning}: {said}"

    return sentence


_SENTENCES: Mapping[str, Callable[[dict[str, Any]], str]] = {
    "runtime.lifecycle": _lifecycle,
    "connection.opened": lambda _: "A client attached.",
    "connection.closed": _closed,
    "connection.command.refused": _about("A client's command was refused", "method"),
    "page.created": _about("A page was opened", "title", "url"),
    "navigation": _about("A page went to another address", "url"),
    "page.closed": _about("A page was closed", "title", "url"),
    "page.crash": _about("A page crashed", "url"),
    "page.error": _about("A page had an error", "text"),
    "dialog": _about("A page showed a dialog", "message", "type"),
    "download": lambda data: f"A download {data.get('state', 'began')}: {data.get('name', '')}",
    "network.refused": _about("A page was refused an address", "target", "rule"),
    "artifact.created": _about("A file was kept", "name"),
    "tool.command": _command,
    "viewer.opened": lambda _: "Somebody began to watch.",
    "viewer.closed": lambda _: "Somebody stopped watching.",
    "events.dropped": _dropped,
}
