"""Installs Stagehand from the lock of this package: `python -m gateway.agents.install`.

Everything is verified by the hashes of the lock, and no script of a package is run. Needs npm.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from gateway.agents.installation import LOCKS, ROOM, Installation, node
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
    _install_stagehand(installation)
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


def main() -> int:
    installation = Installation(load(os.environ, {})[0])
    for library in LOCKS:
        if installation.missing(library) is None:
            continue
        print(f"Installing {library} {LOCKS[library].version} in {installation.place(library)}.", flush=True)
        try:
            install(library, installation)
        except (InstallFailed, subprocess.CalledProcessError, OSError) as error:
            print(f"{library} could not be installed: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
