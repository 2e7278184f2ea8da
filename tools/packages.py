"""Installs a file of pins into the environment that runs this: `python -m tools.packages requirements-dev.txt`.

With uv, which takes a third of pip's time, in the version that the file pins; and with pip where uv can't be had or
fails. Either finds packages where pip is told to, checks their hashes, and compiles them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from gateway.agents import uv


def main(arguments: list[str]) -> int:
    pins = Path(arguments[0])
    # Other users run what is installed.
    os.umask(0o022)
    return 0 if _by_uv(pins) else _by_pip(pins)


def pinned(package: str, pins: str) -> str:
    """The lines of a package in a file of pins, its hashes among them."""
    lines: list[str] = []
    for line in pins.splitlines():
        if lines or line.startswith(f"{package}=="):
            lines.append(line)
            if not line.endswith("\\"):
                break
    return "\n".join(lines)


def _by_uv(pins: Path) -> bool:
    with tempfile.TemporaryDirectory() as directory:
        of_uv = Path(directory) / "uv.txt"
        of_uv.write_text(pinned("uv", pins.read_text()))
        if _pip("-q", "--require-hashes", "--requirement", str(of_uv)) != 0:
            return False
    python = Path(sys.executable)
    arguments = ["--no-deps", "--require-hashes", "--compile-bytecode", "--requirement", str(pins)]
    if not uv.install(python, arguments, python.parent / "uv"):
        return False
    # Its cache may have been filled when nobody else was to read it.
    subprocess.run(["chmod", "-R", "go+rX", python.parent.parent], check=True)
    return True


def _by_pip(pins: Path) -> int:
    print("uv could not install them, so pip does; this may take some minutes.", flush=True)
    bars = [] if sys.stdout.isatty() else ["--progress-bar=off"]
    return _pip(*bars, "--requirement", str(pins))


def _pip(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "pip", "install", "--no-deps", *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
