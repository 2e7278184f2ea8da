"""Which DevTools commands a lease may send.

A lease gives access to one browser and nothing else. So a command is refused if it would reach another browser, a file
of the machine or an address past the proxy, or would crash the browser. Most commands are allowed or refused by their
name; some by a check of their parameters, which may also rewrite them. docs/devtools-policy.md explains it to users.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal

from gateway.core.allowed_urls import ALLOWED_IN_WORDS, is_page_of, refused_address
from gateway.tunnel.known_commands import KNOWN

# A check gets the method's name, its parameters, which it may change, and the runtime's directory of files. It returns
# the sentence that refuses them, or None.
Check = Callable[[str, dict[str, Any], str], str | None]

_NAMED_CHARACTERS = 80
# That a client may let one origin store.
MAX_QUOTA_BYTES = 256 * 1024**2
# A drop of one of these opens an address in it.
_LINK_TYPES = frozenset({"text/uri-list", "text/x-moz-url", "url"})
_LINE_END = re.compile(r"[\r\n]")
# Links that pages contain and people drag; dropping one does no more than a click on it.
_DRAGGED_LINK = re.compile(r"\s*(javascript|mailto|tel):", re.IGNORECASE | re.ASCII)

# Lighthouse leaves a page for this one, to see whether the back/forward cache keeps it. From a page of the browser's
# own a client could open all others, so an empty page takes its place.
_LEFT_FOR = ("chrome://terms", "chrome://terms/")
_EMPTY_PAGE = "data:,"

# Categories of traces that are about the memory of Chromium's processes: dumps of it, native stacks, and objects by
# their addresses. No client's own trace has them.
_MEMORY_CATEGORIES = tuple(
    f"disabled-by-default-{name}"
    for name in (
        *("memory-infra", "memory-infra.v8.code_stats", "cpu_profiler", "cpu_profiler.debug", "content.verbose"),
        *("blink.debug.layout.trees", "cc.debug", "cc.debug.scheduler", "sequence_manager.debug"),
    )
)


def _refusal(rule: str, method: str, reason: str) -> str:
    return f"Refused by the gateway's policy ({rule}): {method}: {reason}"


def _malformed(method: str, name: str, wanted: str) -> str:
    return _refusal("command.malformed", method, f"{name} must be {wanted}.")


def _download(method: str, params: dict[str, Any], files_dir: str) -> str | None:
    """A path outside of the directory is one of the client's machine, and is replaced with the directory."""
    path = params.get("downloadPath", "")
    if not isinstance(path, str):
        return _malformed(method, "downloadPath", "a text")
    if path or params.get("behavior") not in ("deny", "default"):
        params["downloadPath"] = _inside(posixpath.join(files_dir, path), files_dir) or files_dir
    return None


def _upload(method: str, params: dict[str, Any], files_dir: str) -> str | None:
    files = params.get("files")
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        return _malformed(method, "files", "a list of texts")
    paths = [_inside(file, files_dir) for file in files]
    if None in paths:
        return _refusal(
            "file.outside",
            method,
            "files are read from the machine of the browser, and there only from the runtime's own directory of "
            "downloads. Give such a path, or put a file's content into the page (a DataTransfer with a File).",
        )
    # The browser reads exactly the paths that were checked.
    params["files"] = paths
    return None


def _inside(path: str, files_dir: str) -> str | None:
    """The normalized path if it is in the directory. A NUL would end it earlier for the browser than for this check."""
    path = _normal(path)
    inside = path == files_dir or path.startswith(f"{files_dir}/")
    return path if inside and "\0" not in path else None


def _normal(path: str) -> str:
    """Without `.`, `..` and repeated slashes, of which normpath keeps two at the start, as POSIX does."""
    return posixpath.normpath(re.sub("/+", "/", path))


def _address(method: str, params: dict[str, Any], _files_dir: str) -> str | None:
    url = params.get("url")
    if not isinstance(url, str):
        return _malformed(method, "url", "a text")
    refused = refused_address(url)
    return None if refused is None else _refused_scheme(method, refused)


def _navigation(method: str, params: dict[str, Any], files_dir: str) -> str | None:
    if params.get("url") in _LEFT_FOR:
        params["url"] = _EMPTY_PAGE
    return _address(method, params, files_dir)


def _refused_scheme(method: str, refused: str) -> str:
    return _refusal("address.scheme", method, f"{refused} can't be opened. Give {ALLOWED_IN_WORDS}.")


def _new_address(method: str, params: dict[str, Any], files_dir: str) -> str | None:
    return _address(method, params, files_dir) if "url" in params else None


def _drag(method: str, params: dict[str, Any], _files_dir: str) -> str | None:
    data = params.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("items", []), list):
        return _malformed(method, "data", "an object with a list of items")
    if data.get("files", []) != []:
        # A page that does not take the drop lets the browser open the file, and a page of `file:` can go to any other.
        return _refusal(
            "file.drag",
            method,
            "files can't be dropped. Use DOM.setFileInputFiles, or dispatch a drop event with a DataTransfer of the "
            "page's own.",
        )
    for item in data.get("items", []):
        refused = _drag_item(method, item)
        if refused is not None:
            return refused
    return None


