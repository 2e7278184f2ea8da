"""HTTP/1 of the egress proxy: requests read strictly and rewritten, statuses of answers read as Chromium does."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.hosts import Refusal
from gateway.egress.http_heads import AnswerHeads, BadMessage, Body, ChunkedBody, CountedBody, parse_request


def request(*headers: bytes, target: bytes = b"http://example.com/a", method: bytes = b"GET") -> bytes:
    return b"\r\n".join((b"%s %s HTTP/1.1" % (method, target), *headers))


def test_a_request_is_written_as_a_browser_would_without_a_proxy() -> None:
    head = parse_request(
        request(
            b"Host: example.com",
            b"Proxy-Connection: keep-alive",
            b"Proxy-Authorization: Basic c2VjcmV0",
            b"User-Agent: Agent/1.0",
            b"Accept: */*",
            target=b"http://example.com/a/b?c=d",
        )
    )
    assert head.for_server() == (
        b"GET /a/b?c=d HTTP/1.1\r\nHost: example.com\r\nConnection: keep-alive\r\n"
        b"User-Agent: Agent/1.0\r\nAccept: */*\r\n\r\n"
    )
    assert not head.upgrade


@pytest.mark.parametrize(
    ("target", "host", "port", "path"),
    [
        (b"http://example.com", "example.com", 80, b"/"),
        (b"http://EXAMPLE.com:8080/x", "example.com", 8080, b"/x"),
        (b"HTTP://example.com?q", "example.com", 80, b"/?q"),
        (b"ws://example.com/s", "example.com", 80, b"/s"),
        (b"http://[::1]:9/", ip_address("::1"), 9, b"/"),
        (b"http://0x7f.1/", ip_address("127.0.0.1"), 80, b"/"),
    ],
)
def test_a_target_is_parsed(target: bytes, host: object, port: int, path: bytes) -> None:
    head = parse_request(request(target=target))
    assert (head.host, head.port, head.path) == (host, port, path)


def test_the_host_header_is_that_of_the_checked_target() -> None:
    head = parse_request(request(b"Host: other.example", target=b"http://example.com:81/"))
    assert b"Host: example.com:81\r\n" in head.for_server()
    assert b"other" not in head.for_server()
    assert b"Host: example.com\r\n" in parse_request(request()).for_server()


def test_the_target_of_a_tunnel_is_its_host_and_port_and_of_a_request_its_url() -> None:
    assert parse_request(request(target=b"example.com:443", method=b"CONNECT")).target == "example.com:443"
    assert parse_request(request(target=b"http://example.com:81/a?b")).target == "http://example.com:81/a?b"


@pytest.mark.parametrize("authority", [b"ex\xe4mple.com:443", b"a:b:c", b"[::1"])
def test_a_malformed_host_is_refused_by_its_rule(authority: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        parse_request(request(target=authority, method=b"CONNECT"))
    assert refusal.value.rule == "egress.malformed_host"


@pytest.mark.parametrize("method", [b"GET", b"POST", b"PATCH", b"PROPFIND", b"FOO", b"M-SEARCH"])
def test_every_method_is_taken(method: bytes) -> None:
    assert parse_request(request(method=method)).for_server().startswith(method + b" /a HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"GET",
        b"GET /a HTTP/1.1",
        b"GET * HTTP/1.1",
        b"GET http://example.com/a HTTP/2.0",
        b"GET  http://example.com/a HTTP/1.1",
        b"GET http://example.com/a b HTTP/1.1",
        b"GET https://example.com/ HTTP/1.1",
        b"GET ftp://example.com/ HTTP/1.1",
        b"GET http:///a HTTP/1.1",
        b"GET http://user@example.com/ HTTP/1.1",
        b"GET http://example.com\\@127.0.0.1/ HTTP/1.1",
        b"GET http://example.com/#a HTTP/1.1",
        b"GET http://example.com:0/ HTTP/1.1",
        b"GET http://example.com:65536/ HTTP/1.1",
        b"G\x00T http://example.com/ HTTP/1.1",
        b"CONNECT example.com HTTP/1.1",
        b"CONNECT example.com:0 HTTP/1.1",
        request(b"Host : example.com"),
        request(b" folded: line"),
        request(b"A: b\nHost: evil"),
        request(b"A: b\rHost: evil"),
        request(b"A: \x00"),
        request(b"no colon"),
        request(b": empty"),
        request(b"Host: a", b"Host: b"),
        request(b"Connection: X-Secret"),
        request(b"Content-Length: 1", b"Content-Length: 2"),
        request(b"Content-Length: +1"),
        request(b"Content-Length: 1, 1"),
        request(b"Content-Length: 1", b"Transfer-Encoding: chunked"),
        request(b"Transfer-Encoding: gzip, chunked"),
        request(b"Transfer-Encoding: identity"),
        request(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    ],
)
def test_a_request_with_two_readings_is_refused(raw: bytes) -> None:
    with pytest.raises((BadMessage, Refusal)):
        parse_request(raw)


_WORDS = (
    "GET|POST|CONNECT| |http://|example.com|127.0.0.1|:80|/|HTTP/1.1|\r\n|Host: |Content-Length: |Transfer-Encoding: |"
    "chunked|1|\n|\r|\x00|@|[::1]|Connection: |upgrade|%2e|\xff|\t|#|?"
)
_TOKENS = st.sampled_from([word.encode("latin-1") for word in _WORDS.split("|")])


@given(st.lists(st.one_of(_TOKENS, st.binary(max_size=4)), max_size=16).map(b"".join))
def test_any_bytes_are_a_request_with_one_reading_or_refused(raw: bytes) -> None:
    try:
        head = parse_request(raw)
    except (BadMessage, Refusal):
        return
    assert 1 <= head.port <= 65535
    if head.path is None:
        return
    sent = head.for_server()
    lines = sent.removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert all(b"\r" not in line and b"\n" not in line and b"\x00" not in line and line for line in lines)
    assert sum(line.lower().startswith(b"host:") for line in lines) == 1
    again = parse_request(lines[0].replace(b" ", b" http://" + head.authority, 1) + b"\r\n" + b"\r\n".join(lines[1:]))
    assert again.for_server() == sent
    assert type(again.body) is type(head.body)


def test_a_request_keeps_its_version() -> None:
    old = parse_request(request(b"Host: example.com").replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert old.for_server() == b"GET /a HTTP/1.0\r\nHost: example.com\r\n\r\n"


def test_spaces_within_a_value_are_read_in_linear_time() -> None:
    # A pattern that tries each of them as the end of the value takes an hour for these.
    value = b"a" + b" " * 1_000_000 + b"b"
    assert parse_request(request(b"X: \t" + value + b" \t")).headers == [(b"X", value)]


def heads_of(*pieces: bytes) -> list[tuple[int | None, bytes]]:
    """All heads that come of these pieces, each read as soon as it can be."""
    heads = AnswerHeads()
    found = []
    for piece in pieces:
        heads.add(piece)
        while not heads.final and (head := heads.next()) is not None:
            found.append(head)
    return found


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"HTTP/1.1 407 Proxy", 407),
        (b"HTTP/1.1 200", 200),
        (b"HTTP/2.0 407", 407),
        (b"HTTP/1.2  407", 407),
        (b"http/1.1 407", 407),
        (b"\r\nHTTP/1.1 407", 407),
        (b"\n\n\n\nHTTP/1.1 407", 407),
        (b"xxxxhttp 407OK", 407),
        (b"HTTP/1.1 00000407", 407),
        (b"HTTP/1.1 4070", 4070),
        (b"HTTP/1.1 407" + b"0" * 5000, 4070),
        (b"HTTP/1.1", 200),
        (b"HTTP/1.1 \t407", 200),
        (b"HTTP/1.1 OK", 200),
        (b"HTTP/1.1 -407", 200),
        (b"HTTP/1.1 000", 0),
        (b"HTTPS 407 really", 407),
    ],
)
@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n", b"\n\r\n", b"\r\nA: b\r\n\r\n"])
def test_a_status_is_read_as_chromium_reads_it(line: bytes, status: int, end: bytes) -> None:
    raw = line + end + b"body"
    assert heads_of(raw) == [(status, raw)]
    pieces = [raw[at : at + 1] for at in range(len(line) + len(end))]
    assert heads_of(*pieces) == [(status, line + end)]


@pytest.mark.parametrize("raw", [b"SSH-2.0-server", b"xxxxxHTTP/1.1 407 No\r\n\r\n", b"\r\n\r\n\r\n\r\n"])
def test_another_protocol_is_passed_at_once(raw: bytes) -> None:
    assert heads_of(raw) == [(None, raw)]
    assert heads_of(raw[:7]) == []


def test_interim_heads_come_before_the_final_one() -> None:
    interim = b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n"
    final = b"HTTP/1.1 407 No\r\n\r\n"
    assert heads_of(interim * 2 + final) == [(103, interim)] * 2 + [(407, final)]
    assert heads_of(interim, b"HTTP", b"/1.1 204 No\r\n\r\n") == [(103, interim), (204, b"HTTP/1.1 204 No\r\n\r\n")]


def test_a_head_that_chromium_would_not_take_is_held_no_longer() -> None:
    start = b"HTTP/1.1 200 OK\r\nX: "
    most = 262_144
    assert heads_of(start + bytes(most - 1 - len(start))) == []
    for size in (most, most + 1):
        raw = start + bytes(size - len(start))
        assert heads_of(raw) == [(None, raw)]


def test_what_was_not_read_of_a_head_can_be_had() -> None:
    heads = AnswerHeads()
    heads.add(b"HTTP/1.1 200 OK\r\nContent-Le")
    assert heads.next() is None
    assert heads.rest() == b"HTTP/1.1 200 OK\r\nContent-Le"
    assert heads.rest() == b""


@given(st.binary(max_size=80), st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 101 "]), st.data())
def test_any_answer_is_returned_whole_and_in_order(raw: bytes, before: bytes, data: st.DataObject) -> None:
    whole = before + raw
    cut = data.draw(st.integers(0, len(whole)))
    heads = AnswerHeads()
    seen = b""
    for piece in (whole[:cut], whole[cut:]):
        if heads.final:
            seen += piece
            continue
        heads.add(piece)
        while not heads.final and (head := heads.next()) is not None:
            seen += head[1]
    assert seen + heads.rest() == whole


def _chunked(chunks: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks if chunk) + b"0\r\nT: x\r\n\r\n"


@given(st.lists(st.binary(max_size=40), max_size=6), st.binary(max_size=20), st.data())
def test_the_end_of_a_chunked_body_does_not_depend_on_splits(
    chunks: list[bytes], after: bytes, data: st.DataObject
) -> None:
    whole = _chunked(chunks)
    stream = whole + after
    body = ChunkedBody()
    taken = at = 0
    while at < len(stream) and not body.done:
        step = data.draw(st.integers(1, len(stream) - at))
        taken += body.take(stream[at : at + step])
        at += step
    assert body.done
    assert taken == len(whole)


def test_trailers_are_bounded() -> None:
    body = ChunkedBody()
    body.take(b"0\r\n")
    with pytest.raises(BadMessage, match="trailers"):
        body.take(b"".join(b"T: %s\r\n" % (b"x" * 4000) for _ in range(17)))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_chunked_body_or_refused(data: bytes) -> None:
    body = ChunkedBody()
    try:
        taken = body.take(data)
    except BadMessage:
        return
    assert taken == len(data) or body.done


@pytest.mark.parametrize(
    "wrong", [b"g\r\n", b"-1\r\n", b"\r\n", b"1\r\nab\r\n", b"1" * 16 + b"\r\n", b"1;" + b"x" * 5000]
)
def test_an_invalid_chunk_is_refused(wrong: bytes) -> None:
    with pytest.raises(BadMessage):
        ChunkedBody().take(wrong)


def test_a_body_with_a_length_ends_at_its_length() -> None:
    body = CountedBody(5)
    seen = [(body.take(data), body.done) for data in (b"abc", b"defg", b"h")]
    assert seen == [(3, False), (2, True), (0, True)]
    assert CountedBody(0).done
    assert (Body().done, Body().take(b"next")) == (True, 0)
