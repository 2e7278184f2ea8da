"""Calls `browser.*`: contexts of the browser."""

from __future__ import annotations

from typing import Any

from gateway.automation import options as o
from gateway.automation.calls import NO_OPTIONS, Vocabulary, pythonic

calls = Vocabulary("playwright")
call = calls.call


@call("browser.newContext", binds="context", args=[{"locale": "de-DE"}])
async def new_context(on: Any, options: o.NewContext = NO_OPTIONS) -> Any:
    """A context of its own cookies and storage, which ends with the connection of the runtime's steps."""
    names = {"extraHTTPHeaders": "extra_http_headers", "ignoreHTTPSErrors": "ignore_https_errors"}
    names |= {"javaScriptEnabled": "java_script_enabled", "bypassCSP": "bypass_csp"}
    plain = {name: value for name, value in options.items() if name not in names}
    return await on.new_context(**pythonic(plain), **{names[k]: v for k, v in options.items() if k in names})


@call("browser.contexts")
async def contexts(on: Any) -> Any:
    """The contexts that steps can reach; the first is the browser's own."""
    return on.contexts


@call("browser.version")
async def version(on: Any) -> str:
    """Version of the browser."""
    return str(on.version)
