"""Replies of a stand-in for a model to what Stagehand sends on the page /playground, derived from what it sends."""

from __future__ import annotations

import json
from typing import Any

from tests.support.model_server import Asked, Reply, Text, ToolCall, element_id

ANSWER = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}


def properties(asked: Asked) -> set[str]:
    """Names in the structured output that is wanted, which may be the input of a tool."""
    schema = asked.tools["json"] if set(asked.tools) == {"json"} else asked.schema
    return set((schema or {}).get("properties", ()))


def structured(asked: Asked, document: dict[str, Any]) -> Reply:
    return ToolCall("json", document) if "json" in asked.tools else Text.of(document)


def elements(asked: Asked) -> Reply | None:
    """The button that the instruction names, as an element of the tree that was sent."""
    if not properties(asked) & {"action", "elements"}:
        return None
    name = "Ask" if "press Ask" in asked.text else "Greet"
    found = {"elementId": element_id(asked.text, name), "description": f"the button {name}", "method": "click"}
    action = {**found, "arguments": []}
    if "elements" in properties(asked):
        return structured(asked, {"elements": [action]})
    return structured(asked, {"action": action, "twoStep": False})


def extracted(asked: Asked) -> Reply | None:
    """How many items of a list the tree has; then the library asks whether that is all."""
    if {"progress", "completed"} <= properties(asked):
        return structured(asked, {"progress": "all", "completed": True})
    if "count" in properties(asked):
        return structured(asked, {"count": asked.text.count("listitem")})
    return None


def agent(asked: Asked) -> Reply | None:
    """Look a name up, press a button, and end, by what the conversation already has."""
    if "lookup" in asked.tools and '"found"' not in asked.text:
        return ToolCall("lookup", {"name": "x"})
    if "act" in asked.tools and "the button Greet" not in asked.text:
        return ToolCall("act", {"action": "click Greet"})
    if "done" in asked.tools:
        output = {"output": {"count": 3}} if "count" in json.dumps(asked.tools["done"]) else {}
        return ToolCall("done", {"reasoning": "It greets Ada.", "taskComplete": True, **output})
    # Without a tool that it may end by, the library makes one further call that has.
    return Text("It greets.") if asked.tools else None
