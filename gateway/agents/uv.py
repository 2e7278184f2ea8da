"""Runs uv in place of pip: with what pip was told of indexes, certificates and proxies, which uv does not read.

Of the standard library alone, since it also installs what all else needs.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

# What uv calls the settings of pip.
_VARIABLES: Final = {
    "index-url": ("UV_DEFAULT_INDEX",),
    "extra-index-url": ("UV_INDEX",),
    "find-links": ("UV_FIND_LINKS",),
    "no-index": ("UV_NO_INDEX",),
    "trusted-host": ("UV_INSECURE_HOST",),
    "default-timeout": ("UV_HTTP_TIMEOUT",),
    "timeout": ("UV_HTTP_TIMEOUT",),
    "cert": ("SSL_CERT_FILE",),
    "client-cert": ("SSL_CLIENT_CERT",),
    "proxy": ("HTTP_PROXY", "HTTPS_PROXY"),
}
# Those of a section count more than those of one before it.
_SECTIONS: Final = ("global", "install", ":env:")


def install(python: Path, arguments: Sequence[str], uv: Path) -> bool:
    """Install with uv into the environment of `python`; False if it could not."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    settings = subprocess.run(pip, check=True, capture_output=True, text=True).stdout
    command = [str(uv), "pip", "install", "--quiet", "--no-config", "--python", str(python), *arguments]
    return subprocess.run(command, check=False, env={**os.environ, **variables(settings)}).returncode == 0


def variables(settings: str) -> dict[str, str]:
    """The environment by which uv finds packages as pip does, from the output of `pip config list`."""
    # As pip, take what fits best of all indexes, and not the first that knows a package.
    found = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    lines = [line.partition("=") for line in settings.splitlines()]
    for section in _SECTIONS:
        for name, _, literal in lines:
            of, _, option = name.rpartition(".")
            if of != section or option not in _VARIABLES:
                continue
            words = str(ast.literal_eval(literal)).split()
            if option in ("extra-index-url", "find-links"):
                # pip passes over directories that are not there, and uv fails.
                words = [word for word in words if _may_be_there(word)]
            value = ("," if option == "find-links" else " ").join(words)
            found |= dict.fromkeys(_VARIABLES[option], value)
    return {name: value for name, value in found.items() if value}


def _may_be_there(place: str) -> bool:
    parts = urlsplit(place)
    return parts.scheme not in ("", "file") or Path(unquote(parts.path)).exists()
