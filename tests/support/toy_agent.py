"""An agent's process without a library: what it does is the Python of its job's instruction.

The code has `job` and all that is defined and imported here. The arguments `silent` and `begin-with-a-step` are for
processes that do not begin as they must.
"""

import base64  # noqa: F401 - for the code
import json
import os  # noqa: F401 - for the code
import signal
import socket
import sys
import time  # noqa: F401 - for the code
from typing import Any


def say(message: Any) -> None:
    raw(json.dumps(message).encode() + b"\n")


def raw(data: bytes) -> None:
    connection.sendall(data)


def step(number: int = 1, **members: Any) -> None:
    say({"type": "step", "number": number, "action": "act", "reason": "why", **members})


def hear() -> Any:
    return json.loads(lines.readline())


def result(value: Any) -> None:
    say({"type": "result", "value": value})


if __name__ == "__main__":
    connection = socket.socket(fileno=0)
    lines = connection.makefile("rb")
    if "begin-with-a-step" in sys.argv:
        step()
    elif "silent" not in sys.argv:
        say({"type": "ready"})
    job = hear()
    # Without what the gateway adds about files.
    exec(job["instruction"].partition("\n\nFiles")[0])
    # Until it is killed.
    signal.pause()
