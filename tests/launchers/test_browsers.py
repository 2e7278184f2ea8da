"""Finding and getting a browser: on trees of small real executables, and for what this machine really has."""

from __future__ import annotations

import http.server
import io
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from gateway.core.errors import ConfigurationError, LaunchFailed
from gateway.launchers.local import browsers, installers
from gateway.launchers.local.browsers import Binary, Browsers
from tests.support.fake_browsers import make_fake, with_fakes
from tests.support.waiting import wait_until

ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="only root runs browsers as other users")
pytestmark = pytest.mark.unprivileged

DEBIAN_SHELL = Path("/usr/lib/chromium/chromium-headless-shell")
DEBIAN_CHROMIUM = Path("/usr/lib/chromium/chromium")
on_debian = pytest.mark.skipif(
    not (DEBIAN_SHELL.exists() and DEBIAN_CHROMIUM.exists()), reason="Debian's packages are not installed"
)


def make_script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the users of browsers can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="gateway-browsers-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def machine(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without a browser: its system, its PATH and Playwright's downloads are below `place`."""
    below = tuple((name, Path(f"{place}{path}")) for name, path in browsers.SYSTEM_BINARIES)
    monkeypatch.setattr(browsers, "SYSTEM_BINARIES", below)
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(place / "downloads"))
    monkeypatch.setenv("PATH", str(place / "bin"))
    return place


def make_download(
    machine: Path, kind: str, version: str, *, revision: str | None = None, complete: bool = True
) -> Path:
    file = "chrome-headless-shell" if "headless" in kind else "chrome"
    directory = machine / "downloads" / f"{kind}-{revision or browsers.wanted_revision()}"
    path = make_fake(directory / "linux64" / file, version)
    if complete:
        (directory / "INSTALLATION_COMPLETE").touch()
    return path


def found() -> Browsers:
    result = browsers.find(None)
    assert result is not None
    return result


# What this machine has


@on_debian
def test_debian_s_packages_are_found_with_their_version_the_headless_shell_by_default() -> None:
    shell = Binary("headless-shell", DEBIAN_SHELL, version_of(DEBIAN_SHELL), "of the system")
    chromium = Binary("chromium", DEBIAN_CHROMIUM, version_of(DEBIAN_CHROMIUM), "of the system")
    result = found()
    assert chromium in result.all()
    assert shell in result.all() or result.headless_shell != shell
    assert result.get("headless-shell").name == "headless-shell"
    assert result.get(None) == result.default


def version_of(path: Path) -> str:
    return subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]


@on_debian
@pytest.mark.parametrize("wrapper", ["/usr/bin/chromium", "/usr/bin/chromium-headless-shell"])
def test_a_debian_wrapper_is_refused_with_the_path_of_the_binary(wrapper: str) -> None:
    with pytest.raises(ConfigurationError, match="not the binary that it starts") as raised:
        browsers.find(Path(wrapper))
    assert str(DEBIAN_CHROMIUM) in raised.value.message


def test_the_module_gets_a_browser_and_prints_path_and_version() -> None:
    done = run_module({})
    assert done.returncode == 0, done.stderr
    default = found().default
    assert f"{default.version} ({default.path}" in done.stdout.splitlines()[0]


def test_the_module_ends_with_1_and_the_reason() -> None:
    done = run_module({"GATEWAY_CHROMIUM": "/nonexistent/chromium"})
    assert done.returncode == 1
    assert done.stdout == ""
    assert "GATEWAY_CHROMIUM=/nonexistent/chromium can't be used: there is no such file." in done.stderr
    assert "Traceback" not in done.stderr


