"""What `make release` refuses before it builds anything, and how it tags."""

from __future__ import annotations

import os
import subprocess
from datetime import date
from pathlib import Path

import pytest

from tests.support import missing
from tools.release import ReleaseRefused, check_version, tag

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


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, whose git knows no configuration but its own."""
    missing.program("git", "git")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    root = tmp_path / "repository"
    root.mkdir()
    _run(root, "git", "init", "--quiet")
    _run(root, "git", "config", "user.name", "Somebody")
    _run(root, "git", "config", "user.email", "somebody@example.com")
    _run(root, "git", "commit", "--quiet", "--allow-empty", "--message", "Begin")
    return root


def _run(root: Path, *command: str | Path) -> str:
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_a_tag_is_signed_with_an_ssh_key(repository: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    _run(tmp_path, missing.program("ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-N", "", "-f", key)
    signers = tmp_path / "signers"
    signers.write_text(f"somebody@example.com {key.with_suffix('.pub').read_text()}")
    _run(repository, "git", "config", "gpg.format", "ssh")
    _run(repository, "git", "config", "user.signingkey", key)
    _run(repository, "git", "config", "gpg.ssh.allowedSignersFile", signers)
    tag("1.2.3", repository, sign=True)
    assert 'Good "git" signature for somebody@example.com' in _run(repository, "git", "verify-tag", "v1.2.3")


def test_a_tag_is_signed_with_an_openpgp_key(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing.program("gpg", "gnupg")
    home = tmp_path_factory.mktemp("gpg")
    home.chmod(0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    made = ["--batch", "--passphrase", "", "--quick-generate-key", "somebody@example.com", "ed25519", "sign", "never"]
    try:
        _run(repository, "gpg", *made)
        _run(repository, "git", "config", "user.signingkey", "somebody@example.com")
        tag("1.2.3", repository, sign=True)
        assert "Good signature" in _run(repository, "git", "verify-tag", "v1.2.3")
    finally:
        _run(repository, "gpgconf", "--kill", "all")


def test_without_a_key_nothing_is_tagged(repository: Path, tmp_path: Path) -> None:
    _run(repository, "git", "config", "gpg.format", "ssh")
    _run(repository, "git", "config", "user.signingkey", tmp_path / "none")
    with pytest.raises(ReleaseRefused, match="SIGN=no"):
        tag("1.2.3", repository, sign=True)
    assert _run(repository, "git", "tag", "--list") == ""
    tag("1.2.3", repository, sign=False)
    assert _run(repository, "git", "tag", "--list") == "v1.2.3\n"
