"""No error repeats what a model marks as Secret, whatever is wrong with the request, and no repr or dump shows it."""

from __future__ import annotations

import json
import re
import typing
from typing import Annotated, Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ValidationError, create_model

from gateway.app import CONTRACTS
from gateway.core.secret import SECRET, Secret, masked, remember, remembering
from gateway.http.models import Body, Headers, Query, masked_body, models_in, secret_at
from gateway.http.validation import invalid

TOKEN = "s3cr3t-"


def _echo(value: Any) -> Any:
    raise ValueError(f"{value!r} is refused")


LEAVES = (str, int, bool, UUID, Annotated[str, AfterValidator(_echo)])
BASES = (Body, Query, Headers)


@st.composite
def models(draw: st.DrawFn, depth: int = 2) -> type[BaseModel]:
    """A model with a secret field at least; others are open, nested, in lists, dictionaries and unions."""
    fields: dict[str, Any] = {}
    for number in range(draw(st.integers(1, 3))):
        kind: Any = draw(st.sampled_from(LEAVES))
        if depth and draw(st.booleans()):
            kind = draw(models(depth - 1))
        kind = draw(st.sampled_from([kind, list[kind], dict[str, kind], kind | None]))
        fields[f"open{number}"] = (kind, ...)
    secret: Any = draw(st.sampled_from(LEAVES))
    if depth and draw(st.booleans()):
        secret = draw(models(depth - 1))
    marked = Annotated[secret, SECRET]
    secret = draw(st.sampled_from([marked, Annotated[list[secret], SECRET], list[marked], marked | None]))
    fields["secret"] = (secret, ...)
    made: type[BaseModel] = create_model("Made", __base__=draw(st.sampled_from(BASES)), **fields)
    return made


tokens = st.integers(10**6, 10**9).map(lambda number: f"{TOKEN}{number}")
secrets = st.recursive(
    tokens,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["secret", "open0", "x"]), inner),
)


@st.composite
def bodies(draw: st.DrawFn, model: type[BaseModel], unknown: bool = True) -> dict[str, Any]:
    """Wrong in many ways: each secret field has tokens in some shape, and every other field what may not fit.

    With `unknown` it may have tokens in an unknown field, too. A body in the place of a map of such bodies has none:
    every name is a key there, and the open fields of the object under it are open.
    """
    body: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        wire = field.alias or name
        if name == "secret":
            body[wire] = draw(secrets)
            continue
        if draw(st.integers(0, 3)) == 0:
            continue
        nested = [part for part in _parts(field.annotation) if isinstance(part, type) and issubclass(part, BaseModel)]
        is_map = bool(nested) and typing.get_origin(field.annotation) is dict
        if is_map and draw(st.booleans()):
            body[wire] = draw(bodies(nested[0], False))
            continue
        inner = draw(bodies(nested[0], unknown)) if nested else draw(st.none() | st.integers() | st.text(max_size=3))
        body[wire] = draw(st.sampled_from([[inner], {"key": inner}] if is_map else [inner, [inner], {"key": inner}]))
    if unknown and draw(st.booleans()):
        body["unknown"] = draw(secrets)
    return body


def _parts(annotation: Any) -> list[Any]:
    return [annotation, *(part for each in getattr(annotation, "__args__", ()) for part in _parts(each))]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_error_repeats_a_secret(data: st.DataObject) -> None:
    model = data.draw(models())
    body = data.draw(bodies(model))
    try:
        model.model_validate_json(json.dumps(body))
    except ValidationError as error:
        rejected = invalid(error, model)
        assert TOKEN not in json.dumps([rejected.message, rejected.details])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_masked_body_has_a_secret(data: st.DataObject) -> None:
    model = data.draw(models())
    assert TOKEN not in json.dumps(masked_body(model, data.draw(bodies(model))))


class Credential(Body):
    name: str
    password: Secret[str]


class Vault(Body):
    credential: Credential
    key: Secret[Annotated[str, AfterValidator(_echo)]]


