"""Classes of launch failures: on texts that were seen, and provoked here with real browsers.

The texts are of Chromium 156 (Debian's packages) under Playwright 1.65, with command lines and repetitions cut.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Playwright, async_playwright

from gateway.core.errors import LaunchFailed
from gateway.core.launch import Failure
from gateway.launchers.failures import classify, classify_exit, classify_timeout
from gateway.launchers.local import browsers
from gateway.settings import Settings

ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="only root can do that")
pytestmark = pytest.mark.unprivileged

LOGS = """BrowserType.launch: Failed to launch the browser process.
Browser logs:

<launching> /srv/gateway/var/runtimes/0199/launch --disable-field-trial-config --user-agent=secret-agent
<launched> pid=77
{lines}
[pid=77] <process did exit: {ending}>
[pid=77] starting temporary directories cleanup
Call log:
  - <launching> /srv/gateway/var/runtimes/0199/launch --disable-field-trial-config --user-agent=secret-agent
  - <launched> pid=77
{called}
  - [pid=77] <process did exit: {ending}>
  - [pid=77] starting temporary directories cleanup
  - [pid=77] <gracefully close start>
  - [pid=77] <kill>
  - [pid=77] <skipped force kill spawnedProcess.killed=false processClosed=true>
  - [pid=77] finished temporary directories cleanup
  - [pid=77] <gracefully close end>
"""

REFUSED = """BrowserType.launch: Failed to launch the browser process.
Browser logs:
Chromium sandboxing failed!
================================
To avoid the sandboxing issue, do either of the following:
  - (preferred): Configure your environment to support sandboxing
  - (alternative): Launch Chromium without sandbox using 'chromiumSandbox: false' option
================================

