"""The protocols of model providers, as a stand-in for them needs these: what a request says, and how a reply looks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

Api = Literal["chat", "responses", "messages", "google"]

_numbers = count(1)
_PIECE = 12


@dataclass(frozen=True)
class Text:
    """A reply in words, or with the JSON of a structured output."""

    text: str

    @classmethod
    def of(cls, document: Any) -> Text:
        return cls(json.dumps(document))


@dataclass(frozen=True)
class ToolCall:
    """A reply that calls a tool of the client; one that it has `offered`, unless the test wants another."""

    name: str
    arguments: Mapping[str, Any]
    offered: bool = True


Reply = Text | ToolCall


@dataclass
class Asked:
    """A request as the model reads it. `text`: all that it was sent in words, in order, tool results included."""

    api: Api
    model: str
    stream: bool
    headers: Mapping[str, str]
    raw: bytes
    body: dict[str, Any]
    query: str = ""
    text: str = ""
    images: int = 0
    tools: dict[str, Any] = field(default_factory=dict)
    schema: dict[str, Any] | None = None

    @property
    def key(self) -> str:
        """What was sent as the key."""
        name = {"messages": "x-api-key", "google": "x-goog-api-key"}.get(self.api, "authorization")
        return self.headers.get(name, "").removeprefix("Bearer ")

    @property
    def with_usage(self) -> bool:
        """Whether OpenAI's stream is to end with its tokens."""
        return bool((self.body.get("stream_options") or {}).get("include_usage"))

    def read_tokens(self) -> int:
        return len(self.text) // 4 + 1000 * self.images + 1


def written_tokens(reply: Reply) -> int:
    return len(reply.text if isinstance(reply, Text) else json.dumps(dict(reply.arguments))) // 4 + 1


def asked(api: Api, model: str, headers: Mapping[str, str], raw: bytes, query: str = "", *, stream: bool) -> Asked:
    body = json.loads(raw)
    found = Asked(api, model, stream, headers, raw, body, query)
    words: list[str] = []
    _walk({"chat": _CHAT, "responses": _RESPONSES, "messages": _MESSAGES, "google": _GOOGLE}[api], body, words, found)
    found.text = "\n".join(words)
    found.tools, found.schema = _tools(api, body)
    return found


_CHAT = ("messages",)
_RESPONSES = ("instructions", "input")
_MESSAGES = ("system", "messages")
_GOOGLE = ("systemInstruction", "contents")
_WORDS = ("text", "content", "output", "arguments", "parts", "instructions", "input", "response", "functionResponse")
_PICTURES = ("image_url", "input_image", "image", "inlineData", "inline_data")


def _walk(names: Sequence[str], body: Any, words: list[str], found: Asked) -> None:
    for name in names:
        value = body.get(name)
        if isinstance(value, str):
            words.append(value)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, str):
                    words.append(item)
                elif isinstance(item, dict):
                    found.images += item.get("type") in _PICTURES or any(each in item for each in _PICTURES[3:])
                    _walk(_WORDS, item, words, found)
        elif isinstance(value, dict):
            words.append(json.dumps(value)) if name in ("response", "input") else _walk(_WORDS, value, words, found)


