"""Rules that hold for the tests themselves, checked on their syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(ROOT.rglob("*.py"))
# The one module that may wait for time to pass.
WAITING = ROOT / "support" / "waiting.py"
SLEEPS = ("asyncio.sleep", "time.sleep")

CLOCKS = ("time.monotonic()", "time.perf_counter()", "asyncio.get_running_loop().time()", "loop.time()")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """Module and names of each import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name != "_replace"  # of a named tuple


def of_the_gateway(tree: ast.Module) -> set[str]:
    """Names of a module that stand for modules, classes and functions of gateway/."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gateway":
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.asname or "gateway" for alias in node.names if alias.name.split(".")[0] == "gateway"}
    return found


def private_uses(tree: ast.Module) -> list[str]:
    """Each private name of gateway/ that is imported, read or patched.

    An attribute counts unless it belongs to `self`, `cls` or a name that the file itself defines as private.
    """
    ours = of_the_gateway(tree)
    own = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
    } | {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    found = [name for module, names in imported(tree) if module.split(".")[0] == "gateway" for name in names]
    uses = [name for name in found if is_private(name)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            at = node.value
            if isinstance(at, ast.Name) and at.id in ("self", "cls"):
                continue
            if node.attr not in own or (isinstance(at, ast.Name) and at.id in ours):
                uses.append(node.attr)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr":
            # monkeypatch.setattr(module, "_name", ...) and monkeypatch.setattr("gateway.module._name", ...)
            texts = [each.value for each in node.args[:2] if isinstance(each, ast.Constant)]
            uses += [str(text) for text in texts if is_private(str(text).rpartition(".")[2])]
    return uses


def sleeps(tree: ast.Module) -> list[str]:
    """Sleeps of a fixed time; `asyncio.sleep(0)` only lets others run, and a computed one is a pace."""
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in SLEEPS
        if isinstance(node.args[0], ast.Constant) and node.args[0].value != 0
    ]


def deadlines(tree: ast.Module) -> list[str]:
    """Assertions that something took less than a time, which fail on a busy machine; a lower bound holds on any."""
    found = []
    for node in (
        each for statement in ast.walk(tree) if isinstance(statement, ast.Assert) for each in ast.walk(statement)
    ):
        if not isinstance(node, ast.Compare):
            continue
        terms = [node.left, *node.comparators]
        for less, operator, more in zip(terms, node.ops, terms[1:], strict=False):
            if isinstance(operator, ast.Gt | ast.GtE):
                less, more = more, less
            elif not isinstance(operator, ast.Lt | ast.LtE):
                continue
            if any(clock in ast.unparse(less) for clock in CLOCKS):
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_what_tests_share_is_in_support(path: Path) -> None:
    """No module of tests is imported by another one, but by those of its own package below a room."""
    package = name_of(path).split("/")[:-1]
    for module, names in imported(tree_of(path)):
        for full in [module, *(f"{module}.{name}" for name in names)]:
            parts = full.split(".")
            if parts[0] != "tests":
                continue
            assert not any(part.startswith("test_") or part == "conftest" for part in parts), full
            assert len(parts) == 1 or parts[1] == "support" or (len(package) > 2 and parts[1:4] == package[:3]), full


def test_no_private_name_of_the_gateway_is_used() -> None:
    used = {name_of(path): private_uses(tree_of(path)) for path in FILES}
    assert {name: uses for name, uses in used.items() if uses} == {}


def test_only_waiting_sleeps_for_a_fixed_time_and_has_deadlines() -> None:
    found = {name_of(path): sleeps(tree_of(path)) + deadlines(tree_of(path)) for path in FILES if path != WAITING}
    assert {name: uses for name, uses in found.items() if uses} == {}


@pytest.mark.parametrize(
    ("code", "uses"),
    [
        ("from gateway.server import _Server", ["_Server"]),
        ("from gateway import server\nserver._run()", ["_run"]),
        ("def test(gateway):\n    gateway.services._kept", ["_kept"]),
        ("monkeypatch.setattr(audit, '_PAGE', 3)", ["_PAGE"]),
        ("monkeypatch.setattr('gateway.egress.resolver._KEPT_SECONDS', 0)", ["gateway.egress.resolver._KEPT_SECONDS"]),
        ("class A:\n    def f(self):\n        self._x = 1\ndef g(a):\n    a._x", []),
        ("monkeypatch.setattr(hmac, 'compare_digest', f)\nx.__init__\nfrom tests.support import a", []),
    ],
)
def test_a_private_name_is_found(code: str, uses: list[str]) -> None:
    assert private_uses(ast.parse(code)) == uses


def test_a_sleep_is_found() -> None:
    code = "await asyncio.sleep(0.3)\ntime.sleep(1)\ntime.sleep(size / pace)\nasyncio.sleep(0)\nuntil(lambda: x)"
    assert sorted(sleeps(ast.parse(code))) == ["asyncio.sleep(0.3)", "time.sleep(1)"]


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("assert time.monotonic() - began < 5", ["time.monotonic() - began < 5"]),
        ("assert 5 >= loop.time() - began", ["5 >= loop.time() - began"]),
        ("assert 0.5 <= time.monotonic() - began < 5", ["0.5 <= time.monotonic() - began < 5"]),
        ("assert time.monotonic() - began >= 2\nassert count < 5\nassert 2 < loop.time() - began", []),
    ],
)
def test_a_deadline_is_found(code: str, found: list[str]) -> None:
    assert deadlines(ast.parse(code)) == found
