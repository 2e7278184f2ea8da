"""The typical flow in docs/workspaces.md, as it is printed there, with each driver; and the overview's request."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.automation.vocabularies import VOCABULARIES
from tests.support.gateway_process import GatewayProcess
from tests.support.missing import program
from tests.support.node import node

ROOT = Path(__file__).parent.parent.parent
SAMPLES = ROOT / "tests" / "contracts" / "workspaces" / "samples"
OVERVIEW = (SAMPLES / "overview-curl.txt").read_text()
FETCH = (SAMPLES / "overview-fetch.txt").read_text()
HOST = "https://api.bctrl.ai"
SECONDS = 120


def run(command: list[str], text: str, **more: str | Path) -> str:
    """Output of a command that reads `text`; `cwd` is where it runs, other names are variables of its environment."""
    cwd = more.pop("cwd", ROOT)
    environment = os.environ | {name: str(value) for name, value in more.items()}
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=SECONDS, check=False, cwd=cwd, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("driver", VOCABULARIES)
def test_the_typical_flow_works_with_each_driver(driver: str, gateway: GatewayProcess, tmp_path: Path) -> None:
    (script,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "workspaces.md").read_text(), re.M | re.S)
    assert script.count('"http://127.0.0.1:8787"') == 1
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "api-key").write_text(gateway.api_key)
    script = script.replace("http://127.0.0.1:8787", gateway.base_url)
    printed = run([sys.executable, "-", driver], script, cwd=tmp_path, NO_PROXY="*").splitlines()
    title, operation, state, operations, artifact, page, status = printed
    assert title == "Hello"
    assert operation == "completed Hello"
    assert re.fullmatch(r"Hello \d+ \d+", state)
    assert operations == "['completed']"
    assert artifact == "screenshot image/png True"
    assert page.startswith(f"{gateway.base_url}/v1/viewers/live/")
    assert status == "closed"


def test_the_request_of_the_overview_works_as_it_is_printed(gateway: GatewayProcess) -> None:
    program("curl", "curl")
    # As a shell shows it: a prompt, and a mark on each line that goes on.
    first, *others = OVERVIEW.splitlines()
    typed = "\n".join([first.removeprefix("$"), *(line.removeprefix("> ") for line in others)])
    assert typed.count(HOST) == 1
    command = typed.replace(HOST, gateway.base_url)
    check_made(run(["bash"], command, BCTRL_API_KEY=gateway.api_key, NO_PROXY="*"))


def test_the_request_of_the_overview_in_javascript_works_as_it_is_printed(gateway: GatewayProcess) -> None:
    # As a page shows it: the number of each line before it.
    lines = (re.sub(rf"^{number}", "", line) for number, line in enumerate(FETCH.splitlines(), 1))
    typed = "\n".join(lines)
    assert typed.count(HOST) == 1
    script = typed.replace(HOST, gateway.base_url) + "\nprocess.stdout.write(await response.text());\n"
    check_made(run([node(), "--input-type=module", "-"], script, BCTRL_API_KEY=gateway.api_key, NO_PROXY="*"))


def check_made(printed: str) -> None:
    answer = json.loads(printed)
    assert (answer["name"], answer["status"], answer["mounts"]) == ("my-workspace", "active", {})
