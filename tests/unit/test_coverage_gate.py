"""What makes the coverage gate fail (tools/coverage_gate.py)."""

from __future__ import annotations

from typing import Any

from tools.coverage_gate import WHOLE, Measured, read, whole, wrong


def measured(path: str, of: int = 100, lines: tuple[int, ...] = (), branches: tuple[list[int], ...] = ()) -> Measured:
    return Measured(path, of, list(lines), list(branches))


def test_statements_and_branches_count_alike() -> None:
    summary: dict[str, Any] = {"num_statements": 6, "num_branches": 4}
    report = {"files": {"a.py": {"summary": summary, "missing_lines": [3], "missing_branches": [[2, 3], [5, -1]]}}}
    (file,) = read(report)
    assert (file.missing, file.percent) == (3, 70.0)
    assert whole([file, measured("b.py", 10)]) == 85.0


def test_a_file_names_ranges_of_lines_and_the_branches_that_are_not_implied_by_them() -> None:
    file = measured("a.py", 10, (3, 4, 5, 9), ([2, 3], [7, -1], [8, 2]))
    assert str(file).endswith("a.py  missing: 3-5, 9, 7->exit, 8->2")


def test_complete_coverage_passes() -> None:
    assert wrong([measured("gateway/tunnel/tunnel.py"), measured("gateway/app.py")], {"gateway/app.py"}) == []


def test_the_whole_must_reach_the_bound() -> None:
    missed = tuple(range(100 - int(WHOLE)))
    assert wrong([measured("gateway/app.py", 100, missed)], set()) == []
    assert wrong([measured("gateway/app.py", 100, (*missed, 200))], set()) == [
        f"{WHOLE - 1:.2f} % of gateway/ is covered; at least {WHOLE:g} % must be."
    ]


def test_one_branch_of_a_file_that_must_be_complete_fails() -> None:
    files = [measured("gateway/crypto/keyring.py", 100, (), ([1, 2],)), measured("gateway/app.py", 100, (1,))]
    assert wrong(files, set()) == ["gateway/crypto/keyring.py must be covered completely."]


def test_a_module_that_no_test_imports_fails() -> None:
    files = [measured("gateway/app.py")]
    assert wrong(files, {"gateway/app.py", "gateway/new.py"}) == ["gateway/new.py was imported by no test."]