def run_module(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.launchers.local.browsers"]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


# Order


@with_fakes
def test_without_any_there_is_none(machine: Path) -> None:
    assert browsers.find(None) is None


@with_fakes
def test_the_operator_s_choice_is_the_only_one(machine: Path) -> None:
    make_download(machine, "chromium_headless_shell", "Chromium 1.0.0.1")
    own = make_fake(machine / "own" / "my-chrome", "Google Chrome 3.0.0.3")
    result = browsers.find(own)
    assert result is not None
    assert result.all() == [Binary("chromium", own, "3.0.0.3", "named by GATEWAY_CHROMIUM")]
    with pytest.raises(LaunchFailed) as raised:
        result.get("headless-shell")
    assert raised.value.failure == "not_found"
    assert raised.value.status == 503
    assert "Ask for chromium" in raised.value.advice


@with_fakes
def test_a_download_of_playwright_comes_before_the_system_s_browsers(machine: Path) -> None:
    make_fake(machine / "usr/lib/chromium/chromium-headless-shell")
    make_fake(machine / "usr/lib/chromium/chromium")
    path = make_download(machine, "chromium", "Google Chrome for Testing 1.0.0.1")
    result = found()
    assert result.default == Binary("chromium", path, "1.0.0.1", "Playwright's download")
    assert result.chromium == result.default
    assert result.headless_shell is not None
    assert result.headless_shell.source == "of the system"


@with_fakes
def test_of_the_downloads_the_headless_shell_comes_first(machine: Path) -> None:
    make_download(machine, "chromium", "Google Chrome for Testing 1.0.0.1")
    path = make_download(machine, "chromium_headless_shell", "Chromium 1.0.0.2")
    assert found().default.path == path


@with_fakes
def test_only_the_download_that_playwright_wants_counts(machine: Path) -> None:
    make_download(machine, "chromium_headless_shell", "Chromium 1.0.0.1", revision="1")
    assert browsers.find(None) is None
    path = make_download(machine, "chromium_headless_shell", "Chromium 1.0.0.2")
    assert found().default.path == path


@with_fakes
def test_an_interrupted_download_does_not_count(machine: Path) -> None:
    make_download(machine, "chromium_headless_shell", "Chromium 1.0.0.1", complete=False)
    assert browsers.find(None) is None


@with_fakes
def test_on_the_system_the_headless_shell_comes_before_chromium(machine: Path) -> None:
    chromium = make_fake(machine / "usr/lib/chromium/chromium")
    assert [binary.path for binary in found().all()] == [chromium]
    shell = make_fake(machine / "usr/lib64/chromium-browser/headless_shell")
    assert [binary.path for binary in found().all()] == [shell, chromium]


def test_root_and_users_look_where_playwright_downloads_and_in_the_place_that_all_can_reach(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PLAYWRIGHT_BROWSERS_PATH", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    places = browsers.download_dirs()
    assert browsers.SHARED_DOWNLOADS in places
    assert (places[0] == browsers.SHARED_DOWNLOADS) is ROOT
    assert any(place.name == "ms-playwright" and place.is_relative_to(tmp_path) for place in places)


# Real binaries only


@with_fakes
@pytest.mark.parametrize("text", ["#!/bin/sh\nexec /opt/chromium\n", "not a script\n", ""])
def test_a_script_is_refused(machine: Path, text: str) -> None:
    script = make_script(machine / "usr/lib/chromium/chromium", text)
    assert browsers.find(None) is None
    with pytest.raises(ConfigurationError, match="it is a script or a snap, not the binary that it starts"):
        browsers.find(script)


# Binaries that can't be used


@with_fakes
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing", "there is no such file"),
        ("usr", "it is not a file"),
        ("plain", "it is not executable"),
        ("editor", "it is not a Chromium (`--version` prints 'Editor 1.2.3.4')"),
    ],
)
def test_an_unusable_binary_is_refused_with_the_reason(machine: Path, path: str, reason: str) -> None:
    (machine / "usr").mkdir()
    make_fake(machine / "plain").chmod(0o644)
    make_fake(machine / "editor", "Editor 1.2.3.4")
    with pytest.raises(ConfigurationError) as raised:
        browsers.find(machine / path)
    assert raised.value.message.startswith(f"GATEWAY_CHROMIUM={machine / path} can't be used: {reason}.")
    assert "leave the option out" in raised.value.message


@with_fakes
def test_one_that_does_not_print_its_version_in_time_is_skipped(machine: Path) -> None:
    stuck = make_fake(machine / "usr/lib/chromium/chromium", hangs=True)
    good = make_fake(machine / "usr/lib64/chromium-browser/chromium-browser")
    result, skipped = browsers.survey(None, version_seconds=2)
    assert result is not None
    assert result.default.path == good
    assert skipped == (f"{stuck} is skipped: it did not print its version within 2 seconds.",)


