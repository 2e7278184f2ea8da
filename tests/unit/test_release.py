"""What `make release` refuses before it builds anything."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from tools.release import ReleaseRefused, check_version

TODAY = date(2027, 1, 31)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "__init__.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## 1.2.3 - 2027-01-31\n\n- A change.\n\n## 1.2.2 - 2026-12-01\n"
    )
    return tmp_path


def test_an_agreed_and_dated_version_is_accepted(root: Path) -> None:
    check_version("1.2.3", root, TODAY)


@pytest.mark.parametrize("version", ["1.2", "v1.2.3", "1.2.3-rc1", ""])
def test_a_version_of_another_form_is_refused(root: Path, version: str) -> None:
    with pytest.raises(ReleaseRefused, match="not a version"):
        check_version(version, root, TODAY)


def test_a_version_that_the_package_does_not_have_is_refused(root: Path) -> None:
    with pytest.raises(ReleaseRefused, match="does not have the version"):
        check_version("1.2.4", root, TODAY)


@pytest.mark.parametrize(
    ("changelog", "reason"),
    [
        ("## Unreleased\n\n- A change.\n", "no section"),
        ("## 1.2.3\n\n- A change.\n", "no section"),
        ("## 1.2.3 - 2027-02-31\n\n- A change.\n", "not a date"),
        ("## 1.2.3 - 2027-02-01\n\n- A change.\n", "in the future"),
        ("## 1.2.3 - 2027-01-31\n\n## 1.2.2 - 2026-12-01\n\n- A change.\n", "says nothing"),
    ],
)
def test_a_changelog_without_a_dated_section_is_refused(root: Path, changelog: str, reason: str) -> None:
    (root / "CHANGELOG.md").write_text(changelog)
    with pytest.raises(ReleaseRefused, match=reason):
        check_version("1.2.3", root, TODAY)
