"""Output of commands."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any


def say(line: str, file: Any = None) -> None:
    print(line, file=file or sys.stdout, flush=True)


def accept_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`, as `parsed.json`, to a command that shows something."""
    parser.add_argument("--json", action="store_true", help="print one JSON document, for programs")


def say_json(document: Any) -> None:
    """Print a document; values that JSON does not have, such as ids and times, as text (times in ISO 8601)."""
    say(json.dumps(document, indent=2, ensure_ascii=False, default=_as_text))


def _as_text(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
