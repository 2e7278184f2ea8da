"""/v1/ai-credentials: the AI connections of another generation of the API, by ids that their callers chose."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, JsonValue

from gateway.contracts.shared.spelling import camel, fields_below
from gateway.contracts.workspaces.example_values import AI_CREDENTIAL, CREATED
from gateway.core.secret import Secret
from gateway.domain.ai.connections import AiConnection as Record
from gateway.domain.ai.connections import AiConnectionRequest, Changes
from gateway.http.cursors import Listing, WholeListQuery, following_page
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import STORABLE, Answer, Body, Shown, Text, Time, optional

endpoints = Endpoints("AI credentials")

Provider = Literal["openai", "anthropic", "google", "openai-compatible"]
CredentialId = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
Label = Annotated[str, Field(min_length=1, max_length=200), STORABLE]
ApiKey = Secret[Annotated[str, Field(min_length=1, max_length=4096), STORABLE]]
Model = Annotated[str, Field(min_length=1, max_length=200), STORABLE]
BaseUrl = Annotated[str, Field(min_length=1, max_length=2048, pattern=r"^https?://[!-~]+$"), Shown(format="base-url")]
_MISMATCHES: list[JsonValue] = [
    {"required": ["baseUrl"], "properties": {"provider": {"enum": ["openai", "anthropic", "google"]}}},
    {"not": {"required": ["baseUrl"]}, "properties": {"provider": {"const": "openai-compatible"}}},
]


class CreateAiCredential(Body):
    """Access to an AI provider, under an id of your choice."""

    model_config = ConfigDict(json_schema_extra={"not": {"anyOf": _MISMATCHES}})

    example: ClassVar = {
        "id": "our-models",
        "label": "Our own models",
        "provider": "openai",
        "apiKey": "sk-example",
        "defaultModel": "gpt-5",
    }

    id: CredentialId
    """Id of your choice, unique within its owner: a letter, and up to 63 letters, digits, `_` and `-`."""
    label: Label
    """Name for people."""
    provider: Provider
    """The provider that the key belongs to."""
    api_key: ApiKey
    """The provider's API key. It is stored encrypted and never returned."""
    base_url: BaseUrl = optional()
    """Where the API of an `openai-compatible` provider is, which needs it; other providers have none. It must be
    one that pages may reach."""
    default_model: Model = optional()
    """Model to use where a call names none."""
    enabled: bool = True
    """Whether it may be used."""
    subaccount_id: Text = optional()
    """The subaccount that owns it; only for a key of the organization."""


class UpdateAiCredential(Body):
    """What is given is changed. With another `provider` or `baseUrl` goes an `apiKey`: a stored one is sent to no other
    server than the one that it was given for (409 `ai_credential.key_required`)."""

    example: ClassVar = {"defaultModel": "gpt-5", "enabled": False}

    label: Label = optional()
    """New name."""
    provider: Provider = optional()
    """New provider."""
    api_key: ApiKey = optional()
    """New key, in place of the stored one."""
    base_url: BaseUrl | None = None
    """New address of the API; null removes it."""
    default_model: Model | None = None
    """New default model; null removes it."""
    enabled: bool = optional()
    """Whether it may be used."""


class AiCredential(Answer):
    """Access to an AI provider, without its key."""

    example: ClassVar = {
        "id": "our-models",
        "label": "Our own models",
        "provider": "openai",
        "enabled": True,
        "createdAt": CREATED,
        "updatedAt": CREATED,
        "baseUrl": None,
        "defaultModel": "gpt-5",
        "connectionId": AI_CREDENTIAL,
        "subaccountId": None,
    }

    id: CredentialId
    """The id that was chosen; of one that was made as an AI connection `ai-` and its UUID."""
    label: Annotated[str, Field(min_length=1, max_length=200)]
    """Name for people."""
    provider: Provider
    """The provider that the key belongs to."""
    enabled: bool
    """Whether it may be used."""
    created_at: Time
    """When it was created."""
    updated_at: Time
    """When it was last changed."""
    base_url: Annotated[str, Shown(format="uri")] | None = None
    """Where the API of an `openai-compatible` provider is."""
    default_model: Annotated[str, Field(min_length=1)] | None = None
    """Model to use where a call names none."""
    connection_id: UUID
    """Its id as an AI connection, which is an id here as well."""
    subaccount_id: UUID | None = None
    """The subaccount that owns it; null for the organization."""

    @classmethod
    def of(cls, record: Record) -> AiCredential:
        return cls(
            id=record.slug,
            label=record.label,
            provider=record.provider,
            enabled=record.enabled,
            created_at=record.created_at,
            updated_at=record.updated_at,
            base_url=record.base_url,
            default_model=record.default_model,
            connection_id=record.id,
            subaccount_id=record.subaccount_id,
        )


