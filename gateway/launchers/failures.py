"""Classifies failed launches by the browser's output and exit status.

What is matched here was provoked with Chromium 156 (texts in tests/launchers/test_failures.py).
Texts that end up in an answer contain no command line, no DevTools address and no path of the gateway's own.
"""

from __future__ import annotations

import errno
import re
import signal
from typing import NamedTuple

from gateway.core.errors import LaunchFailed
from gateway.core.launch import Failure


class _Sign(NamedTuple):
    """A pattern that identifies a failure. `crash`: only after a signal, since browsers that start well print it too.
    `words`: the class does not name what was missing, so the matched line is added to the message.
    """

    failure: Failure
    pattern: str
    message: str
    advice: str
    crash: bool = False
    words: bool = False


_ROOM_FOR_SHARED_MEMORY = (
    "Give /dev/shm mode 1777 and at least 64 MiB (`--shm-size` of a container), and see that the disk of the data "
    "directory is not full."
)

# In order: the first one that is found counts.
_SIGNS = (
    _Sign(
        Failure.EXTENSIONS_NOT_CONTAINED,
        r"^(?:unshare|mount): |\b(?:unshare|mount): not found$",
        "The namespaces that contain a browser's extensions can't be made.",
        "Launch without extensions, and run `gateway doctor` on the gateway's machine.",
        words=True,
    ),
    _Sign(
        Failure.NOT_FOUND,
        r"\bsetpriv: (?:command )?not found",
        "The program setpriv, with which root starts browsers as unprivileged users, is not there.",
        "Install util-linux, or start the gateway as another user than root.",
    ),
    _Sign(
        Failure.NOT_FOUND,
        r"\bspawn .+ EACCES\b|setpriv: failed to execute .+: Permission denied|^\S+: \d+: .+: Permission denied$",
        "The browser's binary may not be executed by the user that browsers run as.",
        "Make the binary and its directories readable and executable for all users, or name another one in "
        "GATEWAY_CHROMIUM.",
    ),
    _Sign(
        Failure.NOT_FOUND,
        r"\bspawn .+ ENOENT\b|setpriv: failed to execute .+: No such file"
        r"|^\S+: \d+: .+: not found$",
        "The browser's binary is not there.",
        "Get a browser with `python -m gateway.launchers.local.browsers`, or name one in GATEWAY_CHROMIUM.",
    ),
    _Sign(
        Failure.OUT_OF_PROCESSES,
        r"(?:pthread_create|\bfork\b|\bclone\b|credentials\.cc).*Resource temporarily unavailable"
        r"|\bspawn .+ EAGAIN\b|\b[Cc]an(?:not|'t) fork\b",
        "There was no room for the browser's processes and threads.",
        "Raise the limit of processes (`ulimit -u`, pids.max of the control group, podPidsLimit on Kubernetes), or "
        "lower GATEWAY_MAX_RUNTIMES; a browser needs 60 to 150 threads.",
    ),
    _Sign(
        Failure.NO_SHARED_MEMORY,
        r"Creating shared memory in .+ failed|Unable to access\(W_OK\|X_OK\) /dev/shm"
        r"|incorrect permissions on /dev/shm",
        "The browser could not make shared memory.",
        _ROOM_FOR_SHARED_MEMORY,
    ),
    _Sign(
        Failure.NO_SHARED_MEMORY,
        r"free space in temporary directory for shared memory files: 1?\d$|^Bus error\b|\bSIGBUS\b",
        "The browser ran out of shared memory.",
        _ROOM_FOR_SHARED_MEMORY,
        crash=True,
    ),
    _Sign(
        Failure.SANDBOX_REFUSED,
        r"setpriv: .+ failed: ",
        "The gateway is root, but may not start a browser as an unprivileged user.",
        "Give it the capabilities SETUID and SETGID, or start it as another user than root.",
    ),
    _Sign(
        Failure.SANDBOX_REFUSED,
        r"Running as root without --no-sandbox",
        "Chromium has no sandbox for a browser that runs as root.",
        "Start the gateway as another user than root.",
    ),
    _Sign(
        Failure.SANDBOX_REFUSED,
        r"Chromium sandboxing failed|No usable sandbox|Failed to move to new namespace"
        r"|SUID sandbox helper binary was found|credentials\.cc.*(?:not permitted|Permission denied|No space left)",
        "The kernel refused Chromium's sandbox.",
        "Allow unprivileged user namespaces on this machine (sysctls user.max_user_namespaces, "
        "kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns; seccomp profile of a "
        "container).",
    ),
    _Sign(
        Failure.EXITED,
        r"error while loading shared libraries",
        "The browser lacks a library of the system.",
        "Run `playwright install-deps chromium` as root, or install the system's own Chromium package.",
        words=True,
    ),
    _Sign(
        Failure.EXITED,
        r"Too many open files|\bspawn .+ EMFILE\b",
        "There were no file descriptors left for the browser.",
        "Raise the limit of open files (`ulimit -n`).",
        words=True,
    ),
)

