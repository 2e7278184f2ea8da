"""What the tests inherit from the shell, script or make that started them, made the same everywhere.

It is done once for the process of the tests, so that all that they start inherits it from there.
"""

from __future__ import annotations

import os
import pwd
import re
import resource
import signal
import time

from gateway.core import inherited

# Where the machine's browser and a database server for the tests are, and how thorough these are.
_KEPT = re.compile(r"GATEWAY_(TEST_\w+|CHROMIUM)")
_REMOVED = re.compile(
    # Of a make around the tests: an inner one would take over its options and variables.
    r"MAKE\w*|MFLAGS|ARGS|"
    # Options of the gateway that the developer tries out, and what it takes from other tools' variables.
    r"GATEWAY_\w+|AWS_\w+|PG[A-Z]+|"
    # Of a git hook: the repository that it works on.
    r"GIT_\w+|"
    r"PYTEST_ADDOPTS|VIRTUAL_ENV|NODE_OPTIONS|NODE_PATH|PIP_(USER|TARGET|PREFIX|ROOT|REQUIRE_VIRTUALENV)|"
    # How output is written: language, zone, width.
    r"LC_\w+|LANGUAGE|COLUMNS|LINES"
)
_SET = {"LANG": "C.UTF-8", "TZ": "UTC"}
# Never by a proxy: the servers of the tests.
_DIRECT = ("localhost", "127.0.0.1", "::1")
_ASSIGNED = re.compile(r"(?:^|\s)(\w+)\s*[:+?]?=")


def normalize() -> None:
    """Signals, streams, umask, limits and variables of this process."""
    inherited.normalize()
    for number in signal.valid_signals():
        if signal.getsignal(number) in (signal.SIG_IGN, inherited.ignore):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    # As Python sets them.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)
    os.umask(0o022)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    _set_environment()
    time.tzset()


def _set_environment() -> None:
    # What was assigned on the command line of make, it also exports.
    assigned = set(_ASSIGNED.findall(os.environ.get("MAKEFLAGS", "")))
    for name in list(os.environ):
        if name in assigned or (_REMOVED.fullmatch(name) and not _KEPT.fullmatch(name)):
            del os.environ[name]
    os.environ.update(_SET)
    os.environ.setdefault("HOME", pwd.getpwuid(os.getuid()).pw_dir)
    direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, (direct, *_DIRECT)))
