"""Which browser is used: GATEWAY_CHROMIUM, else Playwright's own download, else one of the system's packages.

Where there is none, Playwright's download is fetched, or Debian's packages are installed (installers.py);
`python -m gateway.launchers.local.browsers` does that alone.

Only real binaries count: a distribution's wrapper script adds flags and settings of its own, and a snap can't be given
a user, a directory and pipes.

Root runs browsers as unprivileged users. A binary that those can't execute is skipped, and root's downloads go to
/opt/playwright-browsers instead of root's home (unless PLAYWRIGHT_BROWSERS_PATH says where).
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gateway import settings
from gateway.core.errors import ConfigurationError, LaunchFailed
from gateway.core.launch import BrowserName, Failure
from gateway.launchers import failures
from gateway.launchers.local import installers

SHARED_DOWNLOADS = Path("/opt/playwright-browsers")

# Where the packages of distributions put the binaries, which the commands in PATH only wrap.
SYSTEM_BINARIES: tuple[tuple[BrowserName, Path], ...] = (
    ("headless-shell", Path("/usr/lib/chromium/chromium-headless-shell")),  # Debian
    ("headless-shell", Path("/usr/lib64/chromium-browser/headless_shell")),  # Fedora
    ("chromium", Path("/usr/lib/chromium/chromium")),  # Debian, Arch, Alpine
    ("chromium", Path("/usr/lib64/chromium-browser/chromium-browser")),  # Fedora
)

VERSION_SECONDS = 10.0

# Kind, prefix of its directory among Playwright's downloads, and names of the binary in it.
_DOWNLOADS: tuple[tuple[BrowserName, str, tuple[str, ...]], ...] = (
    ("headless-shell", "chromium_headless_shell", ("*/chrome-headless-shell", "*/headless_shell")),
    ("chromium", "chromium", ("*/chrome", "*/*.app/Contents/MacOS/*")),
)
_TITLES: dict[BrowserName, str] = {"headless-shell": "the headless shell", "chromium": "full Chromium"}
_NOBODY = 65534
_MAGIC = (
    b"\x7fELF",
    b"\xcf\xfa\xed\xfe",  # Mach-O
    b"\xca\xfe\xba\xbe",  # Mach-O for several processors
)
_BROWSER_VERSION = re.compile(r"(?:chrom|headless)\D*(\d+\.\d+\.\d+\.\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Binary:
    """A browser whose version is known. `source` describes where it comes from."""

    name: BrowserName
    path: Path
    version: str
    source: str

    def __str__(self) -> str:
        return f"{_TITLES[self.name]} {self.version} ({self.path}, {self.source})"


@dataclass(frozen=True, slots=True)
class Browsers:
    """The browsers that can be launched; `default` is one of the other two."""

    default: Binary
    headless_shell: Binary | None
    chromium: Binary | None

    def get(self, name: BrowserName | None) -> Binary:
        """The binary of the kind `name`, or the default; raises LaunchFailed when that kind is not installed."""
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
        """All binaries, the default first."""
        return sorted(filter(None, (self.headless_shell, self.chromium)), key=lambda binary: binary != self.default)


class Survey(NamedTuple):
    """Result of a search, and why binaries were skipped, one sentence each."""

    browsers: Browsers | None
    skipped: tuple[str, ...]


class _Candidate(NamedTuple):
    name: BrowserName
    path: Path
    source: str


def find(chromium: Path | None) -> Browsers | None:
    """The available browsers, or None; raises ConfigurationError when `chromium` is given and can't be used."""
    return survey(chromium).browsers


def survey(chromium: Path | None, version_seconds: float = VERSION_SECONDS) -> Survey:
    """As `find`, with what was skipped. Each binary has `version_seconds` to print its version."""
    if chromium is not None:
        binary = _named(chromium, version_seconds)
        return Survey(_browsers({binary.name: binary}), ())
    found: dict[BrowserName, Binary] = {}
    skipped = []
    for candidate in (*_downloaded(), *_installed()):
        if candidate.name not in found:
            examined = _examine(candidate, version_seconds)
            if isinstance(examined, Binary):
                found[candidate.name] = examined
            else:
                skipped.append(f"{candidate.path} is skipped: {examined}.")
    return Survey(_browsers(found) if found else None, tuple(skipped))


def get(chromium: Path | None, say: Callable[[str], None]) -> Browsers:
    """As `find`, but downloads or installs a browser where there is none; `say` announces what takes long.

    Raises ConfigurationError that names what was tried and what to do.
    """
    found, tried = survey(chromium)
    for attempt in (_download, installers.install_packages):
        if found is not None:
            return found
        outcome = attempt(say)
        found, skipped = survey(None)
        tried = (*(sentence for sentence in tried if sentence not in skipped), outcome, *skipped)
    if found is not None:
        return found
    raise ConfigurationError(
        f"There is no browser, and none could be installed. {' '.join(tried)} {installers.what_to_do()}"
    )


