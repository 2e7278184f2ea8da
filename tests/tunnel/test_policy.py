"""StandardPolicy: each rule under and over its limit, its list against the browser's own, and attempts on real ones."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from gateway.launchers.base import BrowserName, LaunchSpec
from gateway.launchers.local import browsers
from gateway.launchers.local.launcher import LocalLauncher
from gateway.settings import Settings
from gateway.tunnel.known_commands import KNOWN
from gateway.tunnel.policy import CHECKED, MAX_QUOTA_BYTES, REFUSED, StandardPolicy
from tests.support.browser_kinds import EACH_KIND
from tests.support.devtools import DevTools
from tests.support.gateway_process import temporary_data_dir
from tests.support.pages import DOWNLOAD_BODY, DOWNLOAD_NAME, PageServer
from tests.support.policed import PolicedBrowser
from tests.support.waiting import until

FILES = "/data/runtimes/one/home/downloads"
DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "devtools-policy.md"
SECRET_FILE = "/etc/passwd"
SECRET_URL = f"file://{SECRET_FILE}"
EVENT_SECONDS = 30
# Beyond those of DevTools itself.
NUMBERS = itertools.count(1_000_000)


def check(method: str, /, policy: StandardPolicy | None = None, **params: Any) -> tuple[str | None, dict[str, Any]]:
    """The verdict on a command of a nested session, and the parameters as they go on."""
    message: dict[str, Any] = {"id": 1, "method": method, "sessionId": "0123", "params": params}
    return (policy or StandardPolicy(FILES)).check(message), params


def refused(rule: str, method: str, /, **params: Any) -> str:
    sentence, _ = check(method, **params)
    assert sentence is not None, params
    assert sentence.startswith(f"Refused by the gateway's policy ({rule}): {method}: "), sentence
    return sentence


def passes(method: str, /, **params: Any) -> dict[str, Any]:
    """What is forwarded to the browser."""
    sentence, after = check(method, **params)
    assert sentence is None, sentence
    return after


# The list of commands


def test_every_known_command_is_allowed_refused_or_checked() -> None:
    assert set(REFUSED) <= set(KNOWN)
    assert set(CHECKED) <= set(KNOWN)
    assert CHECKED.keys().isdisjoint(REFUSED)
    for method in set(KNOWN) - set(CHECKED):
        assert (check(method)[0] is None) == (method not in REFUSED)


def test_what_is_always_allowed_is_neither_refused_nor_checked_nor_the_gateways_own() -> None:
    allowed = StandardPolicy.always_allowed
    assert allowed == set(KNOWN) - set(REFUSED) - set(CHECKED) - {"Browser.close"}
    for method in allowed:
        assert check(method, policy=StandardPolicy(FILES, unknown="refuse")) == (None, {})


@pytest.mark.parametrize("method", sorted(REFUSED))
def test_a_refusal_names_its_rule_the_command_and_what_to_do(method: str) -> None:
    rule, why = REFUSED[method]

    assert refused(rule, method).endswith(why)
    assert re.fullmatch(r"[a-z].*\. [A-Z].*\.", why)


def test_a_refused_command_is_refused_whatever_its_parameters_are() -> None:
    policy = StandardPolicy(FILES, unknown="allow")
    for method in REFUSED:
        given: tuple[object, ...] = ({}, {"filter": []}, [], None, 7)
        for params in given:
            assert policy.check({"id": 1, "method": method, "params": params}) is not None


def test_the_documentation_lists_every_rule_and_refused_command() -> None:
    text = DOCUMENT.read_text()
    rules = {rule for rule, _ in REFUSED.values()} | {
        "address.scheme",
        "command.malformed",
        "command.unknown",
        "file.drag",
        "file.outside",
        "storage.quota",
        "trace.config",
    }

    assert {name for name in rules | set(REFUSED) | set(CHECKED) if f"`{name}`" not in text} == set()


@pytest.mark.parametrize(
    "method", ["Page.frobnicate", "page.navigate", "Page.navigate ", "Target.sendmessagetotarget", "", ".", "Page"]
)
def test_an_unknown_command_is_refused_unless_the_operator_allows_it(method: str) -> None:
    sentence, _ = check(method)
    assert sentence is not None
    assert "(command.unknown)" in sentence
    assert "GATEWAY_CDP_UNKNOWN=allow" in sentence

    assert check(method, StandardPolicy(FILES, unknown="allow"))[0] is None


def test_a_refusal_does_not_repeat_a_method_of_any_length() -> None:
    sentence, _ = check("Page." + "x" * 100_000)
    assert sentence is not None
    assert len(sentence) < 400


@pytest.mark.parametrize("unknown", ["refuse", "allow"])
@pytest.mark.parametrize("method", [None, 7, ["Page.navigate"], {"Page": "navigate"}, True])
def test_a_method_that_is_not_a_string_is_refused(method: object, unknown: Literal["refuse", "allow"]) -> None:
    sentence = StandardPolicy(FILES, unknown=unknown).check({"id": 1, "method": method})
    assert sentence is not None
    assert "(command.malformed)" in sentence


def test_a_message_without_a_method_is_refused() -> None:
    assert StandardPolicy(FILES, unknown="allow").check({"id": 1}) is not None


@pytest.mark.parametrize("method", sorted(CHECKED))
@pytest.mark.parametrize("params", [None, [], "{}", 7, True])
def test_parameters_that_are_not_an_object_are_refused_where_they_are_checked(method: str, params: object) -> None:
    sentence = StandardPolicy(FILES).check({"id": 1, "method": method, "params": params})
    assert sentence is not None
    assert "(command.malformed)" in sentence


def test_a_command_without_parameters_passes_where_it_needs_none() -> None:
    for method in (
        "Runtime.enable",
        "Tracing.start",
        "Target.createBrowserContext",
        "Target.getTargets",
        "Browser.close",
    ):
        assert StandardPolicy(FILES).check({"id": 1, "method": method}) is None


# Addresses

ADDRESSED = ["Page.navigate", "Target.createTarget", "Network.loadNetworkResource", "Fetch.continueRequest"]

HARMLESS = [
    "",
    "  ",
    "http://example.com/",
    "HTTPS://example.com/?x=file:///etc/passwd#file:",
    " \x01\thttps://example.com",
    "ht\ttp://example.com",
    "http:file:///etc/passwd",
    "ws://example.com",
    "wss://example.com",
    "about:blank",
    "ABOUT:blank",
    "about:blank#fragment",
    "about:blank?query",
    "data:text/html,<p>file:",
    "blob:https://example.com/0b4d",
    "blob:null/0b4d",
    "view-source:https://example.com",
    "view-source: http://example.com",
]

HARMFUL = [
    "file:///etc/passwd",
    "file:/etc/passwd",
    "file:etc/passwd",
    "file:\\\\\\etc\\passwd",
    "file://localhost/etc/passwd",
    "FiLe:///etc/passwd",
    " file:///etc/passwd",
    "\x00file:///etc/passwd",
    " \x01\x1f file:///etc/passwd",
    "fi\tle:///etc/passwd",
    "fi\nle:\n///etc/passwd",
    "\r\nfi\rle:///etc/passwd",
    "\u2003file:///etc/passwd",
    "\ufefffile:///etc/passwd",
    "\uff46ile:///etc/passwd",
    "file%3A///etc/passwd",
    "filesystem:file:///etc/passwd",
    "filesystem:https://example.com/temporary/x",
    "blob:file:///0b4d",
    "blob:chrome://settings/0b4d",
    "view-source:file:///etc/passwd",
    " VIEW-source: file:///etc/passwd",
    "view-\tsource:fi\tle:///etc/passwd",
    "view-source:view-source:https://example.com",
    "view-source:" * 5000 + "file:///etc/passwd",
    "view-source:data:text/html,x",
    "view-source:",
    "chrome://version",
    "chrome:version",
    "CHROME:\\\\version",
    "chrome-untrusted://print/",
    "chrome-extension://mhjfbmdgcfjbbpaeojofohoefgiehjai/index.html",
    "chrome-search://local-ntp",
    "chrome-error://chromewebdata/",
    "devtools://devtools/bundled/inspector.html",
    "isolated-app://x",
    "about:version",
    "about:srcdoc",
    "about:blank/../version",
    "about:blankx",
    "about:",
    "about://version",
    "javascript:1",
    "mailto:a@example.com",
    "intent://x",
    "ftp://example.com",
    "content://x",
    "httpx://example.com",
    "\u212battp://example.com",
    "http\x00://example.com",
    "/etc/passwd",
    "///etc/passwd",
    "example.com",
    "localhost:80",
    ":",
    ":file:///etc/passwd",
]


@pytest.mark.parametrize("method", ADDRESSED)
@pytest.mark.parametrize("url", HARMLESS)
def test_an_address_that_a_page_could_open_passes(method: str, url: str) -> None:
    assert passes(method, url=url) == {"url": url}


@pytest.mark.parametrize("method", ADDRESSED)
@pytest.mark.parametrize("url", HARMFUL, ids=lambda url: repr(url[:40]))
def test_any_other_address_is_refused(method: str, url: str) -> None:
    sentence = refused("address.scheme", method, url=url)
    assert sentence.endswith("Give an http:, https:, data: or blob: address or about:blank.")
    assert len(sentence) < 300
    assert sentence.isprintable()


OWN, OTHER = "a" * 32, "b" * 32


@pytest.mark.parametrize("method", ["Page.navigate", "Target.createTarget"])
@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        (f"chrome-extension://{OWN}/popup.html", True),
        (f"chrome-extension://{OWN}/", True),
        (f"chrome-extension://{OWN}/a%20b.html?c#d", True),
        (f"chrome-extension://{OWN}", False),
        (f"chrome-extension://{OTHER}/popup.html", False),
        # Chromium's viewer of PDFs.
        ("chrome-extension://mhjfbmdgcfjbbpaeojofohoefgiehjai/index.html", False),
        (f" chrome-extension://{OWN}/popup.html", False),
        (f"CHROME-EXTENSION://{OWN}/popup.html", False),
        (f"chrome-extension://{OWN}@{OTHER}/popup.html", False),
        (f"chrome-extension://{OWN}/popup.html\n", False),
        (f"filesystem:chrome-extension://{OWN}/popup.html", False),
        (f"view-source:chrome-extension://{OWN}/popup.html", False),
        ("file:///etc/passwd", False),
        ("chrome://version", False),
        ("https://example.com/", True),
    ],
)
def test_only_pages_of_extensions_that_the_browser_has_may_be_opened(method: str, url: str, *, allowed: bool) -> None:
    sentence, params = check(method, StandardPolicy(FILES, extensions=frozenset({OWN})), url=url)
    assert (sentence is None) == allowed
    assert params == {"url": url}
    if url.startswith("chrome-extension"):
        assert check(method, url=url)[0] is not None


@pytest.mark.parametrize("method", ["Network.loadNetworkResource", "Fetch.continueRequest"])
def test_a_page_of_an_extension_is_only_opened(method: str) -> None:
    policy = StandardPolicy(FILES, extensions=frozenset({OWN}))
    assert check(method, policy, url=f"chrome-extension://{OWN}/popup.html")[0] is not None


def test_a_refused_address_is_named_by_its_scheme_alone() -> None:
    sentence = refused("address.scheme", "Page.navigate", url="FILE:///home/somebody?token=secret")
    assert "a file: address can't be opened" in sentence
    assert "secret" not in sentence


@pytest.mark.parametrize(("given", "taken"), [("chrome://terms", "data:,"), ("chrome://terms/", "data:,")])
def test_the_page_that_lighthouse_leaves_for_becomes_an_empty_one(given: str, taken: str) -> None:
    assert passes("Page.navigate", url=given, frameId="1") == {"url": taken, "frameId": "1"}
    for other in ("chrome://terms/x", "chrome://terms?", " chrome://terms", "chrome://termsx", "CHROME://terms"):
        refused("address.scheme", "Page.navigate", url=other)
    for method in ("Target.createTarget", "Network.loadNetworkResource", "Fetch.continueRequest"):
        refused("address.scheme", method, url=given)


@pytest.mark.parametrize("method", ADDRESSED)
@pytest.mark.parametrize("url", [None, 7, ["file:///etc/passwd"], {"href": "file:///etc/passwd"}, True])
def test_an_address_that_is_not_a_string_is_refused(method: str, url: object) -> None:
    refused("command.malformed", method, url=url)


def test_an_address_may_be_missing_only_where_the_command_can_do_without() -> None:
    passes("Fetch.continueRequest", requestId="1")
    refused("command.malformed", "Page.navigate", URL="https://example.com")
    refused("command.malformed", "Target.createTarget")


# Downloads


@pytest.mark.parametrize("method", ["Browser.setDownloadBehavior", "Page.setDownloadBehavior"])
@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (FILES, FILES),
        (f"{FILES}/", FILES),
        (f"{FILES}/sub/dir", f"{FILES}/sub/dir"),
        (f"/{FILES}//sub/./x/..", f"{FILES}/sub"),
        ("sub", f"{FILES}/sub"),
        ("./sub/../other", f"{FILES}/other"),
        ("", FILES),
        ("/tmp/playwright-artifacts-x", FILES),
        ("C:\\Users\\Ada\\Downloads", f"{FILES}/C:\\Users\\Ada\\Downloads"),
        ("..", FILES),
        (f"{FILES}/../profile", FILES),
        (f"{FILES}x", FILES),
        (f"{FILES}/..\0", FILES),
        ("sub/../../..", FILES),
        ("/", FILES),
        ("/proc/self/cwd/downloads", FILES),
    ],
)
def test_downloads_go_into_the_runtimes_directory(method: str, given: str, taken: str) -> None:
    for behavior in ("allow", "allowAndName"):
        params = {"behavior": behavior, "downloadPath": given, "eventsEnabled": True, "browserContextId": "A"}
        assert passes(method, **params) == params | {"downloadPath": taken}


def test_a_download_path_that_is_missing_is_put_in_where_one_is_needed() -> None:
    assert passes("Browser.setDownloadBehavior", behavior="allow")["downloadPath"] == FILES
    assert passes("Browser.setDownloadBehavior", behavior="deny") == {"behavior": "deny"}
    assert passes("Page.setDownloadBehavior", behavior="default") == {"behavior": "default"}
    # Whatever the browser makes of other words, and of a path that it should not need.
    assert passes("Page.setDownloadBehavior", behavior="ALLOW")["downloadPath"] == FILES
    assert passes("Page.setDownloadBehavior", behavior="default", downloadPath="/etc")["downloadPath"] == FILES
    assert passes("Page.setDownloadBehavior", behavior=["deny"])["downloadPath"] == FILES


@pytest.mark.parametrize("path", [None, 7, ["/etc"], {}, False])
def test_a_download_path_that_is_not_a_string_is_refused(path: object) -> None:
    refused("command.malformed", "Browser.setDownloadBehavior", behavior="allow", downloadPath=path)


# Uploads


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (f"{FILES}/report.txt", f"{FILES}/report.txt"),
        (f"//{FILES}//sub/../report.txt", f"{FILES}/report.txt"),
        (f"/data/x/..{FILES.removeprefix('/data')}/a b", f"{FILES}/a b"),
        (FILES, FILES),
    ],
)
def test_files_of_the_runtimes_directory_can_be_uploaded(given: str, taken: str) -> None:
    assert passes("DOM.setFileInputFiles", files=[given], nodeId=1) == {"files": [taken], "nodeId": 1}


def test_no_files_at_all_can_be_uploaded() -> None:
    assert passes("DOM.setFileInputFiles", files=[], objectId="1")["files"] == []


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "",
        ".",
        "report.txt",
        f"{FILES}/../profile/Cookies",
        f"{FILES}/sub/../../profile/Cookies",
        f"{FILES}x/report.txt",
        f"{FILES}/..",
        f"{FILES}/..\0/report.txt",
        f"{FILES}/report.txt\0",
        f"file://{FILES}/report.txt",
        FILES.upper(),
        "/data/runtimes/two/home/downloads/report.txt",
    ],
)
def test_other_files_can_not_be_uploaded(path: str) -> None:
    refused("file.outside", "DOM.setFileInputFiles", files=[path], nodeId=1)
    refused("file.outside", "DOM.setFileInputFiles", files=[f"{FILES}/report.txt", path], nodeId=1)


@pytest.mark.parametrize("files", [None, f"{FILES}/report.txt", [["/etc/passwd"]], [None], {"0": "/etc/passwd"}, [7]])
def test_files_that_are_not_a_list_of_strings_are_refused(files: object) -> None:
    refused("command.malformed", "DOM.setFileInputFiles", files=files)


def test_a_relative_directory_is_not_accepted_for_files() -> None:
    with pytest.raises(ValueError, match="absolute"):
        StandardPolicy("downloads")


# Dragging


def drag(*items: Any, **data: Any) -> dict[str, Any]:
    return {"type": "drop", "x": 1, "y": 1, "data": {"items": list(items), "dragOperationsMask": 1, **data}}


def link(content: Any, kind: str = "text/uri-list") -> dict[str, Any]:
    return {"mimeType": kind, "data": content}


@pytest.mark.parametrize(
    "item",
    [
        link("https://example.com/"),
        link("# file:///etc/passwd\r\nhttps://example.com/"),
        link("javascript:void(0)"),
        link("mailto:a@example.com"),
        link("not an address"),
        link(""),
        link("file:///etc/passwd", "text/plain"),
        link("file:///etc/passwd", "application/json"),
    ],
)
def test_text_and_links_of_pages_can_be_dragged(item: dict[str, Any]) -> None:
    params = drag(item, files=[])
    assert passes("Input.dispatchDragEvent", **params) == params
    assert passes("Input.dispatchDragEvent", **drag()) == drag()


@pytest.mark.parametrize("kind", ["text/uri-list", "TEXT/URI-LIST", " text/uri-list ", "text/x-moz-url", "URL"])
@pytest.mark.parametrize(
    "content",
    [
        "file:///etc/passwd",
        " file:///etc/passwd",
        "fi\tle:///etc/passwd",
        "fi\rle:///etc/passwd",
        "file\r:///etc/passwd",
        "# comment\r\nfile:///etc/passwd",
        "# comment\rfile:///etc/passwd",
        "https://example.com/\nfile:///etc/passwd",
        "chrome://version",
        "view-source:file:///etc/passwd",
        "java\tscript:1",
    ],
)
def test_an_address_that_a_page_could_not_open_can_not_be_dragged(kind: str, content: str) -> None:
    refused("address.scheme", "Input.dispatchDragEvent", **drag(link("x", "text/plain"), link(content, kind)))


@pytest.mark.parametrize("files", [["/etc/passwd"], [f"{FILES}/page.html"], "/etc/passwd", {"0": "x"}, None, [None]])
def test_files_can_not_be_dragged_not_even_the_runtimes_own(files: object) -> None:
    refused("file.drag", "Input.dispatchDragEvent", **drag(files=files))


@pytest.mark.parametrize(
    "item",
    [
        None,
        [],
        "x",
        {},
        {"mimeType": "text/uri-list"},
        link(None),
        link(["file:///x"]),
        {"mimeType": ["text/uri-list"], "data": "file:///x"},
    ],
)
def test_drag_data_of_wrong_types_is_refused(item: object) -> None:
    refused("command.malformed", "Input.dispatchDragEvent", **drag(item))


@pytest.mark.parametrize("data", [None, [], "x", {"items": {}}, {"items": None}])
def test_a_drag_without_data_is_refused(data: object) -> None:
    refused("command.malformed", "Input.dispatchDragEvent", type="drop", x=1, y=1, data=data)


# The rest


def test_keys_reach_the_page_alone() -> None:
    given = {"type": "rawKeyDown", "key": "F12", "windowsVirtualKeyCode": 123}
    assert passes("Input.dispatchKeyEvent", **given, nativeVirtualKeyCode=123) == given
    assert passes("Input.dispatchKeyEvent", **given, nativeVirtualKeyCode=["123"]) == given
    assert passes("Input.dispatchKeyEvent", **given) == given


def test_a_new_context_has_no_proxy_of_its_own() -> None:
    assert passes("Target.createBrowserContext", disposeOnDetach=True) == {"disposeOnDetach": True}
    given: dict[str, object] = {
        "proxyServer": "http://elsewhere.example:3128",
        "proxyBypassList": "*",
        "originsWithUniversalNetworkAccess": ["https://example.com"],
        "somethingNew": 1,
    }
    for name, value in given.items():
        sentence = refused("network.guard", "Target.createBrowserContext", disposeOnDetach=True, **{name: value})
        assert f" {name} can't be set" in sentence
        assert "elsewhere" not in sentence
    nothing: tuple[object, ...] = ("", None, [])
    for empty in nothing:
        refused("network.guard", "Target.createBrowserContext", proxyServer=empty)


def test_tracing_takes_no_configuration_that_could_name_a_file() -> None:
    params: dict[str, Any] = {"transferMode": "ReturnAsStream", "traceConfig": {"includedCategories": ["*"]}}
    assert passes("Tracing.start", **params) == params
    for backend in ("auto", "chrome"):
        passes("Tracing.start", **params, tracingBackend=backend)
    others: tuple[object, ...] = ("system", "", None, ["chrome"], "Chrome")
    for other in others:
        refused("trace.config", "Tracing.start", **params, tracingBackend=other)
    for config in ("", "CgA=", None):
        refused("trace.config", "Tracing.start", perfettoConfig=config)


# The categories of Playwright and Puppeteer, of Lighthouse, and of DevTools' panel for performance.
TRACES = (
    "-*,devtools.timeline,v8.execute,disabled-by-default-devtools.timeline,disabled-by-default-devtools.timeline.frame,"
    "toplevel,blink.console,blink.user_timing,latencyInfo,disabled-by-default-devtools.timeline.stack,"
    "disabled-by-default-v8.cpu_profiler,disabled-by-default-devtools.screenshot",
    "-*,disabled-by-default-lighthouse,v8,v8.execute,blink.user_timing,blink.console,devtools.timeline,loading,latencyInfo,"
    "disabled-by-default-devtools.timeline,disabled-by-default-devtools.screenshot,disabled-by-default-v8.cpu_profiler",
    "-*,disabled-by-default-devtools.timeline.layers,disabled-by-default-devtools.timeline.picture,cppgc,navigation,rail,"
    "disabled-by-default-blink.graphics_context_annotations,disabled-by-default-v8.compile,devtools.timeline.async",
    "*",
    "",
    "-disabled-by-default-memory-infra",
)
MEMORY_TRACES = (
    "disabled-by-default-memory-infra",
    "toplevel, disabled-by-default-memory-infra ,blink",
    "*,disabled-by-default-*",
    "disabled-*",
    "d*",
    "*memory*",
    "disabled?by?default?cpu_profiler",
    "**",
)


@pytest.mark.parametrize("categories", TRACES)
def test_traces_have_the_categories_that_clients_ask_for(categories: str) -> None:
    as_list: dict[str, Any] = {
        "traceConfig": {"includedCategories": categories.split(","), "excludedCategories": ["*"]}
    }
    assert passes("Tracing.start", **as_list) == as_list
    assert passes("Tracing.start", categories=categories) == {"categories": categories}


@pytest.mark.parametrize("categories", MEMORY_TRACES)
def test_traces_have_no_category_that_shows_the_memory_of_the_browser(categories: str) -> None:
    refused("trace.memory", "Tracing.start", categories=categories)
    for name in ("includedCategories", "included_categories"):
        refused("trace.memory", "Tracing.start", traceConfig={name: categories.split(",")})
        refused("trace.memory", "Tracing.start", traceConfig={name: ["toplevel", categories]})


@pytest.mark.parametrize(
    "params",
    [
        {"categories": ["a"]},
        {"categories": None},
        {"traceConfig": [["includedCategories"]]},
        {"traceConfig": None},
        {"traceConfig": {"includedCategories": None}},
        {"traceConfig": {"includedCategories": [["disabled-by-default-memory-infra"]]}},
    ],
)
def test_categories_of_other_types_are_refused(params: dict[str, Any]) -> None:
    refused("command.malformed", "Tracing.start", **params)


def test_an_origins_storage_may_be_made_small_and_not_large() -> None:
    origin = {"origin": "https://example.com"}
    assert passes("Storage.overrideQuotaForOrigin", **origin) == origin
    for size in (0, -1, 0.5, MAX_QUOTA_BYTES - 1, MAX_QUOTA_BYTES):
        assert passes("Storage.overrideQuotaForOrigin", **origin, quotaSize=size) == {**origin, "quotaSize": size}
    for size in (MAX_QUOTA_BYTES + 1, 1e300, float("inf"), 10**400, float("nan")):
        refused("storage.quota", "Storage.overrideQuotaForOrigin", **origin, quotaSize=size)
    for other in ("1", None, True, [1]):
        refused("command.malformed", "Storage.overrideQuotaForOrigin", **origin, quotaSize=other)


# Real browsers


@dataclass(frozen=True)
class Runtime:
    name: BrowserName
    http: str
    direct: str
    files_dir: Path
    policed: PolicedBrowser


@pytest_asyncio.fixture(scope="module", params=EACH_KIND)
async def runtime(request: pytest.FixtureRequest) -> AsyncIterator[Runtime]:
    """A browser as a lease's holder meets it: behind the policy."""
    found = browsers.find(None)
    assert found is not None
    spec = LaunchSpec(uuid4(), request.param)
    with temporary_data_dir() as data_dir:
        settings = Settings(data_dir=data_dir, warm_browsers=0, egress_allow=("127.0.0.1",), browser_network="off")
        launcher = LocalLauncher(settings, found)
        await launcher.open()
        try:
            browser = await launcher.launch(spec)
            files_dir = settings.runtimes_dir / str(spec.runtime_id) / "home" / "downloads"
            policed = PolicedBrowser(browser.devtools_url, StandardPolicy(str(files_dir)))
            address = urlsplit(browser.devtools_url).netloc
            async with policed.serving():
                yield Runtime(request.param, f"http://{address}", browser.devtools_url, files_dir, policed)
        finally:
            await launcher.close()


