"""Makes a release of the checkout: checks it, builds it, tries the wheel, lists what is in it, and tags it.

    make release VERSION=1.2.3

SIGN=no makes a tag without a signature; AUDIT=no is for where pip-audit's service can't be reached. Publishes nothing:
it prints what to push and to upload. CONTRIBUTING.md ("Releasing") says what to do before.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

from tools.smoke import ROOT, Command, SmokeFailed, check, copy_source, install, run, scratch

DIST = ROOT / "dist"
_VERSION = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")
_TOOLS = Path(sys.executable).parent


class ReleaseRefused(Exception):
    """Raised with a sentence that says what to mend; nothing was tagged."""


def main(arguments: list[str]) -> int:
    """Exit code: 0 when the release is tagged, 1 with a sentence on stderr."""
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("version")
    parser.add_argument("--no-sign", action="store_true", help="an annotated tag, without a signature")
    parser.add_argument("--no-audit", action="store_true", help="without a look for known vulnerabilities")
    parsed = parser.parse_args(arguments)
    try:
        made = release(parsed.version, sign=not parsed.no_sign, audit=not parsed.no_audit)
    except (ReleaseRefused, SmokeFailed) as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    print("\n".join(f"Made {path.relative_to(ROOT)}" for path in made))
    print(f"Tagged v{parsed.version}. To publish: git push origin main v{parsed.version}, and upload what is in dist/.")
    return 0


def release(version: str, *, sign: bool, audit: bool) -> list[Path]:
    """Files of the release, in dist/. Raises ReleaseRefused or SmokeFailed before anything is tagged."""
    check_version(version, ROOT, datetime.now(UTC).date())
    check_tree(version)
    if audit:
        check_vulnerabilities()
    shutil.rmtree(DIST, ignore_errors=True)
    with scratch() as directory:
        _step("Building the wheel and the source distribution")
        build: Command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", DIST]
        run([*build, copy_source(directory / "source")])
        wheel = next(DIST.glob("*.whl"))
        _step(f"Trying {wheel.name} in a fresh environment")
        commands = install(wheel, directory / "venv")
        check(commands, directory)
        _step("Listing what it consists of (SBOM)")
        bill = DIST / f"browser-gateway-{version}.cdx.json"
        project: Command = ["--pyproject", ROOT / "pyproject.toml"]
        # With `--validate` a document that does not have the format's schema is a failure.
        run([_TOOLS / "cyclonedx-py", "environment", *project, "--validate", "-o", bill, commands / "python"])
    _step("Tagging")
    tag(version, ROOT, sign=sign)
    return sorted(DIST.iterdir())


def check_version(version: str, root: Path, today: date) -> None:
    """The package, the changelog and the argument agree on the version, and the changelog dates it today or earlier."""
    if not _VERSION.fullmatch(version):
        raise ReleaseRefused(f"{version!r} is not a version such as 1.2.3 or 1.2.3rc1")
    package = (root / "gateway" / "__init__.py").read_text()
    if f'__version__ = "{version}"' not in package:
        raise ReleaseRefused(f"gateway/__init__.py does not have the version {version}")
    changelog = (root / "CHANGELOG.md").read_text()
    section = re.search(rf"^## {re.escape(version)} - (\d{{4}}-\d\d-\d\d)\n(.*?)(?=^## |\Z)", changelog, re.M | re.S)
    if section is None:
        raise ReleaseRefused(f"CHANGELOG.md has no section `## {version} - YYYY-MM-DD`")
    try:
        dated = date.fromisoformat(section[1])
    except ValueError:
        raise ReleaseRefused(f"CHANGELOG.md dates {version} {section[1]}, which is not a date") from None
    if dated > today:
        raise ReleaseRefused(f"CHANGELOG.md dates {version} {dated}, which is in the future")
    if not section[2].strip():
        raise ReleaseRefused(f"CHANGELOG.md says nothing about {version}")


def check_tree(version: str) -> None:
    """What is released is what is committed on main, under a tag that is free."""
    if run(["git", "status", "--porcelain"]).strip():
        raise ReleaseRefused("the checkout has changes that are not committed")
    branch = run(["git", "branch", "--show-current"]).strip()
    if branch != "main":
        raise ReleaseRefused(f"releases are made on main, and this is {branch or 'a detached commit'}")
    if run(["git", "tag", "--list", f"v{version}"]).strip():
        raise ReleaseRefused(f"the tag v{version} exists already")


def tag(version: str, root: Path, *, sign: bool) -> None:
    """Tag the commit, with the key of `user.signingkey` (OpenPGP, or SSH where `gpg.format` says so) or without one."""
    # Asks for a passphrase where it must, so its streams are the terminal's.
    kind = "--sign" if sign else "--annotate"
    command = ["git", "tag", kind, "--message", f"Version {version}", f"v{version}"]
    failed = subprocess.run(command, cwd=root, check=False).returncode != 0
    if sign and not failed and "\n-----BEGIN " not in run(["git", "cat-file", "tag", f"v{version}"], cwd=root):
        # git 2.39 reports success for an SSH key that it can't read, and tags without a signature.
        run(["git", "tag", "--delete", f"v{version}"], cwd=root)
        failed = True
    if failed:
        raise ReleaseRefused("git could not tag. Set user.signingkey, or give SIGN=no for a tag without a signature")


def check_vulnerabilities() -> None:
    """None is known for what requirements.txt pins. What could not be looked up counts as a failure."""
    _step("Looking for known vulnerabilities")
    command: Command = ["-r", ROOT / "requirements.txt", "--require-hashes", "--disable-pip", "--strict"]
    try:
        run([_TOOLS / "pip-audit", *command, "--progress-spinner=off"], seconds=600)
    except SmokeFailed as error:
        raise ReleaseRefused(
            f"{error}\nUpdate what is vulnerable (make lock ARGS=--upgrade). Where the service can't be reached or "
            "does not know the packages, AUDIT=no releases without this check"
        ) from error


def _step(name: str) -> None:
    print(f"{name} ...", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
