"""/v1/ai-connections."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from gateway.contracts.spaces.deleted import Deleted
from gateway.contracts.spaces.example_values import AI_CONNECTION, CREATED
from gateway.core.secret import Secret
from gateway.domain.ai.connections import AiConnection as Record
from gateway.domain.ai.connections import AiConnectionRequest
from gateway.http.cursors import Listing, PageQuery, paged
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import STORABLE, Answer, Body, Text, Time, optional

endpoints = Endpoints("AI connections")

Provider = Literal["openai", "anthropic", "google"]
# Connections to other ones are not in this contract.
_PROVIDERS: tuple[Provider, ...] = get_args(Provider)
Label = Annotated[str, Field(min_length=1, max_length=200), STORABLE]
ApiKey = Secret[Annotated[str, Field(min_length=1, max_length=4096), STORABLE]]
Model = Annotated[str, Field(min_length=1, max_length=200), STORABLE]


class CreateAiConnection(Body):
    """Access to an AI provider."""

    example: ClassVar = {"label": "my key", "provider": "openai", "apiKey": "sk-example", "defaultModel": "gpt-5"}

    label: Label
    """Name for people; mounts may refer to it."""
    provider: Provider
    """The provider that the key belongs to."""
    api_key: ApiKey = optional()
    """The provider's API key. It is stored encrypted and never returned."""
    default_model: Model = optional()
    """Model to use where a call names none."""
    enabled: bool = True
    """Whether it may be used."""
    subaccount_id: Text = optional()
    """The subaccount that owns it; only for a key of the organization."""


class UpdateAiConnection(Body):
    """`apiKey` replaces the stored key; `apiKey: null` removes it."""

    example: ClassVar = {"label": "renamed", "enabled": True}

    label: Label = optional()
    """New name."""
    api_key: ApiKey | None = None
    """New key; null removes the stored one."""
    default_model: Model | None = None
    """New default model; null removes it."""
    enabled: bool = optional()
    """Whether it may be used."""


class AiConnection(Answer):
    """Access to an AI provider, without its key."""

    example: ClassVar = {
        "id": AI_CONNECTION,
        "label": "my key",
        "provider": "openai",
        "enabled": True,
        "hasStoredKey": True,
        "createdAt": CREATED,
        "updatedAt": CREATED,
        "defaultModel": "gpt-5",
        "subaccountId": None,
    }

    id: str
    """Id of the AI connection, a UUID."""
    label: str
    """Name for people."""
    provider: Provider
    """The provider that the key belongs to."""
    enabled: bool
    """Whether it may be used."""
    has_stored_key: bool
    """Whether a key is stored; the key itself is never returned."""
    created_at: Time
    """When it was created."""
    updated_at: Time
    """When it was last changed."""
    default_model: str | None = None
    """Model to use where a call names none."""
    subaccount_id: str | None = None
    """The subaccount that owns it, a UUID; null for the organization."""

    @classmethod
    def of(cls, record: Record) -> AiConnection:
        return cls(
            id=str(record.id),
            label=record.label,
            provider=record.provider,
            enabled=record.enabled,
            has_stored_key=record.has_stored_key,
            created_at=record.created_at,
            updated_at=record.updated_at,
            default_model=record.default_model,
            subaccount_id=str(record.subaccount_id) if record.subaccount_id else None,
        )


class AiConnectionList(Answer):
    """AI connections that the API key can see."""

    example: ClassVar = {"aiConnections": [AiConnection.example], "nextCursor": None}

    ai_connections: list[AiConnection]
    """A page of AI connections, oldest first."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last."""


class AiConnectionTest(Answer):
    """The result of a test call to the provider."""

    example: ClassVar = {"ok": True, "provider": "openai", "message": "The key works."}

    ok: bool
    """Whether the provider accepted the key."""
    provider: Provider
    """The provider that was called."""
    message: str = Field(min_length=1)
    """The result in one sentence for people."""


@endpoints.post("/v1/ai-connections", id="create", summary="Create an AI connection", errors=(404, 409), creates=True)
async def create(call: Call, body: CreateAiConnection) -> AiConnection:
    """Save access to an AI provider. The key is stored encrypted and never returned; see `hasStoredKey`."""
    record = await call.services.ai_connections.create(
        await call.owner(body.subaccount_id),
        body.api_key,
        AiConnectionRequest(body.label, body.provider, body.enabled, body.default_model),
    )
    return AiConnection.of(record)


@endpoints.get("/v1/ai-connections", id="ai-connections-list", summary="List AI connections")
async def listed(call: Call, query: PageQuery) -> AiConnectionList:
    """All that the key can see, oldest first."""
    listing = Listing("ai-connections", query)
    found = await call.services.ai_connections.listed(call.scope, query.part(listing), providers=_PROVIDERS)
    page, next_cursor = paged(found, query.limit, listing)
    return AiConnectionList(ai_connections=[AiConnection.of(record) for record in page], next_cursor=next_cursor)


@endpoints.get("/v1/ai-connections/{id}", id="ai-connections-get", summary="Get an AI connection", errors=(404,))
async def get(call: Call) -> AiConnection:
    connection_id = call.path_id("id", "ai_connection")
    return AiConnection.of(await call.services.ai_connections.get(call.scope, connection_id, providers=_PROVIDERS))


@endpoints.patch(
    "/v1/ai-connections/{id}", id="ai-connections-update", summary="Update an AI connection", errors=(404,)
)
async def update(call: Call, body: UpdateAiConnection) -> AiConnection:
    """Change what is given. `apiKey` replaces the stored key, `apiKey: null` removes it."""
    changes = body.model_dump(include=body.model_fields_set)
    record = await call.services.ai_connections.change(
        call.scope, call.path_id("id", "ai_connection"), providers=_PROVIDERS, **changes
    )
    return AiConnection.of(record)


@endpoints.delete(
    "/v1/ai-connections/{id}", id="ai-connections-delete", summary="Delete an AI connection", errors=(404,)
)
async def delete(call: Call) -> Deleted:
    """Delete the connection and its stored key."""
    connection_id = call.path_id("id", "ai_connection")
    await call.services.ai_connections.remove(call.scope, connection_id, providers=_PROVIDERS)
    return Deleted(id=connection_id, deleted=True)


@endpoints.post(
    "/v1/ai-connections/{id}/test", id="ai-connections-test", summary="Test an AI connection", errors=(404,)
)
async def test(call: Call) -> AiConnectionTest:
    """Call the provider with the stored key. The answer is 200 also when the provider refuses; then `ok` is false."""
    connection_id = call.path_id("id", "ai_connection")
    tested = await call.services.ai_connections.test(call.scope, connection_id, providers=_PROVIDERS)
    return AiConnectionTest(
        ok=tested.verdict.ok,
        provider=tested.connection.provider,
        message=tested.verdict.message,
    )
