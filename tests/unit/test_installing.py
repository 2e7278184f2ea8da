"""What make prints while it installs, with a Python that records what it is asked for instead of doing it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PYTHON = """\
#!/bin/sh
case "$*" in
--version) echo Python 3.99.0 ;;
"-m venv "*) mkdir -p .venv/bin && cp "$0" .venv/bin/python && touch .venv/bin/pip ;;
"-m pip "*) echo "$*" ;;
esac
"""


def test_make_names_each_step_of_an_installation_and_shows_pips_output(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.txt", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python3.99"
    python.write_text(PYTHON)
    python.chmod(0o755)
    done = subprocess.run(
        ["make", ".venv/installed", f"PYTHON={python}"],
        cwd=tmp_path,
        # Nothing of a make that runs the tests.
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    pins = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line[:1].isalpha()]
    assert done.stdout.splitlines() == [
        "Making a virtual environment in .venv (Python 3.99.0).",
        f"Installing the {len(pins)} packages of requirements.txt; this may take some minutes.",
        # Neither quiet, nor with bars that a log without a terminal would keep.
        "-m pip install --progress-bar=off --no-deps --requirement requirements.txt",
        "Installing this checkout.",
        "-m pip install -qq --no-deps --no-build-isolation --editable .",
    ]
