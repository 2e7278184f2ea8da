"""Which browser is used, and how one is got when there is none.

In this order: GATEWAY_CHROMIUM; Playwright's own download; one on the system, the headless shell before Chromium before
Chrome. Then a download by Playwright, then its packages. `python -m gateway.launchers.local.browsers` gets one.

Only real binaries count. A distribution's wrapper script adds flags and settings of its own, and a snap can't be given
a user, a directory and pipes; so a script is followed to the binary that it names, or passed over.

Root runs browsers as users without rights. A binary that those can't execute is passed over, and root's downloads go to
/opt/playwright-browsers instead of root's home (unless PLAYWRIGHT_BROWSERS_PATH says where).
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import signal
import string
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gateway import settings
from gateway.core.errors import ConfigurationError, LaunchFailed
from gateway.core.launch import BrowserName, Failure
from gateway.launchers import failures

SHARED_DOWNLOADS = Path("/opt/playwright-browsers")

_KINDS: tuple[BrowserName, ...] = ("headless-shell", "chromium")
_TITLES: dict[BrowserName, str] = {"headless-shell": "the headless shell", "chromium": "full Chromium"}

_NOBODY = 65534
_VERSION_SECONDS = 10
_INSTALL_SECONDS = 900
_CONNECTION_MILLISECONDS = 15_000
_TERMINATE_SECONDS = 10

_MAGIC = (
    b"\x7fELF",
    b"\xcf\xfa\xed\xfe",  # Mach-O
    b"\xca\xfe\xba\xbe",  # Mach-O for several processors
)
_BROWSER_NAME = re.compile(r"chrom|headless", re.IGNORECASE)
_BROWSER_VERSION = re.compile(r"(?:chrom|headless)\D*(\d+\.\d+\.\d+\.\d+)", re.IGNORECASE)
_ERROR_LINE = re.compile(r"^(?:E: |Error: |error: |ERROR: )")
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_SCRIPT_BYTES = 64 * 1024
_SCRIPT_STEPS = 3


@dataclass(frozen=True, slots=True)
class Binary:
    """A browser that told its version. `source` says where it comes from, in words."""

    name: BrowserName
    path: Path
    version: str
    source: str

    def __str__(self) -> str:
        return f"{_TITLES[self.name]} {self.version} ({self.path}, {self.source})"


@dataclass(frozen=True, slots=True)
class Browsers:
    """What there is to launch; `default` is one of the other two."""

    default: Binary
    headless_shell: Binary | None
    chromium: Binary | None

    def get(self, name: BrowserName | None) -> Binary:
        """The binary for a runtime that wants `name`, or anything; raises LaunchFailed when that kind isn't there."""
        if name is None:
            return self.default
        binary = self.headless_shell if name == "headless-shell" else self.chromium
        if binary is None:
            raise LaunchFailed(
                f"There is no {name} on this gateway's machine; it has {_TITLES[self.default.name]}.",
                failure=Failure.NOT_FOUND,
                advice=f"Ask for {self.default.name}, or leave the browser out; the operator can install {name}.",
            )
        return binary

    def all(self) -> list[Binary]:
        """What there is, the default first."""
        return sorted(filter(None, (self.headless_shell, self.chromium)), key=lambda binary: binary != self.default)


class Survey(NamedTuple):
    """What a search found, and why it passed over what looked like a browser, one sentence each."""

    browsers: Browsers | None
    passed_over: tuple[str, ...]


class _Candidate(NamedTuple):
    name: BrowserName
    path: Path
    source: str


class _System(NamedTuple):
    """Where distributions keep one kind of browser: its binaries, and its commands in PATH."""

    name: BrowserName
    places: tuple[str, ...]
    commands: tuple[str, ...]


