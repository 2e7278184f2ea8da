"""Check of the browsers' language files, which `Intl` needs to follow a runtime's locale."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from gateway.cli.doctor.findings import Finding, Level
from gateway.launchers.local import locales
from gateway.launchers.local.browsers import Binary


def languages(binaries: Sequence[Binary]) -> Iterator[Finding]:
    """One finding for all browsers. Elsewhere than on Linux they have all files."""
    if sys.platform != "linux":
        return
    without = [str(binary) for binary in binaries if locales.installed(binary.path) in ([], [locales.DEFAULT])]
    if not without:
        yield Finding(
            Level.OK, "languages", "Browsers have language files, so that Intl can follow a runtime's locale."
        )
        return
    yield Finding(
        Level.WARNING,
        "languages",
        f"Intl stays {locales.DEFAULT}, whatever locale a runtime asks for, in {' and '.join(without)}.",
        f"Browsers of Debian have the languages of the package {locales.PACKAGE}: `apt-get install {locales.PACKAGE}`.",
    )
