"""Secrets are masked in the forms that pages and libraries write them in, also as a part of a longer text."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from gateway.core.secret import MASK, SHORTEST_PART, Secrets

PLAIN = "correct-horse-battery-7f3a"
ODD = "pa&ss <w\N{LATIN SMALL LETTER O WITH DIAERESIS}rd> \"7f3a\"/'x'+y~100%"
BEYOND = "\N{CYRILLIC SMALL LETTER A}\N{GRINNING FACE}-7f3a-\N{SNOWMAN}"

FORMS: dict[str, Callable[[str], str]] = {
    "itself": str,
    "repr": repr,
    "JSON": json.dumps,
    "JSON with other characters": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON with escaped slashes": lambda text: json.dumps(text).replace("/", "\\/"),
    "JSON in JSON by JavaScript": lambda text: json.dumps(json.dumps(text, ensure_ascii=False), ensure_ascii=False),
    "JSON in JSON": lambda text: json.dumps(json.dumps({"it": text})),
    "escapes of JavaScript": lambda text: "".join(
        f"\\u{text.encode('utf-16-be')[at : at + 2].hex()}" for at in range(0, len(text.encode("utf-16-be")), 2)
    ),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 without its end": lambda text: base64.b64encode(text.encode()).decode().rstrip("="),
    "base64 of addresses": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64 of UTF-16": lambda text: base64.b64encode(text.encode("utf-16-le")).decode(),
    "base64 of the other UTF-16": lambda text: base64.b64encode(text.encode("utf-16-be")).decode(),
    "UTF-16 read as bytes": lambda text: text.encode("utf-16-le").decode("latin-1"),
    "the other UTF-16 read as bytes": lambda text: text.encode("utf-16-be").decode("latin-1"),
    "hexadecimal": lambda text: text.encode().hex(),
    "hexadecimal in capitals": lambda text: text.encode().hex().upper(),
    "percent-encoded": lambda text: quote(text, safe=""),
    "percent-encoded in lower case": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "encodeURIComponent": lambda text: quote(text, safe="!'()*"),
    "encodeURI": lambda text: quote(text, safe=";,/?:@&=+$!*'()#"),
    "a query": lambda text: quote(text, safe="!$%&()*+,/:;=?@[]^`{|}\\"),
    "a form": lambda text: quote_plus(text, safe="*").replace("~", "%7E"),
    "HTML": html.escape,
    "HTML of jinja": lambda text: html.escape(text).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
    "text of a document": lambda text: html.escape(text, quote=False),
    "an attribute": lambda text: html.escape(text, quote=False).replace('"', "&quot;"),
    "an attribute of earlier browsers": lambda text: text.replace("&", "&amp;").replace('"', "&quot;"),
    "references of HTML": lambda text: "".join(f"&#{ord(character)};" for character in text),
    "hexadecimal references of HTML": lambda text: "".join(f"&#x{ord(character):x};" for character in text),
}


def masking(*texts: str) -> Secrets:
    secrets = Secrets()
    for text in texts:
        secrets.add(text)
    return secrets


@pytest.mark.parametrize("secret", [PLAIN, ODD, BEYOND], ids=["plain", "odd", "beyond"])
@pytest.mark.parametrize("form", FORMS)
def test_a_form_of_a_secret_is_masked(form: str, secret: str) -> None:
    written = FORMS[form](secret)
    shown = masking(secret).masked(f"before {written} after")
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    left = shown.removeprefix("before ").removesuffix(" after").replace("\0", "")
    # Quotes and the like around it; in base64, the digits that depend on what follows too.
    assert MASK in left
    assert len(left) < len(MASK) + 20


@pytest.mark.parametrize("before", [b"", b"a", b"ab", b"user:", b"name=ada&password="])
@pytest.mark.parametrize("after", [b"", b"\n", b", and more"])
def test_a_secret_within_a_text_in_base64_is_masked(before: bytes, after: bytes) -> None:
    """As in a header with a name and a password."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for secret in (PLAIN, ODD):
            shown = masking(secret).masked(encode(before + secret.encode() + after).decode())
            assert MASK in shown
            first, _, last = shown.partition(MASK)
            for kept in (first, last):
                decoded = base64.b64decode(kept[: len(kept) // 4 * 4], altchars=b"-_")
                assert secret.encode()[:3] not in decoded
                assert secret.encode()[-3:] not in decoded


@pytest.mark.parametrize("secret", [PLAIN, ODD, BEYOND], ids=["plain", "odd", "beyond"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mark", ["", "\N{HORIZONTAL ELLIPSIS}"])
def test_the_beginning_of_a_form_is_masked_at_the_end_of_a_cut_text(form: str, secret: str, mark: str) -> None:
    written, secrets = FORMS[form](secret).strip("\0"), masking(secret)
    for before in ('"{\\"it\\": \\"', '"\\"', '"', "'"):
        written = written.removeprefix(before)
    for length in range(SHORTEST_PART, len(written)):
        shown = secrets.masked([{"it": f"before {written[:length]}{mark}"}], is_cut=True)[0]["it"]
        assert shown.startswith(f"before {MASK}"), (length, shown)
        # Quotes and the like after it.
        assert len(shown) <= len(f"before {MASK}{mark}") + 6, (length, shown)


def test_the_end_of_a_text_stays_where_it_is_no_beginning_or_a_short_one() -> None:
    secrets = masking(PLAIN, "7f3a")
    for text in (
        f"before {PLAIN[: SHORTEST_PART - 1]}",
        f"before {PLAIN[1:]}",
        f"{PLAIN[:9]} after",
        "corr",
        "",
        "7f3",
    ):
        assert secrets.masked(text, is_cut=True) == text
    assert secrets.masked(f"before {PLAIN[:9]}") == f"before {PLAIN[:9]}"
    assert secrets.masked(f"before {PLAIN} {PLAIN[:9]}", is_cut=True) == f"before {MASK} {MASK}"
    assert masking().masked("corre", is_cut=True) == "corre"


def test_a_page_writes_it_by_its_own_functions() -> None:
    """`btoa` and `escape` take characters up to U+00FF as bytes."""
    shown = masking(ODD).masked(
        [base64.b64encode(ODD.encode("latin-1")).decode(), quote(ODD, safe="@*+/", encoding="latin-1")]
    )
    assert shown == [MASK, MASK]


def test_a_short_secret_is_masked_where_it_stands_alone() -> None:
    secrets = masking("abcd", "abcde")
    assert secrets.masked(["abcd", "abcdx", base64.b64encode(b"abcd").decode()]) == [MASK, "abcdx", "YWJjZA=="]
    assert secrets.masked(["xabcdex", base64.b64encode(b"abcde").decode()]) == [f"x{MASK}x", MASK]


def test_encodings_are_those_of_the_first_secrets() -> None:
    texts = [f"secret number {number:02}" for number in range(21)]
    secrets = masking(*texts)
    encoded = [secrets.masked(base64.b64encode(text.encode()).decode()) for text in texts]
    assert encoded[:20] == [MASK] * 20
    assert encoded[20] == base64.b64encode(texts[20].encode()).decode()
    assert [secrets.masked(f"it is {text}") for text in texts] == [f"it is {MASK}"] * 21
