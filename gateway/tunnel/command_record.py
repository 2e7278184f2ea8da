"""The record of a client's socket: the names of its commands, never their parameters, and its sessions.

At level `full` each command is an event. At `standard` they are counted (command_counts.py); events of their own are
refused ones, and input that the activity shows, which is the first of a series.

Commands name a session, and only the browser knows which page that is: it says so in `Target.attachedToTarget`, the one
event that is read while it is forwarded (websocket/frames.py).
"""

from __future__ import annotations

import asyncio
import re
from typing import Any
from uuid import UUID

import structlog

from gateway.core.observation import Level, Observed
from gateway.tunnel.command_counts import FORWARDED, SESSION, CommandCounts
from gateway.tunnel.known_commands import KNOWN
from gateway.websocket.frames import ATTACHED_TAIL

_log = structlog.get_logger("gateway.tunnel")

# Commands that change a page, its storage or the browser, or that read secrets from it. Runtime.callFunctionOn is not
# one of them, since libraries inspect pages by it many times for each action; only the level `full` records it.
_ACTING = """
    Browser.cancelDownload Browser.grantPermissions Browser.resetPermissions Browser.setContentsSize
    Browser.setDownloadBehavior Browser.setPermission Browser.setWindowBounds
    CacheStorage.deleteCache CacheStorage.deleteEntry
    DOM.setFileInputFiles
    DOMStorage.clear DOMStorage.removeDOMStorageItem DOMStorage.setDOMStorageItem
    Debugger.evaluateOnCallFrame Debugger.setScriptSource
    DeviceAccess.cancelPrompt DeviceAccess.selectPrompt
    FedCm.clickDialogButton FedCm.dismissDialog FedCm.openUrl FedCm.selectAccount
    Fetch.continueWithAuth Fetch.disable Fetch.enable Fetch.failRequest Fetch.fulfillRequest
    IndexedDB.clearObjectStore IndexedDB.deleteDatabase IndexedDB.deleteObjectStoreEntries
    Input.dispatchDragEvent Input.dispatchKeyEvent Input.dispatchMouseEvent Input.dispatchTouchEvent
    Input.emulateTouchFromMouseEvent Input.imeSetComposition Input.insertText Input.synthesizePinchGesture
    Input.synthesizeScrollGesture Input.synthesizeTapGesture
    Network.clearBrowserCache Network.clearBrowserCookies Network.deleteCookies Network.emulateNetworkConditions
    Network.emulateNetworkConditionsByRule Network.getAllCookies Network.getCookies Network.loadNetworkResource
    Network.overrideNetworkState Network.replayXHR Network.setBlockedURLs Network.setBypassServiceWorker
    Network.setCacheDisabled Network.setCookie Network.setCookies Network.setExtraHTTPHeaders
    Network.setUserAgentOverride
    Page.addScriptToEvaluateOnLoad Page.addScriptToEvaluateOnNewDocument Page.bringToFront Page.captureScreenshot
    Page.captureSnapshot Page.close Page.crash Page.deleteCookie Page.handleJavaScriptDialog Page.navigate
    Page.navigateToHistoryEntry Page.printToPDF Page.reload Page.resetNavigationHistory Page.setBypassCSP
    Page.setDeviceMetricsOverride Page.setDocumentContent Page.setDownloadBehavior Page.setGeolocationOverride
    Page.setTouchEmulationEnabled Page.setWebLifecycleState Page.startScreenRecording Page.startScreencast
    Page.stopLoading Page.stopScreenRecording Page.stopScreencast
    Runtime.evaluate Runtime.terminateExecution
    Security.setIgnoreCertificateErrors Security.setOverrideCertificateErrors
    ServiceWorker.deliverPushMessage ServiceWorker.stopAllWorkers ServiceWorker.unregister
    Storage.clearCookies Storage.clearDataForOrigin Storage.clearDataForStorageKey Storage.clearTrustTokens
    Storage.deleteStorageBucket Storage.getCookies Storage.overrideQuotaForOrigin Storage.setCookies
    Target.activateTarget Target.closeTarget Target.createBrowserContext Target.createTarget
    Target.disposeBrowserContext
    Tracing.start
    WebAuthn.addCredential WebAuthn.addVirtualAuthenticator WebAuthn.clearCredentials WebAuthn.getCredentials
    WebAuthn.removeCredential WebAuthn.removeVirtualAuthenticator
"""
ACTING = frozenset(_ACTING.split()) | {
    method
    for method in KNOWN
    if method.startswith("Emulation.") and method.partition(".")[2].startswith(("set", "clear", "add", "remove"))
}