Call log:
  - <launching> /srv/gateway/var/runtimes/0199/launch --disable-field-trial-config
  - <launched> pid=77
  - [pid=77][err] [77:77:1122/023552.433308:ERROR:content/browser/zygote_host/zygote_host_impl_linux.cc:{text}
  - [pid=77] <process did exit: exitCode=1, signal=null>
"""

AS_ROOT = REFUSED.format(
    text="103] Running as root without --no-sandbox is not supported. See https://crbug.com/638180."
)
NO_USER_NAMESPACES = REFUSED.format(
    text="130] No usable sandbox! If this is a Debian system, please install the chromium-sandbox package to solve "
    "this problem. If you are running on Ubuntu 23.10+ or another Linux distro that has disabled unprivileged user "
    "namespaces with AppArmor, see https://chromium.googlesource.com/chromium/src/+/main/docs/security."
)


def logged(*lines: str, ending: str = "exitCode=133, signal=null") -> str:
    """Playwright's text for a browser that printed `lines`, after which its launch script ended."""
    printed = [f"[pid=77][err] {line}" for line in lines]
    return LOGS.format(lines="\n".join(printed), called="\n".join(f"  - {line}" for line in printed), ending=ending)


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
        "BrowserType.launch: Failed to launch chromium because executable doesn't exist at /nonexistent/chromium",
        Failure.NOT_FOUND,
        "The browser's binary is not there.",
    ),
    (
        "BrowserType.launch: Failed to launch: Error: spawn /tmp/no exec EACCES\nCall log:\n"
        "  - <launching> /tmp/no exec --headless\n  - [pid=N/A] starting temporary directories cleanup\n",
        Failure.NOT_FOUND,
        "may not be executed",
    ),
    (
        logged("/srv/var/launch: 2: setpriv: not found", ending="exitCode=127, signal=null"),
        Failure.NOT_FOUND,
        "The program setpriv",
    ),
    (
        logged("/srv/var/launch: 2: /opt/b/chrome: not found", ending="exitCode=127, signal=null"),
        Failure.NOT_FOUND,
        "is not there",
    ),
    (
        logged(
            "setpriv: failed to execute /nonexistent/x: No such file or directory", ending="exitCode=127, signal=null"
        ),
        Failure.NOT_FOUND,
        "is not there",
    ),
    (
        logged("setpriv: failed to execute /root/chrome: Permission denied", ending="exitCode=126, signal=null"),
        Failure.NOT_FOUND,
        "may not be executed",
    ),
    (AS_ROOT, Failure.SANDBOX_REFUSED, "runs as root"),
    (NO_USER_NAMESPACES, Failure.SANDBOX_REFUSED, "The kernel refused Chromium's sandbox."),
    (
        logged("setpriv: setresuid failed: Operation not permitted", ending="exitCode=127, signal=null"),
        Failure.SANDBOX_REFUSED,
        "unprivileged user",
    ),
    (
        logged(f"[1122/023627.131881:ERROR:{THREADS}", TRAP),
        Failure.OUT_OF_PROCESSES,
        "no room for the browser's processes",
    ),
    (
        logged(
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
        logged(
            "[21236:21236:1122/023628.830818:ERROR:third_party/crashpad/crashpad/util/posix/spawn_subprocess.cc:141] "
            "fork: Resource temporarily unavailable (11)",
            TRAP,
        ),
        Failure.OUT_OF_PROCESSES,
        "no room",
    ),
    (
        "BrowserType.launch: Target page, context or browser has been closed\nBrowser logs:\n\n"
        "<launching> /srv/launch --headless\n<launched> pid=23741\n"
        "[pid=23741][err] [1122/024024.086564:FATAL:sandbox/linux/services/credentials.cc:137] Check failed: . : "
        "Resource temporarily unavailable (11)\n[pid=23741][err] Trace/breakpoint trap\nCall log:\n",
        Failure.OUT_OF_PROCESSES,
        "no room",
    ),
    (
        logged(
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
    (logged(FREE.format(0), TRAP), Failure.NO_SHARED_MEMORY, "ran out of shared memory"),
    (logged("Bus error", ending="exitCode=135, signal=null"), Failure.NO_SHARED_MEMORY, "ran out of shared memory"),
    (
        "BrowserType.launch: Timeout 8000ms exceeded.\nCall log:\n  - <launching> /srv/launch --headless\n"
        "  - <launched> pid=19802\n",
        Failure.TIMEOUT,
        "was not ready within 8 seconds",
    ),
    ("Timeout 30000ms exceeded.", Failure.TIMEOUT, "was not ready within 30 seconds"),
    (
        logged("my last words", "second line", ending="exitCode=1, signal=null"),
        Failure.EXITED,
        "ended while it was starting, with status 1. Its last words: my last words | second line.",
    ),
    (logged(ending="exitCode=3, signal=null"), Failure.EXITED, "with status 3. It printed nothing."),
    (logged(ending="exitCode=null, signal=SIGKILL"), Failure.EXITED, "by SIGKILL. It printed nothing."),
    (logged(FREQUENCY, TRAP, PIPE), Failure.EXITED, "by SIGTRAP. It printed nothing."),
    (
        logged(
            "[1122/023543.741713:ERROR:headless/lib/browser/command_line_handler.cc:159] Could not create directory "
            "/root/xx: Permission denied (13)",
            PIPE,
            ending="exitCode=1, signal=null",
        ),
        Failure.EXITED,
        "Its last words: Could not create directory xx: Permission denied (13).",
    ),
    (
        logged(
            "/opt/b/chrome: error while loading shared libraries: libnspr4.so: cannot open shared object file: "
            "No such file or directory",
            ending="exitCode=127, signal=null",
        ),
        Failure.EXITED,
        "Its last words: /opt/b/chrome: error while loading shared libraries: libnspr4.so: cannot open",
    ),
    (
        logged(
            "[1122/023543.285780:FATAL:base/message_loop/message_pump_epoll.cc:146] Check failed: . : "
            "Too many open files (24)",
            TRAP,
        ),
        Failure.EXITED,
        "no file descriptors left",
    ),
    ("", Failure.EXITED, "It printed nothing."),
]


@pytest.mark.parametrize(("text", "failure", "expected"), SEEN)
def test_a_known_output_has_its_class_message_and_advice(text: str, failure: Failure, expected: str) -> None:
    failed = classify(text)
    assert failed.failure == failure
    assert expected in failed.message
    assert failed.message.endswith(f" {failed.advice}")
    assert failed.advice.endswith(".")
    assert ". " not in failed.advice  # one sentence
    assert failed.details == {"class": failure.value, "advice": failed.advice}
    assert failed.status == 503


@pytest.mark.parametrize(("text", "failure", "expected"), SEEN)
def test_no_command_line_and_no_path_of_the_gateway_is_reported(text: str, failure: Failure, expected: str) -> None:
    message = classify(text).message
    assert "secret-agent" not in message
    assert "--disable-field-trial-config" not in message
    assert "/srv/" not in message
    assert "\n" not in message
    assert len(message) < 900


def test_client_texts_in_the_command_line_determine_no_class() -> None:
    text = logged("gone", ending="exitCode=1, signal=null").replace("secret-agent", "No usable sandbox! (11)")
    assert classify(text).failure == Failure.EXITED


def test_harmless_output_determines_a_class_only_after_a_crash() -> None:
    assert classify(logged(FREE.format(12), ending="exitCode=1, signal=null")).failure == Failure.EXITED
    assert classify(logged(FREE.format(12), ending="exitCode=null, signal=SIGTRAP")).failure == Failure.NO_SHARED_MEMORY
    assert classify(logged(FREE.format(63), ending="exitCode=null, signal=SIGTRAP")).failure == Failure.EXITED


def test_a_browser_that_hangs_for_lack_of_processes_fails_with_that_class() -> None:
    text = f"BrowserType.launch: Timeout 8000ms exceeded.\nCall log:\n  - [pid=7][err] [1122/0.1:ERROR:{THREADS}\n"
    assert classify(text).failure == Failure.OUT_OF_PROCESSES


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
    message = classify(logged(*lines, ending="exitCode=1, signal=null")).message
    words = message.partition("Its last words: ")[2].removesuffix(f". {classify('').advice}").split(" | ")
    assert words == [
        "x" * 199 + "…",
        "proxy http://***@proxy.test:3128 is down",
        "bad flag --proxy-server in profile [0m",
    ]


def test_a_browser_started_without_playwright_is_classified_alike() -> None:
    assert classify_exit(f"[1122/023627.131881:ERROR:{THREADS}\n", -5).failure == Failure.OUT_OF_PROCESSES
    assert classify_exit(FREE.format(0), -5).failure == Failure.NO_SHARED_MEMORY
    assert "by SIGSEGV. Its last words: ouch." in classify_exit("ouch\n", -11).message
    assert "with status 4. It printed nothing." in classify_exit("", 4).message
    assert "was not ready within 2.5 seconds. Its last words: slow." in classify_timeout("slow\n", 2.5).message
    assert classify_timeout("No usable sandbox!", 2).failure == Failure.SANDBOX_REFUSED


# Provoked


@pytest.fixture(scope="module")
async def playwright() -> AsyncIterator[Playwright]:
    async with async_playwright() as driver:
        yield driver


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
    profile = home / "home" / "profile"
    path = home / "launch"
    path.write_text(f"#!/bin/sh\n{text}\n".replace("BROWSER", f'{found.default.path} "$@" --user-data-dir={profile}'))
    path.chmod(0o755)
    return path


async def launch(playwright: Playwright, executable: Path, timeout: float = 15) -> LaunchFailed:
    home = str(executable.parent / "home")
    with pytest.raises(PlaywrightError) as raised:
        await playwright.chromium.launch(
            executable_path=executable,
            chromium_sandbox=True,
            timeout=timeout * 1000,
            env={"HOME": home, "TMPDIR": home, "PATH": "/usr/bin:/bin"},
        )
    return classify(str(raised.value))


async def test_a_missing_binary(playwright: Playwright, home: Path) -> None:
    assert (await launch(playwright, home / "missing")).failure == Failure.NOT_FOUND


async def test_a_binary_without_permission_to_execute(playwright: Playwright, home: Path) -> None:
    executable = script(home, "BROWSER")
    executable.chmod(0o644)
    assert (await launch(playwright, executable)).failure == Failure.NOT_FOUND


async def test_a_binary_that_the_launch_script_does_not_find(playwright: Playwright, home: Path) -> None:
    assert (await launch(playwright, script(home, f"{SETPRIV}/nonexistent/chromium"))).failure == Failure.NOT_FOUND


async def test_a_program_that_prints_and_exits(playwright: Playwright, home: Path) -> None:
    failed = await launch(playwright, script(home, "echo 'no luck today' >&2; exit 4"))
    assert failed.failure == Failure.EXITED
    assert "with status 4. Its last words: no luck today." in failed.message


async def test_a_program_that_hangs(playwright: Playwright, home: Path) -> None:
    failed = await launch(playwright, script(home, "exec sleep 60"), timeout=0.5)
    assert failed.failure == Failure.TIMEOUT
    assert "within 0.5 seconds" in failed.message


@as_root
async def test_a_browser_of_root(playwright: Playwright, home: Path) -> None:
    failed = await launch(playwright, script(home, "exec BROWSER"))
    assert failed.failure == Failure.SANDBOX_REFUSED
    assert "runs as root" in failed.message


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
async def test_a_kernel_without_user_namespaces(playwright: Playwright, home: Path) -> None:
    deny = "echo 0 >/proc/sys/user/max_user_namespaces"
    drop = "exec setpriv --inh-caps=-all --ambient-caps=-all --no-new-privs --"
    text = f"""exec {SETPRIV}unshare --user --map-current-user --keep-caps sh -c '{deny}; {drop} "$@"' - BROWSER"""
    failed = await launch(playwright, script(home, text))
    assert failed.failure == Failure.SANDBOX_REFUSED
    assert "The kernel refused" in failed.message


@as_root
@pytest.mark.skipif(shutil.which("prlimit") is None, reason="needs prlimit")
async def test_a_user_without_room_for_processes(playwright: Playwright, home: Path) -> None:
    failed = await launch(playwright, script(home, f"exec {SETPRIV}prlimit --nproc=5 -- BROWSER"))
    assert failed.failure == Failure.OUT_OF_PROCESSES


@as_root
async def test_root_without_the_right_to_change_users(playwright: Playwright, home: Path) -> None:
    failed = await launch(playwright, script(home, f"exec setpriv --bounding-set=-setuid {SETPRIV}BROWSER"))
    assert failed.failure == Failure.SANDBOX_REFUSED
    assert "unprivileged user" in failed.message
