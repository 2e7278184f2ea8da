"""Runs a command in this checkout as user `nobody` when root starts it, else as who starts it.

    python -m tools.unprivileged COMMAND...

The user gets a home and a temporary directory of its own, which are removed at the end, and search permission on the
way to the checkout, to Python and to the browser that Playwright downloaded. Nothing else becomes accessible.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from gateway.core.unprivileged import grant_search

ROOT = Path(__file__).resolve().parent.parent
# The number that every Linux gives to the user without rights; initdb demands one with an entry in /etc/passwd.
_NOBODY = 65534


def main(command: list[str]) -> int:
    """Exit code of the command."""
    if os.geteuid() != 0:
        return subprocess.run(command, cwd=ROOT, check=False).returncode
    browsers = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright")
    for path in (ROOT / "pyproject.toml", Path(sys.executable), Path(sys.base_prefix) / "lib", browsers / "any"):
        if path.parent.exists():
            grant_search(path, _NOBODY)
    with tempfile.TemporaryDirectory(prefix="gateway-nobody-") as name:
        home = Path(name)
        os.chown(home, _NOBODY, _NOBODY)
        environment = os.environ | {
            "HOME": name,
            "USER": "nobody",
            "LOGNAME": "nobody",
            "TMPDIR": name,
            "XDG_CACHE_HOME": f"{name}/.cache",
            "PLAYWRIGHT_BROWSERS_PATH": str(browsers),
            "HYPOTHESIS_STORAGE_DIRECTORY": f"{name}/hypothesis",
        }
        return subprocess.run(
            command, cwd=ROOT, env=environment, user=_NOBODY, group=_NOBODY, extra_groups=[], check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