@with_fakes
def test_a_binary_for_another_processor_is_skipped(machine: Path) -> None:
    foreign = make_fake(machine / "usr/lib/chromium/chromium")
    content = bytearray(foreign.read_bytes())
    content[18] = 183  # aarch64
    foreign.write_bytes(content)
    result, skipped = browsers.survey(None)
    assert result is None
    assert skipped == (f"{foreign} is skipped: it can't be executed (Exec format error).",)


@with_fakes
@as_root
def test_root_skips_what_the_users_of_browsers_can_not_execute(machine: Path) -> None:
    path = make_download(machine, "chromium_headless_shell", "Chromium 1.0.0.1")
    path.parent.chmod(0o700)
    result, skipped = browsers.survey(None)
    assert result is None
    assert skipped == (f"{path} is skipped: users other than root, as which root runs browsers, can't execute it.",)
    path.parent.chmod(0o755)
    assert found().default.path == path


# Getting one


class Lines(list[str]):
    def __call__(self, line: str) -> None:
        self.append(line)


@with_fakes
def test_nothing_is_printed_or_installed_when_a_browser_is_found(machine: Path) -> None:
    path = make_fake(machine / "usr/lib/chromium/chromium")
    lines = Lines()
    assert browsers.get(None, lines).default.path == path
    assert lines == []


@pytest.fixture
def playwright_host(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A host of Playwright's downloads, with a small executable for a headless shell. Yields what is asked of it."""
    requested: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested.append(self.path)
            if "ffmpeg" in self.path:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(archive)))
            self.end_headers()
            self.wfile.write(archive)

        def log_message(self, format: str, *values: object) -> None:  # noqa: A002
            pass

    with tempfile.TemporaryDirectory() as directory, io.BytesIO() as buffer:
        name = "chrome-headless-shell-linux64/chrome-headless-shell"
        with zipfile.ZipFile(buffer, "w") as file:
            file.write(make_fake(Path(directory, "shell"), "Chromium 5.4.3.2"), name)
        archive = buffer.getvalue()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("PLAYWRIGHT_DOWNLOAD_HOST", f"http://127.0.0.1:{server.server_address[1]}")
    yield requested
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def no_playwright_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYWRIGHT_DOWNLOAD_HOST", "http://127.0.0.1:9")


