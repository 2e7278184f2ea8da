"""No repr of a dataclass shows a secret: not in a log, a traceback or the message of a failed assertion."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import gateway
from gateway.settings import Settings, is_secret, options

SOUNDS_SECRET = re.compile(
    r"secret|token|passw|passphrase|api_?key|credential|authorization|cookie|totp|pepper|^(database_)?url$|headers|^body$"
)

# Fields whose names sound like a secret's, and why they are none.
NOT_SECRET = {
    "AgentRequest.max_tokens": "a number of them",
    "AgentTask.max_tokens": "a number of them",
    "Counts.cached_tokens": "a number of them",
    "Counts.input_tokens": "a number of them",
    "Counts.output_tokens": "a number of them",
    "NewLease.api_key_id": "an id",
    "Step.url": "of a page",
    "StepHelp.secrets": "names of arguments that are secrets",
    "Auth.secret": "the name of a secret",
    "BrowserAnswer.body": "of a browser's own endpoint for discovery",
    "Call.headers": "of an answer, without cookies",
    "Choice.headers": "which contract was chosen",
    "Claim.api_key_id": "an id",
    "Endpoint.body": "its model",
    "Endpoint.headers": "their model",
    "NewProxy.has_password": "whether there is one",
    "PageState.url": "of a page, where secrets are masked",
    "Proxy.has_password": "whether there is one",
    "Provider.headers": "a version that it asks for",
    "RelayLimits.tokens": "a number",
    "RelayUsage.tokens": "numbers",
    "RequestHead.body": "how it is framed",
    "Response.body": "of a server that a caller named",
    "SavedProxy.has_password": "whether there is one",
    "Tab.url": "of a page, which only its live view gets",
    "VaultEntry.has_totp": "whether there is a seed",
    "VaultFilter.has_totp": "whether there is a seed",
    "VaultValue.secret": "which shows none of its own fields",
    "Webhook.signing_secret": "the name of a secret",
    "Webhook.url": "of a tool, which is shown to all that may see its space",
    "_Download.url": "of a page, where secrets are masked",
}


def dataclasses_of_the_gateway() -> Iterator[type[Any]]:
    for found in pkgutil.walk_packages(gateway.__path__, "gateway."):
        if ".migrations" in found.name or found.name.endswith("__main__"):
            continue
        module = importlib.import_module(found.name)
        for _, each in inspect.getmembers(module, inspect.isclass):
            if each.__module__ == found.name and dataclasses.is_dataclass(each):
                yield each


def test_a_field_that_sounds_secret_is_not_in_a_repr_or_listed() -> None:
    found = list(dataclasses_of_the_gateway())
    assert len(found) > 100
    shown = {
        f"{each.__name__}.{field.name}"
        for each in found
        for field in dataclasses.fields(each)
        if field.repr and SOUNDS_SECRET.search(field.name)
    }
    assert shown == set(NOT_SECRET)


def test_no_secret_option_is_in_the_repr_of_the_settings() -> None:
    secret = {name for name, field in options().items() if is_secret(field)}
    assert len(secret) > 3
    assert not any(Settings.model_fields[name].repr for name in secret)
