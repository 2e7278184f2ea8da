"""What commands print."""

from __future__ import annotations

import sys
from typing import Any


def say(line: str, file: Any = None) -> None:
    print(line, file=file or sys.stdout, flush=True)
