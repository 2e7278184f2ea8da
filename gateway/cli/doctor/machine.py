"""Checks of the machine: shared memory, limits, memory, data directory, ports."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from gateway.cli.doctor.findings import Finding, Level, readable_size
from gateway.cli.doctor.scratch import nearest, scratch
from gateway.core.cores import usable_cores
from gateway.core.errors import ConfigurationError
from gateway.core.listening import METRICS_OPTIONS, OPTIONS, obstacle
from gateway.launchers.local import control_groups, extension_policy, limits, networks
from gateway.settings import Settings
from gateway.settings.listening import metrics_place
from gateway.settings.types import address_of
from gateway.settings.workers import number_of_workers

_MIB = 1024 * 1024
_GIB = 1024 * _MIB
_SHARED_MEMORY = 64 * _MIB
_BROWSERS_PER_SHARED_MEMORY = 4
_DISK_LEAST = 256 * _MIB
_DISK_GOOD = 2 * _GIB
_FILES_OF_GATEWAY = 256
_FILES_PER_RUNTIME = 10
# Counted for about:blank: 61 threads of a headless shell, 115 of full Chromium.
_THREADS_PER_RUNTIME = 120
SHARED_MEMORY_DIR = Path("/dev/shm")  # noqa: S108 - measured, not written
PROCESS_LIMITS = (Path("/sys/fs/cgroup/pids.max"), Path("/sys/fs/cgroup/pids/pids.max"))


def shared_memory(settings: Settings) -> Iterator[Finding]:
    """Never a failure: Playwright keeps Chromium from /dev/shm, and where the kernel has memory files it uses those."""
    if sys.platform != "linux":
        return
    advice = "Give the machine or container at least 64 MiB of it (`--shm-size`, an emptyDir in memory), mode 1777."
    if not SHARED_MEMORY_DIR.is_dir():
        yield Finding(Level.WARNING, "shared memory", f"There is no {SHARED_MEMORY_DIR}.", advice)
        return
    found = os.statvfs(SHARED_MEMORY_DIR)
    free, size = found.f_bavail * found.f_frsize, readable_size(found.f_blocks * found.f_frsize)
    if SHARED_MEMORY_DIR.stat().st_mode & 0o777 != 0o777:
        yield Finding(Level.WARNING, "shared memory", f"{SHARED_MEMORY_DIR} is not open to all users.", advice)
    elif free < _SHARED_MEMORY:
        yield Finding(
            Level.WARNING, "shared memory", f"{SHARED_MEMORY_DIR} has {readable_size(free)} free of {size}.", advice
        )
    else:
        enough = min(free // _SHARED_MEMORY * _BROWSERS_PER_SHARED_MEMORY, settings.max_runtimes)
        yield Finding(
            Level.OK,
            "shared memory",
            f"{SHARED_MEMORY_DIR} has {readable_size(free)} free of {size}, enough for {enough} of "
            f"{settings.max_runtimes} browsers.",
        )


def open_files(settings: Settings) -> Iterator[Finding]:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_OF_GATEWAY + _FILES_PER_RUNTIME * settings.max_runtimes
    yield _limit("open files", limit, wanted, settings, "Raise it (`ulimit -n`, LimitNOFILE= of a service)")


def processes(settings: Settings) -> Iterator[Finding]:
    """The least of what the user and the control group may have; root is bound by the latter alone."""
    limits = [] if os.geteuid() == 0 else [resource.getrlimit(resource.RLIMIT_NPROC)[0]]
    for path in PROCESS_LIMITS:
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(path.read_text()))
    limit = min((limit for limit in limits if limit != resource.RLIM_INFINITY), default=resource.RLIM_INFINITY)
    advice = "Raise it (`ulimit -u`, TasksMax= of a service, `--pids-limit`, podPidsLimit on Kubernetes)"
    yield _limit("processes", limit, _THREADS_PER_RUNTIME * settings.max_runtimes, settings, advice)


def _limit(subject: str, limit: int, wanted: int, settings: Settings, advice: str) -> Finding:
    if limit == resource.RLIM_INFINITY:
        return Finding(Level.OK, subject, "There is no limit.")
    said = f"The limit is {limit}; {settings.max_runtimes} runtimes may need {wanted}."
    if limit >= wanted:
        return Finding(Level.OK, subject, said)
    return Finding(Level.WARNING, subject, said, f"{advice}, or lower GATEWAY_MAX_RUNTIMES.")


def runtime_limits(settings: Settings) -> Iterator[Finding]:
    """Limits of each runtime, and which of them are lost without users of their own."""
    subject = "runtimes' limits"
    said = f"{settings.runtime_max_files} open files a process, {readable_size(settings.runtime_max_file_bytes)} a file"
    if limits.has_own_user():
        sentence = f"Each runtime is a user of its own and may have {settings.runtime_max_processes} processes, {said}."
        yield Finding(Level.OK, subject, sentence)
        return
    yield Finding(
        Level.WARNING,
        subject,
        f"Each runtime may have {said}. All run as this user: their processes are not limited one by one, and a page "
        "that breaks out of Chromium's sandbox has the files of the others and of the gateway.",
        "Start the gateway as root, which gives each runtime a user of its own.",
    )


def browser_network(settings: Settings) -> Iterator[Finding]:
    """Whether each runtime has a network of its own, and what is lost where it has none."""
    subject = "runtimes' network"
    wanted = settings.browser_network
    reason = networks.why_none(wanted)
    if reason is None:
        sentence = "Each runtime has a network of its own, with nothing in it but its egress proxy."
        yield Finding(Level.OK, subject, sentence)
        return
    yield Finding(
        Level.FAILED if wanted == "require" else Level.WARNING,
        subject,
        f"Runtimes have the machine's network: {reason}. A page that breaks out of Chromium's sandbox can connect to "
        "the DevTools ports of other browsers, which it then controls, and to every listener of the machine.",
        "Leave GATEWAY_BROWSER_NETWORK at `auto`, and start the gateway as root with the capabilities CAP_SYS_ADMIN "
        "and CAP_NET_ADMIN (`--cap-add` of a container).",
    )


def extensions(settings: Settings) -> Iterator[Finding]:
    """Whether a runtime may have extensions of browsers; all others are launched as before where it may not."""
    subject = "extensions"
    with scratch(settings) as directory:
        reason = extension_policy.why_none(networks.why_none(settings.browser_network), Path(directory))
    if reason is None:
        sentence = "Extensions of browsers are contained, by policies and by a network of each runtime's own."
        yield Finding(Level.OK, subject, sentence)
        return
    said = f"Launches with extensions are refused, since these can't be contained: {reason}."
    yield Finding(Level.WARNING, subject, said, extension_policy.ADVICE)


def runtime_memory(settings: Settings) -> Iterator[Finding]:
    subject = "runtimes' memory"
    wanted = settings.runtime_memory_bytes
    try:
        group = control_groups.own_group()
    except ConfigurationError as error:
        sentence = f"The memory of a runtime can't be limited: {error.message}."
        advice = "Let the gateway write its control group (`Delegate=yes` of a service, a writable /sys/fs/cgroup)"
        if wanted:
            yield Finding(
                Level.FAILED,
                subject,
                sentence,
                f"{advice}, or take GATEWAY_RUNTIME_MEMORY_BYTES away: it can't be kept.",
            )
        else:
            # No limit was asked for, and the machine supports one.
            yield Finding(Level.OK, subject, f"No limit is set. {sentence}")
        return
    if wanted:
        yield Finding(
            Level.OK, subject, f"Each runtime may have {readable_size(wanted)}, by a control group below {group}."
        )
    else:
        sentence = "No limit is set; GATEWAY_RUNTIME_MEMORY_BYTES would be kept, by a control group below"
        yield Finding(Level.OK, subject, f"{sentence} {group}.")


def workers(settings: Settings) -> Iterator[Finding]:
    """More workers than cores would only cost memory."""
    cores, count = usable_cores(), number_of_workers(settings)
    said = "process serves" if count == 1 else "processes serve"
    why = "one for each 4" if settings.workers is None else "GATEWAY_WORKERS"
    sentence = f"{count} {said} on {cores:g} cores ({why})."
    if count > max(1.0, cores):
        yield Finding(Level.WARNING, "workers", sentence, "Leave GATEWAY_WORKERS out.")
    else:
        yield Finding(Level.OK, "workers", sentence)


def data_dir(data_dir: Path) -> Iterator[Finding]:
    path = data_dir.absolute()
    there = nearest(path)
    move = "Give another directory in GATEWAY_DATA_DIR."
    if not there.is_dir():
        yield Finding(Level.FAILED, "data directory", f"{there} is not a directory.", move)
        return
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        yield Finding(Level.FAILED, "data directory", f"{there} can't be written to ({error.strerror}).", move)
        return
    found = os.statvfs(there)
    if found.f_flag & getattr(os, "ST_NOEXEC", 0):
        sentence = f"{there} is on a disk that is mounted noexec, and browsers are started by a script in it."
        yield Finding(Level.FAILED, "data directory", sentence, move)
        return
    free = found.f_bavail * found.f_frsize
    name = str(path) if there == path else f"{path} will be made; its disk"
    level = Level.OK if free >= _DISK_GOOD else Level.WARNING if free >= _DISK_LEAST else Level.FAILED
    advice = "" if level == Level.OK else f"Free some space. {move}"
    yield Finding(level, "data directory", f"{name} has {readable_size(free)} free.", advice)


def port(host: str, port: int) -> Iterator[Finding]:
    yield _listens("port", host, port, OPTIONS)


def metrics(settings: Settings, embedded: bool) -> Iterator[Finding]:
    """Without a database of its own the gateway is taken for one that `serve` runs."""
    place = metrics_place(settings, production=not embedded)
    if place not in ("api", "off"):
        yield _listens("metrics", *address_of(place), METRICS_OPTIONS)


def _listens(subject: str, host: str, port: int, options: tuple[str, str]) -> Finding:
    found = obstacle(host, port, options)
    if found is None and port == 0:
        return Finding(Level.OK, subject, f"The gateway takes a free port (0 in {options[1]}).")
    if found is None:
        return Finding(Level.OK, subject, f"{host}:{port} is free.")
    if not found.taken:
        return Finding(Level.FAILED, subject, found.sentence, found.advice)
    if (holder := _listening(port)) is None:
        return Finding(Level.FAILED, subject, f"{host}:{port} is taken by a process of another user.", found.advice)
    if _is_gateway(holder):
        return Finding(Level.OK, subject, f"{host}:{port} is taken by a gateway that runs (process {holder.pid}).")
    sentence = f"{host}:{port} is taken by process {holder.pid} ({holder.name()})."
    return Finding(Level.FAILED, subject, sentence, f"Stop that process. Or: {found.advice}")


def _listening(port: int) -> psutil.Process | None:
    """The process that listens on the port, as far as this user may see."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid is not None:
                return psutil.Process(connection.pid)
    return None


def _is_gateway(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    if "gateway.cli.workers.worker" in words:
        return True
    return any(Path(word).name == "gateway" for word in words) and bool({"up", "serve"} & set(words))
