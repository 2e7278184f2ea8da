"""Checks a wheel as a user gets it: installed with the pinned requirements into a fresh environment, it migrates a
database of its own, starts, and serves a lease.

    python -m tools.smoke [WHEEL]     # builds the wheel of this checkout first, unless one is given
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

Command = list[str | Path]

ROOT = Path(__file__).resolve().parent.parent
# Includes the download of a browser, on a machine that has none.
_START_SECONDS = 300.0
_STOP_SECONDS = 60.0
_COMMAND_SECONDS = 120.0
# What a build leaves in the tree would be packed into the next wheel, so each build has a copy without it.
_NOT_SOURCE = shutil.ignore_patterns(
    ".git", ".venv*", ".*_cache", ".hypothesis", "node_modules", "var", "build", "dist", "*.egg-info", "__pycache__"
)


class SmokeFailed(Exception):
    """Raised with the step that failed and the output of its command."""


def main(arguments: list[str]) -> int:
    """Exit code: 0, or 1 with a sentence on stderr."""
    try:
        with scratch() as directory:
            wheel = Path(arguments[0]).resolve() if arguments else build_wheel(directory)
            check(install(wheel, directory / "venv"), directory)
    except SmokeFailed as error:
        print(f"smoke: {error}", file=sys.stderr)
        return 1
    print(f"{wheel.name} installs, migrates, starts and serves a lease.")
    return 0


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary directory that others may search: as root, database and browsers run under user ids of their own."""
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="gateway-smoke-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


def copy_source(target: Path) -> Path:
    """The checkout without what builds, tests and runs left in it."""
    shutil.copytree(ROOT, target, ignore=_NOT_SOURCE, symlinks=True)
    return target


def build_wheel(directory: Path) -> Path:
    """A wheel of the checkout as it stands, built by the setuptools that is installed."""
    source = copy_source(directory / "source")
    run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", directory, source])
    return next(directory.glob("*.whl"))


def install(wheel: Path, environment: Path) -> Path:
    """Directory of the commands of a new environment with the wheel and what requirements.txt pins, by hash."""
    venv.create(environment, with_pip=False)
    pip: Command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        environment / "bin" / "python",
        "install",
        "-q",
        "--no-deps",
        # Compiled when it is imported, which most of it never is.
        "--no-compile",
    ]
    run([*pip, "--only-binary=:all:", "--require-hashes", "-r", ROOT / "requirements.txt"], seconds=900)
    run([*pip, wheel])
    return environment / "bin"


def check(commands: Path, directory: Path) -> None:
    """Version, migration and first lease of the gateway in `commands`. Raises SmokeFailed."""
    gateway = commands / "gateway"
    data: Command = ["--data-dir", directory / "data"]
    (directory / "data").mkdir(mode=0o711)
    version = run([gateway, "--version"], cwd=directory).strip()
    if f"browser_gateway-{version}.dist-info" not in {path.name for path in commands.parent.glob("lib/*/*/*")}:
        raise SmokeFailed(f"`gateway --version` prints {version!r}, which is not the version of the wheel")
    migrated = run([gateway, "migrate", *data], cwd=directory)
    if not migrated.startswith("Migrated the database from nothing"):
        raise SmokeFailed(f"`gateway migrate` prints {migrated!r}")
    with _serving([gateway, "up", "--port", "0", *data], directory) as (address, key):
        run([commands / "python", ROOT / "tools" / "first_lease.py", address, key], cwd=directory)


@contextmanager
def _serving(command: Command, cwd: Path) -> Iterator[tuple[str, str]]:
    """A started gateway: its address, and the first API key that it prints."""
    with subprocess.Popen(
        command, cwd=cwd, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        timer = threading.Timer(_START_SECONDS, process.kill)
        timer.start()
        printed, address = [], ""
        try:
            for line in process.stdout:
                printed.append(line)
                if line.startswith("Listening on "):
                    address = line.removeprefix("Listening on ").strip()
                elif line.startswith("First API key"):
                    break
            else:
                raise SmokeFailed(f"`gateway up` did not start:\n{''.join(printed)}")
            timer.cancel()
            yield address, line.rsplit(" ", 1)[1].strip()
        finally:
            timer.cancel()
            process.terminate()
            try:
                rest, _ = process.communicate(timeout=_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                rest, _ = process.communicate()
    if process.returncode != 0:
        raise SmokeFailed(f"`gateway up` stopped with {process.returncode}:\n{rest}")


def run(command: Command, *, cwd: Path = ROOT, seconds: float = _COMMAND_SECONDS) -> str:
    """What the command prints. Raises SmokeFailed, with its output, when it fails or takes longer than `seconds`."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SmokeFailed(f"{' '.join(map(str, command))} took longer than {seconds:g} s") from error
    if done.returncode:
        raise SmokeFailed(f"{' '.join(map(str, command))} failed with {done.returncode}:\n{done.stdout}")
    return done.stdout


def _environment() -> dict[str, str]:
    """Without options of a gateway of the caller's, except which browser this machine has."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    if "GATEWAY_CHROMIUM" in os.environ:
        kept["GATEWAY_CHROMIUM"] = os.environ["GATEWAY_CHROMIUM"]
    # A virtual environment that is active, and a path to this checkout, would hide what the wheel lacks.
    kept.pop("PYTHONPATH", None)
    return kept | {"PYTHONUNBUFFERED": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
