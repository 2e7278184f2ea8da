"""Websocket frames without I/O: what is followed, what is read, what is refused, however the bytes are split."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.websocket.frames import (
    OVERSIZED,
    FrameError,
    FrameFollower,
    MessageCollector,
    MessageReader,
    Opcode,
    TooBig,
    close_frame,
    command_frame,
    frame,
    header,
    read_close,
)

CEILING = 1024 * 1024
EXAMPLES = int(os.environ.get("GATEWAY_TEST_EXAMPLES", "100"))

# The bounds of the three ways to write a length, and of what is joined with its header.
LENGTHS = [0, 1, 2, 125, 126, 127, 4095, 4096, 4097, 65535, 65536, 65537, 300_000]

payloads = st.one_of(
    st.binary(max_size=300),
    st.sampled_from(LENGTHS).map(lambda length: bytes(length % 251 for length in range(length))),
)
messages = st.tuples(st.sampled_from([Opcode.TEXT, Opcode.BINARY]), payloads)
controls = st.tuples(st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=125))


def joined(opcode: int, payload: bytes, masked: bool = False) -> bytes:
    return b"".join(frame(opcode, payload, masked))


def masked_frame(opcode: int, payload: bytes, key: bytes, fin: bool = True) -> bytes:
    """A client's frame, by the book and not by the code under test."""
    first = bytes([(0x80 if fin else 0) | opcode])
    length = len(payload)
    if length < 126:
        size = bytes([0x80 | length])
    elif length < 65536:
        size = bytes([0x80 | 126]) + length.to_bytes(2, "big")
    else:
        size = bytes([0x80 | 127]) + length.to_bytes(8, "big")
    return first + size + key + bytes(byte ^ key[place % 4] for place, byte in enumerate(payload))


def split(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        if start != end:
            yield data[start:end]


def followed(follower: FrameFollower, parts: Iterator[bytes] | list[bytes]) -> list[bytes]:
    return [b"".join(follower.feed(part)) for part in parts]


def taken(reader: MessageReader, data: bytes) -> list[tuple[int, bytes | bytearray]]:
    """What a reader finds in the data, asked as the tunnel asks it."""
    alone = reader.single(data)
    return reader.feed(data) if alone is None else [(Opcode.TEXT, alone)]


def read_frames(data: bytes) -> list[tuple[int, bool, bytes]]:
    """Opcode, FIN and payload of unmasked frames; the data must end with a whole one."""
    found = []
    while data:
        length, at = data[1], 2
        if length == 126:
            length, at = int.from_bytes(data[2:4], "big"), 4
        elif length == 127:
            length, at = int.from_bytes(data[2:10], "big"), 10
        assert len(data) >= at + length
        found.append((data[0] & 0x0F, bool(data[0] & 0x80), data[at : at + length]))
        data = data[at + length :]
    return found


def assembled(frames: list[tuple[int, bool, bytes]]) -> list[tuple[int, bytes]]:
    """Messages from frames, with every rule about fragments checked."""
    found: list[tuple[int, bytes]] = []
    begun: tuple[int, bytes] | None = None
    for opcode, fin, payload in frames:
        if opcode == Opcode.CONTINUATION:
            assert begun is not None
            begun = (begun[0], begun[1] + payload)
        else:
            assert begun is None
            begun = (opcode, payload)
        if fin:
            found.append(begun)
            begun = None
    return found


# Following


@pytest.mark.parametrize("length", LENGTHS)
def test_a_whole_frame_is_passed_on_as_the_same_bytes(length: int) -> None:
    data = joined(Opcode.TEXT, b"x" * length)
    assert followed(FrameFollower(CEILING), [data]) == [data]


def test_what_was_read_at_once_is_not_copied() -> None:
    data = joined(Opcode.TEXT, b"one") + joined(Opcode.TEXT, b"x" * 300)
    (same,) = FrameFollower(CEILING).feed(data)
    assert same is data


@pytest.mark.parametrize("length", [*range(127), 127, 300, 65535])
def test_one_short_message_alone_passes(length: int) -> None:
    data = joined(Opcode.TEXT, b"x" * length)
    assert FrameFollower(CEILING).passes(data) is (length > 0 and len(data) > 3)
    assert not FrameFollower(len(data) - 1).passes(data)


@given(st.lists(st.one_of(messages, controls), max_size=3), st.integers(0, 400), st.booleans())
@settings(max_examples=EXAMPLES)
def test_what_passes_is_what_would_be_followed_unchanged(sent: list[tuple[int, bytes]], cut: int, is_cut: bool) -> None:
    data = b"".join(joined(opcode, payload) for opcode, payload in sent)[: cut if is_cut else None]
    follower = FrameFollower(CEILING)
    if follower.passes(data):
        assert b"".join(follower.feed(data)) == data
        assert (follower.controls, follower.attached, follower.held) == ([], [], 0)
        assert follower.between_messages


@pytest.mark.parametrize(
    "before",
    [
        b"\x81",
        b"\x81\x7e\x01",
        b"\x01\x01x",
        joined(Opcode.TEXT, b"x" * 10)[:-1],
        joined(Opcode.TEXT, b"x" * 70_000)[:-1],
    ],
    ids=["half a header", "half a length", "an open message", "half a message", "half a long message"],
)
def test_nothing_passes_after_what_is_not_complete(before: bytes) -> None:
    follower = FrameFollower(CEILING)
    follower.feed(before)
    assert not follower.passes(joined(Opcode.TEXT, b"an answer"))


def test_an_event_about_an_attached_target_does_not_pass() -> None:
    event = b'{"method":"Target.attachedToTarget"' + b" " * 200 + b"}"
    assert not FrameFollower(CEILING).passes(joined(Opcode.TEXT, event))


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 4096, 65535, 65536])
def test_the_frame_of_a_command_is_one_piece(length: int) -> None:
    assert command_frame(b"x" * length) == joined(Opcode.TEXT, b"x" * length, masked=True)


