"""The directory of a runtime, and in it the script that starts the browser (see launcher.py for its layout)."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gateway.core.launch import LaunchedExtension
from gateway.launchers.local import extension_policy, extensions, limits
from gateway.settings import BrowserSettings

# For full Chromium; the headless shell has neither. The viewer of PDFs is an extension, where a client could open any
# file. When a name is not found, the error page asks name servers itself, also Google's, past the resolver rules.
PREFERENCES = {"plugins": {"always_open_pdf_externally": True}, "alternate_error_pages": {"enabled": False}}
# A larger file of preferences is replaced instead of read.
_MAX_PREFERENCES = 16 * 1024 * 1024

# User and group of a runtime.
Owner = tuple[int, int]


def make(
    settings: BrowserSettings,
    directory: Path,
    binary: Path,
    owner: Owner | None,
    enter_group: Callable[[], str],
    *,
    preferences: bool,
    launched: Sequence[LaunchedExtension] = (),
) -> None:
    """`enter_group` returns the line of the script that enters the runtime's control group, if it has one.
    `preferences`: whether they are written now; a profile that is to be restored must be empty. `launched` are the
    extensions that the browser will have. Raises OSError."""
    home = directory / "home"
    directory.mkdir()
    directory.chmod(0o711)
    home.mkdir(mode=0o700)
    drop = ""
    if owner is not None:
        os.chown(home, *owner)
        drop = limits.as_user(settings, owner[0])
    for name in ("tmp", "profile", "downloads"):
        (home / name).mkdir(mode=0o700)
        if owner is not None:
            os.chown(home / name, *owner)
    if preferences:
        write_preferences(home / "profile", owner, launched)
    command = f'{drop}{shlex.quote(str(binary))} "$@"'
    if launched:
        extension_policy.write(directory)
        command = extension_policy.contained(command)
    at = shlex.quote(str(directory))
    # Where the directory is gone the launch was given up meanwhile, and nothing may start any more.
    (directory / "launch").write_text(
        f"cd {at}/home || exit\n"
        f"{enter_group()}{limits.script_lines(settings)}"
        # The DevTools pipe, and the one output for all that is printed. It is closed once the browser has started.
        "exec 3<&0 4>&1 </dev/null >&2\ntrap '' PIPE\n"
        f"{command}\n"
        "exit $?\n"
    )


def write_preferences(profile: Path, owner: Owner | None, launched: Sequence[LaunchedExtension] = ()) -> None:
    """Add what every browser must have to the preferences of a profile, which may be a restored one. Raises OSError.

    The browser that wrote a restored profile may be hostile. It may have left anything in the place of a file or a
    directory, but no links, which are not restored. With extensions, what it says of any is dropped, since it would
    have others loaded, or these with access to files.
    """
    default = profile / "Default"
    path = default / "Preferences"
    if default.is_file():
        default.unlink()
    for file in (path, default / "Secure Preferences"):
        if file.is_dir():
            shutil.rmtree(file)
    default.mkdir(mode=0o700, exist_ok=True)
    preferences: Any = None
    with contextlib.suppress(FileNotFoundError, ValueError, RecursionError):
        if path.stat().st_size <= _MAX_PREFERENCES:
            preferences = json.loads(path.read_bytes())
    if not isinstance(preferences, dict):
        preferences = {}
    for name, wanted in PREFERENCES.items():
        kept = preferences.get(name)
        preferences[name] = (kept if isinstance(kept, dict) else {}) | wanted
    if launched:
        known = preferences.get("extensions")
        preferences["extensions"] = (known if isinstance(known, dict) else {}) | {
            "settings": extensions.preferences(launched)
        }
        # What Chromium has there counts more; on Linux it keeps nothing of extensions in it.
        (default / "Secure Preferences").unlink(missing_ok=True)
    path.write_text(json.dumps(preferences))
    if owner is not None:
        os.chown(default, *owner)
        os.chown(path, *owner)
