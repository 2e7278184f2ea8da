"""Resource limits of a runtime, as lines of its launch script.

They are set before the browser runs and are inherited by everything that it starts. They are hard limits, which an
unprivileged process can't raise.
"""

from __future__ import annotations

import os
import resource
import shlex

from gateway.core.unprivileged import setpriv
from gateway.settings import BrowserSettings

# What POSIX counts files in for `ulimit -f`.
_BLOCK_BYTES = 512


def script_lines(settings: BrowserSettings) -> str:
    """Limits that hold for each process by itself."""
    files = _at_most(settings.runtime_max_files, resource.RLIMIT_NOFILE)
    file_bytes = _at_most(settings.runtime_max_file_bytes, resource.RLIMIT_FSIZE)
    return (
        f"ulimit -c 0 && ulimit -n {files} && ulimit -f {file_bytes // _BLOCK_BYTES} || exit\n"
        # A file that is full then is an error of its writer, and not the writer's end.
        "trap '' XFSZ\n"
    )


def as_user(settings: BrowserSettings, uid: int) -> str:
    """Prefix of the command of a runtime with a user of its own: drops all privileges.

    The kernel counts processes and threads by user, so only here they can be limited; and after the drop, since
    what root has is not the runtime's.
    """
    most = _at_most(settings.runtime_max_processes, resource.RLIMIT_NPROC)
    return (
        f"{shlex.join(setpriv(uid, settings.uid_base))} "
        # Of shells, some know the limit of processes by the one name and some by the other.
        f"/bin/sh -c 'ulimit -u {most} 2>/dev/null || ulimit -p {most} || exit; exec \"$@\"' sh "
    )


def has_own_user() -> bool:
    """Whether runtimes get users of their own."""
    return os.geteuid() == 0


def _at_most(wanted: int, kind: int) -> int:
    """The limit, or the gateway's own lower one, which an unprivileged process can't raise."""
    _, hard = resource.getrlimit(kind)
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
