"""What is taken out of addresses and texts before they are recorded."""

from __future__ import annotations

import json
import string
import time
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.observer.masking import Masking

LONGEST = 2048
SECRET_NAMES = [
    "token", "access_token", "id_token", "refresh_token", "code", "key", "api_key", "apikey", "password", "secret",
    "client_secret", "sig", "signature", "X-Amz-Signature", "X-Amz-Security-Token", "X-Amz-Credential",
    "X-Goog-Signature", "auth", "session", "sessionId", "jsessionid", "PHPSESSID", "jwt", "X-API-Key", "SAMLResponse",
    "user[password]", "ACCESS_TOKEN", "%74oken",
]  # fmt: skip

masking = Masking((), LONGEST)
# Long enough to be in the rest of an address by no accident, and of what addresses and forms let secrets have.
secrets = st.text(string.ascii_letters + string.digits + "-._~+/=", min_size=12, max_size=60).map(
    lambda text: f"S{text}"
)
names = st.sampled_from(SECRET_NAMES)
plain = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8).map(lambda text: f"p{text}")


@pytest.mark.parametrize(
    ("given_", "masked"),
    [
        ("https://example.com/a/b?page=2&sort=up#part", "https://example.com/a/b?page=2&sort=up#part"),
        ("https://user:word@example.com/a", "https://***@example.com/a"),
        ("https://user@example.com/", "https://***@example.com/"),
        ("https://a@b@example.com/", "https://***@example.com/"),
        ("https://example.com/@user/post", "https://example.com/@user/post"),
        ("https://example.com/?Token=abc&x=1", "https://example.com/?Token=***&x=1"),
        ("https://example.com/#access_token=abc&state=def&x=1", "https://example.com/#access_token=***&state=***&x=1"),
        ("https://example.com/#/page?token=abc", "https://example.com/#/page?token=***"),
        ("https://example.com/a;jsessionid=ABC/b?x=1", "https://example.com/a;jsessionid=***/b?x=1"),
        (
            "https://example.com/?next=https%3A%2F%2Fu%3Ap%40b.com%2F%3Ftoken%3Dabc",
            "https://example.com/?next=https%3A%2F%2F***%40b.com%2F%3Ftoken%3D***",
        ),
        ("https://example.com/?next=https://b.com/?token=abc", "https://example.com/?next=https://b.com/?token=***"),
        ("data:image/png;base64,AAAA", "data:image/png"),
        ("data:,secret", "data:"),
        ("DATA:text/html,<p>a b</p>", "data:text/html"),
        ("blob:https://example.com/5a0c", "blob:https://example.com/5a0c"),
        ("about:blank", "about:blank"),
        ("not an address", "not an address"),
        ("", ""),
    ],
)
def test_addresses(given_: str, masked: str) -> None:
    assert masking.url(given_) == masked


