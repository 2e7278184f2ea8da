"""The process that validates by JSON Schemas: `python -m gateway.schemas.worker SECONDS`, which ends with its stdin.

- A request is a length of 8 bytes and JSON: `[schema]`, or `[schema, value]`.
- A response is a length of 8 bytes and JSON: `{"invalid": "why"}`, or `{"problems": [[path, message], ...]}`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

import jsonschema_rs
import orjson

LENGTH = struct.Struct("!Q")
_MOST_PROBLEMS = 5
_MESSAGE_CHARACTERS = 300
_MEMORY = 2 * 1024**3
_NICE = 10


def serve(requests: BinaryIO, responses: BinaryIO, seconds: float) -> None:
    """Respond until there are no more requests."""
    while head := requests.read(LENGTH.size):
        (length,) = LENGTH.unpack(head)
        _limit_time(seconds)
        # Numbers of any length stay what they are.
        answer = orjson.dumps(checked(*json.loads(requests.read(length))))
        responses.write(LENGTH.pack(len(answer)) + answer)
        responses.flush()


def checked(schema: dict[str, Any], *values: Any) -> dict[str, Any]:
    """The response to a request. Nothing is fetched, and no message has a part of a value."""
    try:
        validator = jsonschema_rs.validator_for(
            schema, offline=True, validate_formats=False, mask="it", pattern_options=jsonschema_rs.RegexOptions()
        )
    except jsonschema_rs.ValidationError as error:
        path = ".".join(map(str, error.instance_path))
        return {"invalid": _sentence(f"at {path}: {error.message}" if path else error.message)}
    except (jsonschema_rs.ReferencingError, ValueError) as error:
        return {"invalid": _sentence(str(error))}
    problems: list[list[str]] = []
    for value in values:
        for found in validator.iter_errors(value):
            problems.append([".".join(map(str, found.instance_path))[:_MESSAGE_CHARACTERS], _sentence(found.message)])
            if len(problems) == _MOST_PROBLEMS:
                break
    return {"problems": problems}


def _sentence(text: str) -> str:
    return text.split("\n", 1)[0][:_MESSAGE_CHARACTERS]


def _limit_time(seconds: float) -> None:  # pragma: no cover - in a process that ends by SIGKILL, which measures nothing
    """Let the kernel end this process once a check has taken so much processor time; it counts whole seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used.ru_utime + used.ru_stime + seconds), most))


def _limit() -> None:  # pragma: no cover - as above
    """Limit the memory, be the first process that the kernel ends when memory runs out, and let others go first."""
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    # Only Linux has this file.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":  # pragma: no cover - as above
    _limit()
    serve(sys.stdin.buffer, sys.stdout.buffer, float(sys.argv[1]))
