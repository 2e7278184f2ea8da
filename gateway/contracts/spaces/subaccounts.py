"""/v1/subaccounts and their keys, and /v1/auth/whoami."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BeforeValidator, Field

from gateway.contracts.spaces.spelling import spelled
from gateway.core import limits as values
from gateway.core.secret import Secret
from gateway.domain.accounts.access import ApiKey as KeyRecord
from gateway.domain.accounts.access import Subaccount as Record
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import STORABLE, Answer, Body, Metadata, Time, optional
from gateway.http.schemas import SchemaOf

endpoints = Endpoints("Accounts")

ShortName = Annotated[str, Field(min_length=1, max_length=200), STORABLE]
Limit = Annotated[int, Field(ge=0, le=2**53 - 1)]


_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _in_future(given: Any) -> datetime:
    """A text of RFC 3339 and nothing else: pydantic takes bare seconds in a text, too."""
    try:
        if not isinstance(given, str) or not _RFC_3339.fullmatch(given):
            raise ValueError(given)
        moment = datetime.fromisoformat(given.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("must be a date and time with its offset, such as 2030-01-31T12:00:00Z") from None
    if moment <= datetime.now(UTC):
        raise ValueError("must be in the future")
    return moment


class Limits(Body):
    """`monthlyCreditLimitMicroUsd` is kept for clients that send it; nothing here costs credits."""

    max_active_runs: Limit = optional()
    max_spaces: Limit = optional()
    monthly_credit_limit_micro_usd: Limit = optional()

    def to_domain(self) -> values.Limits:
        return values.Limits(self.max_active_runs, self.max_spaces, self.monthly_credit_limit_micro_usd)


class CreateSubaccount(Body):
    name: ShortName
    external_id: ShortName | None = None
    limits: Limits = optional()
    metadata: Metadata | None = None


class UpdateSubaccount(Body):
    name: ShortName = optional()
    external_id: ShortName | None = None
    limits: Limits = optional()
    metadata: Metadata | None = None


class Subaccount(Answer):
    id: UUID
    name: str
    slug: str
    status: Literal["active", "archived"]
    limits: Annotated[dict[str, int], SchemaOf(Limits)]
    created_at: Time
    updated_at: Time
    archived_at: Time | None = None
    external_id: str | None = None
    metadata: dict[str, Any] | None = None

    @classmethod
    def of(cls, record: Record) -> Subaccount:
        return cls(
            id=record.id,
            name=record.name,
            slug=record.slug,
            status=record.status,
            limits=spelled(record.limits.to_json()),
            created_at=record.created_at,
            updated_at=record.updated_at,
            archived_at=record.archived_at,
            external_id=record.external_id,
            metadata=record.metadata,
        )


class SubaccountList(Answer):
    subaccounts: list[Subaccount]


class CreateKey(Body):
    name: ShortName
    expires_at: Annotated[AwareDatetime, BeforeValidator(_in_future)] | None = None


class ApiKey(Answer):
    id: UUID
    name: str | None
    key_prefix: str
    type: Literal["organization", "subaccount"]
    subaccount_id: UUID | None
    expires_at: Time | None
    revoked_at: Time | None
    last_used_at: Time | None
    created_at: Time

    @classmethod
    def of(cls, record: KeyRecord) -> ApiKey:
        return cls(
            id=record.id,
            name=record.name,
            key_prefix=record.prefix,
            type="subaccount" if record.subaccount_id else "organization",
            subaccount_id=record.subaccount_id,
            expires_at=record.expires_at,
            revoked_at=record.revoked_at,
            last_used_at=record.last_used_at,
            created_at=record.created_at,
        )


class CreatedKey(Answer):
    """The one time that `secret` is shown."""

    api_key: ApiKey
    secret: Secret[str]


class KeyList(Answer):
    keys: list[ApiKey]


class WhoAmI(Answer):
    organization_id: UUID
    subaccount_id: UUID | None
    scope: Literal["organization", "subaccount"]
    key_id: UUID


@endpoints.post("/v1/subaccounts", id="subaccounts-create", summary="Create a subaccount", errors=(403, 409))
async def create(call: Call, body: CreateSubaccount) -> Subaccount:
    """A tenant of the organization, with keys, spaces and limits of its own."""
    record = await call.services.access.create_subaccount(
        call.principal,
        body.name,
        external_id=body.external_id,
        limits=body.limits.to_domain() if body.limits is not None else None,
        metadata=body.metadata,
    )
    return Subaccount.of(record)


@endpoints.get("/v1/subaccounts", id="subaccounts-list", summary="List subaccounts")
async def listed(call: Call) -> SubaccountList:
    """The organization's subaccounts; a subaccount's key sees its own alone."""
    records = await call.services.access.subaccounts(call.scope)
    return SubaccountList(subaccounts=[Subaccount.of(record) for record in records])


@endpoints.get("/v1/subaccounts/{id}", id="subaccounts-get", summary="Get a subaccount", errors=(404,))
async def get(call: Call) -> Subaccount:
    return Subaccount.of(await call.services.access.subaccount(call.scope, call.path_id("id", "subaccount")))


@endpoints.patch("/v1/subaccounts/{id}", id="subaccounts-update", summary="Update a subaccount", errors=(403, 404, 409))
async def update(call: Call, body: UpdateSubaccount) -> Subaccount:
    """Change what is given; `limits` is replaced as a whole."""
    changes = body.model_dump(include=body.model_fields_set - {"limits"})
    if "limits" in body.model_fields_set:
        changes["limits"] = body.limits.to_domain()
    record = await call.services.access.change_subaccount(call.principal, call.path_id("id", "subaccount"), **changes)
    return Subaccount.of(record)


@endpoints.post(
    "/v1/subaccounts/{id}/archive", id="subaccounts-archive", summary="Archive a subaccount", errors=(403, 404)
)
async def archive(call: Call) -> Subaccount:
    """Refuse the subaccount's keys from now on. What it has stays readable by the organization."""
    subaccount_id = call.path_id("id", "subaccount")
    return Subaccount.of(await call.services.access.archive_subaccount(call.principal, subaccount_id))


