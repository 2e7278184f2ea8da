"""Installing a browser: Playwright's download, or Debian's packages."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from gateway.launchers import failures
from gateway.launchers.local.locales import PACKAGE

INSTALL_SECONDS = 900.0
TERMINATE_SECONDS = 10.0
PROGRESS_SECONDS = 10.0

_CONNECTION_MILLISECONDS = 15_000
_ERROR_LINE = re.compile(r"^(?:E: |Error: |error: |ERROR: )")
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def download(directory: Path, say: Callable[[str], None], *, is_complete: Callable[[], bool]) -> str:
    """Download Playwright's headless shell, and as root the libraries and fonts that it needs; returns the outcome.

    `is_complete` returns whether a usable download is in place.
    """
    environment = {
        "PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT": str(_CONNECTION_MILLISECONDS),
        **os.environ,
        "PLAYWRIGHT_BROWSERS_PATH": str(directory),
    }
    playwright = [sys.executable, "-m", "playwright", "install"]
    say(f"There is no browser here. Downloading Playwright's headless shell (over 100 MB) to {directory} ...")
    # Without libraries first: that fails at once where the host can't be reached, while the libraries take minutes.
    failed = run([*playwright, "--only-shell", "chromium"], environment, say)
    # It also fetches an ffmpeg, which the gateway does not need.
    if failed is not None and not is_complete():
        return f"Playwright's download failed ({failed})."
    if os.geteuid() != 0 or sys.platform != "linux":
        return (
            "Playwright's download succeeded, but root must run `playwright install-deps chromium` for its libraries."
        )
    say("Installing the libraries and fonts that it needs; this can take some minutes ...")
    failed = run([*playwright, "--with-deps", "--only-shell", "chromium"], environment, say)
    if failed is not None:
        say(f"Some of them could not be installed ({failed}).")
        return f"Playwright's download succeeded, but not the installation of its libraries ({failed})."
    return "Playwright's download succeeded."


def install_packages(say: Callable[[str], None]) -> str:
    """Install Debian's packages; returns the outcome."""
    apt = shutil.which("apt-get")
    if apt is None:
        return "There is no apt-get, the only package manager that is supported."
    if _distribution() == "ubuntu":
        return "Ubuntu's chromium package is a snap, which the gateway can't run."
    if os.geteuid() != 0:
        return "The system's packages can only be installed by root."
    say(f"Installing the packages chromium-headless-shell, chromium and {PACKAGE}; this can take some minutes ...")
    update_failed = run([apt, "update"], os.environ, say)
    install = [apt, "install", "-y", "--no-install-recommends", "-o", f"DPkg::Lock::Timeout={int(INSTALL_SECONDS / 2)}"]
    failed = run([*install, "chromium-headless-shell", "chromium", PACKAGE], os.environ, say)
    if failed is not None and "Unable to locate package chromium-headless-shell" in failed:
        failed = run([*install, "chromium", PACKAGE], os.environ, say)
    if failed is None:
        return "The packages were installed."
    return f"The system's packages could not be installed ({failed if update_failed is None else update_failed})."


def what_to_do() -> str:
    """One sentence for an operator without a browser."""
    install = "install your distribution's package of Chromium (not a snap)"
    if shutil.which("apt-get") is not None and _distribution() != "ubuntu":
        install = f"run `apt-get update && apt-get install chromium-headless-shell chromium {PACKAGE}` as root"
    return (
        f"What to do: {install}, or run `playwright install --with-deps --only-shell chromium` where the network "
        "allows it, or put a Chromium binary on this machine and name it in GATEWAY_CHROMIUM."
    )


def run(
    command: list[str],
    environment: Mapping[str, str],
    say: Callable[[str], None],
    seconds: float = INSTALL_SECONDS,
    terminate_seconds: float = TERMINATE_SECONDS,
    progress_seconds: float = PROGRESS_SECONDS,
) -> str | None:
    """Run an installer for at most `seconds`, and end all its processes; returns None, or one line why it failed.

    While it runs, `say` gets its newest line every `progress_seconds`.
    """
    with subprocess.Popen(
        command,
        env={**environment, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        umask=0o022,
    ) as process:
        began = time.monotonic()
        try:
            while True:
                left = seconds - (time.monotonic() - began)
                try:
                    output, _ = process.communicate(timeout=max(0.0, min(left, progress_seconds)))
                    break
                except subprocess.TimeoutExpired as running:
                    if left <= progress_seconds:
                        return f"not done after {seconds:g} seconds"
                    # Bytes, although the pipe is read as text.
                    newest = _lines((running.output or b"").decode(errors="replace"))[-1:]
                    say(f"  {time.monotonic() - began:.0f} s: {failures.clean(newest[0]) if newest else 'started'}")
        finally:
            _end(process, terminate_seconds)
    return None if process.returncode == 0 else _error_line(output) or f"exit status {process.returncode}"


def _end(process: subprocess.Popen[str], terminate_seconds: float) -> None:
    """End an installer that still runs, and its children: with SIGTERM first, so that it can clean up."""
    if process.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(terminate_seconds)


def _lines(output: str) -> list[str]:
    """The lines that are not blank, without colours."""
    return [line for line in _TERMINAL_CODES.sub("", output).splitlines() if line.strip()]


def _error_line(output: str) -> str:
    """The first line of an installer's output that is marked as an error, else its last line."""
    lines = _lines(output)
    errors = [line for line in lines if _ERROR_LINE.match(line)]
    return failures.clean((errors or lines[-1:] or [""])[0])


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["ID"]
    except OSError:
        return ""
