"""The one command, `gateway`: up, serve, migrate, orgs, keys, secrets, audit, doctor, options."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading

import structlog

from gateway import settings
from gateway.cli.commands import Commands
from gateway.cli.output import OutputClosed, say
from gateway.core import inherited
from gateway.core.errors import GatewayError
from gateway.telemetry import logs

# What the operator mends, and a traceback would not explain better.
_OF_THE_DISK = (errno.EROFS, errno.ENOSPC, errno.EDQUOT)


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return the exit code: 0, 1 when it failed with an error message, 2 for wrong usage, and that
    of SIGPIPE where the reader of its output closed the pipe."""
    if threading.current_thread() is threading.main_thread():
        # A test runs commands in other threads, where signals can't be set.
        inherited.normalize()
    try:
        parsed = Commands().parse(arguments)
        flags = {name: value for name in settings.options() if (value := getattr(parsed, name, None)) is not None}
        loaded, warnings = settings.load(os.environ, flags)
        settings.forget_secrets()
        for warning in warnings:
            say(f"Warning: {warning}", file=sys.stderr)
        style = logs.style_of(loaded.log_format)
        logs.configure(loaded.log_level, style, secrets=settings.secrets_of(loaded))
        code: int = parsed.run(loaded, parsed)
        return code
    except GatewayError as error:
        print(f"gateway: {logs.redact(error.message)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except OutputClosed:
        return 128 + signal.SIGPIPE
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OF_THE_DISK and error.filename is not None:
            print(f"gateway: {logs.redact(str(error.filename))} can't be written: {error.strerror}.", file=sys.stderr)
            return 1
        # Through the log, which redacts; a traceback of Python's own would not be redacted.
        structlog.get_logger("gateway").exception("unexpected failure")
        return 1