# Commands that change sessions; read at every level.
_OF_SESSIONS = frozenset({"Page.enable", "Page.disable", "Target.detachFromTarget"})
# Commands that show in which page a client works; read at every level.
_OF_WORK = frozenset(method for method in KNOWN if method.startswith("Input.")) | {
    "DOM.setFileInputFiles",
    "Page.bringToFront",
    "Page.navigate",
    "Page.navigateToHistoryEntry",
    "Page.reload",
    "Target.activateTarget",
}
# Read at every level, since the observer of downloads follows what clients set.
_DOWNLOADS = "Browser.setDownloadBehavior"
_ALWAYS = _OF_SESSIONS | _OF_WORK | {_DOWNLOADS}
# The most sessions whose pages are remembered; the oldest is forgotten.
_MAX_SESSIONS = 4096
_MAX_SESSION_CHARACTERS = 64
_METHOD = re.compile(r"[A-Za-z]{1,40}\.[A-Za-z]{1,80}")
_RULE = re.compile(r"\(([a-z_.]{1,80})\)")
# Chromium serializes what is needed of an event before any text that a page chooses, and the session last. Within a
# text each quote has a backslash before it, so that no text can imitate the end.
_ATTACHED = re.compile(
    rb'\{"method":"Target\.attachedToTarget","params":\{"sessionId":"([0-9A-F]{1,64})",'
    rb'"targetInfo":\{"targetId":"([ !#-\[\]-~]{1,128})","type":"([a-z_]{1,32})"'
)
_PARENT = re.compile(rb',"sessionId":"([0-9A-F]{1,64})"\}\Z')


# What people want to see of clients' input, by the command and the type of event that it dispatches; moves of the mouse
# and the ends of presses are not. What was typed is never recorded.
_ACTIONS = {
    ("Input.dispatchMouseEvent", "mousePressed"): "click",
    ("Input.dispatchMouseEvent", "mouseWheel"): "scroll",
    ("Input.dispatchTouchEvent", "touchStart"): "tap",
    ("Input.dispatchDragEvent", "drop"): "drop",
    ("Input.dispatchKeyEvent", "keyDown"): "type",
    ("Input.dispatchKeyEvent", "rawKeyDown"): "type",
    ("Input.dispatchKeyEvent", "char"): "type",
    ("Input.insertText", None): "type",
    ("Input.imeSetComposition", None): "type",
    ("Input.synthesizeTapGesture", None): "tap",
    ("Input.synthesizeScrollGesture", None): "scroll",
    ("Input.synthesizePinchGesture", None): "pinch",
    ("Input.emulateTouchFromMouseEvent", "mousePressed"): "tap",
    ("Input.emulateTouchFromMouseEvent", "mouseWheel"): "scroll",
    ("DOM.setFileInputFiles", None): "choose-files",
    ("Page.handleJavaScriptDialog", None): "answer-dialog",
}
_ACTING_METHODS = frozenset(method for method, _ in _ACTIONS)


_OF_INTEREST = {
    Level.OFF: _ALWAYS,
    Level.LIFECYCLE: _ALWAYS,
    Level.STANDARD: ACTING | _ALWAYS,
    # All.
    Level.FULL: None,
}


