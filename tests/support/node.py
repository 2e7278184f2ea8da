"""Scripts on Node.js, each in clients/node, with the packages of its lock file."""

from __future__ import annotations

import asyncio
import fcntl
import json
import subprocess
from pathlib import Path
from typing import Any

from playwright._impl._driver import compute_driver_executable

from tests.support import missing

SCRIPTS = Path(__file__).parent.parent / "clients" / "node"
SCRIPT_SECONDS = 60.0
INSTALL_SECONDS = 100.0


def install_packages() -> None:
    """The packages of the lock file, installed once; no browser is downloaded with them."""
    lock, installed = SCRIPTS / "package-lock.json", SCRIPTS / "node_modules" / ".package-lock.json"
    with lock.open() as wanted:
        # Of several processes that run tests, one installs, and the others wait for it.
        fcntl.flock(wanted, fcntl.LOCK_EX)
        if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
            return
        npm = missing.program("npm", "npm")
        done = subprocess.run([npm, "ci"], cwd=SCRIPTS, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    assert done.returncode == 0, done.stderr


def node() -> str:
    """The Node.js of Playwright's driver."""
    return str(compute_driver_executable()[0])


async def run_script(name: str, task: dict[str, Any]) -> Any:
    """Runs a script; the task goes in by stdin, since it holds a credential. Returns the JSON that it prints."""
    return json.loads(await run_node(SCRIPTS / f"{name}.mjs", given=json.dumps(task)))


async def run_node(program: Path, *arguments: str, given: str = "", directory: Path | None = None) -> str:
    """Runs a program with Node.js, and returns what it prints."""
    done = await asyncio.to_thread(
        subprocess.run,
        [node(), str(program), *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=SCRIPT_SECONDS,
        check=False,
        cwd=directory,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
