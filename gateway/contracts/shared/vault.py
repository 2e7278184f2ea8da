"""/v1/vault/{key} and /v1/vault/secrets/{key}: secrets that pages are given, by names."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import Field, model_validator

from gateway.core.errors import Conflict
from gateway.core.origins import is_pattern
from gateway.core.secret import Secret
from gateway.domain.vault import KEY_CHARACTERS, VaultEntry, VaultPlace, VaultSecret, VaultValue
from gateway.http.cursors import Listing, WholeListQuery, cut
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import STORABLE, Answer, Body, Query, Shown, Time, one_of, optional

endpoints = Endpoints("Vault")

Prefix = Annotated[str, Field(min_length=1, max_length=KEY_CHARACTERS), STORABLE]
Text = Annotated[str, Field(min_length=1, max_length=16_384), STORABLE]
Origin = Annotated[str, Field(min_length=1, max_length=300), STORABLE]
Origins = Annotated[list[Annotated[Origin, Shown(format="origin")]], Field(max_length=100)]
OriginPatterns = Annotated[list[Annotated[Origin, Shown(format="origin-pattern")]], Field(max_length=100)]
_OF_LOGIN = ("username", "password", "totp")


class VaultQuery(Query):
    """Whose vault: that of the key, of a workspace's owner, or of a subaccount."""

    workspace_id: UUID = optional()
    """The vault of this workspace, as far as its mounts allow."""
    space_id: UUID = optional()
    """The same as `workspaceId`."""
    subaccount_id: UUID = optional()
    """The vault of this subaccount; for keys of an organization."""


class VaultListQuery(WholeListQuery, VaultQuery):
    """Which secrets are listed."""

    prefix: Prefix = optional()
    """Only keys that begin so."""
    has_totp: bool = optional()
    """Only secrets with a TOTP seed, or only those without."""
    meta: bool = False
    """Whether to list what is known of each secret, instead of its key."""


class SetSecret(Body):
    """A login, or with `value` a text. What is left out is not kept of an earlier one with the same key."""

    model_config = one_of(
        ("username", "password"), ("value",), never=[{"required": ["value", name]} for name in _OF_LOGIN]
    )
    example: ClassVar = {
        "username": "ada",
        "password": "correct horse battery staple",
        "totp": "JBSWY3DPEHPK3PXP",
        "origins": ["https://bank.example"],
        "originPatterns": ["https://*.bank.example"],
        "label": "The bank",
    }

    username: Annotated[str, Field(min_length=1, max_length=1024), STORABLE] = optional()
    """Name of a login."""
    password: Secret[Text] = optional()
    """Password of a login."""
    totp: Secret[Annotated[Text, Shown(format="totp-seed")]] = optional()
    """Seed of its one-time passwords: base32, or an `otpauth://totp/` address."""
    value: Secret[Text] = optional()
    """A text, in place of a login."""
    origins: Origins = optional()
    """Origins of the pages that it may be typed into, such as `https://bank.example`."""
    origin_patterns: OriginPatterns = optional()
    """Patterns of such origins: `https://*.bank.example`, `https://bank.example:*`."""
    match_origins: OriginPatterns = optional()
    """Both kinds in one list."""
    label: Annotated[str, Field(min_length=1, max_length=200), STORABLE] = optional()
    """What people call it."""
    notes: Secret[Text] = optional()
    """Anything else; it is encrypted as the password is."""

    @model_validator(mode="after")
    def _is_one_kind(self) -> SetSecret:
        login = self.model_fields_set & {"username", "password", "totp"}
        if login if "value" in self.model_fields_set else not login >= {"username", "password"}:
            raise ValueError("give username and password of a login, or value and nothing of a login")
        return self

    def secret(self) -> VaultSecret:
        return VaultSecret(self.username, self.password, self.totp, self.value, self.notes)

    def split_origins(self) -> tuple[list[str], list[str]]:
        """Exact origins, and patterns."""
        both = self.match_origins or []
        exact = [*(self.origins or []), *(each for each in both if not is_pattern(each))]
        return exact, [*(self.origin_patterns or []), *(each for each in both if is_pattern(each))]