class SocketRecord:
    """The record of one client's socket; `page_id` if it is a page's socket. No method raises or waits."""

    __slots__ = (
        "_clients",
        "_connection_id",
        "_counts",
        "_dialogs",
        "_download_behaviors",
        "_is_recorded",
        "_of_interest",
        "_pages",
        "_record",
    )

    def __init__(self, observed: Observed, connection_id: UUID, page_id: str | None) -> None:
        self._record = observed.bounded
        self._clients = observed.clients
        self._download_behaviors = observed.download_behaviors
        self._connection_id = connection_id
        # Session -> its page; None for a session of the browser.
        self._pages: dict[str, str | None] = {"": page_id}
        # Sessions that get dialogs, the oldest first.
        self._dialogs: dict[str, None] = {}
        # The commands that are read further; None means all.
        level = observed.record.level
        self._of_interest = _OF_INTEREST[level]
        self._counts = CommandCounts(observed.bounded, connection_id) if level == Level.STANDARD else None
        # Whether commands become events, at this level and while the run lives.
        self._is_recorded = level >= Level.STANDARD
        observed.clients.add(self)

    def record_counts(self, connection_id: UUID) -> None:
        """Record what was counted so far, if the socket is one of this connection."""
        if self._counts is not None and connection_id == self._connection_id:
            self._counts.flush()

    def close(self) -> None:
        """Record what was counted; nothing is recorded after it."""
        self._clients.discard(self)
        if self._counts is not None:
            self._counts.flush()
        self._is_recorded = False

    def attached(self, event: bytes) -> None:
        """Read a `Target.attachedToTarget` event, of which the first and last bytes suffice.

        The page decides how long it is, by the target's title and address, so it is not parsed.
        """
        found = _ATTACHED.match(event)
        if found is None:
            if self._unreadable():
                _log.warning("an event of a browser could not be read", connection_id=str(self._connection_id))
            return
        session, target, kind = (text.decode() for text in found.groups())
        if kind == "page":
            self._pages[session] = target
        else:
            # A frame or a worker belongs to its parent's page.
            parent = _PARENT.search(event, len(event) - ATTACHED_TAIL)
            self._pages[session] = self._pages.get(parent[1].decode() if parent is not None else "")
        if len(self._pages) > _MAX_SESSIONS:
            del self._pages[next(session for session in self._pages if session)]

    def _unreadable(self) -> bool:
        """Count what the record lacks; the socket, whose bytes are forwarded anyway, goes on. True for the first."""
        return self._record.gap("unreadable")

    def handles_dialogs_of(self, page_id: str) -> bool:
        """Whether the client gets a page's dialogs, which then wait for it. An unknown session may be any page's."""
        return any(self._pages.get(session, page_id) == page_id for session in self._dialogs)

    def command(self, message: dict[str, Any], refused: str | None) -> None:
        """Record a command that was forwarded, or refused with this sentence."""
        try:
            method = message["method"]
            of_interest = self._of_interest
            if refused is None and of_interest is not None and method not in of_interest:
                return
            session = message.get("sessionId", "")
            if refused is None:
                if method in _OF_SESSIONS:
                    self._of_sessions(method, session, message)
                    if of_interest is not None:
                        return
                elif method == _DOWNLOADS:
                    self._download_behaviors.keep(message.get("params", {}))
                elif method in _OF_WORK:
                    self._works(method, session, message)
            if self._is_recorded:
                self._note(method, session, refused, _action(message) if method in _ACTING_METHODS else None)
        except Exception:
            if self._unreadable():
                _log.exception("a command of a client could not be recorded", connection_id=str(self._connection_id))

    def _works(self, method: str, session: str, message: dict[str, Any]) -> None:
        page = self._pages.get(session)
        if method == "Target.activateTarget":
            page = message.get("params", {}).get("targetId")
        if isinstance(page, str):
            self._clients.work_in(page)

    def _note(self, method: str, session: str, refused: str | None, action: str | None) -> None:
        page = self._pages.get(session)
        what = action if refused is None else _known(method)
        # Each key is a command, and each step of a scroll.
        shown = what is not None and self._record.inputs.begins(
            (self._connection_id, page, what), asyncio.get_running_loop().time()
        )
        if self._counts is not None and refused is None and not shown:
            self._counts.add(session, page, method, action)
            return
        data = {"method": _known(method)}
        if SESSION.fullmatch(session):
            data["sessionId"] = session
        type_ = FORWARDED
        if refused is not None:
            type_ = "connection.command.refused"
            rule = _RULE.search(refused)
            data["rule"] = rule[1] if rule is not None else "policy"
        elif action is not None:
            data["action"] = action
        self._record.note(type_, data, page_id=page, connection_id=self._connection_id, shown=shown)

    def _of_sessions(self, method: str, session: str, message: dict[str, Any]) -> None:
        if method == "Page.enable":
            # A client may make up any number of sessions, of any length.
            if len(session) <= _MAX_SESSION_CHARACTERS:
                self._dialogs[session] = None
            if len(self._dialogs) > _MAX_SESSIONS:
                del self._dialogs[next(iter(self._dialogs))]
        elif method == "Page.disable":
            self._dialogs.pop(session, None)
        else:
            left = message.get("params", {}).get("sessionId")
            if isinstance(left, str):
                self._dialogs.pop(left, None)
                self._pages.pop(left, None)


def _known(method: str) -> str:
    """The method as it is recorded: a client may send any."""
    return method if method in KNOWN or _METHOD.fullmatch(method) else "unknown"


def _action(message: dict[str, Any]) -> str | None:
    """Effect of a command of `_ACTIONS`; None for any other."""
    kind = message.get("params", {}).get("type")
    method = message["method"]
    return _ACTIONS.get((method, kind if isinstance(kind, str) else None)) or _ACTIONS.get((method, None))
