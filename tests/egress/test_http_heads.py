"""HTTP/1 of the egress proxy: requests read strictly and rewritten, answers followed to their end."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.hosts import Refusal
from gateway.egress.http_heads import (
    BadMessage,
    Body,
    ChunkedBody,
    CountedBody,
    EndlessBody,
    end_of_answer_head,
    parse_answer,
    parse_request,
)


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
    assert head.keep_alive
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


@pytest.mark.parametrize(
    ("raw", "method", "body", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5", b"GET", CountedBody, True),
        (b"HTTP/1.1 200\r\nContent-Length: 5, 5", b"GET", CountedBody, True),
        (b"HTTP/1.1 200 OK\nContent-Length: 5", b"GET", CountedBody, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close", b"GET", CountedBody, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5", b"GET", CountedBody, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: Keep-Alive", b"GET", CountedBody, True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked", b"GET", ChunkedBody, True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\nContent-Length: 3", b"GET", ChunkedBody, True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip", b"GET", EndlessBody, True),
        (b"HTTP/1.1 200 OK\r\nX: y", b"GET", EndlessBody, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5", b"HEAD", Body, True),
        (b"HTTP/1.1 204 No Content", b"GET", Body, True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5", b"GET", Body, True),
        (b"HTTP/1.1 101 Switching Protocols", b"GET", Body, True),
    ],
)
def test_the_framing_of_an_answer_is_read(raw: bytes, method: bytes, body: type[Body], keep_alive: bool) -> None:
    head = parse_answer(raw + b"\r\n\r\n", method)
    assert type(head.body) is body
    assert head.keep_alive is keep_alive


@pytest.mark.parametrize(
    "raw",
    [b"SSH-2.0-x", b"HTTP/2 200", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2", b""],
)
def test_invalid_answers_are_refused(raw: bytes) -> None:
    with pytest.raises(BadMessage):
        parse_answer(raw, b"GET")


@given(st.binary(max_size=80), st.sampled_from([b"GET", b"HEAD"]))
def test_any_answer_is_read_or_refused(raw: bytes, method: bytes) -> None:
    for data in (raw, b"HTTP/1.1 200 OK\r\n" + raw):
        end_of_answer_head(data)
        try:
            head = parse_answer(data, method)
        except BadMessage:
            continue
        assert method == b"GET" or head.body.done


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