_STAMP = re.compile(r"^\[(?:\d+:)*\d{4}/\d{6}\.\d+:([A-Z]+):[^\]]*\] ")
# Printed by browsers that start well too, or the mere echo of an end that has another cause.
_NOISE = re.compile(
    r"dbus/|bluez|/cpufreq/|vaapi|drmGetDevices2|InitializeSandbox\(\) called|DevTools listening on"
    r"|zygote_main_linux\.cc|zygote_linux\.cc|gpu_process_host|network_service_instance_impl"
    r"|^(?:Trace/breakpoint trap|Bus error|Segmentation fault|Aborted|Illegal instruction|Killed)\b"
)
_SYSTEM_PATH = re.compile(r"/(?:usr|opt|dev|proc|sys|etc|lib|lib64|bin|sbin|Applications)(?:/|$)")
_PATH = re.compile(r"(?<![\w:/.])/[^\s'\":;,)]+")
_USER_INFO = re.compile(r"(\w://)[^/\s@]+@")
_ARGUMENT = re.compile(r"(?<!\S)(--[\w-]+)=\S+")
_MOST_WORDS = 3
_LONGEST = 200


def classify_exit(output: str, status: int) -> LaunchFailed:
    """Classifies a browser that ended; `failure` of the result is one of Failure, `advice` one sentence.

    `status` is as subprocess has it, negative for a signal; a launch script reports a signal by 128 more.
    """
    number = -status if status < 0 else status - 128
    signal_name = _signal_name(number) if number > 0 else None
    how = f"by {signal_name}" if signal_name else f"with status {status}"
    lines = output.splitlines()
    return _known([*lines, how], signal_name is not None) or _exited(how, lines)


def classify_start(error: OSError) -> LaunchFailed:
    """The same for a browser whose launch script could not be started."""
    return classify_exit(f"spawn /bin/sh {errno.errorcode.get(error.errno or 0, error.strerror)}", 1)


def classify_timeout(output: str, seconds: float) -> LaunchFailed:
    """The same for a browser that neither responded nor ended; its output may still show another class than timeout."""
    lines = output.splitlines()
    return _known(lines, False) or _timed_out(seconds, lines)


def last_words(lines: list[str]) -> str:
    """At most three informative lines of a browser's output, cleaned and joined by ` | `; fatal ones first."""
    is_fatal: dict[str, bool] = {}
    for line in lines:
        cleaned = "" if _NOISE.search(line) else clean(line)
        if cleaned:
            stamp = _STAMP.match(line)
            is_fatal[cleaned] = stamp is not None and stamp.group(1) == "FATAL"
    ranked = sorted(is_fatal, key=lambda line: is_fatal[line])
    kept = ranked[-_MOST_WORDS:]
    return " | ".join(sorted(kept, key=lambda line: not is_fatal[line]))


def _known(lines: list[str], crashed: bool) -> LaunchFailed | None:
    text = "\n".join(lines)
    for sign in _SIGNS:
        found = re.search(sign.pattern, text, re.MULTILINE) if crashed or not sign.crash else None
        if found is None:
            continue
        message = sign.message
        if sign.words:
            message += f" Its last words: {clean(next(line for line in lines if re.search(sign.pattern, line)))}."
        return LaunchFailed(message, failure=sign.failure, advice=sign.advice)
    return None


def _timed_out(seconds: float, output: list[str]) -> LaunchFailed:
    words = last_words(output)
    output_text = f" Its last words: {words}." if words else ""
    return LaunchFailed(
        f"The browser was not ready within {seconds:g} seconds.{output_text}",
        failure=Failure.TIMEOUT,
        advice="See whether the machine is overloaded, or raise GATEWAY_LAUNCH_TIMEOUT_SECONDS.",
    )


def _exited(how: str, output: list[str]) -> LaunchFailed:
    words = last_words(output)
    output_text = f"Its last words: {words}." if words else "It printed nothing."
    return LaunchFailed(
        f"The browser ended while it was starting, {how}. {output_text}",
        failure=Failure.EXITED,
        advice="Run `gateway doctor` on the gateway's machine, which starts the same browser and reports problems.",
    )


def clean(line: str) -> str:
    """One line without its stamp, credentials, values of arguments, control characters and paths of the gateway."""
    text = _STAMP.sub("", line.strip())
    text = "".join(character if character.isprintable() else " " for character in text)
    text = _ARGUMENT.sub(r"\1", text)
    text = _USER_INFO.sub(r"\1***@", text)
    text = _PATH.sub(_shorten, text).rstrip(" .")
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _shorten(path: re.Match[str]) -> str:
    """A path outside the system's own directories becomes its last name."""
    text = path.group(0)
    return text if _SYSTEM_PATH.match(text) else text.rstrip("/").rsplit("/", 1)[-1]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