@pytest.mark.parametrize(
    ("given_", "masked"),
    [
        # Encoded several times: the names, the values, or both.
        (
            "/?next=https%253A%252F%252Fb.com%252F%253Ftoken%253DXYZ12345",
            "/?next=https%253A%252F%252Fb.com%252F%253Ftoken%253D***",
        ),
        ("/?%2574oken=XYZ12345", "/?%2574oken=***"),
        ("/?%252574oken=XYZ12345", "/?%252574oken=***"),
        ("/?a=1%26%2574oken%3DXYZ12345", "/?a=1%26%2574oken%3D***"),
        ("/?q=%2561ccess_token%253DXYZ12345", "/?q=access_token%253D***"),
        ("/back/%3Ftoken%3DXYZ12345/x", "/back/%3Ftoken%3D***/x"),
        ("/back%253Ftoken%253DXYZ12345", "/back%253Ftoken%253D***"),
        # JSON, in all its dresses.
        ("/?data=%7B%22token%22%3A%22XYZ12345%22%7D", "/?data=%7B%22token%22%3A%22***%22%7D"),
        ('/?data={"token":"XYZ12345"}', "/?data=%7B%22token%22%3A%22***%22%7D"),
        (
            "/?data=%257B%2522token%2522%253A%2522XYZ12345%2522%257D",
            "/?data=%257B%2522token%2522%253A%2522***%2522%257D",
        ),
        (
            "/?data=%7B%22a%22%3A%7B%22key%22%3A%22X%5C%22XYZ12345%22%7D%7D",
            "/?data=%7B%22a%22%3A%7B%22key%22%3A%22***%22%7D%7D",
        ),
        ("/?data=%7B%22pin%22%3A12345%2C%22x%22%3A1%7D", "/?data=%7B%22pin%22%3A***%2C%22x%22%3A1%7D"),
        ("/?data=%7B%22token%22%3Anull%2C%22x%22%3A1%7D", "/?data=%7B%22token%22%3Anull%2C%22x%22%3A1%7D"),
        (
            "/?data=%22%7B%5C%22token%5C%22%3A%5C%22XYZ12345%5C%22%7D%22",
            "/?data=%22%7B%5C%22token%5C%22%3A%5C%22***%5C%22%7D%22",
        ),
        ("/?data=%7B%22tokens%22%3A%5B%22XYZ12345%22%5D%7D", "/?data=%7B%22tokens%22%3A%5B***%5D%7D"),
        ("/?page={count:1,total:2}", "/?page={count:1,total:2}"),
        # Credentials by other names, and lines of headers.
        ("/?bearer=XYZ12345", "/?bearer=***"),
        ("/?jwt_bearer=XYZ12345&a=1", "/?jwt_bearer=***&a=1"),
        ("/?cookie=XYZ12345", "/?cookie=***"),
        ("/?h=Authorization%3A%20Bearer%20XYZ12345", "/?h=Authorization%3A%20***"),
        ("/?h=Proxy-Authorization:+Basic+XYZ12345", "/?h=Proxy-Authorization:+***"),
        ("/?h=Cookie:%20a%3D1;%20b%3DXYZ12345", "/?h=Cookie:***"),
        ("/?h=X-Api-Key:XYZ12345", "/?h=X-Api-Key:***"),
        ("/?x=Bearer%20XYZ12345", "/?x=Bearer%20***"),
        ("/?x=Basic%20dXNlcjpYWVoxMjM0NQ==", "/?x=Basic%20***"),
        ("/?x=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcDEF12345", "/?x=***"),
        ("/?q=basic+programming&lang=en", "/?q=basic+programming&lang=en"),
        ("/caf%C3%A9/100%25?q=caf%C3%A9%20au%20lait", "/caf%C3%A9/100%25?q=caf%C3%A9%20au%20lait"),
    ],
)
def test_what_parameters_contain(given_: str, masked: str) -> None:
    assert masking.url(f"https://example.com{given_}") == f"https://example.com{masked}"
    assert masking.url(f"https://example.com{masked}") == f"https://example.com{masked}"


@pytest.mark.parametrize(
    ("given_", "masked"),
    [
        ("Authorization: Bearer XYZ12345", "Authorization: ***"),
        ("curl -H 'Authorization: Bearer XYZ12345' https://b.com", "curl -H 'Authorization: ***' https://b.com"),
        ("Set-Cookie: sid=XYZ12345; Path=/\nX: 1", "Set-Cookie: ***\nX: 1"),
        ("X-Api-Key: XYZ12345, next", "X-Api-Key: ***, next"),
        ("sent Bearer XYZ12345 to b.com", "sent Bearer *** to b.com"),
        ("bearer=XYZ12345", "bearer=***"),
        ("login failed, password: XYZ12345 (2 tries)", "login failed, password: *** (2 tries)"),
        ('{"user":"ada","password":"XYZ\\"12345"}', '{"user":"ada","password":"***"}'),
        ('"{\\"token\\":\\"XYZ12345\\",\\"a\\":1}"', '"{\\"token\\":\\"***\\",\\"a\\":1}"'),
        ("{'accessToken': 'XYZ12345', 'a': 1}", "{'accessToken': '***', 'a': 1}"),
        ("{token: `a`, jwt: eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcDEF}", "{token: ***, jwt: ***}"),
        ("got token%253DXYZ12345 back", "got token%253D*** back"),
        ("went to %2Fcb%3Faccess_token%3DXYZ12345", "went to %2Fcb%3Faccess_token%3D***"),
    ],
)
def test_what_texts_contain(given_: str, masked: str) -> None:
    assert masking.text(given_) == masked
    assert masking.text(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        "state: loading, code: 404, key: value, session: none",
        '{"state":"open","code":"E42","key":"Enter","pin":"map"}',
        "total_tokens: 512, prompt tokens = 12",
        '{"prompt_tokens":12,"token":null,"password":""}',
        "Unexpected token '<', \"<!DOCTYPE \"... is not valid JSON",
        "Basic information; a bearer of news. Cookies are off",
        "100% of 5 = five; 20%20",
        "TypeError: Cannot read properties of undefined (reading 'token')",
    ],
)
def test_harmless_texts_are_not_changed(text: str) -> None:
    assert masking.text(text) == text


