"""The wheel of this checkout, installed with the pinned requirements, as `make smoke` and `make release` try it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tools.smoke import ROOT


# It downloads what is pinned, where pip's cache does not have it.
@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_the_wheel_installs_migrates_starts_and_serves_a_lease() -> None:
    done = subprocess.run([sys.executable, "-m", "tools.smoke"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("installs, migrates, starts and serves a lease.\n")