def _drag_item(method: str, item: object) -> str | None:
    match item:
        case {"mimeType": str(kind), "data": str(content)}:
            if kind.strip().lower() not in _LINK_TYPES:
                return None
            refused = next(filter(None, map(_refused_link, _LINE_END.split(content))), None)
            return None if refused is None else _refused_scheme(method, refused)
        case _:
            return _malformed(method, "data.items", "a list of objects with mimeType and data as texts")


def _refused_link(line: str) -> str | None:
    """Comments and lines without an address open nothing."""
    if line.startswith("#") or ":" not in line or _DRAGGED_LINK.match(line):
        return None
    return refused_address(line)


def _key(_method: str, params: dict[str, Any], _files_dir: str) -> None:
    """With a native code the browser itself handles a key that the page ignores: F12 opens its DevTools window."""
    params.pop("nativeVirtualKeyCode", None)


def _context(method: str, params: dict[str, Any], _files_dir: str) -> str | None:
    other = [name for name in params if name != "disposeOnDetach"]
    if not other:
        return None
    return _refusal(
        "network.guard",
        method,
        f"{other[0][:_NAMED_CHARACTERS]} can't be set, for all contexts go through the gateway's own proxy. Leave it "
        "out; a proxy is set for the whole runtime, when it is created.",
    )


def _tracing(method: str, params: dict[str, Any], _files_dir: str) -> str | None:
    """A Perfetto configuration may name a file to write, and the system's backend is outside of the browser."""
    if "perfettoConfig" in params or params.get("tracingBackend", "auto") not in ("auto", "chrome"):
        return _refusal(
            "trace.config",
            method,
            "perfettoConfig can't be given, and tracingBackend can only be auto or chrome. Use traceConfig.",
        )
    try:
        patterns = list(_traced_categories(params))
    except TypeError:
        return _malformed(method, "traceConfig", "an object with lists of texts, and categories a text")
    for category in _MEMORY_CATEGORIES:
        if any(fnmatchcase(category, pattern) for pattern in patterns):
            return _refusal(
                "trace.memory",
                method,
                f"the category {category} shows where the browser's code and data are in memory. Leave it out, and "
                "patterns that match it.",
            )
    return None


def _traced_categories(params: dict[str, Any]) -> Iterator[str]:
    """What a trace includes, as patterns with `*` and `?`. Raises TypeError if it is not of the protocol's types."""
    config = params.get("traceConfig", {})
    if not isinstance(config, dict):
        raise TypeError
    included = [params.get("categories", "")]
    for name, value in config.items():
        # The browser takes the names of this object in both of its styles.
        if name.replace("_", "").lower() == "includedcategories":
            if not isinstance(value, list):
                raise TypeError
            included += value
    for group in included:
        if not isinstance(group, str):
            raise TypeError
        # A lone `*` is all but the categories that are disabled by default, and `-` leaves one out.
        yield from (each for each in map(str.strip, group.split(",")) if each != "*" and not each.startswith("-"))


def _quota(method: str, params: dict[str, Any], _files_dir: str) -> str | None:
    """Tests make an origin's storage small; a large one would fill the disk."""
    size = params.get("quotaSize", 0)
    if isinstance(size, bool) or not isinstance(size, int | float):
        return _malformed(method, "quotaSize", "a number")
    if size <= MAX_QUOTA_BYTES:
        return None
    return _refusal("storage.quota", method, f"quotaSize may be {MAX_QUOTA_BYTES} bytes at most. Give a smaller one.")


def _whole(domain: str) -> tuple[str, ...]:
    return tuple(method for method in KNOWN if method.startswith(f"{domain}."))