@settings(max_examples=40)
@given(name=names, secret=secrets, times=st.integers(0, 3), before=plain)
def test_secrets_in_json_are_masked_however_often_it_is_encoded(
    name: str, secret: str, times: int, before: str
) -> None:
    value = json.dumps({before: 1, "inner": {name.replace("%74", "t"): secret}, "after": [before]})
    for _ in range(times):
        value = quote(value, safe="")
    masked = masking.url(f"https://example.com/?{before}={value}&after={before}")
    for form in (secret, quote(secret, safe=""), quote(quote(secret, safe=""), safe="")):
        assert form not in masked
    assert masked.endswith(f"&after={before}")


@pytest.mark.parametrize(("times", "masked"), [(3, False), (4, False), (5, True), (20, True)])
def test_what_is_encoded_more_often_than_any_real_value_is_masked_as_a_whole(times: int, masked: bool) -> None:
    value = "a b"
    for _ in range(times):
        value = quote(value, safe="")
    assert masking.url(f"https://example.com/?x={value}&y=1") == (
        f"https://example.com/?x={'***' if masked else value}&y=1"
    )


@pytest.mark.parametrize(
    "part",
    [
        "a", "%", "%2", "%25", "%2525", "a%20", "%zz ", '"', "\\", '\\"', "token", "token:", 'token:"', "token:[",
        'token=\\"', "a.", "a-", "eyJ", "eyJ.", "Bearer ", "Basic ", ": ", "+", "?a=", ";a=", "//", "data:",
    ],
)  # fmt: skip
def test_the_time_is_linear_in_the_length(part: str) -> None:
    """A page chooses these texts. The longest takes at most some times as long as eight of an eighth of its length."""
    large = Masking((), 80_000)

    def seconds(times: int, length: int) -> float:
        text = (part * (length // len(part) + 1))[:length]
        begun = time.process_time()
        for _ in range(times):
            large.url(f"https://example.com/{text}?x={text}")
            large.text(text)
        return time.process_time() - begun

    seconds(1, 1_000)
    assert seconds(1, 32_000) < 4 * seconds(8, 4_000) + 0.2


@given(name=names, secret=secrets, before=plain, after=plain, mark=st.sampled_from("?#"))
def test_secrets_of_known_names_are_masked(name: str, secret: str, before: str, after: str, mark: str) -> None:
    address = f"https://example.com/{before}{mark}a={before}&{name}={secret}&z={after}"
    masked = masking.url(address)
    assert secret not in masked
    assert f"{name}=***" in masked
    assert masked.startswith(f"https://example.com/{before}{mark}a={before}&")
    assert masked.endswith(f"&z={after}")
    assert masking.url(masked) == masked


@given(name=names, secret=secrets, times=st.integers(1, 3))
def test_secrets_in_nested_addresses_are_masked(name: str, secret: str, times: int) -> None:
    address = f"https://inner.com/?{name}={secret}"
    for _ in range(times):
        address = f"https://example.com/?next={quote(address, safe='')}"
    masked = masking.url(address)
    for form in (secret, quote(secret, safe=""), quote(quote(secret, safe=""), safe="")):
        assert form not in masked


@given(user=secrets, rest=plain)
def test_user_information_of_addresses_is_masked(user: str, rest: str) -> None:
    user = user.replace("/", "")
    assert masking.url(f"wss://{user}:{user}@example.com/{rest}") == f"wss://***@example.com/{rest}"


@given(name=names, secret=secrets, quoted=st.sampled_from(['"', "'", " ", "<", "\n", ")"]))
def test_addresses_in_a_text_are_masked_and_the_rest_is_unchanged(name: str, secret: str, quoted: str) -> None:
    text = f"went to {quoted}https://u:w@example.com/?{name}={secret}{quoted} at 12:30; it said 5 = five"
    masked = masking.text(text)
    assert secret not in masked
    assert "u:w" not in masked
    assert masked.startswith(f"went to {quoted}https://***@example.com/?{name}=***")


@given(st.text(max_size=300))
def test_masking_is_idempotent(text: str) -> None:
    masked = masking.url(text)
    assert len(masked) <= LONGEST
    assert masking.url(masked) == masked


@pytest.mark.parametrize("length", [63, 64, 65, 10_000_000])
def test_long_texts_are_truncated(length: int) -> None:
    short = Masking((), 64)
    for cut in (short.url("a" * length), short.text("a" * length)):
        assert len(cut) == min(length, 64)
        assert cut.endswith("…") == (length > 64)


def test_additional_secret_names_are_accepted() -> None:
    assert masking.url("https://example.com/?order-no=12") == "https://example.com/?order-no=12"
    assert (
        Masking(("Order_No",), LONGEST).url("https://example.com/?order-no=12") == "https://example.com/?order-no=***"
    )
