"""What a runtime may take of the machine, in the words of its launch script.

Limits are set before the browser runs and inherited by all that it starts. They are hard ones, and a process without
rights can't raise them again.
"""

from __future__ import annotations

import os
import resource

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
    """What stands before the command of a runtime that has a user of its own: the drop of all rights.

    The kernel counts processes and threads by user, so only here they can be limited; and after the drop, since
    what root has is not the runtime's.
    """
    most = _at_most(settings.runtime_max_processes, resource.RLIMIT_NPROC)
    return (
        f"setpriv --reuid {uid} --regid {settings.uid_base} --clear-groups --inh-caps=-all --no-new-privs -- "
        # Of shells, some know the limit of processes by the one name and some by the other.
        f"/bin/sh -c 'ulimit -u {most} 2>/dev/null || ulimit -p {most} || exit; exec \"$@\"' sh "
    )


def has_own_user() -> bool:
    """Whether runtimes get users of their own."""
    return os.geteuid() == 0


def _at_most(wanted: int, kind: int) -> int:
    """The limit, or the one that the gateway itself is under, which nobody without rights can raise."""
    _, hard = resource.getrlimit(kind)
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
