"""What the documents name exists: files, tests, links between pages and their headings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools import execute_page, modules_page

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md"), *ROOT.glob("tests/**/*.md")])
PAGES = [page for page in PAGES if "node_modules" not in page.parts]
FILE = re.compile(r"`((?:gateway|tests|bench|docs|migrations|tools|deploy)/[\w./-]+\.\w+)`")
TEST = re.compile(r"`(test_\w+?)(?:\[.*?\])?`")
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([\w-]+))?\)")


def _heading_ids(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_links_of_a_page_exist(page: Path) -> None:
    text = page.read_text()
    missing = [name for name in FILE.findall(text) if not (ROOT / name).exists()]
    for target, heading in LINK.findall(text):
        linked = (page.parent / target).resolve() if target else page
        if not linked.exists() or (heading and heading not in _heading_ids(linked)):
            missing.append(f"{target}#{heading}")
    assert missing == []


def test_every_named_test_exists() -> None:
    tests = "\n".join(path.read_text() for path in ROOT.glob("tests/**/test_*.py"))
    defined = set(re.findall(r"def (test_\w+)\(", tests))
    modules = {path.stem for path in ROOT.glob("tests/**/test_*.py")}
    named = {name for page in PAGES for name in TEST.findall(page.read_text())}
    assert named - defined - modules == set()
    assert len(named) > 5


def test_the_page_of_modules_is_up_to_date() -> None:
    assert modules_page.PAGE.read_text() == modules_page.document(), "run `make docs`"
    assert "](../gateway/app.py) |  |" not in modules_page.document(), "each module has a docstring"


def test_the_page_of_calls_is_up_to_date() -> None:
    assert execute_page.PAGE.read_text() == execute_page.document(), "run `make docs`"


def test_the_architecture_names_every_room() -> None:
    architecture = (ROOT / "ARCHITECTURE.md").read_text()
    rooms = [path.name for path in (ROOT / "gateway").iterdir() if (path / "__init__.py").exists()]
    assert [room for room in rooms if f"{room}/ " not in architecture] == []
