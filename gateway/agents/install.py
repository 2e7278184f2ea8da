"""Installs Stagehand and browser-use from the locks of this package: `python -m gateway.agents.install [LIBRARY ...]`.

Everything is verified by the hashes of the locks, and no script of a package is run. Stagehand needs npm.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from gateway.agents import uv
from gateway.agents.installation import BROWSER_USE_WORKER, LOCKS, ROOM, Installation, node
from gateway.agents.jobs import Library
from gateway.settings import load

_BUNDLE: Final = (
    "--bundle",
    "--platform=node",
    "--format=esm",
    "--target=node22",
    "--legal-comments=linked",
    "--log-level=error",
    # Optional peers of Stagehand, for pages of other libraries.
    *(f"--external:{name}" for name in ("playwright-core", "puppeteer-core", "patchright-core", "bufferutil")),
    # Packages of the older kind call require.
    "--banner:js=import { createRequire as __createRequire } from 'node:module'; "
    "const require = __createRequire(import.meta.url);",
)


class InstallFailed(Exception):
    """Raised where an installation fails; its message says why."""


def install(library: Library, installation: Installation) -> None:
    """Install a library, in the place of what is there. Raises InstallFailed, CalledProcessError, OSError."""
    installation.begins(library)
    # Other users run what is installed.
    os.umask(0o022)
    {"stagehand": _install_stagehand, "browser-use": _install_browser_use}[library](installation)
    installation.has_installed(library)


def _install_stagehand(installation: Installation) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise InstallFailed("npm, which installs Stagehand, is not there; on Debian: apt-get install npm")
    source = ROOM / "stagehand"
    with tempfile.TemporaryDirectory(dir=installation.directory) as made:
        for name in ("package.json", "package-lock.json", "worker.mjs"):
            shutil.copy(source / name, made)
        quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run([npm, "ci", *quiet], cwd=made, check=True, stdout=subprocess.DEVNULL)
        esbuild = Path(made) / "node_modules" / ".bin" / "esbuild"
        bundled = installation.bundle
        subprocess.run([esbuild, "worker.mjs", *_BUNDLE, f"--outfile={bundled}"], cwd=made, check=True)
    # It can be read, and does not fail before it is needed.
    subprocess.run([node(), "--check", bundled], check=True)


def _install_browser_use(installation: Installation) -> None:
    place, python = installation.place("browser-use"), installation.python
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", place], check=True)
    locked = [
        "--require-hashes",
        "--no-deps",
        "--only-binary",
        ":all:",
        "-r",
        str(ROOM / "browser_use" / "requirements.txt"),
    ]
    # That of an environment for development: it takes seconds, pip a minute or two.
    program = Path(sys.executable).parent / "uv"
    if not program.exists() or not uv.install(python, locked, program):
        quiet = ["-q", "--progress-bar=off", "--disable-pip-version-check", "--root-user-action=ignore", "--no-compile"]
        pip = [sys.executable, "-m", "pip", "--python", str(python)]
        subprocess.run([*pip, "install", *quiet, *locked], check=True)
    # It can be imported, and what is imported is compiled.
    with tempfile.TemporaryDirectory() as scratch:
        environment = {"HOME": scratch, "TMPDIR": scratch}
        subprocess.run([python, "-I", BROWSER_USE_WORKER, "--load"], check=True, cwd=scratch, env=environment)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", nargs="*", metavar="LIBRARY", help=f"{' or '.join(LOCKS)}; all by default")
    libraries = parser.parse_args().library or list(LOCKS)
    if unknown := set(libraries) - set(LOCKS):
        parser.error(f"There is no library {', '.join(sorted(unknown))}, but {', '.join(LOCKS)}.")
    installation = Installation(load(os.environ, {})[0])
    status = 0
    for library in libraries:
        if installation.missing(library) is None:
            continue
        print(f"Installing {library} {LOCKS[library].version} in {installation.place(library)}.", flush=True)
        try:
            install(library, installation)
        except (InstallFailed, subprocess.CalledProcessError, OSError) as error:
            print(f"{library} could not be installed: {error}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
