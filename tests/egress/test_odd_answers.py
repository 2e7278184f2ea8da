"""Odd answers have the same effect on a page through the egress proxy as without it. The real browser is the judge.

`GATEWAY_TEST_ANSWERS=1000` generates as many cases, and another seed each time; `python -m tests.support.odd_answers`
reports more about a difference.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from tests.support.odd_answers import Answer, Case, case_of, compare

CASES = int(os.environ.get("GATEWAY_TEST_ANSWERS", "24"))
SEED = int(time.time()) if "GATEWAY_TEST_ANSWERS" in os.environ else 1

OK = Answer.of(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext")
# After each of these a next request is sent on the same connection.
KEPT = [
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 205 Reset\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000000002\r\nok\r\n0\r\n\r\n",
    b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"http/1.1 200 ok\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.1 200OK\r\nContent-Length: 2\r\n\r\nok",
    b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\nno",
]
CLOSED = [
    *(b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\nok" % value for value in (b"", b"-1", b"+2", b"2.0", b"word")),
    b"HTTP/1.1 200 OK\r\nContent-Type: text/pl",
    b"HTTP/1.1",
    b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nshort",
]


@pytest.mark.thorough
async def test_odd_answers_are_to_a_page_what_they_are_without_the_proxy() -> None:
    answers = [*map(Answer.of, KEPT), *(Answer.of(raw, "close") for raw in CLOSED)]
    answers.append(Answer.of(b"HTTP/1.1 200 OK\r\n\r\nendless", "reset"))
    # Numbers that no generated case has.
    named = [Case(1_000_000 + at, [("GET", 0)] * 2, [answer, OK]) for at, answer in enumerate(answers)]
    for status in (b"200", b"413", b"503"):
        early = Answer([(0.0, b"HTTP/1.1 %s Early\r\nContent-Length: 2\r\n\r\nok" % status)], early=True)
        for answer in (early, replace(early, after="half-close"), replace(early, after="drop")):
            named.append(Case(1_100_000 + len(named), [("POST", 16 * 1024 * 1024), ("GET", 0)], [answer, OK]))
    report = await compare([*named, *(case_of(SEED, number) for number in range(CASES))])
    assert report.differences == [], f"seed {SEED}"
    assert 1_000_000 + len(KEPT) - 1 in report.of_407
    # Else nothing would have been compared.
    assert report.statuses[200] > report.tried / 3
