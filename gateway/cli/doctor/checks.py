"""`gateway doctor`: checks everything that a gateway needs on this machine, and gives advice.

A check leaves nothing behind. `failed` means that a start or a launch would fail; `warning` means trouble later.
No secret is shown: addresses lose their password, keys are named by their id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gateway.cli.doctor.agents import agents
from gateway.cli.doctor.browser import browser
from gateway.cli.doctor.database import database, master_keys
from gateway.cli.doctor.findings import Finding, Level
from gateway.cli.doctor.machine import (
    browser_network,
    data_dir,
    extensions,
    metrics,
    open_files,
    port,
    processes,
    runtime_limits,
    runtime_memory,
    shared_memory,
    workers,
)
from gateway.cli.doctor.recordings import recordings
from gateway.cli.doctor.storage import extra, files
from gateway.core import extras
from gateway.core.errors import GatewayError
from gateway.settings import Settings


def run(settings: Settings, embedded: bool) -> list[Finding]:
    """All checks, in order. `embedded`: without a database URL the gateway would bring its own, as `up` does.

    Blocks for some seconds, and must not be called from an event loop.
    """
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("browser", lambda: browser(settings)),
        ("shared memory", lambda: shared_memory(settings)),
        ("database", lambda: database(settings, embedded)),
        ("recordings", lambda: recordings(settings)),
        ("agents", lambda: agents(settings)),
        ("API docs", lambda: extra("API docs", extras.DOCS, needed=False)),
        ("master keys", lambda: master_keys(settings, embedded)),
        ("port", lambda: port(settings.host, settings.port)),
        ("metrics", lambda: metrics(settings, embedded)),
        ("workers", lambda: workers(settings)),
        ("data directory", lambda: data_dir(settings.data_dir)),
        ("files", lambda: files(settings)),
        ("open files", lambda: open_files(settings)),
        ("processes", lambda: processes(settings)),
        ("runtimes' limits", lambda: runtime_limits(settings)),
        ("runtimes' network", lambda: browser_network(settings)),
        ("extensions", lambda: extensions(settings)),
        ("runtimes' memory", lambda: runtime_memory(settings)),
    ]
    return [finding for subject, check in checks for finding in _guarded(subject, check)]


def _guarded(subject: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A check that breaks is a finding too; the others are still worth knowing."""
    try:
        yield from check()
    except GatewayError as error:
        yield Finding(Level.FAILED, subject, error.message)
    except Exception as error:
        yield Finding(Level.FAILED, subject, f"The check itself broke ({type(error).__name__}).", "Report this.")
