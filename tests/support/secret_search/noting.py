"""Notes secrets where they are made, stored, set as options and given in requests, in this process."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import pytest
from pydantic import BaseModel, ValidationError

from gateway.app import CONTRACTS
from gateway.core.secret import texts_in
from gateway.crypto.download_tokens import DownloadLink, DownloadTokens
from gateway.crypto.keyring import KeyRing
from gateway.crypto.tokens import Token, TokenIssuer, api_key_prefix
from gateway.crypto.viewer_tokens import Viewer, ViewerTokens
from gateway.domain.secrets import SecretStore
from gateway.http.dispatch import Contracts
from gateway.http.endpoints import Endpoint
from gateway.http.models import contains_secret, marked_values, secrets_in
from gateway.settings import Settings, is_secret, options, variable
from tests.support.fake_providers import KEYS
from tests.support.secret_search.search import Search, current

SERVED = Contracts(CONTRACTS, "spaces")
# Files of a data directory that hold secrets, for their owner alone.
KEPT_SECRETS = ("api-key", "master-keys")
# Values that are secret in one place and open in another, and why. Give a test another value rather than one of these.
OPEN_VALUES = {
    "proxy.example": "host of proxies: a refused `config.proxy` is masked as a whole, and a right one is shown",
}
# Of a viewer's or download's token the signature; what is before it is not secret.
_SIGNATURE = 42
_TOKENS = re.compile(
    r"bctrl_[A-Za-z0-9]{12}_([A-Za-z0-9_-]{43})|/v1/connect/[A-Za-z0-9]{12}([A-Za-z0-9_-]{43})"
    rf"|(?:view|file)_[A-Za-z0-9_-]{{{100 - _SIGNATURE}}}([A-Za-z0-9_-]{{{_SIGNATURE}}})"
)


@cache
def documented() -> frozenset[str]:
    """All texts in the examples of the API's documents, which tests send, too."""
    models = [each for contract in CONTRACTS for of in contract.endpoints for each in (of.body, of.form, of.answer)]
    return frozenset(text for model in models if model is not None for text in texts_in(model.example))


def note_value(name: str, text: str) -> None:
    """A secret that a test chose; of a URL its password."""
    for part in _parts_of(text):
        if part not in OPEN_VALUES:
            current().note(name, part)


def note_first(search: Search) -> None:
    """The keys that are written in the tests."""
    for provider, key in KEYS.items():
        search.note(f"the key of {provider}", key)


def note_option(name: str, value: Any) -> None:
    """A secret option: of master keys each."""
    if name == "master_keys":
        for entry in str(value).replace(",", "\n").split():
            current().note("a master key", entry.partition(":")[2], random=True)
    else:
        note_value(f"the option {name}", str(value))


@cache
def secret_options() -> list[str]:
    return [name for name, field in options().items() if is_secret(field)]


def note_options(environment: dict[str, str]) -> None:
    """The secret options that a process is given."""
    for name in secret_options():
        if value := environment.get(variable(name)):
            note_option(name, value)


def note_kept(data_dir: Path) -> None:
    """The secrets that a gateway keeps in files of its data directory."""
    for name in KEPT_SECRETS:
        path = data_dir / name
        for line in path.read_text().splitlines() if path.is_file() else ():
            public = api_key_prefix(line) or line.partition(":")[0]
            current().note(f"the file {name}", line.removeprefix(public).lstrip(":_"), random=True)


def note_bytes(name: str, random: bytes) -> None:
    """Random bytes, which may be seen as they are and in base64."""
    for written in (random, base64.b64encode(random)):
        current().note(name, written, random=True)


def note_token(token: Token) -> None:
    kind = "an API key" if token.prefix.startswith("bctrl_") else "a lease's token"
    current().note(kind, token.secret[len(token.prefix) :].lstrip("_"), random=True)


def endpoint_of(request: httpx.Request) -> Endpoint | None:
    """The endpoint of the gateway that answers a request, if one does."""
    choice = SERVED.choose(request.url.path, request.headers.raw)
    return choice.resource.methods.get(request.method) if choice.resource is not None else None


def note_given(request: httpx.Request, endpoint: Endpoint) -> None:
    """What a request has in the fields that the endpoint's models mark."""
    model = endpoint.body
    if model is None or not contains_secret(model):
        return
    try:
        given = json.loads(request.content)
    except (ValueError, httpx.RequestNotRead):
        return
    try:
        values = marked_values(model, model.model_validate_json(request.content))
    except ValidationError:
        values = list(secrets_in(model, given))
    for text in texts_in(values, names=False):
        note_value(f"a field of {endpoint.operation_id}", text)


