"""The canonical forms of the audit log's entries, against other implementations of them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from gateway.crypto import audit_chain as chain
from gateway.crypto.audit_chain import Form

texts = st.text(st.characters(exclude_categories=["Cs"]))
integers = st.integers(-chain.MAX_INTEGER, chain.MAX_INTEGER)
values = st.one_of(texts, integers, st.booleans(), st.none(), st.lists(texts, max_size=5))
names = st.text(st.characters(max_codepoint=127), max_size=20)
entries = st.dictionaries(names, st.one_of(values, st.dictionaries(names, values, max_size=5)), max_size=10)


@given(entry=entries)
def test_the_newer_form_is_that_of_rfc_8785(entry: dict[str, Any]) -> None:
    assert chain.canonical(entry, Form.RFC_8785) == rfc8785.dumps(entry)
    assert chain.digest(entry, Form.RFC_8785) == hashlib.sha256(rfc8785.dumps(entry)).digest()


@given(entry=entries)
def test_both_forms_are_the_entry_and_the_older_one_is_ascii(entry: dict[str, object]) -> None:
    for form in Form:
        assert json.loads(chain.canonical(entry, form)) == entry
    assert chain.canonical(entry, Form.ASCII).isascii()


plain_names = st.text("abc", min_size=1, max_size=3)


@given(
    entry=st.dictionaries(plain_names, values, max_size=6),
    later=st.dictionaries(plain_names, integers, min_size=1, max_size=4),
)
def test_the_form_of_an_entry_is_the_same_if_some_of_it_is_known_later(
    entry: dict[str, Any], later: dict[str, int]
) -> None:
    first = {name: value for name, value in entry.items() if name not in later}
    for form in Form:
        pieces = chain.canonical_around(first, sorted(later), form)
        values = [str(later[name]).encode() for name in sorted(later)]
        joined = b"".join(piece + value for piece, value in zip(pieces, [*values, b""], strict=True))
        assert joined == chain.canonical(first | later, form)


def test_the_forms_of_an_entry_are_known() -> None:
    entry = {"b": "é\u2028\U0001f600", "a": {"y": None, "x": [True, 12]}, "c": '\x00\x1f\x7f"\\/\n'}
    escaped = '"c":"\\u0000\\u001f{}\\"\\\\/\\n"'
    assert chain.canonical(entry, Form.ASCII) == (
        '{"a":{"x":[true,12],"y":null},"b":"\\u00e9\\u2028\\ud83d\\ude00",' + escaped.format("\\u007f") + "}"
    ).encode("ascii")
    assert (
        chain.canonical(entry, Form.RFC_8785)
        == ('{"a":{"x":[true,12],"y":null},"b":"é\u2028\U0001f600",' + escaped.format("\x7f") + "}").encode()
    )


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_non_json_numbers_are_refused(number: float) -> None:
    for form in Form:
        with pytest.raises(ValueError, match="not JSON compliant"):
            chain.canonical({"a": number}, form)
