"""Which model an agent calls, and with whose key: one of the operator's, a saved connection, or one in the request.

A choice is made once, when the agent's work is asked for; the key is opened for each of its calls (`ChosenKey`), so
that what is disabled, deleted or changed meanwhile ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, cast
from uuid import UUID

from gateway.core.ai_providers import ProviderName, unsendable
from gateway.core.errors import Conflict, Forbidden, NotFound, NotSupported, RequestInvalid, Unavailable, invalid_field
from gateway.core.ids import not_found
from gateway.core.mounts import AiDefault, AiMount, Mounts, effective
from gateway.core.scope import Scope
from gateway.core.secret import remember
from gateway.domain.ai.base_urls import check_allowed, mismatch
from gateway.domain.ai.connections import key_owner
from gateway.domain.secrets import SecretStore
from gateway.egress.outbound import Outbound
from gateway.relay.relay import Target
from gateway.settings import ProviderSettings
from gateway.store import ai_connections
from gateway.store.ai_connections import AiConnection
from gateway.store.database import Database

__all__ = ["AiChoice", "AiChoices", "AiRequest", "ChosenKey"]

Source = Literal["platform", "saved", "inline"]


@dataclass(frozen=True, slots=True)
class AiRequest:
    """What a caller asked for, all of it optional. `connection`: the id, slug or label of a saved one. `provider` says
    which of the mounts' defaults is meant, or whose the `api_key` is; a compatible one has a `base_url` too."""

    source: Source | None = None
    connection: str | None = None
    provider: ProviderName | None = None
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None


@dataclass(frozen=True, slots=True)
class AiChoice:
    """What an agent calls. `connection_id` and `owner` are those of a saved connection. `api_key` is that of the
    request, which is kept in memory for as long as the agent runs, and nowhere else."""

    source: Source
    target: Target
    connection_id: UUID | None = None
    owner: Scope | None = None
    api_key: str | None = field(default=None, repr=False)


class AiChoices:
    def __init__(
        self, database: Database, secrets: SecretStore, outbound: Outbound, settings: ProviderSettings
    ) -> None:
        self._database = database
        self._secrets = secrets
        self._outbound = outbound
        self._settings = settings

    async def choose(
        self, owner: Scope, mounts: Mounts, inner: Mounts | None, tool: str, request: AiRequest
    ) -> AiChoice:
        """`owner` and `mounts` are those of the space, `inner` the runtime's, which narrow them. `tool`: as the mounts'
        defaults have it (`stagehand`, `browser_use`).

        Raises RequestInvalid, Forbidden, NotFound, Conflict, NotSupported, each with a code of its own.
        """
        if request.api_key is not None or request.source == "inline":
            return await self._inline(request)
        if request.source == "platform":
            return self._platform(request)
        return await self._saved(owner, mounts, inner, tool, request)

    def key(self, choice: AiChoice) -> ChosenKey:
        return ChosenKey(choice, self._database, self._secrets, self._settings)

    async def _inline(self, request: AiRequest) -> AiChoice:
        if request.api_key is None:
            raise invalid_field("api_key", "It is missing", code="field.missing")
        remember((request.api_key,))
        if request.connection is not None or request.source not in (None, "inline"):
            raise invalid_field("api_key", "It excludes a saved connection and the operator's own key")
        if (reason := unsendable(request.api_key)) is not None:
            raise invalid_field("api_key", reason.removesuffix("."))
        if request.provider is None:
            raise invalid_field("provider", "It is missing: whose key is this", code="field.missing")
        if (wrong := mismatch(request.provider, request.base_url)) is not None:
            raise invalid_field("base_url", wrong, request.base_url)
        await check_allowed(self._outbound, request.base_url)
        target = self._target(request.provider, _model(request.model), request.base_url)
        return AiChoice("inline", target, api_key=request.api_key)

    def _platform(self, request: AiRequest) -> AiChoice:
        settings = self._settings
        provider = settings.platform_ai_provider
        if provider is None:
            raise NotSupported(
                "This gateway has no key of its own for agents; name an AI connection.", "ai_connection.platform_off"
            )
        if request.provider not in (None, provider):
            raise invalid_field("provider", f"The operator's own key is one of {provider!r}", request.provider)
        model = request.model or settings.platform_ai_models[0]
        if model not in settings.platform_ai_models:
            raise Forbidden(
                f"The operator's own key is for {', '.join(settings.platform_ai_models)}.",
                "ai_connection.model_forbidden",
                details={"models": list(settings.platform_ai_models)},
            )
        base_url = settings.platform_ai_base_url or settings.base_url_of(provider)
        assert base_url is not None
        return AiChoice("platform", Target(provider, model, base_url))

    async def _saved(
        self, owner: Scope, mounts: Mounts, inner: Mounts | None, tool: str, request: AiRequest
    ) -> AiChoice:
        mount = effective(mounts, inner).ai or AiMount(())
        default = _default(mount, tool, request) if request.connection is None else AiDefault(request.connection)
        if default is None:
            if request.source is None and self._settings.platform_ai_provider is not None:
                return self._platform(request)
            raise RequestInvalid(
                "No AI connection is named, and the mounts have no default for this agent.", "ai_connection.required"
            )
        lent = mounts.ai or AiMount(())
        names = {default.connection, *(name for each in (mount, lent) for _, name in each.connections())}
        async with self._database.connect() as connection:
            found = await ai_connections.named(connection, owner, names)
        named = _Named(owner, found)
        chosen = named.one(default.connection)
        # One of the organization's belongs to a subaccount's space only if the space's own mounts lend it: a
        # runtime's are written by any caller that may launch one.
        if chosen.subaccount_id != owner.subaccount_id and chosen.id not in named.ids(
            [name for _, name in lent.connections()]
        ):
            raise not_found("ai_connection", default.connection)
        if mount.allow_connections is not None and chosen.id not in named.ids(mount.allow_connections):
            raise Forbidden("The mounts do not allow this AI connection.", "ai_connection.forbidden")
        _check_usable(chosen, has_key=chosen.has_stored_key)
        if request.provider not in (None, chosen.provider):
            raise invalid_field("provider", f"This AI connection is one of {chosen.provider!r}", request.provider)
        model = _model(request.model or default.model or chosen.default_model)
        target = self._target(cast(ProviderName, chosen.provider), model, chosen.base_url)
        return AiChoice("saved", target, chosen.id, chosen.owner)

    def _target(self, provider: ProviderName, model: str, base_url: str | None) -> Target:
        operators = self._settings.base_url_of(provider)
        if operators is not None:
            return Target(provider, model, operators)
        assert base_url is not None
        return Target(provider, model, base_url.rstrip("/"), guarded=True)


