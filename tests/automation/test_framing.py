"""Messages between the gateway and a process: whole, or refused."""

from __future__ import annotations

import asyncio
import struct

import pytest

from gateway.automation import framing


async def read(*parts: bytes) -> tuple[dict[str, object], bytes]:
    reader = asyncio.StreamReader()
    for part in parts:
        reader.feed_data(part)
    reader.feed_eof()
    return await framing.read(reader)


async def test_what_is_sent_is_read() -> None:
    assert await read(framing.packed({"type": "step", "text": "ä\ud800"}, b"\0\1")) == (
        {"type": "step", "text": "ä\N{REPLACEMENT CHARACTER}"},
        b"\0\1",
    )


def test_sizes_have_maxima() -> None:
    beside = len(framing.packed({"a": ""})) - 8
    framing.packed({"a": "x" * (framing.MAX_TEXT_BYTES - beside)})
    with pytest.raises(framing.MessageTooLarge):
        framing.packed({"a": "x" * (framing.MAX_TEXT_BYTES - beside + 1)})
    framing.packed({}, b"x" * framing.MAX_BYTES)
    with pytest.raises(framing.MessageTooLarge):
        framing.packed({}, b"x" * (framing.MAX_BYTES + 1))


@pytest.mark.parametrize("sizes", [(framing.MAX_TEXT_BYTES + 1, 0), (2, framing.MAX_BYTES + 1), (2**32 - 1, 2**32 - 1)])
async def test_what_is_announced_as_too_large_is_not_read(sizes: tuple[int, int]) -> None:
    with pytest.raises(framing.MessageTooLarge):
        await read(struct.pack("!II", *sizes), b"{}")


@pytest.mark.parametrize("sent", [b"", b"\0\0", struct.pack("!II", 2, 0) + b"{", struct.pack("!II", 2, 4) + b"{}abc"])
async def test_what_is_cut_off_is_an_end(sent: bytes) -> None:
    with pytest.raises(asyncio.IncompleteReadError):
        await read(sent)


@pytest.mark.parametrize("text", [b"[]", b"{", b"nope"])
async def test_what_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        await read(struct.pack("!II", len(text), 0) + text)
