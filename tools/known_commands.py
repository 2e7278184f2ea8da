"""Writes gateway/tunnel/known_commands.json: the DevTools commands of the given browsers, added to those in the list.

    python -m tools.known_commands BROWSER...

BROWSER is an executable: full Chromium, its headless shell, or both. What is new is printed: look at what each can do,
and refuse or check it in gateway/tunnel/policy.py if it can do more than a lease may. Commands that no browser has any
more stay, for older browsers.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

LIST = Path(__file__).resolve().parent.parent / "gateway" / "tunnel" / "known_commands.json"
_START_SECONDS = 30

Commands = dict[str, list[str]]


def main(browsers: list[str]) -> int:
    """Exit code: 2 without browsers."""
    if not browsers:
        print(__doc__, file=sys.stderr)
        return 2
    known: Commands = json.loads(LIST.read_text())["commands"]
    version = ""
    for browser in browsers:
        with _running(browser) as address:
            version = _ask(f"{address}/json/version")["Browser"].partition("/")[2]
            for line in add(known, _ask(f"{address}/json/protocol")):
                print(line)
    LIST.write_text(written(version, known))
    return 0


def add(known: Commands, protocol: dict[str, Any]) -> Iterator[str]:
    """Add a browser's commands and parameters to `known`; yields each that is new."""
    for domain in protocol["domains"]:
        for command in domain.get("commands", []):
            method = f"{domain['domain']}.{command['name']}"
            if method not in known:
                yield method
            parameters = known.setdefault(method, [])
            for parameter in command.get("parameters", []):
                if parameter["name"] not in parameters:
                    yield f"{method} {parameter['name']}"
                    parameters.append(parameter["name"])


def written(version: str, known: Commands) -> str:
    """The file's text: one command a line, so that a change is easy to read."""
    lines = [f"    {json.dumps(method)}: {json.dumps(parameters)}" for method, parameters in sorted(known.items())]
    commands = ",\n".join(lines)
    return f'{{\n  "chromium": {json.dumps(version)},\n  "commands": {{\n{commands}\n  }}\n}}\n'


@contextlib.contextmanager
def _running(browser: str) -> Iterator[str]:
    """The HTTP address of a browser with an empty profile."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        process = subprocess.Popen(
            [browser, "--headless", "--remote-debugging-port=0", f"--user-data-dir={profile}", *root, "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield f"http://127.0.0.1:{_port(process, Path(profile) / 'DevToolsActivePort')}"
        finally:
            process.kill()
            process.wait()


def _port(process: subprocess.Popen[bytes], file: Path) -> int:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if file.exists() and (lines := file.read_text().splitlines()):
            return int(lines[0])
        time.sleep(0.05)
    raise SystemExit(f"{process.args!r} did not start")


def _ask(url: str) -> dict[str, Any]:
    with urlopen(url) as answer:  # noqa: S310 - the address of the browser started here
        found: dict[str, Any] = json.load(answer)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
