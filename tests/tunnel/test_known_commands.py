"""The list of known DevTools commands, and the tool that writes it."""

from __future__ import annotations

import json

from gateway.tunnel.known_commands import KNOWN
from tools import known_commands as tool


def test_the_tool_writes_the_list_as_it_is() -> None:
    listed = json.loads(tool.LIST.read_text())
    assert {method: tuple(names) for method, names in listed["commands"].items()} == KNOWN
    assert tool.written(listed["chromium"], listed["commands"]) == tool.LIST.read_text()


def test_the_tool_adds_and_reports_new_commands_and_keeps_the_rest() -> None:
    known = {"Page.close": [], "Page.navigate": ["url"]}
    protocol = {
        "domains": [
            {"domain": "Empty"},
            {
                "domain": "Page",
                "commands": [
                    {"name": "navigate", "parameters": [{"name": "url"}, {"name": "frameId"}]},
                    {"name": "reload"},
                ],
            },
        ]
    }
    assert list(tool.add(known, protocol)) == ["Page.navigate frameId", "Page.reload"]
    assert known == {"Page.close": [], "Page.navigate": ["url", "frameId"], "Page.reload": []}
