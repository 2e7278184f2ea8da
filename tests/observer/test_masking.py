"""What is taken out of addresses and texts before they are recorded."""

from __future__ import annotations

import string
from urllib.parse import quote

import pytest
from hypothesis import given
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