def _download(say: Callable[[str], None]) -> str:
    return installers.download(download_dirs()[0], say, is_complete=lambda: any(_downloaded()))


def _browsers(found: dict[BrowserName, Binary]) -> Browsers:
    """The first one is the default."""
    return Browsers(next(iter(found.values())), found.get("headless-shell"), found.get("chromium"))


def download_dirs() -> list[Path]:
    """Directories that may hold Playwright's downloads; new ones go to the first."""
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


def wanted_revision() -> str:
    """The revision of Chromium that the installed Playwright was made for."""
    listed = json.loads((_driver() / "browsers.json").read_text())["browsers"]
    return next(str(browser["revision"]) for browser in listed if browser["name"] == "chromium")


def _downloaded() -> Iterator[_Candidate]:
    revision = wanted_revision()
    for name, prefix, patterns in _DOWNLOADS:
        for directory in (place / f"{prefix}-{revision}" for place in download_dirs()):
            # Playwright writes the marker last, so that an interrupted download does not count.
            if (directory / "INSTALLATION_COMPLETE").exists():
                for path in (path for pattern in patterns for path in directory.glob(pattern) if _is_binary(path)):
                    yield _Candidate(name, path, "Playwright's download")


def _installed() -> Iterator[_Candidate]:
    for name, path in SYSTEM_BINARIES:
        if _is_binary(path):
            yield _Candidate(name, path, "of the system")


def _is_binary(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) in _MAGIC
    except OSError:
        return False


def _named(chromium: Path, version_seconds: float) -> Binary:
    """The binary that GATEWAY_CHROMIUM names; raises ConfigurationError."""
    path = chromium.expanduser().absolute()
    if not os.path.exists(path):
        raise _not_usable(chromium, "there is no such file")
    if not os.path.isfile(path):
        raise _not_usable(chromium, "it is not a file")
    if not os.access(path, os.X_OK):
        raise _not_usable(chromium, "it is not executable")
    if not _is_binary(path):
        raise _not_usable(chromium, "it is a script or a snap, not the binary that it starts")
    # The name of the file, since `--version` prints the same for both.
    name: BrowserName = "headless-shell" if "headless" in path.resolve().name.lower() else "chromium"
    binary = _examine(_Candidate(name, path, "named by GATEWAY_CHROMIUM"), version_seconds)
    if isinstance(binary, str):
        raise _not_usable(chromium, binary)
    return binary


def _not_usable(chromium: Path, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"GATEWAY_CHROMIUM={chromium} can't be used: {reason}. Give the path of a Chromium, Chrome or headless shell "
        "binary (Debian's is /usr/lib/chromium/chromium), or leave the option out to have one found."
    )


def _examine(candidate: _Candidate, version_seconds: float) -> Binary | str:
    """The browser with its version, or the reason why it can't be used."""
    try:
        done = _ask_version(candidate.path, version_seconds)
    except PermissionError:
        who = "users other than root, as which root runs browsers," if os.geteuid() == 0 else "this user"
        return f"{who} can't execute it"
    except subprocess.TimeoutExpired:
        return f"it did not print its version within {version_seconds:g} seconds"
    except OSError as error:
        return f"it can't be executed ({error.strerror})"
    if done.returncode != 0:
        return failures.classify_exit(done.stderr, done.returncode).message.rstrip(".")
    version = _BROWSER_VERSION.search(done.stdout)
    if version is None:
        printed = failures.clean(done.stdout.partition("\n")[0])
        return f"it is not a Chromium (`--version` prints {printed!r})"
    return Binary(candidate.name, candidate.path, version.group(1), candidate.source)


def _ask_version(path: Path, seconds: float) -> subprocess.CompletedProcess[str]:
    """Runs `--version`; as root as an unprivileged user, since such users will run the browser."""
    try:
        return _run_version(path, _NOBODY if os.geteuid() == 0 else None, seconds)
    except OSError as error:
        # EPERM and EINVAL mean that this container has no other user; EACCES would be about the binary.
        if error.errno not in (errno.EPERM, errno.EINVAL) or os.geteuid() != 0:
            raise
        return _run_version(path, None, seconds)


def _run_version(path: Path, uid: int | None, seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [path, "--version"],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
        check=False,
    )


def main() -> int:
    """Find or install a browser and print it; returns 1 and prints the reason and what to do when there is none."""
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
