"""Classes of launch failures: on texts that were seen, and provoked here with real browsers.

The texts are of Chromium 156 (Debian's packages), with repetitions cut.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest

from gateway.core.errors import LaunchFailed
from gateway.core.launch import Failure, LaunchSpec
from gateway.launchers.failures import classify_exit, classify_start, classify_timeout
from gateway.launchers.local import browsers, command_line, processes
from gateway.launchers.local.launch_process import LaunchProcess
from gateway.launchers.local.readiness import ready
from gateway.settings import Settings
from tests.support import missing

ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="only root can do that")
pytestmark = pytest.mark.unprivileged


class Ended(NamedTuple):
    """What a browser printed, and how its launch script ended."""

    output: str
    status: int


def ended(*lines: str, status: int = 133) -> Ended:
    return Ended("".join(f"{line}\n" for line in lines), status)


ZYGOTE = "[77:77:1122/023552.433308:ERROR:content/browser/zygote_host/zygote_host_impl_linux.cc:{}"
AS_ROOT = ended(
    ZYGOTE.format("103] Running as root without --no-sandbox is not supported. See https://crbug.com/638180."),
    status=1,
)
NO_USER_NAMESPACES = ended(
    ZYGOTE.format(
        "130] No usable sandbox! If this is a Debian system, please install the chromium-sandbox package to solve "
        "this problem. If you are running on Ubuntu 23.10+ or another Linux distro that has disabled unprivileged user "
        "namespaces with AppArmor, see https://chromium.googlesource.com/chromium/src/+/main/docs/security."
    ),
    status=1,
)


TRAP = "Trace/breakpoint trap"
THREADS = "base/threading/platform_thread_posix.cc:162] pthread_create: Resource temporarily unavailable (11)"
SHARED = "base/memory/platform_shared_memory_region_posix.cc"
FREE = (
    "[1122/023850.449610:WARNING:components/discardable_memory/service/discardable_shared_memory_manager.cc:200] "
    "Less than 64MB of free space in temporary directory for shared memory files: {}"
)
BUS = (
    "[1122/023627.296642:ERROR:dbus/bus.cc:405] Failed to connect to the bus: Failed to connect to socket "
    "/run/dbus/system_bus_socket: No such file or directory"
)
PIPE = (
    "[0100/000000.758975:ERROR:content/zygote/zygote_main_linux.cc:197] Failed sending zygote boot message: Broken pipe"
)
FREQUENCY = (
    "[1122/023555.123007:ERROR:third_party/crashpad/crashpad/util/file/file_io_posix.cc:145] open "
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq: No such file or directory (2)"
)

SEEN = [
    (
        ended("/srv/var/launch: 2: setpriv: not found", status=127),
        Failure.NOT_FOUND,
        "The program setpriv",
    ),
    (
        ended("/srv/var/launch: 2: /opt/b/chrome: not found", status=127),
        Failure.NOT_FOUND,
        "is not there",
    ),
    (
        ended("setpriv: failed to execute /nonexistent/x: No such file or directory", status=127),
        Failure.NOT_FOUND,
        "is not there",
    ),
    (
        ended("setpriv: failed to execute /root/chrome: Permission denied", status=126),
        Failure.NOT_FOUND,
        "may not be executed",
    ),
    (AS_ROOT, Failure.SANDBOX_REFUSED, "runs as root"),
    (NO_USER_NAMESPACES, Failure.SANDBOX_REFUSED, "The kernel refused Chromium's sandbox."),
    (
        ended("setpriv: setresuid failed: Operation not permitted", status=127),
        Failure.SANDBOX_REFUSED,
        "unprivileged user",
    ),
    (
        ended(f"[1122/023627.131881:ERROR:{THREADS}", TRAP),
        Failure.OUT_OF_PROCESSES,
        "no room for the browser's processes",
    ),
    (
        ended(
            BUS,
            f"[21254:21271:1122/023629.065660:ERROR:{THREADS}",
            "[1122/023627.242481:FATAL:content/browser/scheduler/browser_task_executor.cc:319] "
            "Failed to start BrowserThread:IO",
            TRAP,
        ),
        Failure.OUT_OF_PROCESSES,
        "no room",
    ),
    (
        ended(
            "[21236:21236:1122/023628.830818:ERROR:third_party/crashpad/crashpad/util/posix/spawn_subprocess.cc:141] "
            "fork: Resource temporarily unavailable (11)",
            TRAP,
        ),
        Failure.OUT_OF_PROCESSES,
        "no room",
    ),
    (
        ended(
            "[1122/024024.086564:FATAL:sandbox/linux/services/credentials.cc:137] Check failed: . : "
            "Resource temporarily unavailable (11)",
            TRAP,
        ),
        Failure.OUT_OF_PROCESSES,
        "no room",
    ),
    (
        ended(
            f"[1122/023850.524228:ERROR:{SHARED}:335] Creating shared memory in /dev/shm/.org.chromium.Chromium.sA85K7 "
            "failed: Permission denied (13)",
            f"[1122/023850.529145:ERROR:{SHARED}:338] Unable to access(W_OK|X_OK) /dev/shm: Permission denied (13)",
            f"[1122/023850.529154:FATAL:{SHARED}:340] This is frequently caused by incorrect permissions on /dev/shm.  "
            "Try 'sudo chmod 1777 /dev/shm' to fix.",
            TRAP,
        ),
        Failure.NO_SHARED_MEMORY,
        "could not make shared memory",
    ),
    (
        ended("unshare: unshare failed: Operation not permitted", status=1),
        Failure.EXTENSIONS_NOT_CONTAINED,
        "can't be made. Its last words: unshare: unshare failed: Operation not permitted.",
    ),
    (
        ended("mount: /etc: special device none does not exist.", status=32),
        Failure.EXTENSIONS_NOT_CONTAINED,
        "can't be made. Its last words: mount: /etc: special device none does not exist.",
    ),
    (
        ended("/var/lib/gateway/runtimes/1/launch: 7: unshare: not found", status=127),
        Failure.EXTENSIONS_NOT_CONTAINED,
        "Its last words: launch: 7: unshare: not found.",
    ),
    (ended(FREE.format(0), TRAP), Failure.NO_SHARED_MEMORY, "ran out of shared memory"),
    (ended("Bus error", status=135), Failure.NO_SHARED_MEMORY, "ran out of shared memory"),
    (
        ended("my last words", "second line", status=1),
        Failure.EXITED,
        "ended while it was starting, with status 1. Its last words: my last words | second line.",
    ),
    (ended(status=3), Failure.EXITED, "with status 3. It printed nothing."),
    (ended(status=-9), Failure.EXITED, "by SIGKILL. It printed nothing."),
    (ended(FREQUENCY, TRAP, PIPE), Failure.EXITED, "by SIGTRAP. It printed nothing."),
    (
        ended(
            "[1122/023543.741713:ERROR:headless/lib/browser/command_line_handler.cc:159] Could not create directory "
            "/root/xx: Permission denied (13)",
            PIPE,
            status=1,
        ),
        Failure.EXITED,
        "Its last words: Could not create directory xx: Permission denied (13).",
    ),
    (
        ended(
            "/opt/b/chrome: error while loading shared libraries: libnspr4.so: cannot open shared object file: "
            "No such file or directory",
            status=127,
        ),
        Failure.EXITED,
        "Its last words: /opt/b/chrome: error while loading shared libraries: libnspr4.so: cannot open",
    ),
    (
        ended(
            "[1122/023543.285780:FATAL:base/message_loop/message_pump_epoll.cc:146] Check failed: . : "
            "Too many open files (24)",
            TRAP,
        ),
        Failure.EXITED,
        "no file descriptors left",
    ),
    (ended(status=0), Failure.EXITED, "It printed nothing."),
]


@pytest.mark.parametrize(("seen", "failure", "expected"), SEEN)
def test_a_known_output_has_its_class_message_and_advice(seen: Ended, failure: Failure, expected: str) -> None:
    failed = classify_exit(*seen)
    assert failed.failure == failure
    assert expected in failed.message
    assert failed.message.endswith(f" {failed.advice}")
    assert failed.advice.endswith(".")
    assert ". " not in failed.advice  # one sentence
    assert failed.details == {"class": failure.value, "advice": failed.advice}
    assert failed.status == 503


@pytest.mark.parametrize(("seen", "failure", "expected"), SEEN)
def test_no_path_of_the_gateway_is_reported(seen: Ended, failure: Failure, expected: str) -> None:
    message = classify_exit(*seen).message
    assert "/srv/" not in message
    assert "\n" not in message
    assert len(message) < 900


def test_harmless_output_determines_a_class_only_after_a_crash() -> None:
    assert classify_exit(*ended(FREE.format(12), status=1)).failure == Failure.EXITED
    assert classify_exit(*ended(FREE.format(12), status=-5)).failure == Failure.NO_SHARED_MEMORY
    assert classify_exit(*ended(FREE.format(63), status=-5)).failure == Failure.EXITED


def test_a_browser_that_hangs_for_lack_of_processes_fails_with_that_class() -> None:
    assert classify_timeout(f"[1122/0.1:ERROR:{THREADS}\n", 8).failure == Failure.OUT_OF_PROCESSES


@pytest.mark.parametrize("seconds", [8, 30])
def test_a_browser_that_hangs_without_a_known_output_has_timed_out(seconds: int) -> None:
    failed = classify_timeout("", seconds)
    assert failed.failure == Failure.TIMEOUT
    assert f"was not ready within {seconds} seconds" in failed.message


@pytest.mark.parametrize(
    ("number", "failure", "expected"),
    [
        (errno.EACCES, Failure.NOT_FOUND, "may not be executed"),
        (errno.ENOENT, Failure.NOT_FOUND, "is not there"),
        (errno.EAGAIN, Failure.OUT_OF_PROCESSES, "no room for the browser's processes"),
        (errno.EMFILE, Failure.EXITED, "no file descriptors left"),
        (errno.ENOMEM, Failure.EXITED, "Its last words: spawn /bin/sh ENOMEM."),
    ],
)
def test_a_launch_script_that_can_not_be_started_has_a_class(number: int, failure: Failure, expected: str) -> None:
    failed = classify_start(OSError(number, os.strerror(number)))
    assert failed.failure == failure
    assert expected in failed.message


def test_the_last_output_is_short_and_has_no_credentials() -> None:
    lines = [
        "DevTools listening on ws://127.0.0.1:4711/devtools/browser/e2f0b9a6",
        "one",
        "two",
        "[1122/023543.285780:FATAL:some/file.cc:1] " + "x" * 300,
        "proxy http://user:pass@proxy.test:3128 is down",
        "bad flag --proxy-server=http://user:pass@proxy.test in /srv/gateway/var/runtimes/0199/home/profile\x1b[0m",
        "bad flag --proxy-server=http://user:pass@proxy.test in /srv/gateway/var/runtimes/0199/home/profile\x1b[0m",
        BUS,
    ]
    message = classify_exit(*ended(*lines, status=1)).message
    words = message.partition("Its last words: ")[2].removesuffix(f". {classify_exit('', 1).advice}").split(" | ")
    assert words == [
        "x" * 199 + "…",
        "proxy http://***@proxy.test:3128 is down",
        "bad flag --proxy-server in profile [0m",
    ]


def test_the_status_of_a_process_of_its_own_is_classified_alike() -> None:
    assert classify_exit(f"[1122/023627.131881:ERROR:{THREADS}\n", -5).failure == Failure.OUT_OF_PROCESSES
    assert classify_exit(FREE.format(0), -5).failure == Failure.NO_SHARED_MEMORY
    assert "by SIGSEGV. Its last words: ouch." in classify_exit("ouch\n", -11).message
    assert "with status 4. It printed nothing." in classify_exit("", 4).message
    assert "was not ready within 2.5 seconds. Its last words: slow." in classify_timeout("slow\n", 2.5).message
    assert classify_timeout("No usable sandbox!", 2).failure == Failure.SANDBOX_REFUSED


# Provoked


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory for a launch script, and below it one that a user without rights owns."""
    with tempfile.TemporaryDirectory(prefix="gateway-failures-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "home").mkdir()
        if ROOT:
            os.chown(directory / "home", USER, USER)
        yield directory


USER = Settings().uid_base + Settings().uid_count + 1
SETPRIV = f"setpriv --reuid {USER} --regid {USER} --clear-groups --inh-caps=-all --no-new-privs -- " if ROOT else ""


def script(home: Path, text: str) -> Path:
    """A launch script, in which BROWSER is a real one as a user without rights starts it."""
    found = browsers.find(None)
    assert found is not None
    path = home / "launch"
    # As in that of the launcher: the pipe is 3 and 4, and the output 2.
    path.write_text(f"exec 3<&0 4>&1 </dev/null >&2\n{text}\n".replace("BROWSER", f'{found.default.path} "$@"'))
    return path


async def launch(executable: Path, timeout: float = 15) -> LaunchFailed:
    home = executable.parent / "home"
    spec = LaunchSpec(uuid4(), user_agent="secret-agent No usable sandbox! (11)")
    base = command_line.base_arguments(1)
    arguments = command_line.arguments(base, spec, (800, 600), home / "profile", sandbox=True, storage_bytes=1024**3)
    process = LaunchProcess(executable, arguments, command_line.environment(spec, home, "/usr/bin:/bin"))
    try:
        with pytest.raises(LaunchFailed) as raised:
            await ready(process, home / "profile" / "DevToolsActivePort", timeout)
    finally:
        process.close()
        assert await processes.end_group(process.pid)
    # Nothing of the command line, which has a client's words.
    assert "secret-agent" not in raised.value.message
    assert "--disable-field-trial-config" not in raised.value.message
    return raised.value


async def test_a_missing_binary(home: Path) -> None:
    assert (await launch(script(home, f'{home}/missing "$@"'))).failure == Failure.NOT_FOUND


async def test_a_binary_without_permission_to_execute(home: Path) -> None:
    (home / "tool").write_text("exit 0\n")
    (home / "tool").chmod(0o644)
    assert (await launch(script(home, f"{SETPRIV}{home}/tool"))).failure == Failure.NOT_FOUND


async def test_a_binary_that_the_launch_script_does_not_find(home: Path) -> None:
    assert (await launch(script(home, f"{SETPRIV}/nonexistent/chromium"))).failure == Failure.NOT_FOUND


async def test_a_program_that_prints_and_exits(home: Path) -> None:
    failed = await launch(script(home, "echo 'no luck today' >&2; exit 4"))
    assert failed.failure == Failure.EXITED
    assert "with status 4. Its last words: no luck today." in failed.message


async def test_a_program_that_hangs(home: Path) -> None:
    failed = await launch(script(home, "exec sleep 60"), timeout=0.5)
    assert failed.failure == Failure.TIMEOUT
    assert "within 0.5 seconds" in failed.message


@as_root
async def test_a_browser_of_root(home: Path) -> None:
    failed = await launch(script(home, "exec BROWSER"))
    assert failed.failure == Failure.SANDBOX_REFUSED
    assert "runs as root" in failed.message


async def test_a_kernel_without_user_namespaces(home: Path) -> None:
    missing.program("unshare", "util-linux")
    deny = "echo 0 >/proc/sys/user/max_user_namespaces"
    drop = "exec setpriv --inh-caps=-all --ambient-caps=-all --no-new-privs --"
    text = f"""exec {SETPRIV}unshare --user --map-current-user --keep-caps sh -c '{deny}; {drop} "$@"' - BROWSER"""
    failed = await launch(script(home, text))
    assert failed.failure == Failure.SANDBOX_REFUSED
    assert "The kernel refused" in failed.message


@as_root
async def test_a_user_without_room_for_processes(home: Path) -> None:
    missing.program("prlimit", "util-linux")
    failed = await launch(script(home, f"exec {SETPRIV}prlimit --nproc=5 -- BROWSER"))
    assert failed.failure == Failure.OUT_OF_PROCESSES


@as_root
async def test_root_without_the_right_to_change_users(home: Path) -> None:
    failed = await launch(script(home, f"exec setpriv --bounding-set=-setuid {SETPRIV}BROWSER"))
    assert failed.failure == Failure.SANDBOX_REFUSED
    assert "unprivileged user" in failed.message
