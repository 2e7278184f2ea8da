"""Encryption in chunks (crypto/streams.py)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.crypto.streams import StreamAltered, StreamOpener, StreamSealer, new_key

KEY, CONTEXT, SIZE = bytes(range(32)), b"profile|1", 10
STORED = SIZE + 16


def sealed(plain: bytes, context: bytes = CONTEXT, piece: int = 7) -> bytes:
    sealer = StreamSealer(KEY, context, SIZE)
    pieces = [chunk for start in range(0, len(plain), piece) for chunk in sealer.update(plain[start : start + piece])]
    return b"".join([*pieces, sealer.finish()])


def opened(stored: bytes, key: bytes = KEY, context: bytes = CONTEXT, piece: int = 9) -> bytes:
    opener = StreamOpener(key, context, SIZE)
    pieces = [chunk for start in range(0, len(stored), piece) for chunk in opener.update(stored[start : start + piece])]
    return b"".join([*pieces, opener.finish()])


@settings(deadline=None)
@given(plain=st.binary(max_size=200), piece=st.integers(1, 60), read=st.integers(1, 60))
def test_a_stream_opens_however_it_is_cut(plain: bytes, piece: int, read: int) -> None:
    stored = sealed(plain, piece=piece)
    assert opened(stored, piece=read) == plain
    chunks = max(1, -(-len(plain) // SIZE))
    assert len(stored) == len(plain) + 16 * chunks


PLAIN = bytes(range(35))
CHUNKS = [sealed(PLAIN)[start : start + STORED] for start in range(0, len(sealed(PLAIN)), STORED)]


@pytest.mark.parametrize(
    "altered",
    [
        pytest.param([CHUNKS[1], CHUNKS[0], *CHUNKS[2:]], id="reordered"),
        pytest.param([CHUNKS[0], *CHUNKS[2:]], id="left out"),
        pytest.param([CHUNKS[0], CHUNKS[0], *CHUNKS[1:]], id="repeated"),
        pytest.param(CHUNKS[:-1], id="without the last"),
        pytest.param([*CHUNKS, CHUNKS[-1]], id="more after the last"),
        pytest.param([*CHUNKS[:-1], CHUNKS[-1][:-1]], id="cut within the last"),
        pytest.param([CHUNKS[0][:-1] + bytes([CHUNKS[0][-1] ^ 1]), *CHUNKS[1:]], id="a bit of the first"),
        pytest.param([], id="nothing"),
        pytest.param([b"short"], id="shorter than a tag"),
    ],
)
def test_an_altered_stream_is_refused(altered: list[bytes]) -> None:
    with pytest.raises(StreamAltered):
        opened(b"".join(altered))


@settings(deadline=None, max_examples=60)
@given(at=st.integers(0, len(sealed(PLAIN)) - 1), bit=st.integers(0, 7))
def test_no_bit_can_be_altered(at: int, bit: int) -> None:
    stored = bytearray(sealed(PLAIN))
    stored[at] ^= 1 << bit
    with pytest.raises(StreamAltered):
        opened(bytes(stored))


def test_a_stream_opens_in_its_own_context_with_its_own_key_alone() -> None:
    with pytest.raises(StreamAltered):
        opened(sealed(PLAIN), context=b"profile|2")
    with pytest.raises(StreamAltered):
        opened(sealed(PLAIN), key=new_key())


def test_chunks_of_another_stream_under_the_same_key_are_refused() -> None:
    other = sealed(PLAIN, context=b"profile|2")
    with pytest.raises(StreamAltered):
        opened(other[:STORED] + sealed(PLAIN)[STORED:])


def test_a_chunk_is_handed_out_before_the_stream_is_whole() -> None:
    opener = StreamOpener(KEY, CONTEXT, SIZE)
    assert list(opener.update(CHUNKS[0])) == []
    assert list(opener.update(CHUNKS[1])) == [PLAIN[:SIZE]]
    assert list(opener.update(b"x" * STORED)) == [PLAIN[SIZE : 2 * SIZE]]
    with pytest.raises(StreamAltered):
        list(opener.update(b"x"))


def test_keys_differ() -> None:
    assert len({new_key() for _ in range(3)}) == 3
