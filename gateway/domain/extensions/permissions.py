"""Which permissions an extension may ask for, and why not the others.

An extension is code of a caller with more rights than a page. What it may do stays within its runtime: the pages, the
data and the network that the caller's own lease reaches. A permission that reaches further, or that ends one of the
guards, is refused, and so is one that was not examined.
"""

from __future__ import annotations

_PAGES = "attaches to pages past the lease's policy"
_NETWORK = "changes or bypasses the network that the gateway gives the browser"
_HOST = "reads or uses the machine of the gateway"
_FILES = "writes files of its choice, past the limits of downloads"
_BROWSER = "changes settings of the browser that guards rely on"
_SCREEN = "takes pictures or sound of more than a page"
_ACCOUNT = "uses an account of the browser's maker, which there is none of"

REFUSED: dict[str, str] = {
    "debugger": _PAGES,
    "pageCapture": _SCREEN,
    "tabCapture": _SCREEN,
    "desktopCapture": _SCREEN,
    "proxy": _NETWORK,
    "vpnProvider": _NETWORK,
    "dns": _NETWORK,
    "webRequest": _NETWORK,
    "webRequestBlocking": _NETWORK,
    "webRequestAuthProvider": _NETWORK,
    "nativeMessaging": _HOST,
    "system.cpu": _HOST,
    "system.display": _HOST,
    "system.memory": _HOST,
    "system.storage": _HOST,
    "power": _HOST,
    "processes": _HOST,
    "printing": _HOST,
    "printingMetrics": _HOST,
    "printerProvider": _HOST,
    "documentScan": _HOST,
    "fileBrowserHandler": _HOST,
    "fileSystemProvider": _HOST,
    "certificateProvider": _HOST,
    "platformKeys": _HOST,
    "loginState": _HOST,
    "wallpaper": _HOST,
    "downloads": _FILES,
    "downloads.open": _FILES,
    "downloads.shelf": _FILES,
    "downloads.ui": _FILES,
    "management": _BROWSER,
    "privacy": _BROWSER,
    "contentSettings": _BROWSER,
    "fontSettings": _BROWSER,
    "accessibilityFeatures.modify": _BROWSER,
    "accessibilityFeatures.read": _BROWSER,
    "browsingData": _BROWSER,
    "identity": _ACCOUNT,
    "identity.email": _ACCOUNT,
    "gcm": _ACCOUNT,
    "instanceID": _ACCOUNT,
}

ALLOWED = frozenset(
    (
        "activeTab",
        "alarms",
        "background",
        "bookmarks",
        "clipboardRead",
        "clipboardWrite",
        "contextMenus",
        "cookies",
        "declarativeContent",
        "declarativeNetRequest",
        "declarativeNetRequestFeedback",
        "declarativeNetRequestWithHostAccess",
        "favicon",
        "geolocation",
        "history",
        "idle",
        "notifications",
        "offscreen",
        "readingList",
        "scripting",
        "search",
        "sessions",
        "sidePanel",
        "storage",
        "tabGroups",
        "tabs",
        "topSites",
        "tts",
        "unlimitedStorage",
        "userScripts",
        "webNavigation",
    )
)


def why_refused(permission: str) -> str | None:
    """Why an extension with this permission is not accepted; None for one that is allowed. A pattern of addresses is
    none of these names."""
    if permission in ALLOWED:
        return None
    return REFUSED.get(permission, "is not one that this gateway knows to stay within a runtime")