@pytest.mark.parametrize(
    "body",
    [
        {"credential": TOKEN, "key": TOKEN},
        {"credential": {"name": "x", "password": [TOKEN]}, "key": {"a": TOKEN}},
        {"credential": {"name": "x", "passwords": TOKEN}, "key": TOKEN},
        {"credential": {"password": TOKEN}, "key": 1, "extra": TOKEN},
    ],
)
def test_what_stands_in_the_place_of_a_secret_is_not_repeated(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as raised:
        Vault.model_validate_json(json.dumps(body))
    rejected = invalid(raised.value, Vault)
    assert rejected.details["errors"]
    assert TOKEN not in json.dumps([rejected.message, rejected.details])


class Credentials(Body):
    by_site: dict[str, Credential]


def test_a_value_under_a_key_of_a_map_is_not_repeated_where_an_object_with_secrets_belongs() -> None:
    with pytest.raises(ValidationError) as raised:
        Credentials.model_validate_json(json.dumps({"bySite": {"site": TOKEN}}))
    (problem,) = invalid(raised.value, Credentials).details["errors"]
    assert problem == {"field": "bySite.site", "message": "Input should be an object", "code": "model_type"}


def test_an_object_with_secrets_in_the_place_of_a_map_of_those_is_masked() -> None:
    given = {"bySite": {"password": {"name": TOKEN, "password": TOKEN}, "name": {"name": "open", "password": TOKEN}}}
    expected = {"bySite": {"password": "***", "name": {"name": "open", "password": "***"}}}
    assert masked_body(Credentials, given) == expected


def test_an_open_value_is_repeated() -> None:
    with pytest.raises(ValidationError) as raised:
        Credential.model_validate_json('{"name": 17, "password": "x"}')
    assert invalid(raised.value, Credential).details["errors"][0]["value"] == 17


def test_a_model_shows_no_secret() -> None:
    assert TOKEN not in repr(Credential(name="x", password=TOKEN))


def test_an_error_of_a_model_shows_no_input() -> None:
    with pytest.raises(ValidationError) as raised:
        Vault.model_validate_json(json.dumps({"credential": {"name": 1, "password": [TOKEN]}, "key": TOKEN}))
    assert TOKEN not in str(raised.value).replace(f"{TOKEN!r} is refused", "")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {"credential": {"name": "x", "password": "p"}, "key": 1},
            {"credential": {"name": "x", "password": "***"}, "key": "***"},
        ),
        ({"credential": None, "key": None}, {"credential": None, "key": None}),
        ({"credential": ["p"], "key": {"p": "q"}}, {"credential": "***", "key": "***"}),
        ({"credential": {"name": ["open"], "p": "q"}}, {"credential": {"name": ["open"], "***": "***"}}),
        ({"credential": {"password": "\ud800"}}, {"credential": {"password": "***"}}),
        ("p", "***"),
    ],
)
def test_a_body_is_masked_by_its_model(body: Any, expected: Any) -> None:
    assert masked_body(Vault, body) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("the secret is s3cr3t-\ud800.", "the secret is ***."),
        (repr("s3cr3t-\ud800"), "'***'"),
        (json.dumps(["s3cr3t-\ud800"]), '["***"]'),
        ({"s3cr3t-\ud800": [("s3cr3t-\ud800", 12345.0, 1234567)]}, {"***": [["***", 12345.0, "***"]]}),
        (ValueError("s3cr3t-\ud800"), "***"),
        ("abc abcd", "abc abcd"),
        ("abc", "***"),
        ("the password of it: hunter2 and hunt er2", "the password of it: *** and ***"),
        ({"open": True, "none": None, "number": 7}, {"open": True, "none": None, "number": 7}),
    ],
)
def test_what_is_remembered_is_masked(value: Any, expected: Any) -> None:
    with remembering():
        remember(["s3cr3t-\ud800", {"x": [1234567]}, "abc", "http://u:hunter2@proxy.example"])
        remember(["http://u:hunt%20er2@proxy.example", "http://[", None, True])
        assert masked(value) == expected
    assert masked(value) == value


# Fields whose names sound like a secret's, and why they are none.
NOT_SECRET = {
    "CreateInvocation.max_tokens": "a number of them",
    "InvocationUsage.input_tokens": "a number of them",
    "InvocationUsage.output_tokens": "a number of them",
    "ModelSum.cached_tokens": "a number of them",
    "ModelSum.input_tokens": "a number of them",
    "ModelSum.output_tokens": "a number of them",
    "UsageOfModel.cached_tokens": "a number of them",
    "UsageOfModel.input_tokens": "a number of them",
    "UsageOfModel.output_tokens": "a number of them",
    "UsageOfModel.key_source": "whose key it was",
    "InvocationUsage.cached_tokens": "a number of them",
    "Execute.idempotency_key": "a name that the caller chooses",
    "AiConnection.has_stored_key": "whether there is one",
    "AiCredentialList.credentials": "their rows",
    "ApiKey.key_prefix": "the public part",
    "CreatedKey.api_key": "its row; the secret stands beside it",
    "KeyList.keys": "their rows",
    "StorageObject.object_key": "the name of its bytes",
    "SavedProxy.has_password": "whether there is one",
    "SecretList.keys": "names of secrets",
    "SecretList.credentials": "metadata of secrets",
    "SecretMetadata.key": "the name of a secret",
    "ToolAuth.secret_id": "the name of a secret",
    "ToolExecution.signing_secret_id": "the name of a secret",
    "SecretMetadata.has_totp": "whether there is a seed",
    "VaultListQuery.has_totp": "whether there is a seed",
    "SecretValue.key": "the name of a secret",
    "SecretValue.password": "what was asked for",
    "SecretValue.totp": "what was asked for",
    "WhoAmI.key_id": "an id",
}
_SOUNDS_SECRET = re.compile(
    r"secret|token|passw|passphrase|key|credential|authorization|cookie|otp|iframe_url|stream_url"
)


def _served() -> set[type[BaseModel]]:
    pending: list[type[BaseModel]] = [
        model
        for contract in CONTRACTS
        for endpoint in contract.endpoints
        for model in (endpoint.query, endpoint.headers, endpoint.body, endpoint.form, endpoint.answer)
        if model is not None
    ]
    found: set[type[BaseModel]] = set()
    while pending:
        model = pending.pop()
        if model not in found:
            found.add(model)
            pending += [nested for field in model.model_fields.values() for nested in models_in(field.annotation)]
    return found


def test_a_field_that_sounds_secret_is_marked_or_listed() -> None:
    names = {(model, name) for model in _served() for name in model.model_fields if _SOUNDS_SECRET.search(name)}
    assert len(names) > 8
    unmarked = {f"{model.__name__}.{name}" for model, name in names if not secret_at(model, [wire_name(model, name)])}
    assert unmarked == set(NOT_SECRET)


def wire_name(model: type[BaseModel], name: str) -> str:
    return model.model_fields[name].alias or name
