"""User agent and client hints of an ordinary Chromium, with a window and no switches.

`--user-agent` sets the user agent of the whole browser, and leaves client hints (https://wicg.github.io/ua-client-hints/)
as they are: the headless shell's name `HeadlessChrome`. No switch sets those; they can only be emptied for the whole
browser, and set for a page over DevTools, which the observer does before the page's first request.
"""

from __future__ import annotations

import platform
import sys
from typing import Any

from gateway.core.launch import BrowserName, LaunchSpec

_IS_MAC = sys.platform == "darwin"
_SYSTEM = "Macintosh; Intel Mac OS X 10_15_7" if _IS_MAC else "X11; Linux x86_64"

# The made-up brand that changes with each version, so that sites rely on no fixed list, as Chromium's
# components/embedder_support/user_agent_utils.cc makes it.
_ODD_LETTERS = (" ", "(", ":", "-", ".", "/", ")", ";", "=", "?", "_")
_ODD_VERSIONS = ("8", "99", "24")


def ordinary(version: str) -> str:
    """The reduced user agent, which has the major version only."""
    return (
        f"Mozilla/5.0 ({_SYSTEM}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{_major(version)}.0.0.0 Safari/537.36"
    )


def blank_hints(name: BrowserName, spec: LaunchSpec) -> tuple[str, ...]:
    """The feature that empties client hints, where the browser's own would contradict its user agent.

    They do not follow a user agent that a client chose, and the headless shell's always name `HeadlessChrome`.
    """
    return ("UACHOverrideBlank",) if spec.user_agent is not None or name == "headless-shell" else ()


def override(version: str) -> dict[str, Any]:
    """The parameters of `Emulation.setUserAgentOverride` for an ordinary Chromium's user agent and client hints."""
    return {"userAgent": ordinary(version), "userAgentMetadata": _hints(version)}


def _hints(version: str) -> dict[str, Any]:
    is_arm = platform.machine().lower() in ("arm64", "aarch64")
    return {
        "brands": _brands(version, _major(version), short=True),
        "fullVersionList": _brands(version, version, short=False),
        "fullVersion": version,
        "platform": "macOS" if _IS_MAC else "Linux",
        "platformVersion": platform.mac_ver()[0] if _IS_MAC else "",
        "architecture": "arm" if is_arm else "x86",
        "bitness": "64",
        "model": "",
        "mobile": False,
        "wow64": False,
    }


def _brands(version: str, shown: str, *, short: bool) -> list[dict[str, str]]:
    seed = int(_major(version))
    odd = f"Not{_ODD_LETTERS[seed % 11]}A{_ODD_LETTERS[(seed + 1) % 11]}Brand"
    odd_version = _ODD_VERSIONS[seed % 3]
    made_up = {"brand": odd, "version": odd_version if short else f"{odd_version}.0.0.0"}
    own = {"brand": "Chromium", "version": shown}
    return [made_up, own] if seed % 2 == 0 else [own, made_up]


def _major(version: str) -> str:
    return version.partition(".")[0]
