"""A browser's command line and environment."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.core.launch import LaunchSpec
from gateway.egress.proxy import LOOPBACK
from gateway.launchers.local.locales import language_variable

# A reserved name (RFC 2606) that only the browser's resolver rules know.
PROXY_HOST = "exit.invalid"
# Everything goes through the runtime's egress listener, loopback too.
PROXY_BYPASS = "<-loopback>"
WEBRTC_HANDLING = "disable_non_proxied_udp"
PROFILE = "--user-data-dir="

# Every program that a browser looks up is looked up here. Nothing can ever be below a device, so nothing is found: a
# page that navigates to `mailto:` would otherwise start the desktop's programs outside the sandbox.
NO_PROGRAMS = "/dev/null"

# What Playwright 1.65 passes to every Chromium that it launches. Clients expect a browser that behaves so; a test
# compares this list with the installed Playwright.
PLAYWRIGHT_DISABLED_FEATURES = (
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose",
    "HttpsUpgrades",
    "HttpsFirstBalancedModeAutoEnable",
    "LensOverlay",
    "MediaRouter",
    "PaintHolding",
    "ThirdPartyStoragePartitioning",
    "AvoidCorsURLLoaderRestartOnRedirect",
    "TcpPortRandomizationWin",
    "OptimizationHints",
    "NetworkTimeServiceQuerying",
    "AimEnabled",
    "PreconnectToSearch",
    "msForceBrowserSignIn",
    "msEdgeUpdateLaunchServicesPreferredVersion",
)
PLAYWRIGHT_ENABLED_FEATURES = ("CDPScreenshotNewSurface", "SkipListAccountsWithoutGaiaCookies")
PLAYWRIGHT_ARGUMENTS = (
    "--disable-field-trial-config",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-back-forward-cache",
    "--disable-breakpad",
    "--disable-component-extensions-with-background-pages",
    "--disable-component-update",
    "--no-default-browser-check",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-edgeupdater",
    "--disable-extensions",
    "--allow-pre-commit-input",
    "--disable-hang-monitor",
    "--disable-ipc-flooding-protection",
    "--disable-popup-blocking",
    "--disable-prompt-on-repost",
    "--disable-renderer-backgrounding",
    "--disable-updater-scheduler",
    "--force-color-profile=srgb",
    "--metrics-recording-only",
    "--no-first-run",
    "--password-store=basic",
    "--use-mock-keychain",
    "--no-service-autorun",
    "--disable-search-engine-choice-screen",
    "--unsafely-disable-devtools-self-xss-warnings",
    "--enable-unsafe-swiftshader",
    "--edge-skip-compat-layer-relaunch",
    "--disable-stack-profiler",
    "--disable-infobars",
    "--disable-sync",
    "--do-not-de-elevate",
    "--headless",
    "--hide-scrollbars",
    "--mute-audio",
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4",
    # The browser ends when its pipe is closed, so it never outlives the gateway.
    "--remote-debugging-pipe",
    "--no-startup-window",
)

_DISABLED_FEATURES = (
    # Of two lists of features only the last one counts, so they share one.
    *PLAYWRIGHT_DISABLED_FEATURES,
    # Pages of the browser's own, which a client could attach to and which may do more than a web page.
    "WebUIOmniboxPopup",
    "WebUIOmniboxAimPopup",
    # With it a page that uses WebRTC makes the machine join the multicast group of mDNS, to hide its addresses.
    # There are none to hide: disable_non_proxied_udp leaves no candidate that has one.
    "WebRtcHideLocalIpsWithMdns",
)

# Chromium's network service has no sandbox on Linux, so a process of its own separates nothing. As a thread of the
# browser it saves a seventh of a browser's processor time until its first page, and 12 MB.
_ENABLED_FEATURES = ("NetworkServiceInProcess2",) if sys.platform == "linux" else ()

_ARGUMENTS = (
    "--remote-debugging-port=0",
    "--disable-quic",
    f"--proxy-server={PROXY_HOST}",
    f"--proxy-bypass-list={PROXY_BYPASS}",
    # The first is what the headless shell knows, the second full Chromium.
    f"--force-webrtc-ip-handling-policy={WEBRTC_HANDLING}",
    f"--webrtc-ip-handling-policy={WEBRTC_HANDLING}",
)


def base_arguments(port: int) -> list[str]:
    """The arguments of every browser whose egress listener has this port, besides Playwright's."""
    return [*_ARGUMENTS, _resolver_rules(port)]


def arguments(
    base: list[str],
    spec: LaunchSpec,
    window: tuple[int, int],
    profile: Path,
    *,
    sandbox: bool,
    storage_bytes: int,
    features: Sequence[str] = (),
    added: Sequence[str] = (),
    left_out: Sequence[str] = (),
) -> list[str]:
    """All arguments of one browser, without its binary.

    `window` is the size of its windows, which its screen has too. `storage_bytes` is what all origins may store
    together, of which Chromium lets one have three quarters. `features` are enabled besides Playwright's. Those
    `left_out` of Playwright's arguments are not given, and others are `added`.
    """
    # Chromium's own limit is 60 % of the disk, for each origin.
    storage = f"StorageQuotaSettings:PoolSizeBytes/{storage_bytes}"
    return [
        *(argument for argument in PLAYWRIGHT_ARGUMENTS if argument not in left_out),
        *added,
        f"--enable-features={','.join((*PLAYWRIGHT_ENABLED_FEATURES, *_ENABLED_FEATURES, storage, *features))}",
        f"--disable-features={','.join(_DISABLED_FEATURES)}",
        *([] if sandbox else ["--no-sandbox"]),
        *base,
        *_of_window(window),
        *_of_spec(spec),
        f"{PROFILE}{profile}",
    ]


def environment(spec: LaunchSpec, home: Path, path: str) -> dict[str, str]:
    """A browser's whole environment; nothing of the gateway's own is in it. `path` is its PATH."""
    variables = {
        "HOME": str(home),
        # Chromium makes a socket in it, whose path may have 107 bytes; the launch script goes to the home directory.
        "TMPDIR": "/proc/self/cwd/tmp",
        "PATH": path,
        "LANG": "C.UTF-8",
    }
    if spec.locale is not None:
        variables["LANGUAGE"] = language_variable(spec.locale)
    if spec.timezone is not None:
        variables["TZ"] = spec.timezone
    return variables


def _resolver_rules(port: int) -> str:
    """Leaves the browser one address to connect to: its egress listener. No other name or address resolves, not even in
    a context with another proxy or none, and no name server is asked, by DNS, DNS over HTTPS or mDNS.

    `~NOTFOUND` is not enough: it is a name for Chromium, which refuses it everywhere but asks the local network for it
    by multicast where a page's name ends in `.local`.
    """
    return f"--host-resolver-rules=MAP {PROXY_HOST} {LOOPBACK}:{port} , MAP * ^NOTFOUND"


def _of_window(size: tuple[int, int]) -> list[str]:
    """Windows as large as the screen, at its corner."""
    width, height = size
    return [f"--window-size={width},{height}", "--window-position=0,0", f"--screen-info={{{width}x{height}}}"]


def _of_spec(spec: LaunchSpec) -> list[str]:
    """Options of the whole browser, which hold in every context and for every client."""
    options = []
    if spec.locale is not None:
        options += [f"--lang={spec.locale}", f"--accept-lang={spec.locale}"]
    else:
        # What full Chromium has by itself; the headless shell would send no Accept-Language.
        options.append("--accept-lang=en-US,en")
    if spec.user_agent is not None:
        options.append(f"--user-agent={spec.user_agent}")
    return options
