"""Imports of many modules at the start of a process."""

from __future__ import annotations

import gc
import importlib
import sys
from types import ModuleType

# httpcore and structlog import these where something else has installed them: a sixth of the gateway's imports, unused.
_UNUSED = ("rich", "trio")


def import_module(name: str) -> ModuleType:
    """Import a module and all that it imports, with the garbage collector off, and freeze what exists then.

    Modules stay, so there is nothing to collect. The collector would scan them all again and again while they are
    imported, later, and at the end of the process: half of the time of a short command.
    """
    if name in sys.modules:
        # Nothing is imported, so all that could be frozen is what a running program has made since.
        return sys.modules[name]
    hidden = [unused for unused in _UNUSED if unused not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: an import of it raises ImportError.
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()
        for unused in hidden:
            del sys.modules[unused]
