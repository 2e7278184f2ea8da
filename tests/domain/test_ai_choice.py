"""Which model an agent calls and with whose key; and what becomes of its calls when that key is taken away."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio

from gateway.app import Gateway
from gateway.core.errors import GatewayError
from gateway.core.ids import new_id
from gateway.core.mounts import AiDefault, AiMount, Mounts
from gateway.core.scope import Scope
from gateway.domain.ai.choice import AiChoice, AiChoices, AiRequest
from gateway.domain.ai.connections import AiConnection, AiConnectionRequest
from gateway.domain.secrets import KeySource, SecretStore
from gateway.egress.outbound import Outbound
from gateway.egress.proxy import EgressProxy
from gateway.relay.relay import Relay
from gateway.settings import Settings
from gateway.store.database import Database
from tests.support.fake_providers import KEYS
from tests.support.model_server import COMPATIBLE_KEY, ModelServer, Text
from tests.support.relay import CALLS, MODEL
from tests.support.tenants import organization_with_subaccount

OPEN = Mounts(ai=AiMount())
PLATFORM_KEY = "sk-of-the-operator-0123456789"


class Tenant:
    """An organization with a subaccount, and choices in their names."""

    def __init__(self, gateway: Gateway, choices: AiChoices, organization: Scope, subaccount: Scope) -> None:
        self.connections = gateway.services.ai_connections
        self.choices = choices
        self.organization = organization
        self.subaccount = subaccount

    async def connected(self, scope: Scope | None = None, label: str = "main", **changes: Any) -> AiConnection:
        given = {"provider": "openai", "default_model": MODEL, "key": KEYS["openai"], **changes}
        key = given.pop("key")
        return await self.connections.create(scope or self.organization, key, AiConnectionRequest(label, **given))

    async def choose(
        self,
        request: AiRequest,
        mounts: Mounts = OPEN,
        inner: Mounts | None = None,
        scope: Scope | None = None,
        tool: str = "stagehand",
    ) -> AiChoice:
        return await self.choices.choose(scope or self.organization, mounts, inner, tool, request)

    async def refused(self, *args: Any, **kwargs: Any) -> str:
        """The code of a choice that can't be made."""
        with pytest.raises(GatewayError) as raised:
            await self.choose(*args, **kwargs)
        errors = raised.value.details.get("errors")
        return f"{errors[0]['field']}: {errors[0]['code']}" if errors else raised.value.code


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    (tmp_path / "platform").write_text(f"{PLATFORM_KEY}\n")
    options = {
        "platform_ai_provider": "anthropic",
        "platform_ai_models": ("claude-1", "claude-2"),
        "platform_ai_api_key_file": tmp_path / "platform",
    }
    return settings.model_copy(update=options)


@pytest_asyncio.fixture
async def tenant(gateway: Gateway, database: Database, keys: KeySource, settings: Settings) -> Tenant:
    choices = AiChoices(database, SecretStore(keys), Outbound(EgressProxy(settings)), settings)
    return Tenant(gateway, choices, *await organization_with_subaccount(database))


# Saved ones


async def test_a_saved_connection_is_named_by_its_id_slug_or_label(tenant: Tenant) -> None:
    made = await tenant.connected(slug="slug")
    for name in (str(made.id), "slug", "main"):
        choice = await tenant.choose(AiRequest(connection=name))
        assert (choice.source, choice.connection_id, choice.owner) == ("saved", made.id, tenant.organization)
        assert (choice.target.provider, choice.target.model) == ("openai", MODEL)
        assert (choice.target.base_url, choice.target.guarded) == ("https://api.openai.com/v1", False)
        assert await tenant.choices.key(choice).open() == KEYS["openai"]


async def test_the_model_is_that_of_the_request_the_default_or_the_connection(tenant: Tenant) -> None:
    await tenant.connected()
    mounts = Mounts(ai=AiMount(defaults={"stagehand": AiDefault("main", "of-the-default")}))
    assert (await tenant.choose(AiRequest(model="of-the-request"), mounts)).target.model == "of-the-request"
    assert (await tenant.choose(AiRequest(), mounts)).target.model == "of-the-default"
    assert (await tenant.choose(AiRequest(connection="main"), mounts)).target.model == MODEL
    await tenant.connected(label="bare", default_model=None)
    assert await tenant.refused(AiRequest(connection="bare")) == "model: field.missing"


async def test_defaults_are_those_of_the_tool_or_of_a_provider(tenant: Tenant) -> None:
    by_label = {
        label: (await tenant.connected(label=label, provider=provider)).id
        for label, provider in (("one", "openai"), ("two", "anthropic"), ("three", "google"))
    }
    providers = {"openai": AiDefault("one"), "anthropic": AiDefault("two")}
    both = Mounts(ai=AiMount(defaults={"stagehand": AiDefault("three")}, provider_defaults=providers))
    assert (await tenant.choose(AiRequest(), both)).connection_id == by_label["three"]
    assert (await tenant.choose(AiRequest(provider="anthropic"), both)).connection_id == by_label["two"]
    assert await tenant.refused(AiRequest(), both, tool="browser_use") == "ai_connection.required"
    only = Mounts(ai=AiMount(provider_defaults={"openai": AiDefault("one")}))
    assert (await tenant.choose(AiRequest(), only, tool="browser_use")).connection_id == by_label["one"]
    assert await tenant.refused(AiRequest(connection="one", provider="google")) == "provider: field.invalid"


