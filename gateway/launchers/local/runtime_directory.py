"""The directory of a runtime, and in it the script that starts the browser (see launcher.py for its layout)."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

from gateway.launchers.local import limits
from gateway.settings import BrowserSettings

# For full Chromium; the headless shell has neither. The viewer of PDFs is an extension, where a client could open any
# file. When a name is not found, the error page asks name servers itself, also Google's, past the resolver rules.
_PREFERENCES = '{"plugins": {"always_open_pdf_externally": true}, "alternate_error_pages": {"enabled": false}}'


def make(
    settings: BrowserSettings, directory: Path, binary: Path, uid: int | None, enter_group: Callable[[], str]
) -> None:
    """`enter_group` returns the line of the script that enters the runtime's control group, if it has one. Raises
    OSError."""
    home = directory / "home"
    directory.mkdir()
    directory.chmod(0o711)
    home.mkdir(mode=0o700)
    group = settings.uid_base
    drop = ""
    if uid is not None:
        os.chown(home, uid, group)
        drop = limits.as_user(settings, uid)
    for name in ("tmp", "profile", "downloads", "profile/Default"):
        (home / name).mkdir(mode=0o700)
        if uid is not None:
            os.chown(home / name, uid, group)
    preferences = home / "profile" / "Default" / "Preferences"
    preferences.write_text(_PREFERENCES)
    if uid is not None:
        os.chown(preferences, uid, group)
    at = shlex.quote(str(directory))
    # Where the directory is gone the launch was given up meanwhile, and nothing may start any more.
    (directory / "launch").write_text(
        f"cd {at}/home || exit\n"
        f"{enter_group()}{limits.script_lines(settings)}"
        # The DevTools pipe, and the one output for all that is printed. It is closed once the browser has started.
        "exec 3<&0 4>&1 </dev/null >&2\ntrap '' PIPE\n"
        f'{drop}{shlex.quote(str(binary))} "$@"\n'
        "exit $?\n"
    )