# Rule -> why and what to do instead, and the commands that it refuses whatever their parameters.
_REFUSED: dict[str, tuple[str, tuple[str, ...]]] = {
    "command.wrapped": (
        "it carries commands that the gateway can't read. Attach with flatten: true and send them with a sessionId.",
        ("Target.exposeDevToolsProtocol", "Target.sendMessageToTarget"),
    ),
    "network.guard": (
        "it goes past the proxy that all of the browser's traffic takes. There is nothing to use instead.",
        ("Target.setRemoteLocations", *_whole("Cast"), *_whole("Tethering")),
    ),
    "browser.crash": (
        "it ends the whole browser. Stop the runtime through the API, or crash a page with Page.crash.",
        ("Browser.crash", "Browser.crashGpuProcess"),
    ),
    "browser.interface": (
        "it works the browser's own windows, which may do what a page may not. Use the commands of the page instead.",
        ("Browser.executeBrowserCommand", "Target.getDevToolsTarget", "Target.openDevTools"),
    ),
    "browser.extensions": (
        "extensions and installed apps are not a lease's to change or read. Use the page itself instead.",
        (*_whole("Extensions"), *_whole("PWA")),
    ),
    "host.details": (
        "it reveals the machine and the browser's location on it. Use Browser.getVersion instead.",
        ("Browser.getBrowserCommandLine", *_whole("SystemInfo")),
    ),
    "host.memory": (
        "it shows where the browser's code and data are in memory. Use HeapProfiler for the objects of a page.",
        (
            "Memory.getAllTimeSamplingProfile",
            "Memory.getBrowserSamplingProfile",
            "Memory.getSamplingProfile",
            "Memory.startSampling",
            "Memory.stopSampling",
            "Tracing.requestMemoryDump",
        ),
    ),
    "host.devices": (
        "it gives a page devices of the machine. Use BluetoothEmulation or SmartCardEmulation for simulated ones.",
        ("DeviceAccess.enable", "DeviceAccess.selectPrompt"),
    ),
    "page.code": (
        "the browser runs such a cache as it is, without a check. Use Page.addScriptToEvaluateOnNewDocument instead.",
        ("Page.addCompilationCache",),
    ),
    "page.picture": (
        "the browser draws such a picture as it is, and the format is not made for foreign ones. Use "
        "LayerTree.makeSnapshot instead.",
        ("LayerTree.loadSnapshot",),
    ),
}

# Method -> the rule that refuses it, and why.
REFUSED = {method: (rule, why) for rule, (why, methods) in _REFUSED.items() for method in methods}

CHECKED: dict[str, Check] = {
    "Browser.setDownloadBehavior": _download,
    "DOM.setFileInputFiles": _upload,
    "Fetch.continueRequest": _new_address,
    "Input.dispatchDragEvent": _drag,
    "Input.dispatchKeyEvent": _key,
    "Network.loadNetworkResource": _address,
    "Page.navigate": _navigation,
    "Page.setDownloadBehavior": _download,
    "Storage.overrideQuotaForOrigin": _quota,
    "Target.createBrowserContext": _context,
    "Target.createTarget": _address,
    "Tracing.start": _tracing,
}

# Method -> None if allowed, the sentence that refuses it, or the check of its parameters. Shared by all connections.
_RULES: dict[str, str | Check | None] = {
    **dict.fromkeys(KNOWN),
    **{method: _refusal(rule, method, why) for method, (rule, why) in REFUSED.items()},
    **CHECKED,
}

# What opens a page may open those of the runtime's own extensions too, such as their popups.
_OPENING = frozenset({"Page.navigate", "Target.createTarget"})

# All that is neither refused nor checked. `Browser.close` is answered by the gateway, so it is none of them.
ALWAYS_ALLOWED = frozenset(method for method, rule in _RULES.items() if rule is None) - {"Browser.close"}


class StandardPolicy:
    """Decides on every command of a connection, whatever its session; `files_dir` is the runtime's own directory.

    `files_dir` is absolute. Only the browser and the gateway may write there, since a symbolic link in it would be
    followed; downloads and a page's file system create none.
    """

    __slots__ = ("_allow_unknown", "_extensions", "_files_dir")

    always_allowed: ClassVar[frozenset[str]] = ALWAYS_ALLOWED

    def __init__(
        self,
        files_dir: str,
        *,
        unknown: Literal["refuse", "allow"] = "refuse",
        extensions: frozenset[str] = frozenset(),
    ) -> None:
        """`extensions` are the ids of those that the browser has."""
        if not files_dir.startswith("/"):
            raise ValueError(f"files_dir must be an absolute path (given: {files_dir!r})")
        self._files_dir = _normal(files_dir)
        self._allow_unknown = unknown == "allow"
        self._extensions = extensions

    def check(self, message: dict[str, Any]) -> str | None:
        """None allows the message, whose `params` may have been changed; a sentence refuses it."""
        try:
            rule = _RULES[message["method"]]
        except (KeyError, TypeError):
            return self._unknown(message.get("method"))
        if rule is None or isinstance(rule, str):
            return rule
        params = message.setdefault("params", {})
        if not isinstance(params, dict):
            return _malformed(message["method"], "params", "an object")
        if self._extensions and message["method"] in _OPENING:
            url = params.get("url")
            if isinstance(url, str) and is_page_of(url, self._extensions):
                return None
        return rule(message["method"], params, self._files_dir)

    def reads_params(self, method: str) -> bool:
        return method in CHECKED

    def _unknown(self, method: object) -> str | None:
        if not isinstance(method, str):
            return _malformed("the command", "method", "a text")
        if self._allow_unknown:
            return None
        return _refusal(
            "command.unknown",
            method[:_NAMED_CHARACTERS],
            "the policy does not know this command. Check the name; the operator may allow unknown ones with "
            "GATEWAY_CDP_UNKNOWN=allow.",
        )
