"""Which requests to a model are allowed, and what of them is passed on.

A request is parsed and written again, so that the provider reads exactly what was checked. It may name no other model
than the invocation's, and no tool that the provider's servers would carry out themselves: such tools use other models,
reach addresses of the caller's choice, or cost money that no count of tokens shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, quote

import orjson

from gateway.core.ai_providers import COMPATIBLE, ProviderName
from gateway.relay import usage
from gateway.relay.refusals import Refused
from gateway.relay.usage import Reader

_SHOWN = 100

# Carried out by the client, which is the agent's process.
_OPENAI_TOOLS = frozenset(("function", "custom", "computer_use_preview", "computer"))
_ANTHROPIC_TOOLS = ("custom", "computer_", "text_editor_", "bash_", "memory_")
_GOOGLE_TOOLS = frozenset(("functionDeclarations", "function_declarations", "computerUse", "computer_use"))

# Each would use another model, a tool of the provider, or run on after the call.
_REFUSED: Final[Mapping[str, frozenset[str]]] = {
    "chat": frozenset(("models", "fallbacks", "plugins", "web_search_options")),
    "responses": frozenset(("models", "fallbacks", "plugins", "background", "prompt")),
    "messages": frozenset(("mcp_servers", "container")),
    "google": frozenset(("cachedContent", "cached_content")),
}
# What bounds the tokens of an answer.
_MOST_TOKENS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request to be sent. `path` follows the provider's base URL; `headers` are those of the client that count.

    `strip_usage`: the client did not ask for the event with the tokens, which the relay needs.
    """

    path: str
    body: bytes = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    reader: Callable[[], Reader]
    strip_usage: bool = False


@dataclass(frozen=True, slots=True)
class _Call:
    """One allowed path. `kept` are headers of the client that are passed on, `query` parameters that it may have."""

    path: str
    prepare: Callable[[dict[str, Any], str], bool]
    reader: Callable[[], Reader]
    kept: tuple[str, ...] = ()
    query: Mapping[str, str] | None = None


def prepared(
    provider: ProviderName,
    model: str,
    method: str,
    path: str,
    query: bytes,
    headers: Mapping[str, str],
    body: bytes,
    tokens_left: int,
) -> Prepared:
    """The request as the provider gets it; raises Refused."""
    call = allowed_call(provider, model, method, path, query)
    document = _parsed(body)
    strip = call.prepare(document, model)
    _bound_tokens(document, tokens_left)
    generation = document.get("generationConfig") or document.get("generation_config")
    if isinstance(generation, dict):
        _bound_tokens(generation, tokens_left)
    kept = tuple((name, headers[name]) for name in call.kept if name in headers)
    asked = f"?{query.decode()}" if query else ""
    try:
        written = orjson.dumps(document)
    except TypeError:
        # It reads deeper documents than it writes.
        raise Refused(400, "relay.body_invalid", "The body of the request is nested too deep.") from None
    return Prepared(call.path + asked, written, kept, call.reader, strip)


