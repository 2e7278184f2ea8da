"""Means of root to run parts of the gateway as unprivileged users.

These users are numbers without an entry in /etc/passwd. `settings.uid_base` is both the group of all of them and the
user of the embedded database; browsers get the numbers after it. Linux only; elsewhere and without root: no-op.
"""

from __future__ import annotations

import errno
import os
import shutil
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

from gateway.core.errors import ConfigurationError

# By its path, as the gateway's own PATH may lead elsewhere, and a launch script has none. Where it is missing, the
# error of what runs it names it.
SETPRIV = shutil.which("setpriv", path="/usr/local/bin:/usr/bin:/bin") or "setpriv"

_ATTRIBUTE = "system.posix_acl_access"
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_VERSION = 2
_NO_ID = 0xFFFFFFFF
_SEARCH = 1


class _Tag(IntEnum):
    """Whom an entry is about; the kernel wants entries in this order (acl(5))."""

    OWNER = 0x01
    USER = 0x02
    OWNING_GROUP = 0x04
    GROUP = 0x08
    MASK = 0x10
    OTHER = 0x20


_MASKED = (_Tag.USER, _Tag.OWNING_GROUP, _Tag.GROUP)


@dataclass(frozen=True, slots=True, order=True)
class _Entry:
    """One line of an ACL; `allowed` is made of read 4, write 2 and search 1."""

    tag: int
    id: int
    allowed: int


def setpriv(uid: int, gid: int, *options: str, keeps: Sequence[str] = ()) -> list[str]:
    """Prefix of a command that root runs as this user, without any privilege but the capabilities `keeps`."""
    user = ["--reuid", str(uid), "--regid", str(gid), "--clear-groups"]
    kept = ",".join(f"+{each}" for each in keeps)
    rights = [f"--inh-caps=-all,{kept}", f"--ambient-caps={kept}"] if keeps else ["--inh-caps=-all"]
    return [SETPRIV, *user, *rights, "--no-new-privs", *options, "--"]


def grant_search(path: Path, gid: int) -> None:
    """Let processes of group `gid` reach `path`, by search permission on those of its ancestors that lack it.

    No other user gains anything, and only search is granted. Raises ConfigurationError where there are no ACLs.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        return
    for directory in dict.fromkeys((*reversed(path.absolute().parents), *reversed(path.resolve().parents))):
        acl = _read(directory)
        if _searchable(acl, gid, directory.stat().st_gid):
            continue
        try:
            os.setxattr(directory, _ATTRIBUTE, _encode(_with_search(acl, gid)))
        except OSError as error:
            raise ConfigurationError(
                f"The gateway was started as root and runs browsers and its database as users without rights, which "
                f"can't enter {directory} ({error.strerror}). Run `chmod o+x {directory}`, move the gateway and its "
                f"data directory elsewhere, or start it as another user than root."
            ) from error


def _searchable(acl: list[_Entry], gid: int, owning_gid: int) -> bool:
    """The kernel's own rule: once an entry names a process's group, the entry for others no longer counts."""
    mask = next((entry.allowed for entry in acl if entry.tag == _Tag.MASK), 7)
    of_group = [
        entry.allowed & mask
        for entry in acl
        if (entry.tag == _Tag.OWNING_GROUP and owning_gid == gid) or (entry.tag == _Tag.GROUP and entry.id == gid)
    ]
    of_others = [entry.allowed for entry in acl if entry.tag == _Tag.OTHER]
    return any(allowed & _SEARCH for allowed in of_group or of_others)


def _with_search(acl: list[_Entry], gid: int) -> list[_Entry]:
    """`acl` and search for group `gid`; an entry whose search the mask held back loses it, so that only one gains."""
    mask = next((entry.allowed for entry in acl if entry.tag == _Tag.MASK), None)
    held_back = _SEARCH if mask is not None and not mask & _SEARCH else 0
    granted = _Entry(_Tag.GROUP, gid, _SEARCH)
    entries = []
    for entry in acl:
        if entry.tag == _Tag.GROUP and entry.id == gid:
            granted = replace(entry, allowed=entry.allowed | _SEARCH)
        elif entry.tag in _MASKED:
            entries.append(replace(entry, allowed=entry.allowed & ~held_back))
        elif entry.tag != _Tag.MASK:
            entries.append(entry)
    if mask is None:
        mask = next(entry.allowed for entry in acl if entry.tag == _Tag.OWNING_GROUP)
    return sorted([*entries, granted, _Entry(_Tag.MASK, _NO_ID, mask | _SEARCH)])


def _read(directory: Path) -> list[_Entry]:
    try:
        raw = os.getxattr(directory, _ATTRIBUTE)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            raise
        mode = directory.stat().st_mode
        shifts = ((_Tag.OWNER, 6), (_Tag.OWNING_GROUP, 3), (_Tag.OTHER, 0))
        return [_Entry(tag, _NO_ID, mode >> shift & 7) for tag, shift in shifts]
    return [_Entry(tag, who, allowed) for tag, allowed, who in _ENTRY.iter_unpack(raw[_HEADER.size :])]


def _encode(acl: list[_Entry]) -> bytes:
    return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(entry.tag, entry.allowed, entry.id) for entry in acl)
