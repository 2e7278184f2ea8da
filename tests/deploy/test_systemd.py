"""The unit of deploy/systemd: what systemd itself says of it, and what must agree with the gateway."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from gateway.settings import Settings, load
from tests.support import missing
from tests.support.gateway_process import ROOT

DIRECTORY = ROOT / "deploy" / "systemd"
UNIT = DIRECTORY / "browser-gateway.service"
# Of 100, as systemd-analyze computes it: what is left is each in the table of docs/systemd.md.
EXPOSURE = 45


@pytest.fixture
def analyze() -> str:
    return missing.program("systemd-analyze", "systemd")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with programs that every machine has."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/browser-gateway/.venv/bin/gateway", "/bin/true"))
    return copy


def options() -> dict[str, str]:
    """The options of the unit; of repeated ones the last."""
    return dict(re.findall(r"^([A-Za-z]+)=(.*)$", UNIT.read_text(), re.MULTILINE))


def test_systemd_finds_nothing_wrong_with_the_unit(analyze: str, unit: Path) -> None:
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert [line for line in done.stderr.splitlines() if unit.name in line] == []


def test_its_exposure_is_low(analyze: str, unit: Path) -> None:
    command = [analyze, "security", "--offline=true", f"--threshold={EXPOSURE}", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_systemd_waits_longer_than_the_gateway_takes_to_stop() -> None:
    assert int(options()["TimeoutStopSec"]) > Settings().shutdown_grace_seconds
    assert options()["KillMode"] == "mixed"


def test_the_file_of_options_has_options_of_the_gateway_and_the_units_directory() -> None:
    text = (DIRECTORY / "gateway.env").read_text()
    variables = dict(re.findall(r"^#?(GATEWAY_\w+)=(.*)$", text, re.MULTILINE))
    del variables["GATEWAY_DATABASE_URL_FILE"]  # there is no such file here
    loaded, warnings = load(variables, {})
    assert warnings == []
    assert str(loaded.data_dir) == f"/var/lib/{options()['StateDirectory']}"


def test_every_right_that_is_left_to_root_has_its_reason_in_the_documentation() -> None:
    page = (ROOT / "docs" / "systemd.md").read_text()
    [reasons] = re.findall(r"^\| `CapabilityBoundingSet` \|(.*)$", page, re.MULTILINE)
    rights = [each.removeprefix("CAP_") for each in options()["CapabilityBoundingSet"].split()]
    assert sorted(re.findall(r"`(\w+)`", reasons)) == sorted(rights)