@pytest.fixture
def apt(machine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An apt-get that writes down how it was called, in the file that is returned, and then runs `<that file>.do`."""
    note = machine / "apt"
    script = f'#!/bin/sh\necho "$@" >>{note}\n[ ! -x {note}.do ] || exec {note}.do "$@"\n'
    make_script(machine / "bin/apt-get", script)
    monkeypatch.setenv("PATH", f"{machine / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "debian"})
    return note


@pytest.mark.thorough
@with_fakes
def test_playwright_downloads_one_when_there_is_none(machine: Path, apt: Path, playwright_host: list[str]) -> None:
    lines = Lines()
    result = browsers.get(None, lines)
    assert result.default.version == "5.4.3.2"
    assert result.default.path.is_relative_to(machine / "downloads")
    assert result.default.source == "Playwright's download"
    assert any("headless-shell" in path for path in playwright_host)
    assert lines[0].startswith("There is no browser here. Downloading Playwright's headless shell")
    # As root its libraries come with it; a download that lacks nothing but ffmpeg is one all the same.
    assert apt.exists() is ROOT


@with_fakes
@as_root
@pytest.mark.usefixtures("no_playwright_host")
def test_the_system_s_packages_are_installed_when_the_download_fails(machine: Path, apt: Path) -> None:
    packed = make_fake(machine / "packed")
    target = machine / "usr/lib/chromium/chromium-headless-shell"
    make_script(
        Path(f"{apt}.do"),
        f'#!/bin/sh\n[ "$1" = install ] || exit 0\nmkdir -p {target.parent}\ncp {packed} {target}\n',
    )
    lines = Lines()
    assert browsers.get(None, lines).default.path == target
    calls = apt.read_text().splitlines()
    assert calls[0] == "update"
    assert calls[1].startswith("install -y --no-install-recommends")
    assert calls[1].endswith("chromium-headless-shell chromium chromium-l10n")
    # On a slow machine the installers' progress is printed, too.
    assert len([line for line in lines if not line.startswith("  ")]) == 2


@with_fakes
@as_root
@pytest.mark.usefixtures("no_playwright_host")
def test_a_debian_without_a_headless_shell_gets_chromium_alone(machine: Path, apt: Path) -> None:
    packed = make_fake(machine / "packed")
    target = machine / "usr/lib/chromium/chromium"
    make_script(
        Path(f"{apt}.do"),
        '#!/bin/sh\ncase "$*" in\n*headless*) echo "E: Unable to locate package chromium-headless-shell"; exit 100;;\n'
        f"install*) mkdir -p {target.parent}; cp {packed} {target};;\nesac\n",
    )
    assert browsers.get(None, Lines()).default.path == target


@with_fakes
@pytest.mark.usefixtures("no_playwright_host")
def test_when_nothing_works_it_says_what_was_tried_and_what_to_do(machine: Path, apt: Path) -> None:
    make_script(Path(f"{apt}.do"), "#!/bin/sh\necho noise\necho 'E: There is no network'\nexit 100\n")
    with pytest.raises(ConfigurationError) as raised:
        browsers.get(None, Lines())
    message = raised.value.message
    assert message.startswith("There is no browser, and none could be installed. Playwright's download failed (Error: ")
    assert "ECONNREFUSED" in message
    assert ("could not be installed (E: There is no network)" if ROOT else "only be installed by root") in message
    assert (
        "What to do: run `apt-get update && apt-get install chromium-headless-shell chromium chromium-l10n` as root"
        in message
    )
    assert "name it in GATEWAY_CHROMIUM" in message
    assert "\n" not in message


@with_fakes
@pytest.mark.usefixtures("no_playwright_host")
def test_ubuntu_s_snap_is_not_installed(machine: Path, apt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "ubuntu"})
    with pytest.raises(ConfigurationError, match="Ubuntu's chromium package is a snap"):
        browsers.get(None, Lines())
    assert not apt.exists()


def test_an_installer_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    note = tmp_path / "child"
    command = ["/bin/sh", "-c", f"sleep 600 & echo $! >{note}; wait"]
    assert installers.run(command, os.environ, Lines(), seconds=2) == "not done after 2 seconds"
    child = int(note.read_text())
    wait_until(lambda: has_ended(child), "the child has ended")


def has_ended(pid: int) -> bool:
    """Whether the process is gone, or is a zombie that has not been reaped yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_an_installer_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    note = tmp_path / "installer"
    command = ["/bin/sh", "-c", f"trap '' TERM; echo $$ >{note}; while :; do sleep 0.1; done"]
    assert installers.run(command, os.environ, Lines(), seconds=2, terminate_seconds=0.3) == "not done after 2 seconds"
    assert has_ended(int(note.read_text()))


def test_the_progress_of_an_installer_is_shown(tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    lines = Lines()

    def say(line: str) -> None:
        lines(line)
        if "40%" in line:
            shown.touch()

    script = f"printf '\\033[2m|■■  |  40%% of 100 MiB\\n'; until [ -e {shown} ]; do sleep 0.05; done"
    assert installers.run(["/bin/sh", "-c", script], os.environ, say, seconds=60, progress_seconds=0.1) is None
    assert re.fullmatch(r"  \d+ s: \|■■  \|  40% of 100 MiB", lines[-1])


def test_the_failure_of_an_installer_is_one_line() -> None:
    script = "printf 'Reading...\\n\\033[2mError: no \\033[22mroute\\n    at line 1\\n    at line 2\\n'; exit 3"
    assert installers.run(["/bin/sh", "-c", script], os.environ, Lines()) == "Error: no route"
    assert installers.run(["/bin/sh", "-c", "exit 3"], os.environ, Lines()) == "exit status 3"
    assert installers.run(["/bin/sh", "-c", "echo fine"], os.environ, Lines()) is None