class AiCredentialList(Answer):
    """AI credentials that the API key can see."""

    example: ClassVar = {"credentials": [AiCredential.example]}

    credentials: list[AiCredential]
    """AI credentials, oldest first."""
    next_cursor: str = optional()
    """The `cursor` of the next page; absent if there is none."""


class AiCredentialDeleted(Answer):
    """Confirms that a credential was deleted."""

    example: ClassVar = {"ok": True}

    ok: Literal[True]
    """Always true."""


class AiCredentialTest(Answer):
    """The result of a test call to the provider."""

    example: ClassVar = {"ok": True, "provider": "openai", "message": "OpenAI accepted the key and listed 2 models."}

    ok: bool
    """Whether the provider accepted the key."""
    provider: Provider
    """The provider that was called."""
    message: str = Field(min_length=1)
    """The result in one sentence for people."""


@endpoints.post(
    "/v1/ai-credentials", id="ai-credentials-create", summary="Create an AI credential", errors=(404, 409), creates=True
)
async def create(call: Call, body: CreateAiCredential) -> AiCredential:
    """Save access to an AI provider. The key is stored encrypted and never returned."""
    request = AiConnectionRequest(
        body.label, body.provider, body.enabled, body.default_model, slug=body.id, base_url=body.base_url
    )
    owner = await call.owner(body.subaccount_id)
    with fields_below("", _field):
        return AiCredential.of(await call.services.ai_connections.create(owner, body.api_key, request))


@endpoints.get("/v1/ai-credentials", id="ai-credentials-list", summary="List AI credentials")
async def listed(call: Call, query: WholeListQuery) -> AiCredentialList:
    """All that the key can see, oldest first."""
    listing = Listing("ai-credentials", query)
    found = await call.services.ai_connections.listed(call.scope, query.part(listing))
    page, following = following_page(found, query, listing)
    return AiCredentialList(credentials=[AiCredential.of(record) for record in page], **following)


@endpoints.get("/v1/ai-credentials/{id}", id="ai-credentials-get", summary="Get an AI credential", errors=(404, 409))
async def get(call: Call) -> AiCredential:
    return AiCredential.of(await call.services.ai_connections.get(call.scope, await _id(call)))


@endpoints.patch(
    "/v1/ai-credentials/{id}", id="ai-credentials-update", summary="Update an AI credential", errors=(404, 409)
)
async def update(call: Call, body: UpdateAiCredential) -> AiCredential:
    """Change what is given."""
    changes: Changes = body.model_dump(include=body.model_fields_set)  # type: ignore[assignment]
    with fields_below("", _field):
        return AiCredential.of(await call.services.ai_connections.change(call.scope, await _id(call), **changes))


@endpoints.delete(
    "/v1/ai-credentials/{id}", id="ai-credentials-delete", summary="Delete an AI credential", errors=(404, 409)
)
async def delete(call: Call) -> AiCredentialDeleted:
    """Delete the credential and its stored key."""
    await call.services.ai_connections.remove(call.scope, await _id(call))
    return AiCredentialDeleted(ok=True)


@endpoints.post(
    "/v1/ai-credentials/{id}/test", id="ai-credentials-test", summary="Test an AI credential", errors=(404, 409)
)
async def test(call: Call) -> AiCredentialTest:
    """Call the provider with the stored key. The answer is 200 also when the provider refuses; then `ok` is false."""
    tested = await call.services.ai_connections.test(call.scope, await _id(call))
    return AiCredentialTest(ok=tested.verdict.ok, provider=tested.connection.provider, message=tested.verdict.message)


async def _id(call: Call) -> UUID:
    return await call.services.ai_connections.id_of(call.scope, call.request.path_params["id"])


def _field(field: str) -> str:
    return "id" if field == "slug" else camel(field)