def test_part_of_a_frame_leaves_as_a_fragment() -> None:
    follower = FrameFollower(CEILING)
    data = joined(Opcode.TEXT, b"0123456789")
    assert followed(follower, [data[:6]]) == [b"\x01\x040123"]
    assert not follower.between_messages
    assert followed(follower, [data[6:8]]) == [b"\x00\x0245"]
    assert followed(follower, [data[8:]]) == [b"\x80\x046789"]
    assert follower.between_messages


def test_a_header_without_payload_is_held_back() -> None:
    follower = FrameFollower(CEILING)
    data = header(0x81, 70_000) + b"x" * 70_000
    assert followed(follower, [data[:10]]) == [b""]
    assert follower.between_messages
    assert followed(follower, [data[10:]]) == [data]


@given(st.lists(st.one_of(messages, controls), min_size=1, max_size=12), st.lists(st.integers(0, 10**6), max_size=12))
@settings(max_examples=EXAMPLES, deadline=None)
def test_however_it_is_split_the_same_messages_arrive_and_each_part_ends_with_a_whole_frame(
    sent: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    follower = FrameFollower(CEILING)
    parts = followed(follower, split(b"".join(joined(opcode, payload) for opcode, payload in sent), cuts))
    frames = [found for part in parts for found in read_frames(part)]
    assert assembled(frames) == [one for one in sent if one[0] in (Opcode.TEXT, Opcode.BINARY)]
    assert follower.controls == [one for one in sent if one[0] in (Opcode.PING, Opcode.PONG)]
    assert follower.between_messages


TELLING = b'{"method":"Target.attachedToTarget","params":%s}'


@given(
    sizes=st.lists(st.sampled_from([80, 300, 3000, 65_400, 66_000]), min_size=1, max_size=6),
    telling=st.lists(st.booleans(), min_size=6, max_size=6),
    cuts=st.lists(st.integers(0, 500_000), max_size=10),
)
def test_however_it_is_split_the_ends_of_the_event_that_tells_of_sessions_are_found(
    sizes: list[int], telling: list[bool], cuts: list[int]
) -> None:
    sent, wanted = b"", []
    for size, tells in zip(sizes, telling, strict=False):
        text = (TELLING if tells else TELLING.replace(b"attachedTo", b"detachedAt")) % (b'"' + b"x" * size + b'"')
        sent += joined(Opcode.TEXT, text)
        if tells:
            wanted.append(text if size <= 300 else text[:512] + text[-64:])
    follower = FrameFollower(CEILING)
    passed = b"".join(bytes(each) for part in split(sent, cuts) for each in follower.feed(part))
    assert follower.attached == wanted
    assert MessageCollector(CEILING).feed(passed) == MessageCollector(CEILING).feed(sent)


@given(
    st.lists(st.tuples(payloads, st.integers(1, 5)), min_size=1, max_size=5),
    st.lists(st.integers(0, 10**6), max_size=9),
)
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_browsers_own_fragments_arrive_as_one_message(sent: list[tuple[bytes, int]], cuts: list[int]) -> None:
    data = b""
    for payload, pieces in sent:
        size = len(payload) // pieces + 1
        chunks = [payload[start : start + size] for start in range(0, len(payload) or 1, size)]
        for place, chunk in enumerate(chunks):
            first = (0x80 if place == len(chunks) - 1 else 0) | (Opcode.TEXT if place == 0 else Opcode.CONTINUATION)
            data += header(first, len(chunk)) + chunk
    parts = followed(FrameFollower(CEILING), split(data, cuts))
    frames = [found for part in parts for found in read_frames(part)]
    assert assembled(frames) == [(Opcode.TEXT, payload) for payload, _ in sent]


def test_every_single_split_of_mixed_frames_gives_the_same_messages() -> None:
    sent = [(Opcode.TEXT, b"a"), (Opcode.PING, b"p" * 125), (Opcode.TEXT, b"b" * 126), (Opcode.TEXT, b"c" * 70_000)]
    data = b"".join(joined(opcode, payload) for opcode, payload in sent)
    for cut in [*range(1, 300), *range(len(data) - 300, len(data))]:
        follower = FrameFollower(CEILING)
        parts = followed(follower, [data[:cut], data[cut:]])
        frames = [found for part in parts for found in read_frames(part)]
        assert assembled(frames) == [one for one in sent if one[0] == Opcode.TEXT]
        assert follower.controls == [(Opcode.PING, b"p" * 125)]


def test_byte_by_byte_the_same_messages_arrive() -> None:
    sent = [b"", b"x", b"y" * 130, b"z" * 66_000]
    follower = FrameFollower(CEILING)
    data = b"".join(joined(Opcode.TEXT, payload) for payload in sent)
    parts = followed(follower, [data[place : place + 1] for place in range(len(data))])
    frames = [found for part in parts for found in read_frames(part)]
    assert assembled(frames) == [(Opcode.TEXT, payload) for payload in sent]


def test_a_close_frame_is_taken_out_of_the_stream() -> None:
    follower = FrameFollower(CEILING)
    out = followed(follower, [joined(Opcode.TEXT, b"last") + close_frame(4403, "lease_revoked")])
    assert out == [joined(Opcode.TEXT, b"last")]
    ((opcode, payload),) = follower.controls
    assert (opcode, read_close(payload)) == (Opcode.CLOSE, (4403, "lease_revoked"))


@pytest.mark.parametrize("ceiling", [1024, 65534, 65535, 65536, 100_000])
def test_the_ceiling_holds_for_what_a_browser_sends(ceiling: int) -> None:
    for length in (ceiling - 1, ceiling):
        data = joined(Opcode.TEXT, b"x" * length)
        assert b"".join(followed(FrameFollower(ceiling), [data])) == data
    with pytest.raises(TooBig):
        FrameFollower(ceiling).feed(joined(Opcode.TEXT, b"x" * (ceiling + 1)))
    fragments = header(Opcode.TEXT, ceiling) + b"x" * ceiling + header(0x80, 1) + b"x"
    with pytest.raises(TooBig):
        FrameFollower(ceiling).feed(fragments)


def test_a_message_above_the_ceiling_is_known_by_its_header_alone() -> None:
    with pytest.raises(TooBig):
        FrameFollower(CEILING).feed(header(0x81, CEILING + 1))
    assert taken(MessageReader(CEILING), header(0x81, CEILING + 1, masked=True)) == [(OVERSIZED, b"")]


WRONG_FROM_A_BROWSER = {
    "masked": masked_frame(Opcode.TEXT, b"x", b"abcd"),
    "reserved bit": b"\xc1\x01x",
    "unknown opcode": b"\x83\x00",
    "unknown control opcode": b"\x8b\x00",
    "continuation of nothing": b"\x80\x01x",
    "a message within a message": b"\x01\x01x\x81\x01x",
    "ping in fragments": b"\x09\x00",
    "long ping": b"\x89\x7e\x00\x7e" + b"x" * 126,
}


@pytest.mark.parametrize("data", WRONG_FROM_A_BROWSER.values(), ids=WRONG_FROM_A_BROWSER.keys())
def test_a_browser_that_breaks_the_protocol_is_told_so(data: bytes) -> None:
    with pytest.raises(FrameError):
        FrameFollower(CEILING).feed(data)


@pytest.mark.parametrize(
    "wrong", [header(0x81, CEILING + 1), *WRONG_FROM_A_BROWSER.values()], ids=["too big", *WRONG_FROM_A_BROWSER.keys()]
)
def test_what_came_whole_before_a_fault_is_passed_on(wrong: bytes) -> None:
    before = joined(Opcode.TEXT, b"one") + joined(Opcode.TEXT, b"two" * 100)
    with pytest.raises(FrameError) as fault:
        FrameFollower(CEILING).feed(before + wrong)
    assert b"".join(fault.value.forwardable).startswith(before)
    assert assembled(read_frames(before)) == [(Opcode.TEXT, b"one"), (Opcode.TEXT, b"two" * 100)]


# Reading


@pytest.mark.parametrize("key", [b"\0\0\0\0", b"\x01\x02\x03\xff"])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_message_is_unmasked(length: int, key: bytes) -> None:
    payload = os.urandom(length)
    (found,) = taken(MessageReader(CEILING), masked_frame(Opcode.TEXT, payload, key))
    assert found == (Opcode.TEXT, payload)


@given(
    st.lists(st.tuples(st.one_of(messages, controls), st.binary(min_size=4, max_size=4)), min_size=1, max_size=12),
    st.lists(st.integers(0, 10**6), max_size=12),
)
@settings(max_examples=EXAMPLES, deadline=None)
def test_however_it_is_split_a_client_is_read_the_same(
    sent: list[tuple[tuple[int, bytes], bytes]], cuts: list[int]
) -> None:
    reader = MessageReader(CEILING)
    data = b"".join(masked_frame(opcode, payload, key) for (opcode, payload), key in sent)
    found = [one for part in split(data, cuts) for one in taken(reader, part)]
    assert found == [one for one, _ in sent]
    assert reader.held == 0


def test_fragments_with_a_ping_in_between_are_one_message() -> None:
    reader = MessageReader(CEILING)
    data = (
        masked_frame(Opcode.TEXT, b"one ", b"abcd", fin=False)
        + masked_frame(Opcode.PING, b"?", b"efgh")
        + masked_frame(Opcode.CONTINUATION, b"", b"ijkl", fin=False)
        + masked_frame(Opcode.CONTINUATION, b"two", b"mnop")
    )
    for cut in range(1, len(data)):
        found = [*taken(reader, data[:cut]), *taken(reader, data[cut:])]
        assert found == [(Opcode.PING, b"?"), (Opcode.TEXT, b"one two")]


@pytest.mark.parametrize("ceiling", [1024, 70_000])
def test_the_ceiling_holds_for_what_a_client_sends(ceiling: int) -> None:
    for length in (ceiling - 1, ceiling):
        (found,) = taken(MessageReader(ceiling), masked_frame(Opcode.TEXT, b"x" * length, b"abcd"))
        assert found == (Opcode.TEXT, b"x" * length)
    reader = MessageReader(ceiling)
    assert list(taken(reader, masked_frame(Opcode.TEXT, b"x" * (ceiling + 1), b"abcd"))) == [(OVERSIZED, b"")]
    assert list(taken(reader, masked_frame(Opcode.TEXT, b"x" * ceiling, b"abcd", fin=False))) == []
    assert list(taken(reader, masked_frame(Opcode.CONTINUATION, b"x", b"abcd"))) == [(OVERSIZED, b"")]
    # What comes behind is read as ever, and nothing of the other is kept.
    assert list(taken(reader, masked_frame(Opcode.CLOSE, b"\x03\xe8", b"abcd"))) == [(Opcode.CLOSE, b"\x03\xe8")]
    assert list(taken(reader, masked_frame(Opcode.TEXT, b"small", b"abcd"))) == [(Opcode.TEXT, b"small")]
    assert reader.held == 0


WRONG_FROM_A_CLIENT = {
    "not masked": joined(Opcode.TEXT, b"x"),
    "not masked, long": joined(Opcode.TEXT, b"x" * 200),
    "reserved bit": b"\xc1" + masked_frame(Opcode.TEXT, b"x", b"abcd")[1:],
    "unknown opcode": masked_frame(0x3, b"", b"abcd"),
    "unknown control opcode": masked_frame(0xB, b"", b"abcd"),
    "continuation of nothing": masked_frame(Opcode.CONTINUATION, b"x", b"abcd"),
    "a message within a message": masked_frame(Opcode.TEXT, b"x", b"abcd", fin=False)
    + masked_frame(Opcode.TEXT, b"x", b"abcd"),
    "ping in fragments": masked_frame(Opcode.PING, b"", b"abcd", fin=False),
    "long ping": masked_frame(Opcode.PING, b"x" * 126, b"abcd"),
}


@pytest.mark.parametrize("data", WRONG_FROM_A_CLIENT.values(), ids=WRONG_FROM_A_CLIENT.keys())
def test_a_client_that_breaks_the_protocol_is_told_so(data: bytes) -> None:
    with pytest.raises(FrameError):
        taken(MessageReader(CEILING), data)


@given(st.lists(st.binary(max_size=64), max_size=20))
@example([b"\x81\xfe", b"\x00"])
@settings(max_examples=EXAMPLES, deadline=None)
def test_whatever_comes_nothing_but_the_documented_errors_is_raised(parts: list[bytes]) -> None:
    for machine in (FrameFollower(CEILING), MessageReader(CEILING)):
        try:
            for part in parts:
                machine.feed(part)
        except FrameError:
            continue


# Writing


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_written_frame_is_never_in_fragments(length: int, masked: bool) -> None:
    payload = os.urandom(length)
    data = joined(Opcode.TEXT, payload, masked)
    if masked:
        assert data == masked_frame(Opcode.TEXT, payload, b"\0\0\0\0")
    else:
        assert read_frames(data) == [(Opcode.TEXT, True, payload)]


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4000, 4999])
def test_a_close_frame_says_code_and_reason(code: int) -> None:
    ((opcode, fin, payload),) = read_frames(close_frame(code, "why_not"))
    assert (opcode, fin) == (Opcode.CLOSE, True)
    assert read_close(payload) == (code, "why_not")


def test_an_empty_close_frame_has_no_code() -> None:
    assert read_close(b"") == (1005, "")


@pytest.mark.parametrize(
    "payload",
    [b"\x03", *(code.to_bytes(2, "big") for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)), b"\x03\xe8\xff"],
)
def test_a_close_frame_that_may_not_be_is_told(payload: bytes) -> None:
    with pytest.raises(FrameError):
        read_close(payload)