@endpoints.post(
    "/v1/subaccounts/{id}/keys", id="keys-create", summary="Create an API key of a subaccount", errors=(403, 404, 409)
)
async def create_key(call: Call, body: CreateKey) -> CreatedKey:
    """The answer is the only one that ever has the key itself, in `secret`."""
    subaccount_id = call.path_id("id", "subaccount")
    key, secret = await call.services.access.create_key_of(call.principal, subaccount_id, body.name, body.expires_at)
    return CreatedKey(api_key=ApiKey.of(key), secret=secret)


@endpoints.get("/v1/subaccounts/{id}/keys", id="keys-list", summary="List API keys of a subaccount", errors=(404,))
async def list_keys(call: Call) -> KeyList:
    found = await call.services.access.keys_of(call.principal, call.path_id("id", "subaccount"))
    return KeyList(keys=[ApiKey.of(key) for key in found])


@endpoints.delete("/v1/subaccounts/{id}/keys/{keyId}", id="keys-revoke", summary="Revoke an API key", errors=(403, 404))
async def revoke_key(call: Call) -> ApiKey:
    """Refuse the key from now on. Idempotent."""
    subaccount_id = call.path_id("id", "subaccount")
    # Before the key's id is read: a key that may not manage accounts is refused whatever it names.
    call.services.access.require_organization(call.principal, subaccount_id)
    return ApiKey.of(
        await call.services.access.revoke_key_of(call.principal, subaccount_id, call.path_id("keyId", "api_key"))
    )


@endpoints.get("/v1/auth/whoami", id="auth-whoami", summary="Get the owner of this key")
async def whoami(call: Call) -> WhoAmI:
    return WhoAmI(
        organization_id=call.scope.organization_id,
        subaccount_id=call.scope.subaccount_id,
        scope="organization" if call.principal.is_organization else "subaccount",
        key_id=call.principal.key_id,
    )
