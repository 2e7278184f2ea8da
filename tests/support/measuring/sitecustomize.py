"""Measures the coverage of each Python process that `make test` starts, when this directory is on PYTHONPATH.

By PYTHONPATH and not by a variable of coverage's own, since the encoder of videos and the reviewer of large commands
are given no other variable. All data go to one directory, to which a process that gave up its rights may write too.
"""

from pathlib import Path

import coverage

_ROOT = Path(__file__).resolve().parent.parent.parent.parent

coverage.Coverage(
    data_file=str(_ROOT / ".measured" / "coverage"),
    data_suffix=True,
    auto_data=True,  # saved at exit
    include=[str(_ROOT / "gateway" / "*")],
    config_file=str(_ROOT / "pyproject.toml"),
).start()