@pytest.fixture(scope="module")
def pages() -> Iterator[PageServer]:
    with PageServer() as server:
        yield server


@pytest_asyncio.fixture
async def devtools(runtime: Runtime) -> AsyncIterator[DevTools]:
    async with DevTools.attach(runtime.policed.url) as attached:
        yield attached


async def opened(devtools: DevTools, url: str) -> str:
    """A session with a new page that has loaded."""
    session = await devtools.new_page()
    await devtools.send("Page.enable", session)
    await post(devtools, session, "Page.navigate", url=url)
    await received(devtools, lambda message: message.get("method") == "Page.loadEventFired")
    return session


async def post(devtools: DevTools, session: str, method: str, **params: Any) -> int:
    """Send a command without waiting for its answer; its id."""
    number = next(NUMBERS)
    await devtools.socket.send(json.dumps({"id": number, "method": method, "params": params, "sessionId": session}))
    return number


async def received(devtools: DevTools, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    async with asyncio.timeout(EVENT_SECONDS):
        while True:
            message: dict[str, Any] = json.loads(await devtools.socket.recv())
            if wanted(message):
                return message


async def urls(devtools: DevTools) -> list[str]:
    return [info["url"] for info in (await devtools.send("Target.getTargets", filter=[{}]))["targetInfos"]]


async def test_the_known_commands_are_the_browsers_own(runtime: Runtime) -> None:
    """What a new Chromium adds is listed here. Look at what it can do, then run tools/known_commands.py."""
    async with httpx.AsyncClient(trust_env=False) as client:
        protocol = (await client.get(f"{runtime.http}/json/protocol")).json()
    listed = {
        f"{domain['domain']}.{command['name']}": {parameter["name"] for parameter in command.get("parameters", [])}
        for domain in protocol["domains"]
        for command in domain.get("commands", [])
    }

    assert sorted(set(listed) - set(KNOWN)) == []
    assert {method: more for method, names in listed.items() if (more := names - set(KNOWN[method]))} == {}


async def refusal(devtools: DevTools, method: str, session: str | None = None, **params: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        await devtools.send(method, session, **params)
    return str(caught.value)


async def test_a_refused_command_is_an_error_and_the_socket_stays(devtools: DevTools) -> None:
    session = await devtools.new_page()
    assert "(browser.crash)" in await refusal(devtools, "Browser.crash")
    assert "(address.scheme)" in await refusal(devtools, "Page.navigate", session, url=SECRET_URL)
    assert "(address.scheme)" in await refusal(devtools, "Target.createTarget", url=SECRET_URL)
    assert await devtools.evaluate("6 * 7", session) == 42


async def test_no_command_shows_where_the_browser_is_in_memory(runtime: Runtime, devtools: DevTools) -> None:
    """As the profiles of full Chromium do, directly: so the refusals are of real leaks."""
    session = await devtools.new_page()
    for method in ("startSampling", "stopSampling", "getSamplingProfile", "getAllTimeSamplingProfile"):
        assert "(host.memory)" in await refusal(devtools, f"Memory.{method}", session)
    assert "(host.memory)" in await refusal(devtools, "Memory.getBrowserSamplingProfile")
    assert "(host.memory)" in await refusal(devtools, "Tracing.requestMemoryDump")
    async with DevTools.attach(runtime.direct) as direct:
        session = await direct.new_page()
        await direct.send("Memory.startSampling", session, samplingInterval=1000)
        await direct.evaluate("window.kept = Array.from({length: 20000}, (_, number) => ({number})), 1", session)
        profile = (await direct.send("Memory.getSamplingProfile", session))["profile"]
        if runtime.name == "chromium":
            assert any("libc.so" in module["name"] and module["baseAddress"] for module in profile["modules"])


async def test_a_page_navigates_only_to_permitted_addresses(devtools: DevTools, pages: PageServer) -> None:
    """What the policy lets through since Chromium refuses it by itself: a page's own attempts, in any of its worlds."""
    session = await opened(devtools, pages.url("/blank"))
    await devtools.send("Page.enable", session)
    frame = (await devtools.send("Page.getFrameTree", session))["frameTree"]["frame"]["id"]
    world = await devtools.send(
        "Page.createIsolatedWorld", session, frameId=frame, worldName="w", grantUniveralAccess=True
    )
    for attempt in (
        f"fetch('{SECRET_URL}').then(r => r.text(), () => 'nothing')",
        f"import('{SECRET_URL}').then(() => 'read', () => 'nothing')",
        f"String(window.open('{SECRET_URL}') ?? 'nothing')",
        f"location.href = '{SECRET_URL}'; new Promise(done => setTimeout(() => done('nothing'), 200))",
    ):
        answer = await devtools.send(
            "Runtime.evaluate",
            session,
            expression=attempt,
            contextId=world["executionContextId"],
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert answer["result"]["value"] == "nothing", attempt

    assert not [url for url in await urls(devtools) if url.startswith("file:")]


async def test_lighthouse_leaves_a_page_and_comes_back(devtools: DevTools, pages: PageServer) -> None:
    """What its look at the back/forward cache sends."""
    session = await opened(devtools, pages.url("/blank"))
    history = await devtools.send("Page.getNavigationHistory", session)
    entry = history["entries"][history["currentIndex"]]
    await post(devtools, session, "Page.navigate", url="chrome://terms")
    await received(devtools, lambda message: message.get("method") == "Page.loadEventFired")
    assert await devtools.evaluate("location.href", session) == "data:,"
    assert not any(url.startswith("chrome:") for url in await urls(devtools))
    await devtools.send("Page.navigateToHistoryEntry", session, entryId=entry["id"])

    async def is_back() -> bool:
        return pages.url("/blank") in await urls(devtools)

    await until(is_back, "the page is back")
    assert await devtools.evaluate("location.href", session) == pages.url("/blank")


async def test_a_request_is_not_redirected_to_a_file(devtools: DevTools, pages: PageServer) -> None:
    session = await devtools.new_page()
    await devtools.send("Page.enable", session)
    frame = (await devtools.send("Page.getFrameTree", session))["frameTree"]["frame"]["id"]
    parameters: dict[str, Any] = {"frameId": frame, "options": {"disableCache": True, "includeCredentials": False}}
    assert "(address.scheme)" in await refusal(
        devtools, "Network.loadNetworkResource", session, url=SECRET_URL, **parameters
    )
    await devtools.send("Fetch.enable", session)
    navigation = await post(devtools, session, "Page.navigate", url=pages.url("/blank"))
    paused = await received(devtools, lambda message: message.get("method") == "Fetch.requestPaused")
    request = paused["params"]["requestId"]

    assert "(address.scheme)" in await refusal(
        devtools, "Fetch.continueRequest", session, requestId=request, url=SECRET_URL
    )
    # A redirect passes the policy, and is refused by Chromium.
    location = [{"name": "Location", "value": SECRET_URL}]
    await post(devtools, session, "Fetch.fulfillRequest", requestId=request, responseCode=302, responseHeaders=location)
    answer = await received(devtools, lambda message: message.get("id") == navigation)
    assert answer["result"]["errorText"] == "net::ERR_UNSAFE_REDIRECT"


async def test_a_drop_opens_no_file(runtime: Runtime, devtools: DevTools, pages: PageServer) -> None:
    """A file of the runtime's own would do: as a page of `file:`, it could go to any other file."""
    session = await opened(devtools, pages.url("/blank"))
    mine = runtime.files_dir / "page.html"
    mine.write_text("<script>location = 'file:///etc/passwd'</script>")
    for data in (
        {"items": [link(SECRET_URL)]},
        {"items": [link(f"# x\r\n{SECRET_URL}")]},
        {"items": [], "files": [SECRET_FILE]},
        {"items": [], "files": [str(mine)]},
    ):
        for kind in ("dragEnter", "dragOver", "drop"):
            parameters = {"type": kind, "x": 9, "y": 9, "data": data | {"dragOperationsMask": 1}}
            assert "Refused" in await refusal(devtools, "Input.dispatchDragEvent", session, **parameters)
    assert not [url for url in await urls(devtools) if url.startswith("file:")]


async def test_keys_do_not_control_the_browsers_window(devtools: DevTools, pages: PageServer) -> None:
    """With a native code, Ctrl+T opens a page of `chrome:`, and F12 one of `devtools:`, where any file can be read."""
    session = await opened(devtools, pages.url("/form"))
    await devtools.evaluate("seen = []; addEventListener('keydown', event => seen.push(event.key)); 0", session)
    before = await urls(devtools)
    for key, code, modifiers in (("F12", 123, 0), ("t", 84, 2), ("n", 78, 2), ("j", 74, 2)):
        for kind in ("rawKeyDown", "keyUp"):
            await devtools.send(
                "Input.dispatchKeyEvent",
                session,
                type=kind,
                key=key,
                modifiers=modifiers,
                windowsVirtualKeyCode=code,
                nativeVirtualKeyCode=code,
            )
    # By the time that the browser has made this page, it has done with the keys.
    await devtools.evaluate("0", await opened(devtools, pages.url("/noise")))

    assert await devtools.evaluate("seen.join()", session) == "F12,t,n,j"
    assert set(await urls(devtools)) == {*before, pages.url("/noise")}


async def test_a_new_context_works_and_one_with_a_proxy_is_refused(devtools: DevTools) -> None:
    session = await devtools.new_page(own_context=True)
    assert await devtools.evaluate("1 + 1", session) == 2
    before = (await devtools.send("Target.getBrowserContexts"))["browserContextIds"]
    for option in ({"proxyServer": "http://127.0.0.1:1"}, {"proxyBypassList": "<-loopback>"}):
        assert "(network.guard)" in await refusal(devtools, "Target.createBrowserContext", **option)
    assert (await devtools.send("Target.getBrowserContexts"))["browserContextIds"] == before


async def test_a_wrapped_command_is_refused(devtools: DevTools) -> None:
    (target, *_) = await devtools.pages()
    attached = await devtools.send("Target.attachToTarget", targetId=target["targetId"])
    message = json.dumps({"id": 1, "method": "Page.navigate", "params": {"url": SECRET_URL}})
    assert "(command.wrapped)" in await refusal(
        devtools, "Target.sendMessageToTarget", message=message, sessionId=attached["sessionId"]
    )
    assert "(command.wrapped)" in await refusal(devtools, "Target.exposeDevToolsProtocol", targetId=target["targetId"])


async def test_an_upload_reads_the_runtimes_directory_alone(
    runtime: Runtime, devtools: DevTools, pages: PageServer
) -> None:
    session = await opened(devtools, pages.url("/upload"))
    (runtime.files_dir / "own.txt").write_text("own")
    (runtime.files_dir / "own.txt").chmod(0o644)
    element = (await devtools.send("Runtime.evaluate", session, expression="document.querySelector('#file')"))["result"]
    for outside in (SECRET_FILE, f"{runtime.files_dir}/../profile/DevToolsActivePort", "../profile/DevToolsActivePort"):
        assert "(file.outside)" in await refusal(
            devtools, "DOM.setFileInputFiles", session, files=[outside], objectId=element["objectId"]
        )
    await devtools.send(
        "DOM.setFileInputFiles",
        session,
        files=[f"{runtime.files_dir}//x/../own.txt"],
        objectId=element["objectId"],
    )
    assert await devtools.evaluate("document.querySelector('#file').files[0].text()", session) == "own"


async def test_a_download_lands_in_the_runtimes_directory(
    runtime: Runtime, devtools: DevTools, pages: PageServer, tmp_path: Path
) -> None:
    session = await opened(devtools, pages.url("/blank"))
    await devtools.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path), eventsEnabled=True)
    await devtools.evaluate(f"location.href = '{pages.url('/download')}'; 0", session)
    event = await received(
        devtools,
        lambda message: (
            message.get("method") == "Browser.downloadProgress" and message["params"]["state"] == "completed"
        ),
    )

    assert Path(event["params"]["filePath"]) == runtime.files_dir / DOWNLOAD_NAME
    assert (runtime.files_dir / DOWNLOAD_NAME).read_bytes() == DOWNLOAD_BODY
    assert not (tmp_path / DOWNLOAD_NAME).exists()