def note_shown(answer: bytes, endpoint: Endpoint) -> set[str]:
    """The values that an answer shows this once, in the fields that its model marks."""
    model = endpoint.answer
    if model is None or not contains_secret(model):
        return set()
    shown = set(_texts_shown(model, json.loads(answer)))
    for text in shown:
        if not note_tokens(f"what {endpoint.operation_id} answers", text):
            current().note(f"what {endpoint.operation_id} answers", text)
    return shown


def tokens_in(text: str) -> list[str]:
    """What looks like keys and tokens of the gateway, without what is public of them."""
    return [next(filter(None, match.groups())) for match in _TOKENS.finditer(text)]


def note_tokens(name: str, text: str) -> bool:
    """Note what looks like keys and tokens; returns whether any does."""
    found = tokens_in(text)
    for secret in found:
        current().note(name, secret, random=True)
    return bool(found)


def _texts_shown(model: type[BaseModel], answer: Any) -> Iterable[str]:
    return texts_in(list(secrets_in(model, answer)), names=False)


def _parts_of(text: str) -> list[str]:
    """Of a URL its password, as it is written and as it is; else the text."""
    if "://" not in text:
        return [text]
    try:
        password = urlsplit(text).password
    except ValueError:
        return []
    return [] if password is None else [password, unquote(password)]


def _values_of(stored: str) -> list[str]:
    """A stored secret's own texts. A user's name is stored with its password, and is shown."""
    try:
        read = json.loads(stored)
    except ValueError:
        return [stored]
    return [value for name, value in read.items() if name != "username"] if isinstance(read, dict) else [stored]


def listen(patch: pytest.MonkeyPatch) -> None:
    """Hear of each secret from now on."""
    _listen_to_tokens(patch)
    _listen_to_keys(patch)
    _listen_to_options(patch)


def _listen_to_tokens(patch: pytest.MonkeyPatch) -> None:
    pepper, sign_viewer, sign_download = TokenIssuer.__init__, ViewerTokens.sign, DownloadTokens.sign

    def noting(make: Callable[[TokenIssuer], Token]) -> Callable[[TokenIssuer], Token]:
        def noted(self: TokenIssuer) -> Token:
            token = make(self)
            note_token(token)
            return token

        return noted

    def noted_pepper(self: TokenIssuer, given: bytes) -> None:
        note_bytes("a pepper", given)
        pepper(self, given)

    def noted_viewer(self: ViewerTokens, viewer: Viewer) -> str:
        token = sign_viewer(self, viewer)
        current().note("a viewer's token", token[-_SIGNATURE:], random=True)
        return token

    def noted_download(self: DownloadTokens, link: DownloadLink) -> str:
        token = sign_download(self, link)
        current().note("a download's token", token[-_SIGNATURE:], random=True)
        return token

    for name in ("api_key", "lease_token"):
        patch.setattr(TokenIssuer, name, noting(getattr(TokenIssuer, name)))
    patch.setattr(TokenIssuer, "__init__", noted_pepper)
    patch.setattr(ViewerTokens, "sign", noted_viewer)
    patch.setattr(DownloadTokens, "sign", noted_download)


def _listen_to_keys(patch: pytest.MonkeyPatch) -> None:
    ring, put = KeyRing.__init__, SecretStore.put

    def noted_ring(self: KeyRing, keys: dict[str, bytes], *setting: str) -> None:
        for key in keys.values():
            note_bytes("a master key", key)
        ring(self, keys, *setting)

    async def noted_put(self: SecretStore, connection: Any, owner: Any, secret: str) -> None:
        for value in _values_of(secret):
            note_value(f"a stored secret ({owner.purpose})", value)
        await put(self, connection, owner, secret)

    patch.setattr(KeyRing, "__init__", noted_ring)
    patch.setattr(SecretStore, "put", noted_put)


def _listen_to_options(patch: pytest.MonkeyPatch) -> None:
    settings, copy = Settings.__init__, Settings.model_copy

    def note(loaded: Settings) -> None:
        for name in secret_options():
            if value := getattr(loaded, name):
                note_option(name, value)

    def noted_settings(self: Settings, **values: Any) -> None:
        settings(self, **values)
        note(self)

    def noted_copy(self: Settings, **options: Any) -> Settings:
        copied = copy(self, **options)
        note(copied)
        return copied

    patch.setattr(Settings, "__init__", noted_settings)
    patch.setattr(Settings, "model_copy", noted_copy)