_SYSTEMS = (
    _System(
        "headless-shell",
        (
            "/usr/lib/chromium/chromium-headless-shell",  # Debian
            "/usr/lib64/chromium-browser/headless_shell",  # Fedora
            "/usr/lib/chromium/headless_shell",
            "/usr/lib64/chromium/headless_shell",
            "/usr/lib/chromium-browser/headless_shell",
        ),
        ("chromium-headless-shell", "chrome-headless-shell", "headless_shell"),
    ),
    _System(
        "chromium",
        (
            "/usr/lib/chromium/chromium",  # Debian, Arch, Alpine
            "/usr/lib/chromium/chrome",
            "/usr/lib64/chromium-browser/chromium-browser",  # Fedora
            "/usr/lib64/chromium/chromium",
            "/usr/lib64/chromium/chrome",
            "/usr/lib/chromium-browser/chromium-browser",
            "/usr/lib/chromium-browser/chrome",
            "/Applications/Chromium.app/Contents/MacOS/Chromium",
        ),
        ("chromium", "chromium-browser"),
    ),
    _System(
        "chromium",
        (
            "/opt/google/chrome/chrome",
            "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        ),
        ("google-chrome-stable", "google-chrome"),
    ),
)

# Kind, what its directories in Playwright's registry begin with, and where in them the binary is.
_DOWNLOADS: tuple[tuple[BrowserName, str, tuple[str, ...]], ...] = (
    ("headless-shell", "chromium_headless_shell", ("*/chrome-headless-shell", "*/headless_shell")),
    ("chromium", "chromium", ("*/chrome", "*/*.app/Contents/MacOS/*")),
)


def find(chromium: Path | None) -> Browsers | None:
    """The browsers that are there, in the order above; ConfigurationError when `chromium` is given and is none."""
    return survey(chromium).browsers


def survey(chromium: Path | None) -> Survey:
    """`find`, with what it passed over."""
    if chromium is not None:
        return Survey(_only(_named(chromium)), ())
    candidates = list(dict.fromkeys((*_downloaded(), *_installed())))
    by_kind = [[candidate for candidate in candidates if candidate.name == name] for name in _KINDS]
    with ThreadPoolExecutor(len(_KINDS)) as pool:
        picked = list(pool.map(_first_usable, by_kind))
    passed_over = tuple(reason for _, reasons in picked for reason in reasons)
    order = {candidate.path: rank for rank, candidate in enumerate(reversed(candidates))}
    headless_shell, chromium_binary = (binary for binary, _ in picked)
    found = [binary for binary in (headless_shell, chromium_binary) if binary is not None]
    if not found:
        return Survey(None, passed_over)
    default = max(found, key=lambda binary: order[binary.path])
    return Survey(Browsers(default, headless_shell, chromium_binary), passed_over)


def get(chromium: Path | None, say: Callable[[str], None]) -> Browsers:
    """`find`, else download or install one; what takes long is said beforehand.

    Raises ConfigurationError that tells what was tried and what to do.
    """
    found, tried = survey(chromium)
    for attempt in (_download, _install_packages):
        if found is not None:
            return found
        outcome = attempt(say)
        found, passed_over = survey(None)
        tried = (*(sentence for sentence in tried if sentence not in passed_over), outcome, *passed_over)
    if found is not None:
        return found
    raise ConfigurationError(f"There is no browser, and none could be got. {' '.join(tried)} {_what_to_do()}")


def download_dirs() -> list[Path]:
    """Where Playwright's downloads are looked for; the first one is where they go."""
    given = os.environ.get("PLAYWRIGHT_BROWSERS_PATH")
    if given == "0":
        return [_driver() / ".local-browsers"]
    if given:
        return [Path(given).absolute()]
    if sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches"
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    own = cache / "ms-playwright"
    return [SHARED_DOWNLOADS, own] if os.geteuid() == 0 else [own, SHARED_DOWNLOADS]


def _driver() -> Path:
    """Playwright's driver package, without importing Playwright."""
    spec = importlib.util.find_spec("playwright")
    if spec is None or spec.origin is None:
        raise ConfigurationError("The Python package playwright is not installed.")
    return Path(spec.origin).parent / "driver" / "package"


def _wanted_revision() -> str:
    """The revision of Chromium that the installed Playwright was made for."""
    listed = json.loads((_driver() / "browsers.json").read_text())["browsers"]
    return next(str(browser["revision"]) for browser in listed if browser["name"] == "chromium")


def _downloaded() -> Iterator[_Candidate]:
    wanted = _wanted_revision()
    for name, prefix, patterns in _DOWNLOADS:
        for directory in download_dirs():
            # Playwright writes the marker last, so that a download that broke off does not count.
            complete = [marker.parent for marker in directory.glob(f"{prefix}-*/INSTALLATION_COMPLETE")]
            for revision in sorted(complete, key=lambda path: _rank(path, wanted), reverse=True):
                for path in (path for pattern in patterns for path in revision.glob(pattern) if _is_binary(path)):
                    yield _Candidate(name, path, "Playwright's download")


def _rank(revision: Path, wanted: str) -> tuple[bool, int]:
    number = revision.name.rpartition("-")[2]
    return number == wanted, int(number) if number.isdecimal() else 0


def _installed() -> Iterator[_Candidate]:
    for name, places, commands in _SYSTEMS:
        named = (shutil.which(command) for command in commands)
        for path in (*places, *filter(None, named)):
            # A command's name says less than the binary's own.
            if (real := _real_binary(Path(path))) is not None and _kind(real) == name:
                yield _Candidate(name, real, "of the system")


def _kind(binary: Path) -> BrowserName:
    """Told by the file's name, since `--version` says the same for both."""
    return "headless-shell" if "headless" in binary.name.lower() else "chromium"


def _is_binary(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) in _MAGIC
    except OSError:
        return False


def _real_binary(path: Path, steps: int = _SCRIPT_STEPS) -> Path | None:
    """The binary at `path`, or the one that the script there names; None for a snap and for anything else."""
    real = path.resolve()
    if "snap" in path.parts or real.parts[:2] == ("/", "snap") or real.name == "snap":
        return None
    if _is_binary(real):
        return real
    if steps == 0:
        return None
    targets = (_real_binary(target, steps - 1) for target in _named_in(real))
    return next(filter(None, targets), None)


def _named_in(script: Path) -> Iterator[Path]:
    """The browsers that a shell script names where a command stands, its plain variables put in."""
    try:
        with script.open("rb") as file:
            text = file.read(_SCRIPT_BYTES).decode(errors="replace")
    except OSError:
        return
    if not text.startswith("#!"):
        return
    variables: dict[str, str] = {}
    for line in text.splitlines():
        words = _words(line)
        if words and (assigned := re.fullmatch(r"(\w+)=([^`(]*)", words[0])):
            variables[assigned.group(1)] = string.Template(assigned.group(2)).safe_substitute(variables)
            continue
        if words[:1] == ["exec"]:
            words = words[3:] if words[1:2] == ["-a"] else words[1:]
        command = Path(string.Template(words[0]).safe_substitute(variables)) if words else Path()
        if command.is_absolute() and _BROWSER_NAME.search(command.name):
            yield command


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # a quote that another line closes
        return []


def _named(chromium: Path) -> Binary:
    """The binary that GATEWAY_CHROMIUM names."""
    path = chromium.expanduser().absolute()
    if not os.path.exists(path):
        raise _not_usable(chromium, "there is no such file")
    if not os.path.isfile(path):
        raise _not_usable(chromium, "it is not a file")
    if not os.access(path, os.X_OK):
        raise _not_usable(chromium, "it is not executable")
    real = _real_binary(path)
    if real is None:
        raise _not_usable(chromium, "it is a script or a snap, not the binary of a browser")
    binary = _examine(_Candidate(_kind(real), real, "named by GATEWAY_CHROMIUM"))
    if isinstance(binary, str):
        raise _not_usable(chromium, binary)
    return binary


def _not_usable(chromium: Path, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"GATEWAY_CHROMIUM={chromium} can't be used: {reason}. Give the path of a Chromium, Chrome or headless shell "
        "binary, or leave the option out to have one found."
    )


def _only(binary: Binary) -> Browsers:
    is_shell = binary.name == "headless-shell"
    return Browsers(binary, binary if is_shell else None, None if is_shell else binary)


def _first_usable(candidates: list[_Candidate]) -> tuple[Binary | None, list[str]]:
    """The first one that tells its version, and why those before it did not."""
    reasons: list[str] = []
    for candidate in candidates:
        examined = _examine(candidate)
        if not isinstance(examined, str):
            return examined, reasons
        reasons.append(f"{candidate.path} is passed over: {examined}.")
    return None, reasons


def _examine(candidate: _Candidate) -> Binary | str:
    """The browser with its version, or the reason why it can't be used."""
    try:
        done = _ask_version(candidate.path)
    except PermissionError:
        who = "users other than root, as which root runs browsers," if os.geteuid() == 0 else "this user"
        return f"{who} can't execute it"
    except subprocess.TimeoutExpired:
        return f"it did not tell its version within {_VERSION_SECONDS} seconds"
    except OSError as error:
        return f"it can't be executed ({error.strerror})"
    if done.returncode != 0:
        return failures.classify_exit(done.stderr, done.returncode).message.rstrip(".")
    version = _BROWSER_VERSION.search(done.stdout)
    if version is None:
        said = failures.clean(done.stdout.partition("\n")[0])
        return f"it is no Chromium (`--version` says {said!r})"
    return Binary(candidate.name, candidate.path, version.group(1), candidate.source)


def _ask_version(path: Path) -> subprocess.CompletedProcess[str]:
    """`--version`, for root as a user without rights, since such ones will run the browser."""
    try:
        return _run_version(path, _NOBODY if os.geteuid() == 0 else None)
    except OSError as error:
        # EPERM and EINVAL are of the change of user: there is but one in this container. EACCES is of the binary.
        if error.errno not in (errno.EPERM, errno.EINVAL) or os.geteuid() != 0:
            raise
        return _run_version(path, None)


def _run_version(path: Path, uid: int | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [path, "--version"],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_VERSION_SECONDS,
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
        check=False,
    )


def _download(say: Callable[[str], None]) -> str:
    """Playwright's headless shell, and for root the libraries and fonts that it needs; returns how it went."""
    directory = download_dirs()[0]
    environment = {
        "PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT": str(_CONNECTION_MILLISECONDS),
        **os.environ,
        "PLAYWRIGHT_BROWSERS_PATH": str(directory),
    }
    playwright = [sys.executable, "-m", "playwright", "install"]
    say(f"There is no browser here. Downloading Playwright's headless shell (over 100 MB) to {directory} ...")
    # The download comes first, for it fails at once where its host can't be reached, and the libraries take minutes.
    failed = _run([*playwright, "--only-shell", "chromium"], environment)
    # It also fetches an ffmpeg, which the gateway can do without.
    if failed is not None and not any(_downloaded()):
        return f"Playwright's download failed ({failed})."
    if os.geteuid() != 0 or sys.platform != "linux":
        return (
            "Playwright's download succeeded, but root must run `playwright install-deps chromium` for its libraries."
        )
    say("Installing the libraries and fonts that it needs; this can take some minutes ...")
    failed = _run([*playwright, "--with-deps", "--only-shell", "chromium"], environment)
    if failed is not None:
        say(f"Some of them could not be installed ({failed}).")
        return f"Playwright's download succeeded, but not the installation of its libraries ({failed})."
    return "Playwright's download succeeded."


def _install_packages(say: Callable[[str], None]) -> str:
    """Debian's packages; returns how it went."""
    apt = shutil.which("apt-get")
    if apt is None:
        return "There is no apt-get, the one package manager that the gateway knows."
    if _distribution() == "ubuntu":
        return "Ubuntu's chromium package is a snap, which the gateway can't run."
    if os.geteuid() != 0:
        return "The system's packages can be installed by root alone."
    say("Installing the packages chromium-headless-shell and chromium; this can take some minutes ...")
    update_failed = _run([apt, "update"], os.environ)
    install = [apt, "install", "-y", "--no-install-recommends", "-o", f"DPkg::Lock::Timeout={_INSTALL_SECONDS // 2}"]
    failed = _run([*install, "chromium-headless-shell", "chromium"], os.environ)
    if failed is not None and "Unable to locate package chromium-headless-shell" in failed:
        failed = _run([*install, "chromium"], os.environ)
    if failed is None:
        return "The packages were installed."
    return f"The system's packages could not be installed ({failed if update_failed is None else update_failed})."


def _run(command: list[str], environment: Mapping[str, str]) -> str | None:
    """Run an installer, bounded in time and with nothing left of it; returns None, or in one line why it failed."""
    with subprocess.Popen(
        command,
        env={**environment, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        umask=0o022,
    ) as process:
        try:
            output, _ = process.communicate(timeout=_INSTALL_SECONDS)
        except subprocess.TimeoutExpired:
            return f"not done after {_INSTALL_SECONDS} seconds"
        finally:
            _end(process)
    return None if process.returncode == 0 else _telling_line(output) or f"exit status {process.returncode}"


def _end(process: subprocess.Popen[str]) -> None:
    """End an installer that still runs, and its children: gently first, for it may have something to put in order."""
    if process.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_TERMINATE_SECONDS)


def _telling_line(output: str) -> str:
    """The first line of an installer's output that calls itself an error, else its last one."""
    lines = [line for line in _TERMINAL_CODES.sub("", output).splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR_LINE.match(line)]
    return failures.clean((errors or lines[-1:] or [""])[0])


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["ID"]
    except OSError:
        return ""


def _what_to_do() -> str:
    install = "install Chromium or Google Chrome (its own package, not a snap)"
    if shutil.which("apt-get") is not None and _distribution() != "ubuntu":
        install = "run `apt-get update && apt-get install chromium-headless-shell chromium` as root"
    return (
        f"What to do: {install}, or run `playwright install --with-deps --only-shell chromium` where the network "
        "allows it, or put a Chromium binary on this machine and name it in GATEWAY_CHROMIUM."
    )


def main() -> int:
    """Get a browser and say which; 1 with the reason and what to do when there is none."""
    try:
        options, _ = settings.load(os.environ, {})
        browsers = get(options.chromium, lambda line: print(line, flush=True))
    except ConfigurationError as error:
        print(error.message, file=sys.stderr)
        return 1
    for binary in browsers.all():
        print(f"Browser: {binary}" + (", used by default" if binary == browsers.default else ""))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
