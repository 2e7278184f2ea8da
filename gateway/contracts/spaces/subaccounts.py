"""/v1/subaccounts and their keys, and /v1/auth/whoami."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime, BeforeValidator, Field

from gateway.contracts.shared.spelling import spelled
from gateway.contracts.spaces.example_values import API_KEY, CREATED, LATER, OPAQUE, ORGANIZATION, SUBACCOUNT
from gateway.core import limits as values
from gateway.core.secret import Secret
from gateway.domain.accounts.access import ApiKey as KeyRecord
from gateway.domain.accounts.access import Subaccount as Record
from gateway.http.cursors import Listing, PageQuery, paged
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import STORABLE, WHOLE, Answer, Body, Metadata, Time, moment_of, optional
from gateway.http.schemas import SchemaOf

endpoints = Endpoints("Accounts")

ShortName = Annotated[str, Field(min_length=1, max_length=200), STORABLE]
Limit = Annotated[int, Field(ge=0, le=2**53 - 1), WHOLE]


def _in_future(given: Any) -> datetime:
    moment = moment_of(given)
    if moment <= datetime.now(UTC):
        raise ValueError("must be in the future")
    return moment


class Limits(Body):
    """`monthlyCreditLimitMicroUsd` is kept for clients that send it; nothing here costs credits."""

    max_active_runs: Limit = optional()
    """Runtimes that may be live at once."""
    max_spaces: Limit = optional()
    """Spaces that may exist."""
    monthly_credit_limit_micro_usd: Limit = optional()
    """Kept for clients that send it; nothing here costs credits."""
    max_profiles: Limit = optional()
    """Browser profiles that may exist."""
    max_profile_bytes: Limit = optional()
    """Bytes in storage of all its browser profiles."""
    max_bytes_per_profile: Limit = optional()
    """Bytes of a browser's files, before compression, that are saved as one profile."""

    def to_domain(self) -> values.Limits:
        return values.Limits(
            self.max_active_runs,
            self.max_spaces,
            self.monthly_credit_limit_micro_usd,
            self.max_profiles,
            self.max_profile_bytes,
            self.max_bytes_per_profile,
        )


class CreateSubaccount(Body):
    """A new tenant of the organization."""

    example: ClassVar = {"name": "tenant", "limits": {"maxActiveRuns": 5, "maxSpaces": 10}}

    name: ShortName
    """Name for people."""
    external_id: ShortName | None = None
    """Your own id of it; unique in the organization."""
    limits: Limits = optional()
    """Its limits; absent ones are the gateway's."""
    metadata: Metadata | None = None
    """Any JSON object of yours, of up to 16384 bytes, returned as it is."""


class UpdateSubaccount(Body):
    """Changes of a subaccount."""

    example: ClassVar = {"name": "renamed", "metadata": {"plan": "trial"}}

    name: ShortName = optional()
    """New name."""
    external_id: ShortName | None = None
    """New id of yours; null removes it."""
    limits: Limits = optional()
    """New limits, as a whole."""
    metadata: Metadata | None = None
    """New metadata of up to 16384 bytes, as a whole; null removes it."""


class Subaccount(Answer):
    """A tenant of the organization, with keys, spaces and limits of its own."""

    example: ClassVar = {
        "id": SUBACCOUNT,
        "name": "tenant",
        "slug": "tenant-1c2b7e02",
        "status": "active",
        "limits": {"maxActiveRuns": 5, "maxSpaces": 10},
        "createdAt": CREATED,
        "updatedAt": CREATED,
        "archivedAt": None,
        "externalId": "customer-1",
        "metadata": {"plan": "trial"},
    }

    id: UUID
    """Id of the subaccount."""
    name: str
    """Name for people."""
    slug: str
    """Short name, made from the name."""
    status: Literal["active", "archived"]
    """`archived`: its keys are refused."""
    limits: Annotated[dict[str, int], SchemaOf(Limits)]
    """Its own limits."""
    created_at: Time
    """When it was created."""
    updated_at: Time
    """When it was last changed."""
    archived_at: Time | None = None
    """When it was archived; null if it was not."""
    external_id: str | None = None
    """Your own id of it."""
    metadata: dict[str, Any] | None = None
    """What was given."""

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
    """Subaccounts of the organization."""

    example: ClassVar = {"subaccounts": [Subaccount.example], "nextCursor": None}

    subaccounts: list[Subaccount]
    """A page of subaccounts, oldest first."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last."""


