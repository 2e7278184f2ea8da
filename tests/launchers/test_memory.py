"""How much memory is left for browsers: the machine's, or what a control group's limit leaves."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from gateway.launchers.local.memory import available_bytes

MIB = 1024**2


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc/self of a process in the group /outer/inner, where cgroup v2 is mounted below `tmp_path`."""
    (tmp_path / "cgroup" / "outer" / "inner").mkdir(parents=True)
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "mountinfo").write_text(f"30 23 0:26 / {tmp_path}/cgroup rw,nosuid - cgroup2 cgroup rw\n")
    (proc / "cgroup").write_text("0::/outer/inner\n")
    return proc


def limit(group: Path, most: str, used: int, cached: int) -> None:
    (group / "memory.max").write_text(f"{most}\n")
    (group / "memory.current").write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\nactive_file 1\n")


def test_what_the_tightest_group_leaves_is_available(proc: Path) -> None:
    outer = proc.parent / "cgroup" / "outer"
    limit(outer, str(9 * MIB), 4 * MIB, MIB)
    limit(outer / "inner", str(8 * MIB), 2 * MIB, MIB)
    assert available_bytes(proc) == 6 * MIB
    limit(outer / "inner", "max", 2 * MIB, MIB)
    assert available_bytes(proc) == 6 * MIB
    limit(outer, str(2 * MIB), 4 * MIB, MIB)
    assert available_bytes(proc) == 0


@pytest.mark.parametrize("mounted", [True, False])
def test_without_a_limit_it_is_what_the_machine_has(proc: Path, mounted: bool) -> None:
    if not mounted:
        (proc / "mountinfo").write_text("")
    total = psutil.virtual_memory().total
    # It changes all the time; a limit would be far from it.
    assert total / 100 < available_bytes(proc) <= total