async def test_mounts_decide_which_may_be_used(tenant: Tenant) -> None:
    allowed, other = await tenant.connected(), await tenant.connected(label="other")
    listed = Mounts(ai=AiMount(("main",)))
    assert (await tenant.choose(AiRequest(connection=str(allowed.id)), listed)).connection_id == allowed.id
    forbidden = AiRequest(connection=str(other.id))
    assert await tenant.refused(forbidden, listed) == "ai_connection.forbidden"
    assert await tenant.refused(forbidden, Mounts()) == "ai_connection.forbidden"
    assert await tenant.refused(forbidden, Mounts(ai=AiMount(()))) == "ai_connection.forbidden"
    # A runtime narrows its space, and widens nothing.
    assert await tenant.refused(forbidden, OPEN, listed) == "ai_connection.forbidden"
    assert await tenant.refused(forbidden, listed, Mounts(ai=AiMount(("other",)))) == "ai_connection.forbidden"
    gone = Mounts(ai=AiMount(("main",), {"stagehand": AiDefault("other")}))
    assert await tenant.refused(AiRequest(source="saved"), listed, gone) == "ai_connection.required"


async def test_foreign_and_unknown_ones_are_not_found_alike(tenant: Tenant, database: Database) -> None:
    elsewhere, _ = await organization_with_subaccount(database)
    foreign = await tenant.connected(elsewhere)
    of_subaccount = await tenant.connected(tenant.subaccount, label="inner")
    for name in (str(foreign.id), str(new_id()), "no such label", str(of_subaccount.id)):
        assert await tenant.refused(AiRequest(connection=name)) == "ai_connection.not_found"
    mounts = Mounts(ai=AiMount((str(foreign.id),)))
    assert await tenant.refused(AiRequest(connection=str(foreign.id)), mounts) == "ai_connection.not_found"


async def test_a_subaccount_uses_the_organizations_only_where_its_space_was_lent_it(tenant: Tenant) -> None:
    lent = await tenant.connected()
    request = AiRequest(connection=str(lent.id))
    inner = tenant.subaccount
    assert await tenant.refused(request, scope=inner) == "ai_connection.not_found"
    # A runtime's mounts, which the subaccount itself writes, lend nothing.
    assert await tenant.refused(request, OPEN, Mounts(ai=AiMount(("main",))), inner) == "ai_connection.not_found"
    for mount in (AiMount(("main",)), AiMount(defaults={"browser_use": AiDefault(str(lent.id))})):
        choice = await tenant.choose(request, Mounts(ai=mount), scope=inner)
        assert (choice.connection_id, choice.owner) == (lent.id, tenant.organization)
        assert await tenant.choices.key(choice).open() == KEYS["openai"]
    # Its own of the same label comes first, and takes the place of the lent one in the mounts.
    own = await tenant.connected(inner)
    named = Mounts(ai=AiMount(("main",)))
    assert (await tenant.choose(AiRequest(connection="main"), named, scope=inner)).connection_id == own.id
    assert await tenant.refused(request, named, scope=inner) == "ai_connection.not_found"


async def test_labels_that_are_alike_are_ambiguous(tenant: Tenant) -> None:
    one, _ = await tenant.connected(), await tenant.connected()
    assert await tenant.refused(AiRequest(connection="main")) == "ai_connection.ambiguous"
    assert (await tenant.choose(AiRequest(connection=str(one.id)))).connection_id == one.id


async def test_disabled_ones_and_those_without_a_key_are_refused(tenant: Tenant) -> None:
    await tenant.connected(label="off", enabled=False)
    await tenant.connected(label="empty", key=None)
    assert await tenant.refused(AiRequest(connection="off")) == "ai_connection.disabled"
    assert await tenant.refused(AiRequest(connection="empty")) == "ai_connection.no_key"


# The operator's and the request's own


async def test_the_operators_models(tenant: Tenant, tmp_path: Path) -> None:
    for request in (AiRequest(source="platform"), AiRequest()):
        choice = await tenant.choose(request, Mounts())
        assert (choice.source, choice.target.provider, choice.target.model) == ("platform", "anthropic", "claude-1")
    assert (await tenant.choose(AiRequest(source="platform", model="claude-2"))).target.model == "claude-2"
    assert await tenant.refused(AiRequest(source="platform", model="claude-3")) == "ai_connection.model_forbidden"
    assert await tenant.refused(AiRequest(source="platform", provider="openai")) == "provider: field.invalid"
    key = tenant.choices.key(choice)
    assert await key.open() == PLATFORM_KEY
    (tmp_path / "platform").write_text("sk-rotated")
    assert await key.open() == "sk-rotated"
    for content in (b"", b"two words", b"\xff"):
        (tmp_path / "platform").write_bytes(content)
        with pytest.raises(GatewayError) as raised:
            await key.open()
        assert raised.value.code == "ai_connection.platform_unavailable"