class CreateKey(Body):
    """A new API key."""

    example: ClassVar = {"name": "production"}

    name: ShortName
    """Name for people."""
    expires_at: Annotated[AwareDatetime, BeforeValidator(_in_future)] | None = None
    """When the key expires, in the future; null or absent: never."""


class ApiKey(Answer):
    """An API key, without its secret."""

    example: ClassVar = {
        "id": API_KEY,
        "name": "production",
        "keyPrefix": "bctrl_7Qm3xR2kVtYb",
        "type": "subaccount",
        "subaccountId": SUBACCOUNT,
        "expiresAt": None,
        "revokedAt": None,
        "lastUsedAt": LATER,
        "createdAt": CREATED,
    }

    id: UUID
    """Id of the key."""
    name: str | None
    """Name for people."""
    key_prefix: str
    """Its beginning, to recognize it by."""
    type: Literal["organization", "subaccount"]
    """Whom it belongs to."""
    subaccount_id: UUID | None
    """The subaccount that it belongs to; null for the organization."""
    expires_at: Time | None
    """When it expires; null: never."""
    revoked_at: Time | None
    """When it was revoked; null if it was not."""
    last_used_at: Time | None
    """When it was last used, to the minute or so; null if never."""
    created_at: Time
    """When it was created."""

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

    example: ClassVar = {"apiKey": {**ApiKey.example, "lastUsedAt": None}, "secret": f"bctrl_7Qm3xR2kVtYb_{OPAQUE}"}

    api_key: ApiKey
    """The new key, without its secret."""
    secret: Secret[str]
    """The key itself, which requests send after `Bearer`; shown in this response only."""


class KeyList(Answer):
    """API keys of a subaccount."""

    example: ClassVar = {"keys": [ApiKey.example], "nextCursor": None}

    keys: list[ApiKey]
    """A page of keys, oldest first."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last."""


class WhoAmI(Answer):
    """Whom an API key belongs to."""

    example: ClassVar = {
        "organizationId": ORGANIZATION,
        "subaccountId": None,
        "scope": "organization",
        "keyId": API_KEY,
    }

    organization_id: UUID
    """The organization."""
    subaccount_id: UUID | None
    """The subaccount; null for a key of the organization."""
    scope: Literal["organization", "subaccount"]
    """What the key can see."""
    key_id: UUID
    """Id of the key."""


@endpoints.post(
    "/v1/subaccounts", id="subaccounts-create", summary="Create a subaccount", errors=(403, 409), creates=True
)
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
async def listed(call: Call, query: PageQuery) -> SubaccountList:
    """The organization's subaccounts; a subaccount's key sees its own alone."""
    listing = Listing("subaccounts", query)
    found = await call.services.access.subaccounts(call.scope, query.part(listing))
    page, next_cursor = paged(found, query.limit, listing)
    return SubaccountList(subaccounts=[Subaccount.of(record) for record in page], next_cursor=next_cursor)


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
async def list_keys(call: Call, query: PageQuery) -> KeyList:
    """Also those that are revoked or have expired."""
    subaccount_id = call.path_id("id", "subaccount")
    listing = Listing("keys", query, subaccount_id)
    found = await call.services.access.keys_of(call.principal, subaccount_id, query.part(listing))
    page, next_cursor = paged(found, query.limit, listing)
    return KeyList(keys=[ApiKey.of(key) for key in page], next_cursor=next_cursor)


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
