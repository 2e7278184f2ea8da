"""Tests that need a program which this machine does not have: skipped aloud, or failed where none may be missing."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

_PROBLEM = "is not installed"
# By a system's own directories too, where some users' PATH does not lead.
_SEARCHED = ":/usr/local/sbin:/usr/sbin:/sbin"
# Set, as by CI: every test runs, or fails for what is missing.
_ALL = "GATEWAY_TEST_ALL"


def program(name: str, package: str) -> str:
    """The path of a program; without it the test is skipped, or fails. `package` is Debian's."""
    found = shutil.which(name, path=os.environ.get("PATH", os.defpath) + _SEARCHED)
    if found is None:
        refuse(f"{name} {_PROBLEM}; on Debian: apt-get install {package}")
    return found


def refuse(reason: str) -> NoReturn:
    """Skip the test, or fail it. `reason` says what `is not installed`."""
    if os.environ.get(_ALL):
        pytest.fail(f"{reason} ({_ALL} is set)", pytrace=False)
    pytest.skip(reason)


def summary(skipped: list[str]) -> list[str]:
    """A line for each missing program, from the reasons of all tests that were skipped."""
    reasons = [reason for reason in skipped if _PROBLEM in reason]
    return [
        f"{reasons.count(reason)} tests did not run: {reason.removeprefix('Skipped: ')}"
        for reason in sorted(set(reasons))
    ]
