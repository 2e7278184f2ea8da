"""How gateways and agents know each other, and what an agent reads: no process is needed for either."""

from __future__ import annotations

import asyncio
import contextlib
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.launchers.remote import messages
from gateway.launchers.remote.messages import MAX_CHUNK_BYTES, MAX_MESSAGE_BYTES, ProtocolError
from gateway.launchers.remote.proofs import AgentSide, GatewaySide, NotProven, Purpose, Verifier, verifier

KEY = bytes(range(32))


def test_both_sides_prove_themselves() -> None:
    gateway = GatewaySide(KEY, "one", Purpose.FILE)
    agent = AgentSide(verifier(KEY, "one"), gateway.hello)
    agent.check(gateway.proof(agent.answer))
    assert agent.purpose is Purpose.FILE


def test_nothing_that_was_said_once_serves_again() -> None:
    gateway = GatewaySide(KEY, "one", Purpose.CONTROL)
    first = AgentSide(verifier(KEY, "one"), gateway.hello)
    proof = gateway.proof(first.answer)
    again = AgentSide(verifier(KEY, "one"), gateway.hello)
    with pytest.raises(NotProven, match="not a gateway"):
        again.check(proof)
    with pytest.raises(NotProven, match="not the agent"):
        GatewaySide(KEY, "one", Purpose.CONTROL).proof(first.answer)


def test_a_proof_is_for_one_purpose() -> None:
    gateway = GatewaySide(KEY, "one", Purpose.DEVTOOLS)
    changed = bytearray(gateway.hello)
    changed[8] = Purpose.CONTROL
    agent = AgentSide(verifier(KEY, "one"), bytes(changed))
    with pytest.raises(NotProven, match="not the agent"):
        gateway.proof(agent.answer)


@pytest.mark.parametrize(("key", "name"), [(KEY, "other"), (bytes(32), "one")], ids=["another agent", "another key"])
def test_another_agent_or_key_is_refused_by_both_sides(key: bytes, name: str) -> None:
    gateway, own = GatewaySide(KEY, "one", Purpose.CONTROL), verifier(key, name)
    agent = AgentSide(own, gateway.hello)
    with pytest.raises(NotProven, match="not the agent"):
        gateway.proof(agent.answer)
    proven = AgentSide(verifier(KEY, "one"), gateway.hello)
    with pytest.raises(NotProven, match="not a gateway"):
        AgentSide(own, gateway.hello).check(gateway.proof(proven.answer))


def test_what_an_agent_has_makes_no_gateway() -> None:
    """With a verifier in place of the key, in each way in which its parts could be taken for one."""
    own = verifier(KEY, "one")
    for stolen in (own.stored_key, own.server_key, own.stored_key + own.server_key):
        gateway = GatewaySide(stolen, "one", Purpose.CONTROL)
        with pytest.raises(NotProven, match="not the agent"):
            gateway.proof(AgentSide(own, gateway.hello).answer)


@pytest.mark.parametrize(
    "hello", [b"", b"GET / HTTP/1.1\r\n" * 3, b"GWAGENT2\x01" + bytes(32), b"GWAGENT1\x09" + bytes(32)]
)
def test_another_protocol_is_refused(hello: bytes) -> None:
    with pytest.raises(NotProven):
        AgentSide(verifier(KEY, "one"), hello)


def test_a_verifier_is_read_as_it_is_written_and_never_repeated() -> None:
    own = verifier(secrets.token_bytes(32), "one")
    assert Verifier.parse(f" {own.text}\n") == own
    for text in ("", "one", own.text[:-2], ":" + own.text.partition(":")[2], own.text.replace(":", ";")):
        with pytest.raises(ValueError, match="a verifier is") as raised:
            Verifier.parse(text)
        assert own.text[10:20] not in str(raised.value)


async def read(data: bytes) -> messages.Message | bytes:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return await messages.read(reader)


@given(st.binary(max_size=300))
async def test_whatever_arrives_is_a_message_or_refused(data: bytes) -> None:
    for prefix in (b"", len(data).to_bytes(4, "big") + b"\0", len(data).to_bytes(4, "big") + b"\1"):
        with contextlib.suppress(ProtocolError, EOFError):
            assert isinstance(await read(prefix + data), (dict, bytes))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ((MAX_MESSAGE_BYTES + 1).to_bytes(4, "big") + b"\0", "the most"),
        ((MAX_CHUNK_BYTES + 1).to_bytes(4, "big") + b"\1", "the most"),
        (b"\0\0\0\1\2x", "of the kind 2"),
        (b"\0\0\0\1\0{", "not JSON"),
        (b"\0\0\0\2\0[]", "not an object"),
        (b"\0\1\0\0\0" + b"[" * 65536, "too many"),
    ],
)
async def test_what_is_too_much_is_refused_before_it_is_read(data: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        await read(data)


async def test_the_largest_message_and_chunk_are_read() -> None:
    filling = "x" * (MAX_MESSAGE_BYTES - len('{"a":""}'))
    assert await read(messages.message({"a": filling})) == {"a": filling}
    with pytest.raises(ProtocolError, match="the most"):
        messages.message({"a": filling + "x"})
    assert await read(messages.chunk(bytes(MAX_CHUNK_BYTES))) == bytes(MAX_CHUNK_BYTES)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({}, "not a list"),
        ({"it": "text"}, "not a list"),
        ({"it": ["a"] * 4}, "3 are the most"),
        ({"it": [1]}, "not all texts"),
        ({"it": ["a\0b"]}, "not all texts"),
    ],
)
def test_a_list_of_texts_is_checked(content: messages.Message, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        messages.texts(content, "it", 3)
    assert messages.texts({"it": ["a"] * 3}, "it", 3) == ["a"] * 3
