"""What an earlier gateway left: process groups that run from runtimes' directories, found by their command lines."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from gateway.launchers.local import command_line


def groups_below(root: Path) -> dict[str, set[int]]:
    """Name of each runtime directory -> process groups that run from it, also where the directory is gone."""
    groups: dict[str, set[int]] = {entry.name: set() for entry in root.iterdir()}
    for process in psutil.process_iter():
        try:
            name = _runtime_of(process.cmdline(), root)
            if name is not None:
                groups.setdefault(name, set()).add(os.getpgid(process.pid))
        except (psutil.Error, ProcessLookupError):
            continue
    return groups


def _runtime_of(command: list[str], root: Path) -> str | None:
    """The runtime whose launch script or browser this command is; None for anything else, an editor, say."""
    paths = [
        argument.removeprefix(command_line.PROFILE) for argument in command if argument.startswith(command_line.PROFILE)
    ]
    if len(command) > 1 and command[0] == "/bin/sh" and command[1].endswith("/launch"):
        paths.append(command[1])
    return next((path[len(f"{root}/") :].split("/", 1)[0] for path in paths if path.startswith(f"{root}/")), None)