def _tools(api: Api, body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Parameters of each tool by its name, and the schema of a structured output."""
    given = body.get("tools") or []
    if api == "chat":
        schema = ((body.get("response_format") or {}).get("json_schema") or {}).get("schema")
        return {tool["function"]["name"]: tool["function"].get("parameters") for tool in given}, schema
    if api == "responses":
        schema = ((body.get("text") or {}).get("format") or {}).get("schema")
        return {tool["name"]: tool.get("parameters") for tool in given}, schema
    if api == "messages":
        schema = ((body.get("output_format") or body.get("output_config", {}).get("format")) or {}).get("schema")
        return {tool["name"]: tool.get("input_schema") for tool in given}, schema
    declared = [each for tool in given for each in tool.get("functionDeclarations", ())]
    config = body.get("generationConfig") or {}
    return (
        {each["name"]: each.get("parameters") or each.get("parametersJsonSchema") for each in declared},
        config.get("responseJsonSchema") or config.get("responseSchema"),
    )


def whole(request: Asked, reply: Reply) -> dict[str, Any]:
    """The reply in one piece."""
    return {"chat": _chat, "responses": _response, "messages": _message, "google": _content}[request.api](
        request, reply
    )


def events(request: Asked, reply: Reply) -> Iterator[bytes]:
    """The reply as a stream of events."""
    return {
        "chat": _chat_events,
        "responses": _response_events,
        "messages": _message_events,
        "google": _content_events,
    }[request.api](request, reply)


def _pieces(text: str) -> list[str]:
    return [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]


def _event(document: dict[str, Any], name: str | None = None) -> bytes:
    named = f"event: {name}\n" if name else ""
    return f"{named}data: {json.dumps(document)}\n\n".encode()


def _chat_usage(request: Asked, reply: Reply) -> dict[str, Any]:
    read, written = request.read_tokens(), written_tokens(reply)
    details = {"cached_tokens": 0}
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": details,
    }


def _chat_message(reply: Reply) -> dict[str, Any]:
    if isinstance(reply, Text):
        return {"role": "assistant", "content": reply.text, "refusal": None}
    function = {"name": reply.name, "arguments": json.dumps(dict(reply.arguments))}
    call = {"id": f"call_{next(_numbers)}", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _chat(request: Asked, reply: Reply) -> dict[str, Any]:
    finish = "stop" if isinstance(reply, Text) else "tool_calls"
    return {
        "id": f"chatcmpl-{next(_numbers)}",
        "object": "chat.completion",
        "created": 1760000000,
        "model": request.model,
        "choices": [{"index": 0, "message": _chat_message(reply), "logprobs": None, "finish_reason": finish}],
        "usage": _chat_usage(request, reply),
    }


def _chat_events(request: Asked, reply: Reply) -> Iterator[bytes]:
    head = {
        "id": f"chatcmpl-{next(_numbers)}",
        "object": "chat.completion.chunk",
        "created": 1760000000,
        "model": request.model,
    }
    unknown = {"usage": None} if request.with_usage else {}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        return _event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **unknown})

    yield chunk({"role": "assistant", "content": ""})
    if isinstance(reply, Text):
        for piece in _pieces(reply.text):
            yield chunk({"content": piece})
        yield chunk({}, "stop")
    else:
        call = _chat_message(reply)["tool_calls"][0]
        named = {"index": 0, "id": call["id"], "type": "function"}
        yield chunk({"tool_calls": [{**named, "function": {"name": reply.name, "arguments": ""}}]})
        for piece in _pieces(call["function"]["arguments"]):
            yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
        yield chunk({}, "tool_calls")
    if request.with_usage:
        yield _event({**head, "choices": [], "usage": _chat_usage(request, reply)})
    yield b"data: [DONE]\n\n"


def _output_item(reply: Reply) -> dict[str, Any]:
    if isinstance(reply, Text):
        part = {"type": "output_text", "text": reply.text, "annotations": []}
        return {
            "id": f"msg_{next(_numbers)}",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [part],
        }
    return {
        "id": f"fc_{next(_numbers)}",
        "type": "function_call",
        "status": "completed",
        "call_id": f"call_{next(_numbers)}",
        "name": reply.name,
        "arguments": json.dumps(dict(reply.arguments)),
    }


def _response(request: Asked, reply: Reply, item: dict[str, Any] | None = None) -> dict[str, Any]:
    read, written = request.read_tokens(), written_tokens(reply)
    return {
        "id": f"resp_{next(_numbers)}",
        "object": "response",
        "created_at": 1760000000,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "model": request.model,
        "output": [item or _output_item(reply)],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "metadata": {},
        "usage": {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": read + written,
        },
    }


def _response_events(request: Asked, reply: Reply) -> Iterator[bytes]:
    item = _output_item(reply)
    done = _response(request, reply, item)
    begun = {**done, "status": "in_progress", "output": [], "usage": None}
    order = count()

    def event(kind: str, **members: Any) -> bytes:
        return _event({"type": kind, "sequence_number": next(order), **members}, kind)

    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    place = {"item_id": item["id"], "output_index": 0}
    if isinstance(reply, Text):
        empty = {"type": "output_text", "text": "", "annotations": []}
        yield event("response.output_item.added", output_index=0, item={**item, "status": "in_progress", "content": []})
        yield event("response.content_part.added", **place, content_index=0, part=empty)
        for piece in _pieces(reply.text):
            yield event("response.output_text.delta", **place, content_index=0, delta=piece, logprobs=[])
        yield event("response.output_text.done", **place, content_index=0, text=reply.text, logprobs=[])
        yield event("response.content_part.done", **place, content_index=0, part=item["content"][0])
    else:
        yield event(
            "response.output_item.added", output_index=0, item={**item, "status": "in_progress", "arguments": ""}
        )
        for piece in _pieces(item["arguments"]):
            yield event("response.function_call_arguments.delta", **place, delta=piece)
        yield event("response.function_call_arguments.done", **place, arguments=item["arguments"], name=item["name"])
    yield event("response.output_item.done", output_index=0, item=item)
    yield event("response.completed", response=done)


def _message(request: Asked, reply: Reply) -> dict[str, Any]:
    return {
        "id": f"msg_{next(_numbers)}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": [_block(reply)],
        "stop_reason": "end_turn" if isinstance(reply, Text) else "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": request.read_tokens(),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": written_tokens(reply),
        },
    }


def _block(reply: Reply) -> dict[str, Any]:
    if isinstance(reply, Text):
        return {"type": "text", "text": reply.text}
    return {
        "type": "tool_use",
        "id": f"toolu_{next(_numbers)}",
        "name": reply.name,
        "input": dict(reply.arguments),
    }


def _message_events(request: Asked, reply: Reply) -> Iterator[bytes]:
    message = _message(request, reply)
    block = message["content"][0]
    usage = {**message["usage"], "output_tokens": 1}
    begun = {**message, "content": [], "stop_reason": None, "usage": usage}
    yield _event({"type": "message_start", "message": begun}, "message_start")
    if isinstance(reply, Text):
        empty, deltas = {**block, "text": ""}, [{"type": "text_delta", "text": piece} for piece in _pieces(reply.text)]
    else:
        empty = {**block, "input": {}}
        deltas = [
            {"type": "input_json_delta", "partial_json": piece} for piece in _pieces(json.dumps(dict(reply.arguments)))
        ]
    yield _event({"type": "content_block_start", "index": 0, "content_block": empty}, "content_block_start")
    yield _event({"type": "ping"}, "ping")
    for delta in deltas:
        yield _event({"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta")
    yield _event({"type": "content_block_stop", "index": 0}, "content_block_stop")
    ended = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    written = {"output_tokens": message["usage"]["output_tokens"]}
    yield _event({"type": "message_delta", "delta": ended, "usage": written}, "message_delta")
    yield _event({"type": "message_stop"}, "message_stop")


def _content(request: Asked, reply: Reply, parts: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    read, written = request.read_tokens(), written_tokens(reply)
    return {
        "candidates": [
            {"content": {"role": "model", "parts": parts or [_part(reply)]}, "finishReason": "STOP", "index": 0}
        ],
        "usageMetadata": {
            "promptTokenCount": read,
            "candidatesTokenCount": written,
            "totalTokenCount": read + written,
        },
        "modelVersion": request.model,
        "responseId": f"r{next(_numbers)}",
    }


def _part(reply: Reply) -> dict[str, Any]:
    if isinstance(reply, Text):
        return {"text": reply.text}
    return {"functionCall": {"name": reply.name, "args": dict(reply.arguments)}}


def _content_events(request: Asked, reply: Reply) -> Iterator[bytes]:
    parts = [{"text": piece} for piece in _pieces(reply.text)] if isinstance(reply, Text) else [_part(reply)]
    for at, part in enumerate(parts or [{"text": ""}], 1):
        document = _content(request, reply, [part])
        if at < len(parts):
            del document["candidates"][0]["finishReason"]
            document["usageMetadata"] = {"promptTokenCount": request.read_tokens()}
        yield _event(document)