class SecretMetadata(Answer):
    """What is known of a secret, without what is secret."""

    example: ClassVar = {
        "key": "prod/bank",
        "type": "login",
        "hasTotp": True,
        "label": "The bank",
        "origins": ["https://bank.example"],
        "originPatterns": ["https://*.bank.example"],
        "createdAt": "2026-11-29T09:00:00.000Z",
        "updatedAt": "2026-11-29T09:00:00.000Z",
    }

    key: str
    """Its key."""
    type: Literal["login", "value"]
    """`login` has a name and a password, `value` is a text."""
    has_totp: bool
    """Whether it has a TOTP seed."""
    label: str | None
    """What people call it; null if nothing."""
    origins: list[str]
    """Origins of the pages that it may be typed into."""
    origin_patterns: list[str]
    """Patterns of such origins."""
    created_at: Time
    """When its key was first used."""
    updated_at: Time
    """When it was last set."""

    @classmethod
    def of(cls, entry: VaultEntry) -> SecretMetadata:
        return cls(
            key=entry.key,
            type=entry.kind,
            has_totp=entry.has_totp,
            label=entry.label,
            origins=list(entry.origins),
            origin_patterns=list(entry.origin_patterns),
            created_at=entry.created_at,
            updated_at=entry.updated_at,
        )


class SecretList(Answer):
    """Keys, or with `meta` what is known of each secret, in the order of keys."""

    example: ClassVar = {"keys": ["prod/bank", "prod/shop"], "nextCursor": None}

    keys: list[str] = optional()
    """Keys; without `meta`."""
    credentials: list[SecretMetadata] = optional()
    """What is known of each secret; with `meta=true`."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last, and without `limit`."""


class SecretValue(Answer):
    """A secret as text. Only what it has is there."""

    example: ClassVar = {
        "key": "prod/bank",
        "type": "login",
        "username": "ada",
        "password": "correct horse battery staple",
        "origins": ["https://bank.example"],
        "originPatterns": [],
    }

    key: str
    """Its key."""
    type: Literal["login", "value"]
    """`login` has a name and a password, `value` is a text."""
    username: str = optional()
    """Name of a login."""
    password: str = optional()
    """Password of a login."""
    totp: str = optional()
    """Seed of its one-time passwords, as it was given."""
    value: str = optional()
    """The text of a `value`."""
    notes: str = optional()
    """Notes."""
    label: str = optional()
    """What people call it."""
    origins: list[str]
    """Origins of the pages that it may be typed into."""
    origin_patterns: list[str]
    """Patterns of such origins."""

    @classmethod
    def of(cls, read: VaultValue) -> SecretValue:
        entry, secret = read.entry, read.secret
        members = {
            "username": secret.username,
            "password": secret.password,
            "totp": secret.totp,
            "value": secret.value,
            "notes": secret.notes,
            "label": entry.label,
        }
        return cls(
            key=entry.key,
            type=entry.kind,
            origins=list(entry.origins),
            origin_patterns=list(entry.origin_patterns),
            **{name: value for name, value in members.items() if value is not None},
        )


class SecretDeleted(Answer):
    """Confirms that a secret was deleted."""

    example: ClassVar = {"ok": True}

    ok: Literal[True]
    """Always true."""


class TotpCode(Answer):
    """The one-time password of this moment."""

    example: ClassVar = {"code": "492039"}

    code: str
    """The code."""


