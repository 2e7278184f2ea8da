"""What make prints while it installs, with a Python that records what it is asked for instead of doing it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PYTHON = """\
#!/bin/sh
case "$*" in
--version) echo Python 3.99.0 ;;
"-m venv "*) mkdir -p .venv/bin && cp "$0" .venv/bin/python && touch .venv/bin/pip ;;
"-m pip "* | "-m tools.packages "*) echo "$*" ;;
esac
"""


def _pins(file: str) -> int:
    return len([line for line in (ROOT / file).read_text().splitlines() if line[:1].isalpha()])


@pytest.mark.parametrize(
    ("made", "printed"),
    [
        (
            "installed",
            [
                f"Installing the {_pins('requirements.txt')} packages of requirements.txt; this may take some minutes.",
                # Neither quiet, nor with bars that a log without a terminal would keep.
                "-m pip install --progress-bar=off --no-deps --requirement requirements.txt",
            ],
        ),
        (
            "installed-dev",
            [
                f"Installing the {_pins('requirements-dev.txt')} packages of requirements-dev.txt.",
                "-m tools.packages requirements-dev.txt",
            ],
        ),
    ],
)
def test_make_names_each_step_of_an_installation_and_shows_pips_output(
    tmp_path: Path, made: str, printed: list[str]
) -> None:
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python3.99"
    python.write_text(PYTHON)
    python.chmod(0o755)
    done = subprocess.run(
        ["make", f".venv/{made}", f"PYTHON={python}"],
        cwd=tmp_path,
        # Nothing of a make that runs the tests.
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "Making a virtual environment in .venv (Python 3.99.0).",
        *printed,
        "Installing this checkout.",
        "-m pip install -qq --no-deps --no-build-isolation --editable .",
    ]


# Commands that stand in for the machine's: who runs make, and a package manager that installs what it is asked for.
ID = "#!/bin/sh\necho {user}\n"
APT_GET = """\
#!/bin/sh
[ "$1" = install ] || exit 0
echo "$*" >>{asked}
"""


@pytest.mark.parametrize(
    ("user", "has_apt", "printed"),
    [
        (0, True, "Installing one two."),
        (0, False, "Tests of missing programs are skipped; on Debian: apt-get install one two"),
        (1000, True, "Tests of missing programs are skipped; on Debian: apt-get install one two"),
    ],
    ids=["root", "root of another system", "an ordinary user"],
)
def test_programs_of_single_tests_are_installed_or_named(
    tmp_path: Path, user: int, has_apt: bool, printed: str
) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    commands = tmp_path / "commands"
    commands.mkdir()
    for name in ("sh", "make", "touch"):
        found = shutil.which(name)
        assert found is not None
        (commands / name).symlink_to(found)
    given = {"id": ID.format(user=user)} | ({"apt-get": APT_GET.format(asked=tmp_path / "asked")} if has_apt else {})
    node = tmp_path / ".venv" / "lib" / "python3.99" / "site-packages" / "playwright" / "driver" / "node"
    node.parent.mkdir(parents=True)
    for path, text in {node: "#!/bin/sh\n", **{commands / name: text for name, text in given.items()}}.items():
        path.write_text(text)
        path.chmod(0o755)
    done = subprocess.run(
        [
            *("make", "--assume-old=.venv/installed-dev", "test-programs", "PYTHON=none"),
            "TEST_PROGRAMS=sh:dash no-such-program:one no-other-program:two",
        ],
        cwd=tmp_path,
        env={"PATH": str(commands)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, (done.stdout + done.stderr).strip()) == (0, printed)
    asked = tmp_path / "asked"
    assert asked.exists() == (user == 0 and has_apt)
    assert not asked.exists() or asked.read_text() == "install -y -qq --no-install-recommends one two\n"
