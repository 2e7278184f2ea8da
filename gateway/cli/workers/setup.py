"""What a worker gets from the process that starts it, as the first line of their channel.

It has secrets, so it is neither an argument nor in the environment.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Setup:
    """`settings` are those of the whole gateway. `listeners` are the inherited sockets of all workers, of which each
    accepts on its own; `inboxes` are the ends by which each worker is sent connections, `inbox` is its own
    end, and `board` is the memory that they share."""

    settings: Settings
    worker: int
    workers: int
    database_url: str = field(repr=False)
    listeners: tuple[tuple[int, ...], ...]
    inboxes: tuple[int, ...]
    inbox: int
    board: int
    # The process whose end the worker does not outlive.
    parent: int

    def to_line(self) -> bytes:
        values: dict[str, Any] = asdict(self) | {"settings": self.settings.model_dump(mode="json")}
        return json.dumps(values).encode() + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> Setup:
        values = json.loads(line)
        listeners = tuple(map(tuple, values["listeners"]))
        pairs = {
            "settings": Settings(**values["settings"]),
            "listeners": listeners,
            "inboxes": tuple(values["inboxes"]),
        }
        return cls(**values | pairs)
