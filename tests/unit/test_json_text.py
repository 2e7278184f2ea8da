"""JSON with lone surrogates, against Python's own parser."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import json_text

texts = st.text(st.characters() | st.characters(categories=["Cs"]) | st.sampled_from('\\"u'), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


def cleaned(value: Any) -> Any:
    """The same without lone surrogates, the other way: pairs are joined by UTF-16."""
    if isinstance(value, str):
        joined = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        return re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", joined)
    if isinstance(value, list):
        return [cleaned(each) for each in value]
    if isinstance(value, dict):
        return {cleaned(name): cleaned(each) for name, each in value.items()}
    return value


@given(values)
def test_each_lone_surrogate_is_replaced_and_nothing_else(value: Any) -> None:
    text = json.dumps(value)
    wanted = cleaned(json.loads(text))
    assert json_text.loads(text.encode()) == wanted
    assert json.loads(json_text.well_formed(text)) == wanted
    json.dumps(wanted, ensure_ascii=False).encode()


@given(values)
def test_what_is_written_keeps_them(value: Any) -> None:
    assert json.loads(json_text.dumps(value)) == json.loads(json.dumps(value))


DEEP = b"[" * 5000 + b'"\\ud83d"' + b"]" * 5000


@pytest.mark.parametrize("text", [b"", b"{", b"[1e999]", b'["\\ud83d"', DEEP, b"NaN"])
def test_what_is_not_json_is_an_error(text: bytes) -> None:
    with pytest.raises(json.JSONDecodeError):
        json_text.loads(text)
    with pytest.raises(json.JSONDecodeError):
        orjson.loads(json_text.well_formed(text.decode()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (rb'["\\ud83d"]', r"\ud83d"),
        (rb'["\\\ud83d"]', "\\\N{REPLACEMENT CHARACTER}"),
        (rb'["\\\\ud83d\ud83d"]', "\\\\ud83d\N{REPLACEMENT CHARACTER}"),
        (rb'["\ud83d\\ude80\"\ude80"]', '\N{REPLACEMENT CHARACTER}\\ude80"\N{REPLACEMENT CHARACTER}'),
        (rb'["\uD83D\uD83D\uDE80\uDE80"]', "\N{REPLACEMENT CHARACTER}\N{ROCKET}\N{REPLACEMENT CHARACTER}"),
    ],
    ids=["escaped backslash", "behind one", "behind two", "between halves", "a pair among halves"],
)
def test_an_escape_is_found_among_backslashes_and_pairs(text: bytes, expected: str) -> None:
    assert json_text.loads(text) == [expected]


def test_what_has_half_a_pair_is_not_read_by_the_slow_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's takes a hundred times as long for many values, and stops the event loop."""
    monkeypatch.setattr(json, "loads", None)
    monkeypatch.setattr(json.JSONDecoder, "decode", None)
    assert json_text.loads(b'["\\ud83d"' + b",1" * 1000 + b"]") == ["\N{REPLACEMENT CHARACTER}"] + [1] * 1000


def test_bytes_that_are_not_utf8_are_replaced() -> None:
    assert json_text.loads(b'["a\xff\xed\xa0\xbdb"]') == ["a" + 4 * "\N{REPLACEMENT CHARACTER}" + "b"]
