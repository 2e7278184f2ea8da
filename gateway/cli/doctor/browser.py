"""Checks of the browser, of Chromium's sandbox, and of what pages need of the machine: fonts and language files."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.cli.doctor.findings import Finding, Level, capital
from gateway.cli.doctor.fonts import PAGE, fonts, missing
from gateway.cli.doctor.languages import languages
from gateway.cli.doctor.scratch import scratch
from gateway.core.errors import LaunchFailed
from gateway.core.launch import Failure
from gateway.launchers import failures
from gateway.launchers.local import browsers
from gateway.launchers.local.browsers import Binary, Browsers
from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class _Start:
    """The seconds in which a browser printed a page, and the scripts that it drew as boxes, if the page says so."""

    seconds: float
    boxes: list[str] | None


_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
# Name, the value that denies user namespaces, and one that allows them.
_USER_NAMESPACES = (
    ("user.max_user_namespaces", "0", "10000"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
)


def browser(settings: Settings) -> Iterator[Finding]:
    found, skipped = browsers.survey(settings.chromium)
    for reason in skipped:
        yield Finding(Level.WARNING, "browser", reason)
    if found is None:
        yield Finding(
            Level.FAILED,
            "browser",
            "No browser was found.",
            "Get one with `python -m gateway.launchers.local.browsers`, or name one in GATEWAY_CHROMIUM.",
        )
        return
    if (refusal := _refusal_of_user(settings)) is not None:
        yield Finding(Level.OK, "browser", f"{capital(str(found.default))} is there.")
        yield refusal
        return
    yield from _starts(found, settings)


def _refusal_of_user(settings: Settings) -> Finding | None:
    """Whether root can run a program as a browser's user, as each launch does."""
    if os.geteuid() != 0:
        return None
    try:
        done = subprocess.run(
            [*_drop(settings), "true"], env={"PATH": _SYSTEM_PATH}, capture_output=True, text=True, check=False
        )
    except OSError:
        sentence = "Root starts browsers as unprivileged users with setpriv, which is not there."
        advice = "Install util-linux, or start the gateway as another user than root."
        return Finding(Level.FAILED, "sandbox", sentence, advice)
    if done.returncode == 0:
        return None
    return Finding(
        Level.FAILED,
        "sandbox",
        f"Root can't start browsers as user {_uid(settings)} ({failures.last_words(done.stderr.splitlines())}).",
        "Give the container user ids from GATEWAY_UID_BASE on and the capabilities SETUID and SETGID, or start the "
        "gateway as another user than root.",
    )


def _starts(found: Browsers, settings: Settings) -> Iterator[Finding]:
    """Starts each browser as a runtime would; the sandbox is judged by the default one."""
    with_sandbox = not settings.unsafe_no_sandbox
    outcomes = {binary: _try_start(binary, settings, with_sandbox) for binary in found.all()}
    refused = outcomes[found.default]
    if with_sandbox and isinstance(refused, LaunchFailed) and refused.failure == Failure.SANDBOX_REFUSED:
        outcomes = {binary: _try_start(binary, settings, False) for binary in outcomes}
    for binary, outcome in outcomes.items():
        used = ", used by default," if binary == found.default else ""
        if isinstance(outcome, LaunchFailed):
            level = Level.FAILED if binary == found.default else Level.WARNING
            sentence = f"{capital(str(binary))}{used} does not start. {_without_advice(outcome)}"
            yield Finding(level, "browser", sentence, outcome.advice)
        else:
            yield Finding(Level.OK, "browser", f"{capital(str(binary))}{used} starts in {outcome.seconds:.1f} s.")
    yield _sandbox(with_sandbox, refused, settings)
    drawn = [outcome.boxes for outcome in outcomes.values() if isinstance(outcome, _Start)]
    if boxes := [scripts for scripts in drawn if scripts is not None]:
        # All browsers have the same fonts, those of the machine.
        yield from fonts(boxes[0])
    yield from languages(found.all())


def _sandbox(with_sandbox: bool, outcome: LaunchFailed | _Start, settings: Settings) -> Finding:
    who = f"as user {_uid(settings)}" if os.geteuid() == 0 else "as this user"
    if not with_sandbox:
        return Finding(
            Level.WARNING,
            "sandbox",
            "Browsers run without Chromium's sandbox: GATEWAY_UNSAFE_NO_SANDBOX is set.",
            "Take it away, unless every page that is opened is trusted as much as the gateway itself.",
        )
    if not isinstance(outcome, LaunchFailed):
        return Finding(Level.OK, "sandbox", f"The browser starts {who} with its sandbox on.")
    if outcome.failure != Failure.SANDBOX_REFUSED:
        return Finding(Level.WARNING, "sandbox", "Unknown, because the browser does not start.")
    advice = outcome.advice
    if blocking := _blocking_sysctls():
        advice = f"Run `sysctl -w {' '.join(blocking)}` as root, and keep it in /etc/sysctl.d."
    return Finding(Level.FAILED, "sandbox", _without_advice(outcome), advice)


def _without_advice(failed: LaunchFailed) -> str:
    return failed.message.removesuffix(f" {failed.advice}")


def _blocking_sysctls() -> list[str]:
    """Those that deny user namespaces here, each with a value that allows them."""
    blocking = []
    for name, denying, allowing in _USER_NAMESPACES:
        with contextlib.suppress(OSError):
            if Path("/proc/sys", *name.split(".")).read_text().strip() == denying:
                blocking.append(f"{name}={allowing}")
    return blocking


def _uid(settings: Settings) -> int:
    """The last of the users for browsers, which no runtime gets."""
    return settings.uid_base + settings.uid_count - 1


def _drop(settings: Settings) -> list[str]:
    """Prefix of a browser's command: empty, or for root the change to a browser's user."""
    if os.geteuid() != 0:
        return []
    user = [f"--reuid={_uid(settings)}", f"--regid={settings.uid_base}", "--clear-groups"]
    return ["setpriv", *user, "--inh-caps=-all", "--no-new-privs", "--"]


def _try_start(binary: Binary, settings: Settings, sandbox: bool) -> LaunchFailed | _Start:
    """How the browser started and printed a page, or why it did not. Nothing of it is left."""
    with scratch(settings) as home:
        if os.geteuid() == 0:
            os.chown(home, _uid(settings), settings.uid_base)
        command = [
            *_drop(settings),
            str(binary.path),
            *("--headless", "--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={home}/profile"),
            *(() if sandbox else ("--no-sandbox",)),
            *("--dump-dom", PAGE),
        ]
        environment = {"HOME": home, "TMPDIR": home, "PATH": _SYSTEM_PATH, "LANG": "C.UTF-8"}
        return _outcome(command, environment, settings.launch_timeout_seconds)


def _outcome(command: list[str], environment: dict[str, str], seconds: float) -> LaunchFailed | _Start:
    started = time.monotonic()
    with subprocess.Popen(
        command,
        env=environment,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            page, words = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            _kill_group(process.pid)
            return failures.classify_timeout(process.communicate()[1], seconds)
        finally:
            # Also after a good end: what it leaves behind goes with its group.
            _kill_group(process.pid)
    if process.returncode == 0 and "<html" in page:
        return _Start(time.monotonic() - started, missing(page))
    return failures.classify_exit(words, process.returncode)


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
