"""The providers' own client libraries, which get an address and a token, and work as with the provider."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import anthropic
import openai
import pytest
from google import genai
from google.genai import types
from pydantic import BaseModel

from gateway.core.ai_providers import COMPATIBLE, ProviderName
from gateway.relay.usage import Tokens
from tests.support.model_server import Asked, ModelServer, Text, ToolCall, element_id
from tests.support.model_shapes import written_tokens
from tests.support.relay import ALL_KEYS, MODEL, Relayed, relayed

T = TypeVar("T")
WORDS = "The quick brown fox jumps over the lazy dog. 🦊"
SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "price": {"type": "number"}},
    "required": ["title", "price"],
    "additionalProperties": False,
}
TREE = "Click it.\n[0-3] heading: Shop\n[0-12] button: Save\n[0-13] button: Cancel"


class Item(BaseModel):
    title: str
    price: float


def of_openai(relayed: Relayed) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=relayed.token, base_url=f"{relayed.base_url}/v1", max_retries=0)


def of_anthropic(relayed: Relayed) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(api_key=relayed.token, base_url=relayed.base_url, max_retries=0)


@contextlib.asynccontextmanager
async def of_google(relayed: Relayed) -> AsyncIterator[Any]:
    client = genai.Client(api_key=relayed.token, http_options=types.HttpOptions(base_url=relayed.base_url))
    try:
        yield client.aio.models
    finally:
        await client.aio.aclose()
        client.close()


def click(asked: Asked) -> ToolCall | None:
    """Clicks what has the name Save, by the id that the request gives it."""
    return ToolCall("click", {"id": element_id(asked.text, "Save")}) if "click" in asked.tools else None


def item(asked: Asked) -> Text | None:
    """Fills the schema that was sent, whichever it is, with what the text says."""
    if asked.schema is None:
        return None
    assert set(asked.schema["properties"]) == {"title", "price"}
    return Text.of({"title": asked.text.rpartition("title ")[2].split()[0], "price": 12.5})


def assert_counted(used: Relayed, models: ModelServer, written: int) -> None:
    [asked] = models.seen
    assert used.endpoint.usage.tokens == Tokens(asked.read_tokens(), written)
    assert (used.endpoint.usage.calls, used.endpoint.usage.estimated) == (1, 0)
    assert used.token.encode() not in models.everything_seen()
    assert asked.key == ALL_KEYS[used.provider]


async def listed(stream: AsyncIterator[T]) -> list[T]:
    return [each async for each in stream]


@pytest.mark.parametrize("provider", ["openai", COMPATIBLE])
async def test_openai_chat(models: ModelServer, provider: ProviderName) -> None:
    async with relayed(models, provider) as used, of_openai(used) as client:
        found = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": WORDS}])
        assert found.choices[0].message.content == f"You wrote: {WORDS}"
        assert_counted(used, models, written_tokens(Text(f"You wrote: {WORDS}")))


@pytest.mark.parametrize("asks", [True, False])
async def test_openai_chat_streams_and_tokens_are_sent_to_those_who_ask(models: ModelServer, asks: bool) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if asks else {}
    async with relayed(models) as used, of_openai(used) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": WORDS}], stream=True, **options
        )
        chunks = await listed(stream)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == f"You wrote: {WORDS}"
        assert [chunk.usage is not None for chunk in chunks if not chunk.choices] == ([True] if asks else [])
        assert_counted(used, models, written_tokens(Text(text)))


async def test_openai_chat_calls_a_tool_by_what_the_page_has(models: ModelServer) -> None:
    models.rules = [click]
    tool: Any = {"type": "function", "function": {"name": "click", "parameters": {"type": "object"}}}
    async with relayed(models) as used, of_openai(used) as client:
        for stream in (False, True):
            found: Any = await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": TREE}], tools=[tool], stream=stream
            )
            if stream:
                deltas = [chunk.choices[0].delta for chunk in await listed(found)]
                text = "".join(call.function.arguments for delta in deltas for call in delta.tool_calls or ())
            else:
                text = found.choices[0].message.tool_calls[0].function.arguments
            assert json.loads(text) == {"id": "0-12"}


async def test_openai_structured_output(models: ModelServer) -> None:
    models.rules = [item]
    async with relayed(models) as used, of_openai(used) as client:
        found = await client.chat.completions.parse(
            model=MODEL, messages=[{"role": "user", "content": "It has the title Lamp ."}], response_format=Item
        )
        assert found.choices[0].message.parsed == Item(title="Lamp", price=12.5)


@pytest.mark.parametrize("stream", [False, True])
async def test_openai_responses(models: ModelServer, stream: bool) -> None:
    async with relayed(models) as used, of_openai(used) as client:
        found: Any = await client.responses.create(model=MODEL, input=WORDS, stream=stream)
        if stream:
            events = await listed(found)
            assert "".join(each.delta for each in events if each.type == "response.output_text.delta")
            found = events[-1].response
        assert found.output_text == f"You wrote: {WORDS}"
        assert_counted(used, models, written_tokens(Text(found.output_text)))


async def test_openai_responses_call_a_tool(models: ModelServer) -> None:
    models.rules = [click]
    tool: Any = {"type": "function", "name": "click", "parameters": {"type": "object"}, "strict": False}
    async with relayed(models) as used, of_openai(used) as client:
        found: Any = await client.responses.create(model=MODEL, input=TREE, tools=[tool])
        assert json.loads(found.output[0].arguments) == {"id": "0-12"}
        stream: Any = await client.responses.create(model=MODEL, input=TREE, tools=[tool], stream=True)
        assert json.loads((await listed(stream))[-1].response.output[0].arguments) == {"id": "0-12"}


async def test_anthropic_messages(models: ModelServer) -> None:
    async with relayed(models, "anthropic") as used, of_anthropic(used) as client:
        found = await client.messages.create(
            model=MODEL, max_tokens=100, system="Be kind.", messages=[{"role": "user", "content": WORDS}]
        )
        text = f"You wrote: Be kind.\n{WORDS}"
        assert [block.text for block in found.content if block.type == "text"] == [text]
        assert_counted(used, models, written_tokens(Text(text)))


async def test_anthropic_messages_stream(models: ModelServer) -> None:
    async with relayed(models, "anthropic") as used, of_anthropic(used) as client:
        async with client.messages.stream(
            model=MODEL, max_tokens=100, messages=[{"role": "user", "content": WORDS}]
        ) as stream:
            text = "".join(await listed(stream.text_stream))
        assert text == f"You wrote: {WORDS}"
        assert_counted(used, models, written_tokens(Text(text)))


async def test_anthropic_calls_a_tool_and_betas_pass(models: ModelServer) -> None:
    models.rules = [click]
    tool: Any = {"name": "click", "input_schema": {"type": "object"}}
    asks: Any = {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": TREE}], "tools": [tool]}
    async with relayed(models, "anthropic") as used, of_anthropic(used) as client:
        found: Any = await client.messages.create(**asks)
        assert found.content[0].input == {"id": "0-12"}
        async with client.messages.stream(**asks) as stream:
            last: Any = await stream.get_final_message()
        assert last.content[0].input == {"id": "0-12"}
        await client.beta.messages.create(**asks, betas=["fine-grained-tool-streaming-2025-05-14"])
    assert models.seen[-1].headers["anthropic-beta"] == "fine-grained-tool-streaming-2025-05-14"


async def test_google_content(models: ModelServer) -> None:
    async with relayed(models, "google") as used, of_google(used) as client:
        found = await client.generate_content(model=MODEL, contents=WORDS)
        assert found.text == f"You wrote: {WORDS}"
        assert_counted(used, models, written_tokens(Text(f"You wrote: {WORDS}")))


async def test_google_content_streams(models: ModelServer) -> None:
    async with relayed(models, "google") as used, of_google(used) as client:
        stream = await client.generate_content_stream(model=MODEL, contents=WORDS)
        text = "".join([chunk.text or "" async for chunk in stream])
        assert text == f"You wrote: {WORDS}"
        assert_counted(used, models, written_tokens(Text(text)))


async def test_google_calls_a_tool_and_fills_a_schema(models: ModelServer) -> None:
    models.rules = [click, item]
    declared = types.FunctionDeclaration(name="click", parameters_json_schema={"type": "object"})
    with_tool = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[declared])])
    with_schema = types.GenerateContentConfig(
        response_mime_type="application/json", response_json_schema=SCHEMA, max_output_tokens=1000
    )
    async with relayed(models, "google") as used, of_google(used) as client:
        found = await client.generate_content(model=MODEL, contents=TREE, config=with_tool)
        assert found.function_calls is not None
        assert found.function_calls[0].args == {"id": "0-12"}
        filled = await client.generate_content(model=MODEL, contents="It has the title Lamp .", config=with_schema)
        assert json.loads(filled.text or "") == {"title": "Lamp", "price": 12.5}


async def test_a_reply_about_what_was_not_sent_is_an_error(models: ModelServer) -> None:
    """The stand-in itself: a client that leaves the page out of its request gets no click."""
    models.rules = [lambda asked: ToolCall("click", {}) if "press" in asked.text else None]
    async with relayed(models) as used, of_openai(used) as client:
        for words, reason in (("press it", "has no tool 'click'"), ("Hello", "no rule of the test")):
            with pytest.raises(openai.BadRequestError, match=reason):
                await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": words}])


@pytest.mark.parametrize(
    ("tree", "found"),
    [
        ("[0-3] heading: Save the whales\n[0-12] button: Save\n[0-14] StaticText: Save changes", "0-12"),
        ("[3]<a >\n\tSave it />\n[12]<button type=submit>\n\tSave\n[13]<input placeholder=Name />", "12"),
        ('[7]<button aria-label="Save" />', "7"),
    ],
)
def test_elements_are_found_in_the_trees_of_both_agents(tree: str, found: str) -> None:
    assert element_id(tree, "Save") == found
    with pytest.raises(AssertionError, match="no element 'Delete'"):
        element_id(tree, "Delete")
