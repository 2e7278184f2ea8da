"""State that a process inherits from the one that started it, set to what the gateway and its children expect.

A script that starts `gateway up &` has it ignore SIGINT; `nohup` and supervisors leave other signals ignored or
blocked, or standard streams closed. Children inherit what is ignored or blocked: a browser that can't learn how its
own children end, a database that can't be stopped. What has a handler is reset in them. Descriptors that are inherited,
as a worker's listening sockets, would stay open in a browser too, and are closed in all children.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys

# A parent that ignores them means this process, which goes on ignoring them.
_MEANT = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
# Without SIGTERM a gateway could only be killed; with SIGCHLD ignored the kernel discards how children ended.
_NEEDED = (signal.SIGTERM, signal.SIGCHLD)


def normalize() -> None:
    """Of this process; from its main thread, before it starts any other. Its dumps of memory are turned off, too."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in _NEEDED:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    for number in _MEANT:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, ignore)
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        _open(descriptor, name)
    _close_in_children()
    _leave_no_core_dump()


def ignore(number: int, frame: object) -> None:
    """Ignores a signal in this process alone: children have the default."""


def is_ignored(number: int) -> bool:
    return signal.getsignal(number) in (signal.SIG_IGN, ignore)


def _open(descriptor: int, name: str) -> None:
    """Else the next file or socket would get this number, and what children print would be written into it."""
    try:
        os.fstat(descriptor)
    except OSError:
        # Gets the lowest free number, which is this one: those below are open.
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if getattr(sys, name) is None:
        setattr(sys, name, os.fdopen(descriptor, "r" if descriptor == 0 else "w", closefd=False))


def _leave_no_core_dump() -> None:
    """Of this process and its children: it would have the master keys, and what pages and clients were given."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))


def _close_in_children() -> None:
    """Descriptors after the standard streams. What Python opens by itself is closed in children anyway."""
    for name in os.listdir("/dev/fd"):
        # The one by which they were listed is closed by now.
        with contextlib.suppress(OSError):
            if int(name) > 2:
                os.set_inheritable(int(name), False)
