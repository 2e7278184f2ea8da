"""Each sentence with which the policy refuses what it checks: the client reads what is wrong and what to do instead."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.tunnel.policy import StandardPolicy

FILES = "/data/runtimes/one/home/downloads"


def sentence(message: Any) -> str | None:
    return StandardPolicy(FILES).check({"id": 1, **message})


@pytest.mark.parametrize(
    ("method", "params", "wanted"),
    [
        ("Page.navigate", [], "params must be an object."),
        ("Page.navigate", {"url": 1}, "url must be a text."),
        ("Browser.setDownloadBehavior", {"downloadPath": 1}, "downloadPath must be a text."),
        ("DOM.setFileInputFiles", {"files": "/etc/passwd"}, "files must be a list of texts."),
        ("DOM.setFileInputFiles", {"files": [1]}, "files must be a list of texts."),
        (
            "Tracing.start",
            {"traceConfig": {"includedCategories": "a"}},
            "traceConfig must be an object with lists of texts, and categories a text.",
        ),
        ("Input.dispatchDragEvent", {"data": []}, "data must be an object with a list of items."),
        ("Input.dispatchDragEvent", {"data": {"items": {}}}, "data must be an object with a list of items."),
        (
            "Input.dispatchDragEvent",
            {"data": {"items": [1]}},
            "data.items must be a list of objects with mimeType and data as texts.",
        ),
    ],
)
def test_a_malformed_parameter_is_named_with_what_it_must_be(method: str, params: Any, wanted: str) -> None:
    assert (
        sentence({"method": method, "params": params})
        == f"Refused by the gateway's policy (command.malformed): {method}: {wanted}"
    )


def test_a_command_without_a_method_is_reported() -> None:
    assert (
        sentence({"method": 1})
        == "Refused by the gateway's policy (command.malformed): the command: method must be a text."
    )


@pytest.mark.parametrize(
    ("rule", "method", "params", "why"),
    [
        (
            "command.unknown",
            "Page.frobnicate",
            {},
            "the policy does not know this command. Check the name; the operator may allow unknown ones with "
            "GATEWAY_CDP_UNKNOWN=allow.",
        ),
        (
            "file.outside",
            "DOM.setFileInputFiles",
            {"files": ["/etc/passwd"]},
            "files are read from the machine of the browser, and there only from the runtime's own directory of "
            "downloads. Give such a path, or put a file's content into the page (a DataTransfer with a File).",
        ),
        (
            "file.drag",
            "Input.dispatchDragEvent",
            {"data": {"items": [], "files": ["/etc/passwd"]}},
            "files can't be dropped. Use DOM.setFileInputFiles, or dispatch a drop event with a DataTransfer of the "
            "page's own.",
        ),
        (
            "network.guard",
            "Target.createBrowserContext",
            {"proxyServer": "direct://"},
            "proxyServer can't be set, for all contexts go through the gateway's own proxy. Leave it out; a proxy is "
            "set for the whole runtime, when it is created.",
        ),
        (
            "trace.config",
            "Tracing.start",
            {"perfettoConfig": ""},
            "perfettoConfig can't be given, and tracingBackend can only be auto or chrome. Use traceConfig.",
        ),
        (
            "trace.memory",
            "Tracing.start",
            {"categories": "disabled-by-default-memory*"},
            "the category disabled-by-default-memory-infra shows where the browser's code and data are in memory. "
            "Leave it out, and patterns that match it.",
        ),
    ],
)
def test_a_refusal_has_a_reason_and_an_alternative(rule: str, method: str, params: Any, why: str) -> None:
    assert (
        sentence({"method": method, "params": params}) == f"Refused by the gateway's policy ({rule}): {method}: {why}"
    )


def test_a_dragged_link_names_its_scheme() -> None:
    items = [{"mimeType": "text/uri-list", "data": "file:///etc/passwd"}]
    refused = sentence({"method": "Input.dispatchDragEvent", "params": {"data": {"items": items}}})
    assert refused is not None
    assert ": Input.dispatchDragEvent: a file: address can't be opened. Give " in refused


def test_a_drag_without_items_passes() -> None:
    assert sentence({"method": "Input.dispatchDragEvent", "params": {"data": {"dragOperationsMask": 1}}}) is None