async def test_without_the_operators_models_one_must_be_named(
    tenant: Tenant, database: Database, keys: KeySource
) -> None:
    plain = Settings(data_dir=Path("/nonexistent"))
    tenant.choices = AiChoices(database, SecretStore(keys), Outbound(EgressProxy(plain)), plain)
    assert await tenant.refused(AiRequest()) == "ai_connection.required"
    assert await tenant.refused(AiRequest(source="platform")) == "ai_connection.platform_off"


async def test_a_key_in_the_request(tenant: Tenant) -> None:
    asks = {"provider": "google", "model": "gemini", "api_key": KEYS["google"]}
    choice = await tenant.choose(AiRequest(**asks), Mounts())  # type: ignore[arg-type]
    assert (choice.source, choice.target.provider, choice.target.model) == ("inline", "google", "gemini")
    assert await tenant.choices.key(choice).open() == KEYS["google"]
    assert KEYS["google"] not in repr(choice) + repr(AiRequest(**asks))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"api_key": None}, "api_key: field.missing"),
        ({"api_key": "two words"}, "api_key: field.invalid"),
        ({"api_key": ""}, "api_key: field.invalid"),
        ({"connection": "main"}, "api_key: field.invalid"),
        ({"source": "platform"}, "api_key: field.invalid"),
        ({"provider": None}, "provider: field.missing"),
        ({"model": None}, "model: field.missing"),
        ({"base_url": "https://models.example"}, "base_url: field.invalid"),
        ({"provider": "openai-compatible"}, "base_url: field.invalid"),
        ({"provider": "openai-compatible", "base_url": "http://10.0.0.1/v1"}, "base_url: egress.private_address"),
    ],
)
async def test_a_key_in_the_request_that_can_not_be_used(tenant: Tenant, changes: dict[str, Any], refusal: str) -> None:
    asks = {"source": "inline", "provider": "openai", "model": "m", "api_key": "sk-inline-0123456789", **changes}
    assert await tenant.refused(AiRequest(**asks)) == refusal


# Through the relay


@pytest_asyncio.fixture
async def call(tenant: Tenant, gateway: Gateway, database: Database, keys: KeySource) -> Any:
    """Calls through one address of a compatible connection; `changed` changes that connection."""
    with ModelServer() as models:
        models.rules = [lambda asked: Text("Hello")]
        settings = Settings(data_dir=Path("/nonexistent"), egress_allow=("127.0.0.1",))
        outbound = Outbound(EgressProxy(settings))
        gateway.outbound.rules = outbound.rules
        tenant.choices = AiChoices(database, SecretStore(keys), outbound, settings)
        base_url = f"{models.base_url('openai-compatible')}/"
        made = await tenant.connected(provider="openai-compatible", base_url=base_url, key=COMPATIBLE_KEY)
        choice = await tenant.choose(AiRequest(connection="main"))
        assert choice.target.guarded
        relay = Relay(settings, outbound)
        endpoint = await relay.open(choice.target, tenant.choices.key(choice))

        async def call() -> tuple[int, str]:
            path, body = CALLS["openai-compatible"]
            headers = {"authorization": f"Bearer {endpoint.address.token}"}
            async with httpx.AsyncClient(base_url=endpoint.address.base_url, headers=headers, timeout=60) as client:
                answer = await client.post(path, json=body)
            return answer.status_code, answer.json().get("error", {}).get("code", "")

        yield call, made.id, models
        await relay.aclose()


async def test_what_happens_to_a_connection_meanwhile_counts_from_the_next_call_on(tenant: Tenant, call: Any) -> None:
    made: UUID
    calls, made, models = call
    owner = tenant.organization
    assert await calls() == (200, "")
    await tenant.connections.change(owner, made, enabled=False)
    assert await calls() == (401, "ai_connection.disabled")
    await tenant.connections.change(owner, made, enabled=True)
    models.keys.add("sk-the-next-key")
    await tenant.connections.change(owner, made, api_key="sk-the-next-key")
    assert await calls() == (200, "")
    assert [asked.key for asked in models.seen] == [COMPATIBLE_KEY, "sk-the-next-key"]
    # Neither the new key to the old server, nor a call to the new one.
    elsewhere = f"http://127.0.0.1:{models.port}/elsewhere"
    await tenant.connections.change(owner, made, base_url=elsewhere, api_key="sk-of-elsewhere")
    assert await calls() == (401, "ai_connection.changed")
    await tenant.connections.change(owner, made, provider="openai", base_url=None, api_key="sk-of-openai")
    assert await calls() == (401, "ai_connection.changed")
    await tenant.connections.change(owner, made, api_key=None)
    assert await calls() == (401, "ai_connection.no_key")
    await tenant.connections.remove(owner, made)
    assert await calls() == (401, "ai_connection.deleted")
    assert len(models.seen) == 2
