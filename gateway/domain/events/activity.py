"""The activity timeline of a run, for people: a sentence and a severity for each event."""

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


# Every other type is INFO.
_SEVERITIES: Mapping[str, Severity] = {
    "connection.command.refused": Severity.WARNING,
    "network.refused": Severity.WARNING,
    "network.failed": Severity.WARNING,
    # Of responses, the timeline has those that are errors.
    "network.response": Severity.WARNING,
    "events.dropped": Severity.WARNING,
    "page.error": Severity.ERROR,
    "page.crash": Severity.ERROR,
}
# Of events whose data have `status` `failed`.
_FAILED: Mapping[str, Severity] = {
    "tool.command": Severity.WARNING,
    "runtime.lifecycle": Severity.ERROR,
    "navigation": Severity.ERROR,
}

TYPES_IN_ACTIVITY = tuple(name for name in RUN_TYPES if TYPES[name].in_activity)


def severity(event: Event) -> Severity:
    always = _SEVERITIES.get(event.type, Severity.INFO)
    return max(always, _FAILED.get(event.type, always)) if event.data.get("status") == "failed" else always


def wanted(categories: Collection[str] | None, minimum: Severity) -> Wanted:
    """The events of the timeline that are of these categories and have at least this severity."""
    if categories is None and minimum is Severity.INFO:
        return Wanted(in_activity=True)
    types = [name for name in TYPES_IN_ACTIVITY if categories is None or TYPES[name].category in categories]
    always = tuple(name for name in types if _SEVERITIES.get(name, Severity.INFO) >= minimum)
    failed = tuple(name for name in types if name not in always and _FAILED.get(name, Severity.INFO) >= minimum)
    return Wanted(always, failed, in_activity=True)


def message(event: Event) -> str:
    """The event as a sentence."""
    return _SENTENCES[event.type](event.data)


def _lifecycle(data: dict[str, Any]) -> str:
    return "The run started." if data.get("status") == "started" else f"The run ended: {data.get('message', '')}"


def _navigation(data: dict[str, Any]) -> str:
    if data.get("status") == "failed":
        return _failure(f"Could not load {data.get('url', 'a page')}", data)
    return f"Navigated to {data['url']}" if data.get("url") else "Navigated."


def _failure(what: str, data: dict[str, Any]) -> str:
    if not data.get("message"):
        # Recorded by an earlier version.
        return f"{what} ({data.get('cause', 'unknown')})"
    at_fault = f" The runtime's proxy is {data['proxy']}." if data.get("proxy") else ""
    return f"{what}: {data['message']}{at_fault} ({data.get('cause', 'unknown')})"


def _failed(data: dict[str, Any]) -> str:
    times = f" {data['count']} times" if "count" in data else ""
    about = data.get("url") or data.get("target")
    return _failure(f"A request failed{times}" + (f" ({about})" if about else ""), data)


def _refused(data: dict[str, Any]) -> str:
    about = f" to {data['target']}" if data.get("target") else ""
    return _failure(f"Blocked a request{about}", {"cause": data.get("rule"), **data})


def _closed(data: dict[str, Any]) -> str:
    return f"A client disconnected ({data.get('reason')})."


_DONE = {
    "connections.create": "A connection was created.",
    "connections.renew": "A connection was renewed.",
    "connections.revoke": "A connection was revoked.",
    "execute": "Steps were executed.",
    "invocations.create": "An agent has ended its work.",
    "files.stage": "A file was staged for the browser.",
    "files.collect": "Files of the browser were collected.",
    "runtimes.stop": "The runtime was stopped.",
}
_ACTIONS = {
    "click": "clicked",
    "scroll": "scrolled",
    "tap": "tapped",
    "pinch": "zoomed",
    "drop": "dropped something",
    "type": "typed",
    "choose-files": "chose files",
    "answer-dialog": "answered a dialog",
}


def _action(who: str) -> Callable[[dict[str, Any]], str]:
    return lambda data: f"{who} {_ACTIONS.get(data.get('action', ''), 'acted')}."


def _command(data: dict[str, Any]) -> str:
    if data.get("status") == "succeeded" and data.get("name") in _DONE:
        return _DONE[data["name"]]
    outcome = "failed" if data.get("status") == "failed" else "succeeded"
    reason = f": {data['error'].get('message')}" if "error" in data else "."
    return f"The command {data.get('name')} {outcome}{reason}"


def _step(data: dict[str, Any]) -> str:
    number = f"{data['step']} of {data['totalSteps']}" if data.get("totalSteps") else data.get("step")
    said = data.get("text") or data.get("action")
    return f"The agent's step {number}: {said}" if said else f"The agent's step {number}."


def _dropped(data: dict[str, Any]) -> str:
    if "count" not in data:
        return "Some events were not recorded."
    of_type = f" of type {data['type']}" if "type" in data else ""
    return f"{data['count']} events{of_type} were not recorded."


def _about(beginning: str, *names: str) -> Callable[[dict[str, Any]], str]:
    """A sentence that ends with the first of these members that the data have."""

    def sentence(data: dict[str, Any]) -> str:
        value = next((data[name] for name in names if data.get(name)), None)
        return f"{beginning}." if value is None else f"{beginning}: {value}"

    return sentence


_SENTENCES: Mapping[str, Callable[[dict[str, Any]], str]] = {
    "runtime.lifecycle": _lifecycle,
    "connection.opened": lambda _: "A client connected.",
    "connection.closed": _closed,
    "connection.command.forwarded": _action("A client"),
    "connection.command.refused": _about("Refused a client's command", "method"),
    "page.created": _about("Opened a page", "title", "url"),
    "navigation": _navigation,
    "page.closed": _about("Closed a page", "title", "url"),
    "page.crash": _about("A page crashed", "url"),
    "page.error": _about("Page error", "text"),
    "dialog": _about("A page showed a dialog", "message", "type"),
    "download": lambda data: f"Download {data.get('state', 'started')}: {data.get('name', '')}",
    "network.refused": _refused,
    "network.failed": _failed,
    "network.response": _failed,
    "artifact.created": _about("Saved a file", "name"),
    "tool.command": _command,
    "agent.step": _step,
    "viewer.opened": lambda _: "A viewer connected.",
    "viewer.input": _action("A viewer"),
    "viewer.closed": lambda _: "A viewer disconnected.",
    "events.dropped": _dropped,
}
