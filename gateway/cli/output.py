"""Output of commands."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any


class OutputClosed(Exception):
    """Raised when the reader of a command's output closed the pipe, as `head` does."""


def say(line: str, file: Any = None) -> None:
    """Print a line. Raises OutputClosed."""
    stream = file or sys.stdout
    try:
        print(line, file=stream, flush=True)
    except BrokenPipeError:
        _discard(stream)
        raise OutputClosed from None


def flush() -> None:
    """Write what was printed otherwise, such as a help. Raises OutputClosed."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
        raise OutputClosed from None


def _discard(stream: Any) -> None:
    """Python would try to write what the stream still buffers when it exits, and report that this fails."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def accept_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`, as `parsed.json`, to a command that shows something."""
    parser.add_argument("--json", action="store_true", help="print one JSON document, for programs")


def say_json(document: Any) -> None:
    """Print a document; values that JSON does not have, such as ids and times, as text (times in ISO 8601)."""
    say(json.dumps(document, indent=2, ensure_ascii=False, default=_as_text))


def _as_text(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