async def listed(call: Call, query: VaultListQuery) -> SecretList:
    """Keys of secrets, in their order. Nothing secret is in the answer."""
    place = await _place(call, query)
    listing = Listing("vault", query)
    found = await call.services.vault.listed(
        place,
        prefix=query.prefix,
        has_totp=query.has_totp,
        after=None if query.cursor is None else listing.read(query.cursor)[0],
        limit=_ALL if query.limit is None else query.limit + 1,
    )
    page, next_cursor = cut(found, query.limit or _ALL, lambda entry: listing.cursor(entry.key, entry.id))
    if query.meta:
        return SecretList(credentials=[SecretMetadata.of(entry) for entry in page], next_cursor=next_cursor)
    return SecretList(keys=[entry.key for entry in page], next_cursor=next_cursor)


async def put(call: Call, query: VaultQuery, body: SetSecret) -> SecretMetadata:
    """Store a secret, in place of the one that has the key."""
    origins, patterns = body.split_origins()
    place = await _place(call, query)
    entry = await call.services.vault.set(
        place, _key(call), body.secret(), label=body.label, origins=origins, patterns=patterns
    )
    return SecretMetadata.of(entry)


async def value(call: Call, query: VaultQuery) -> SecretValue:
    """The secret as text. Needs a workspace whose mounts have `vault.allowRawReads`, where the operator allows no
    more."""
    return SecretValue.of(await call.services.vault.get(await _place(call, query), _key(call)))


async def metadata(call: Call, query: VaultQuery) -> SecretMetadata:
    """What is known of a secret, without what is secret."""
    return SecretMetadata.of(await call.services.vault.metadata(await _place(call, query), _key(call)))


async def delete(call: Call, query: VaultQuery) -> SecretDeleted:
    """Delete a secret."""
    await call.services.vault.delete(await _place(call, query), _key(call))
    return SecretDeleted(ok=True)


async def totp(call: Call, query: VaultQuery) -> TotpCode:
    """The one-time password of this moment, of a secret that has a seed."""
    return TotpCode(code=await call.services.vault.totp(await _place(call, query), _key(call)))


_ALL = 10_000_000
_PLAIN, _SECRETS = "/v1/vault/{key:path}", "/v1/vault/secrets/{key:path}"

for _root, _id in (("/v1/vault", "vault"), ("/v1/vault/secrets", "vault-secrets")):
    _one = f"{_root}/{{key:path}}"
    endpoints.get(_root, id=f"{_id}-list", summary="List secrets of the vault", errors=(403, 404, 409))(listed)
    endpoints.put(_one, id=f"{_id}-set", summary="Store a secret", errors=(403, 404, 409, 413))(put)
    endpoints.post(_one, id=f"{_id}-create", summary="Store a secret, as PUT does", errors=(403, 404, 409, 413))(put)
    endpoints.delete(_one, id=f"{_id}-delete", summary="Delete a secret", errors=(403, 404, 409))(delete)
    endpoints.get(f"{_one}/totp", id=f"{_id}-totp", summary="Get a one-time password", errors=(403, 404, 409))(totp)
    endpoints.get(f"{_one}/value", id=f"{_id}-value", summary="Read a secret as text", errors=(403, 404, 409))(value)
endpoints.get(_PLAIN, id="vault-get", summary="Read a secret as text", errors=(403, 404, 409))(value)
endpoints.get(_SECRETS, id="vault-secrets-get", summary="Get the metadata of a secret", errors=(403, 404, 409))(
    metadata
)


async def _place(call: Call, query: VaultQuery) -> VaultPlace:
    named = {given for given in (query.workspace_id, query.space_id) if given is not None}
    if len(named) > 1:
        raise Conflict("workspaceId and spaceId are the same parameter, and name two workspaces here.")
    owner = await call.owner(None if query.subaccount_id is None else str(query.subaccount_id))
    if not named:
        return VaultPlace(owner)
    place = await call.services.vault.in_space(call.scope, named.pop())
    if query.subaccount_id is not None and place.owner != owner:
        raise Conflict("The workspace does not belong to the subaccount.")
    return place


def _key(call: Call) -> str:
    given: str = call.request.path_params["key"]
    return given
