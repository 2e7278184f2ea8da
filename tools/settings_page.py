"""Writes docs/settings.md from gateway/settings: `make docs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.settings import GROUPS, Settings, flag, is_secret, own_options, variable
from gateway.settings.types import Group

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
_HEAD = """\
# Settings

`make docs` writes this page from `gateway/settings/`; change the options there.

A flag takes precedence over its environment variable, and that over the default. An empty variable counts as not set.
Options that hold a secret have no flag, because every user of the machine can read a command line; the gateway removes
them from its environment before it starts any process. Each of them may be in a file instead, which the same name with
`_FILE` names, as `GATEWAY_DATABASE_URL_FILE=/run/secrets/database-url`: a secret of Docker or Kubernetes, or a
credential of systemd. White space around the value does not count, and having both variables is an error.
`GATEWAY_MASTER_KEYS_FILE` and `GATEWAY_PLATFORM_AI_API_KEY_FILE` are read again when they change, the others at the
start.

An unknown `GATEWAY_*` variable is reported with the nearest known name. Variables that Kubernetes sets for a Service
called `gateway` (`GATEWAY_SERVICE_HOST`, `GATEWAY_PORT=tcp://...` and the like) are ignored.
"""


def table(group: type[Group]) -> str:
    """A row for each option that the group declares."""
    schemas = Settings.model_json_schema()["properties"]
    rows = ["| Variable | Flag | Value | Default | Meaning |", "| --- | --- | --- | --- | --- |"]
    for name, field in own_options(group).items():
        cells = (
            f"`{variable(name)}`",
            "environment only" if is_secret(field) else f"`{flag(name)}`",
            _value_in_words(schemas[name]),
            _default_in_words(field.default),
            (field.description or "").replace("|", "\\|"),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def document() -> str:
    """The complete docs/settings.md: a table for each group."""
    return _HEAD + "".join(f"\n## {title}\n\n{table(group)}" for title, group in GROUPS.items())


def _value_in_words(schema: dict[str, Any]) -> str:
    """Type and range from an option's JSON Schema, in words."""
    for choice in schema.get("anyOf", ()):
        if choice.get("type") != "null":
            return _value_in_words(choice)
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    match schema["type"], schema.get("format"):
        case "boolean", _:
            return "`true` or `false`"
        case "array", _:
            return "list, separated by commas"
        case "string", "uri":
            return "http or https address"
        case "string", "path":
            return "path"
        case "string", _:
            return "text" + _range(schema, "minLength", "maxLength", " characters")
        case "integer", _:
            return "whole number" + _range(schema, "minimum", "maximum")
        case _:
            return "number" + _range(schema, "minimum", "maximum")


def _range(schema: dict[str, Any], least: str, most: str, unit: str = "") -> str:
    if "exclusiveMinimum" in schema:
        return f", above {schema['exclusiveMinimum']:g}, at most {schema[most]:g}"
    return f", {schema[least]} to {schema[most]}{unit}" if least in schema else ""


def _default_in_words(default: Any) -> str:
    if default is None or default == ():
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{','.join(default) if isinstance(default, tuple) else default}`"


if __name__ == "__main__":
    PAGE.write_text(document())
