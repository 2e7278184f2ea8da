"""Writes the lists of calls in docs/execute.md from the declarations of calls (gateway/automation): `make docs`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gateway.automation.calls import Call
from gateway.automation.vocabularies import VOCABULARIES

PAGE = Path(__file__).parent.parent / "docs" / "execute.md"
# What is before it is written by hand.
_MARK = "<!-- What follows is written by `make docs` from gateway/automation/. -->\n"


def document() -> str:
    """The complete page: each vocabulary with its calls."""
    parts = [PAGE.read_text().partition(_MARK)[0], _MARK]
    for vocabulary in VOCABULARIES.values():
        parts.append(f"\n## Calls of `{vocabulary.name}`\n\n| call | arguments | what it does |\n|---|---|---|\n")
        if vocabulary.extends is not None:
            parts[-1] = parts[-1].replace("\n\n|", f"\n\nAll calls of `{vocabulary.extends.name}`, and these:\n\n|", 1)
        parts += [_row(call) for call in vocabulary]
    return "".join(parts)


def _row(call: Call) -> str:
    schema = call.schema()
    required = schema.get("required", [])
    arguments = ", ".join(
        _argument(name, about, schema, is_required=name in required)
        for name, about in schema.get("properties", {}).items()
    )
    summary = " ".join(call.summary.split()).replace("|", "\\|")
    binds = f" Binds a {call.binds}{' with `as`' if call.binds_with_alias else ''}." if call.binds else ""
    return f"| `{call.name}` | {arguments} | {summary}{binds} |\n"


def _argument(name: str, about: dict[str, Any], schema: dict[str, Any], *, is_required: bool) -> str:
    if "$ref" in about:
        members = schema["$defs"][about["$ref"].rpartition("/")[2]]["properties"]
        inner = ", ".join(f"`{member}`" for member in members)
        return f"`{name}`{'' if is_required else '?'} ({inner})"
    default = about.get("default")
    shown = f" = `{json.dumps(default)}`" if default is not None else ""
    return f"`{name}`{'' if is_required else '?'}{shown}"


if __name__ == "__main__":
    PAGE.write_text(document())