class ChosenKey:
    """The key of a choice, opened for each call (`gateway.relay.relay.Keys`)."""

    def __init__(self, choice: AiChoice, database: Database, secrets: SecretStore, settings: ProviderSettings) -> None:
        self._choice = choice
        self._database = database
        self._secrets = secrets
        self._settings = settings

    async def open(self) -> str | None:
        """Raises NotFound (`ai_connection.deleted`), Conflict (disabled, without a key, or of another server now),
        Unavailable."""
        if self._choice.source == "inline":
            return self._choice.api_key
        return await (self._operators() if self._choice.source == "platform" else self._saved())

    async def _operators(self) -> str:
        file = self._settings.platform_ai_api_key_file
        if file is None:
            assert self._settings.platform_ai_api_key is not None
            return self._settings.platform_ai_api_key
        try:
            key = (await asyncio.to_thread(file.read_text)).strip()
        except (OSError, UnicodeDecodeError):
            key = ""
        if unsendable(key) is not None:
            raise Unavailable("The operator's own key can't be read.", "ai_connection.platform_unavailable")
        return key

    async def _saved(self) -> str:
        target, connection_id, owner = self._choice.target, self._choice.connection_id, self._choice.owner
        assert connection_id is not None
        assert owner is not None
        async with self._database.connect() as connection:
            row = await ai_connections.with_key(connection, owner, connection_id)
        if row is None:
            raise NotFound("The AI connection of this agent was deleted.", "ai_connection.deleted")
        found, sealed = row
        _check_usable(found, has_key=sealed is not None)
        assert sealed is not None
        # A key that was given for another server since goes to that one alone.
        base_url = None if found.base_url is None else found.base_url.rstrip("/")
        if found.provider != target.provider or (target.guarded and base_url != target.base_url):
            message = "The AI connection of this agent is one to another server now."
            raise Conflict(message, "ai_connection.changed")
        return self._secrets.opened(sealed, key_owner(owner, connection_id))


class _Named:
    """Connections by the names that mounts and requests have for them: an id, a slug or a label. The owner's own come
    before its organization's, ids before slugs, and these before labels."""

    def __init__(self, owner: Scope, found: Collection[AiConnection]) -> None:
        self._owner = owner
        self._found = found

    def all(self, name: str) -> list[AiConnection]:
        """The best ones; several where labels are alike."""
        own = [each for each in self._found if each.subaccount_id == self._owner.subaccount_id]
        for connections in (own, [each for each in self._found if each not in own]):
            for of in (lambda each: str(each.id), lambda each: each.slug, lambda each: each.label):
                if matching := [each for each in connections if of(each) == name]:
                    return matching
        return []

    def one(self, name: str) -> AiConnection:
        matching = self.all(name)
        if not matching:
            raise not_found("ai_connection", name)
        if len(matching) > 1:
            message = f"Several AI connections have the label {name!r}; name one by its id."
            raise Conflict(message, "ai_connection.ambiguous", details={"id": name})
        return matching[0]

    def ids(self, names: Collection[str]) -> set[UUID]:
        return {each.id for name in names for each in self.all(name)}


def _default(mount: AiMount, tool: str, request: AiRequest) -> AiDefault | None:
    """The tool's own default, or that of the provider: of the named one, or of the only one that has one."""
    by_tool = (mount.defaults or {}).get(tool)
    by_provider: Mapping[str, AiDefault] = mount.provider_defaults or {}
    if request.provider is not None:
        return by_provider.get(request.provider) or by_tool
    if by_tool is None and len(by_provider) > 1:
        message = f"The mounts have defaults for {', '.join(sorted(by_provider))}; name the provider."
        raise RequestInvalid(message, "ai_connection.required")
    return by_tool or next(iter(by_provider.values()), None)


def _model(model: str | None) -> str:
    if model is None:
        raise invalid_field("model", "It is missing, and the AI connection has no default model", code="field.missing")
    return model


def _check_usable(found: AiConnection, *, has_key: bool) -> None:
    if not found.enabled:
        raise Conflict(
            "This AI connection is disabled; enable it to use it.",
            "ai_connection.disabled",
            details={"id": str(found.id)},
        )
    if not has_key:
        raise Conflict(
            "This AI connection has no stored key; set one with `apiKey`.",
            "ai_connection.no_key",
            details={"id": str(found.id)},
        )