def allowed_call(provider: ProviderName, model: str, method: str, path: str, query: bytes) -> _Call:
    """Raises Refused for what is none of the provider's calls to this model."""
    calls = _CALLS[provider](model)
    call = calls.get(path)
    if call is None:
        wanted = f"/models/{model.removeprefix('models/')}:" if provider == "google" else None
        if wanted is not None and "/models/" in path and wanted not in path:
            raise _other_model(path.partition("/models/")[2].partition(":")[0], model)
        listed = ", ".join(calls)
        raise Refused(404, "relay.path_forbidden", f"This path is not relayed; relayed are {listed}.")
    if method != "POST":
        raise Refused(405, "relay.method_forbidden", f"{method[:_SHOWN]} is not relayed; use POST.")
    try:
        given = parse_qsl(query.decode("ascii"), keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        given = [("", "")]
    permitted = call.query or {}
    if any(permitted.get(name) != value for name, value in given):
        shown = " and ".join(f"{name}={value}" for name, value in permitted.items()) or "none"
        raise Refused(400, "relay.query_forbidden", f"These parameters are not relayed; allowed: {shown}.")
    if ":stream" in path and not given:
        raise Refused(400, "relay.query_forbidden", "A stream is relayed as events only: add alt=sse.")
    return call


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Refused(400, "relay.body_invalid", "The body of the request is not a JSON object.")
    return document


def _bound_tokens(document: dict[str, Any], left: int) -> None:
    """An answer may not be asked for with more tokens than are left."""
    for name in _MOST_TOKENS:
        most = document.get(name)
        if isinstance(most, int) and most > left:
            document[name] = max(1, left)


def _other_model(given: Any, model: str) -> Refused:
    shown = repr(given[:_SHOWN]) if isinstance(given, str) else "none"
    return Refused(
        403, "relay.model_forbidden", f"This agent may use the model {model!r} only; the request has {shown}."
    )


def _check(document: dict[str, Any], kind: str, model: str | None) -> None:
    if model is not None and document.get("model") != model:
        raise _other_model(document.get("model"), model)
    for name in sorted(_REFUSED[kind] & document.keys()):
        # The same as its absence.
        if document[name] not in (None, False):
            raise Refused(403, "relay.field_forbidden", f"The field {name!r} is not relayed.")


def _check_tools(document: dict[str, Any], is_allowed: Callable[[dict[str, Any]], bool]) -> None:
    tools = document.get("tools")
    if tools is None:
        return
    if not isinstance(tools, list):
        raise Refused(400, "relay.body_invalid", "The field 'tools' is not a list.")
    for at, tool in enumerate(tools):
        if not isinstance(tool, dict) or not is_allowed(tool):
            message = f"tools.{at}: only tools that the agent carries out itself are relayed, none of the provider's."
            raise Refused(403, "relay.tool_forbidden", message)


def _chat(document: dict[str, Any], model: str) -> bool:
    _check(document, "chat", model)
    _check_tools(document, lambda tool: tool.get("type") in _OPENAI_TOOLS)
    if document.get("stream") is not True:
        return False
    options = document.get("stream_options")
    options = dict(options) if isinstance(options, dict) else {}
    asked = options.get("include_usage") is True
    document["stream_options"] = {**options, "include_usage": True}
    return not asked


def _responses(document: dict[str, Any], model: str) -> bool:
    _check(document, "responses", model)
    _check_tools(document, lambda tool: tool.get("type") in _OPENAI_TOOLS)
    return False


def _messages(document: dict[str, Any], model: str) -> bool:
    _check(document, "messages", model)
    _check_tools(document, _is_anthropic_clients)
    return False


def _is_anthropic_clients(tool: dict[str, Any]) -> bool:
    kind = tool.get("type", "custom")
    return kind is None or (isinstance(kind, str) and kind.startswith(_ANTHROPIC_TOOLS))


def _generate(document: dict[str, Any], model: str) -> bool:
    _check(document, "google", None)
    # The path has the model; a body that has one too must agree with it.
    if document.get("model") not in (None, model, f"models/{model}"):
        raise _other_model(document.get("model"), model)
    _check_tools(document, lambda tool: tool.keys() <= _GOOGLE_TOOLS)
    return False


def _openai_calls(model: str) -> Mapping[str, _Call]:
    return _OPENAI


def _anthropic_calls(model: str) -> Mapping[str, _Call]:
    return _ANTHROPIC


def _google_calls(model: str) -> Mapping[str, _Call]:
    name = model.removeprefix("models/")

    def call(method: str, query: Mapping[str, str] | None) -> _Call:
        path = f"/models/{quote(name, safe='')}:{method}"
        return _Call(path, lambda document, _: _generate(document, name), usage.Google, query=query)

    methods = {"generateContent": None, "streamGenerateContent": {"alt": "sse"}}
    # The provider's version is that of its base URL, whichever the client library writes.
    return {
        f"/{version}/models/{name}:{method}": call(method, query)
        for version in ("v1beta", "v1")
        for method, query in methods.items()
    }


_OPENAI: Final[Mapping[str, _Call]] = {
    "/v1/chat/completions": _Call("/chat/completions", _chat, usage.Chat),
    "/v1/responses": _Call("/responses", _responses, usage.Responses),
}
_ANTHROPIC: Final[Mapping[str, _Call]] = {
    "/v1/messages": _Call(
        "/messages", _messages, usage.Messages, ("anthropic-version", "anthropic-beta"), {"beta": "true"}
    ),
}
_CALLS: Final[Mapping[ProviderName, Callable[[str], Mapping[str, _Call]]]] = {
    "openai": _openai_calls,
    "anthropic": _anthropic_calls,
    "google": _google_calls,
    COMPATIBLE: _openai_calls,
}


def bearer_tokens(headers: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    """What a request shows as its key, in the headers of all protocols."""
    shown = []
    for name, value in headers:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            shown.append(value[7:].strip())
        elif name in (b"x-api-key", b"x-goog-api-key"):
            shown.append(value.strip())
    return shown
