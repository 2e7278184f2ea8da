"""Judges the branch coverage that `make test-all` measured: `python -m tools.coverage_gate .measured/coverage.json`.

Prints what is missed most. Exits with 1 when the whole is below WHOLE, when a file of COMPLETE misses a line or a
branch, or when a module was never imported.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

# Percent of statements and branches together, over all of gateway/.
WHOLE = 92.0
# Where a branch that no test takes would be a hole in what a tenant is promised.
COMPLETE = (
    "gateway/tunnel/*",
    "gateway/egress/ip_rules.py",
    "gateway/core/hosts.py",
    "gateway/egress/http_heads.py",
    "gateway/egress/dialer.py",
    "gateway/core/traffic_rules.py",
    "gateway/crypto/*",
    "gateway/domain/leases/*",
    "gateway/domain/attachments.py",
)
_LISTED = 20


@dataclass(frozen=True)
class Measured:
    """One file: how many statements and branches it has, and which of them no test reached."""

    path: str
    of: int
    lines: list[int]
    branches: list[list[int]]

    @property
    def missing(self) -> int:
        return len(self.lines) + len(self.branches)

    @property
    def percent(self) -> float:
        return 100 - 100 * self.missing / self.of if self.of else 100.0

    def __str__(self) -> str:
        arrows = [f"{start}->{end if end > 0 else 'exit'}" for start, end in self.branches if end not in self.lines]
        return f"{self.percent:5.1f} % {self.path}  missing: {', '.join([*_ranges(self.lines), *arrows])}"


def read(report: dict[str, Any]) -> list[Measured]:
    """The files of a report as `coverage json` writes it."""
    return [
        Measured(
            path,
            found["summary"]["num_statements"] + found["summary"]["num_branches"],
            found["missing_lines"],
            found["missing_branches"],
        )
        for path, found in sorted(report["files"].items())
    ]


def wrong(files: list[Measured], modules: set[str]) -> list[str]:
    """What makes the gate fail, a sentence each; empty when it passes."""
    found = [f"{path} was imported by no test." for path in sorted(modules - {file.path for file in files})]
    if (percent := whole(files)) < WHOLE:
        found.append(f"{percent:.2f} % of gateway/ is covered; at least {WHOLE:g} % must be.")
    return found + [f"{file.path} must be covered completely." for file in incomplete(files)]


def incomplete(files: list[Measured]) -> list[Measured]:
    """Those of COMPLETE that are not."""
    return [file for file in files if file.missing and any(fnmatch(file.path, pattern) for pattern in COMPLETE)]


def whole(files: list[Measured]) -> float:
    """Percent of all statements and branches that were reached."""
    of = sum(file.of for file in files)
    return 100 - 100 * sum(file.missing for file in files) / of if of else 0.0


def main(report: str) -> int:
    files = read(json.loads(Path(report).read_text()))
    # A package that has only a docstring, or nothing, has nothing to reach.
    modules = {str(path.relative_to(ROOT)) for path in ROOT.glob("gateway/**/*.py") if path.name != "__init__.py"}
    print(f"\nBranch coverage of gateway/: {whole(files):.2f} %. Most is missing in:")
    for file in sorted(files, key=lambda file: -file.missing)[:_LISTED]:
        print(f"  {file}")
    if missing := incomplete(files):
        print("To be covered completely:")
        for file in missing:
            print(f"  {file}")
    complaints = wrong(files, modules)
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


def _ranges(lines: list[int]) -> list[str]:
    """Line numbers, neighbours joined: 3-5, 9."""
    found: list[list[int]] = []
    for line in lines:
        if found and line == found[-1][-1] + 1:
            found[-1][-1] = line
        else:
            found.append([line, line])
    return [str(first) if first == last else f"{first}-{last}" for first, last in found]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
