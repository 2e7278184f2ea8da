"""Replies of a stand-in for a model to what browser-use sends on the page /playground, derived from what it sends."""

from __future__ import annotations

from typing import Any

from tests.support.model_server import Asked, Reply, Text, ToolCall, element_id

ANSWER = {
    "type": "object",
    "properties": {"count": {"$ref": "#/$defs/Count"}, "names": {"type": ["array", "null"]}},
    "required": ["count"],
    "$defs": {"Count": {"type": "integer", "minimum": 0}},
}


def offered(asked: Asked) -> dict[str, Any]:
    """The actions of the library that the request lets the model take, by name, each with its schema."""
    schema = next(iter(asked.tools.values())) if asked.tools else asked.schema
    actions = ((schema or {}).get("properties") or {}).get("action")
    if actions is None:
        return {}
    items = actions["items"]
    # Google spells it in its own way.
    choices = items.get("anyOf") or items.get("any_of") or [items]
    return {name: each for one in choices for name, each in one["properties"].items()}


def acts(asked: Asked, goal: str, *actions: dict[str, Any], are_offered: bool = True) -> Reply:
    """What the model does in one step. An action that was not offered is an error."""
    for action in actions:
        assert not are_offered or set(action) <= set(offered(asked)), (action, sorted(offered(asked)))
    document = {
        "thinking": "It is a page.",
        "evaluation_previous_goal": "Good.",
        "memory": "Nothing.",
        "next_goal": goal,
        "action": list(actions),
    }
    return ToolCall(next(iter(asked.tools)), document) if asked.tools else Text.of(document)


def agent(asked: Asked) -> Reply | None:
    """Look a name up, press a button, and end, by what the conversation already has."""
    if not (actions := offered(asked)):
        return None
    if "lookup" in actions and "Ada" not in asked.text:
        return acts(asked, "Look the name up.", {"lookup": {"name": "x"}})
    if "click" in actions and "Clicked button" not in asked.text:
        return acts(asked, "Press Greet.", {"click": {"index": int(element_id(asked.text, "Greet"))}})
    if "data" in actions["done"]["properties"]:
        return acts(asked, "End.", {"done": {"success": True, "data": {"count": 3}}})
    return acts(asked, "End.", {"done": {"success": True, "text": "It greets Ada."}})
