"""Mounts of a workspace, which its runtimes and their executions may narrow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field

from gateway.contracts.shared.proxies import ProxiesMount
from gateway.contracts.shared.spelling import camel, domain, fields_below, rename_fields
from gateway.core import mounts as values
from gateway.core.canonical import texts
from gateway.core.errors import Forbidden
from gateway.http.models import STORABLE, Body, Shown, optional

Reference = Annotated[str, Field(min_length=1, max_length=200), STORABLE]
# The id or label of one that the workspace may use.
AiCredentialReference = Annotated[Reference, Shown(format="ai-connection")]
AiCredentialReferences = Annotated[list[AiCredentialReference], Field(max_length=1000)]
KeyPrefix = Annotated[str, Field(min_length=1, max_length=1024), STORABLE]
KeyPrefixes = Annotated[list[KeyPrefix], Field(max_length=1000)]


class AiCredentialDefaults(Body):
    """By provider, the AI credential that is used where a call names none."""

    openai: AiCredentialReference = optional()
    """Used for OpenAI."""
    anthropic: AiCredentialReference = optional()
    """Used for Anthropic."""
    google: AiCredentialReference = optional()
    """Used for Google."""
    openai_compatible: AiCredentialReference = optional(alias="openai-compatible")
    """Used for what speaks OpenAI's protocol."""

    def to_domain(self) -> dict[str, values.AiDefault]:
        given = self.model_dump(by_alias=True, exclude_unset=True)
        return {provider: values.AiDefault(reference) for provider, reference in given.items()}


class WorkspaceAi(Body):
    """Which AI credentials may be used."""

    allow: AiCredentialReferences = optional()
    """Ids of AI credentials that may be used."""
    defaults: AiCredentialDefaults = optional()
    """What to use where a call names none."""

    def change(self) -> values.AiChange:
        """All that this contract has of the mount; defaults by tool have no place in it, and stay."""
        return {"allow_connections": texts(self.allow), "provider_defaults": domain(self.defaults)}


class WorkspaceVault(Body):
    """Which secrets may be used, by prefixes of their keys."""

    allow: KeyPrefixes = optional()
    """Prefixes of keys that may be used."""
    deny: KeyPrefixes = optional()
    """Prefixes of keys that may not be used; it takes precedence."""
    allow_raw_reads: bool = optional()
    """Whether values may be read as text."""

    def to_domain(self) -> values.VaultMount:
        return values.VaultMount(texts(self.allow), texts(self.deny), self.allow_raw_reads)


class WorkspaceStorage(Body):
    """A storage by name; workspaces that name the same share it."""

    workspace: Reference
    """Name of the storage."""

    def to_domain(self) -> values.StorageMount:
        return values.StorageMount(self.workspace)


class WorkspaceMounts(Body):
    """What may be used. An AI credential is named by its id or its label."""

    ai: WorkspaceAi | None = None
    """Which AI credentials may be used; null clears it."""
    vault: WorkspaceVault | None = None
    """Which secrets may be used; null clears it."""
    storage: WorkspaceStorage | None = None
    """The storage of files; null clears it."""
    proxies: ProxiesMount | None = None
    """Which saved proxies launches may name; null clears it."""

    def to_domain(self) -> values.Mounts:
        return values.Mounts().changed(self.changes())

    def changes(self) -> values.MountChanges:
        """The kinds of mount that were given, those that are cleared too."""
        given: values.MountChanges = {}
        if "ai" in self.model_fields_set:
            given["ai"] = None if self.ai is None else self.ai.change()
        if "vault" in self.model_fields_set:
            given["vault"] = domain(self.vault)
        if "storage" in self.model_fields_set:
            given["storage"] = domain(self.storage)
        if "proxies" in self.model_fields_set:
            given["proxies"] = domain(self.proxies)
        return given


def spelled_mounts(mounts: values.Mounts) -> dict[str, Any]:
    """As this contract has them; what it has no words for is left out: defaults by tool, and models of defaults."""
    kinds: dict[str, Any] = {}
    if (ai := mounts.ai) is not None:
        defaults = None if ai.provider_defaults is None else _references(ai.provider_defaults)
        kinds["ai"] = _given(allow=_listed(ai.allow_connections), defaults=defaults)
    if (vault := mounts.vault) is not None:
        lists = {"allow": _listed(vault.allow), "deny": _listed(vault.deny)}
        kinds["vault"] = _given(**lists, allowRawReads=vault.allow_raw_reads)
    if mounts.storage is not None:
        kinds["storage"] = {"workspace": mounts.storage.space}
    if mounts.proxies is not None:
        kinds["proxies"] = _given(allow=_listed(mounts.proxies.allow))
    return kinds


def mount_fields() -> contextlib.AbstractContextManager[None]:
    """Errors of the block name mounts as the request has them."""
    return fields_below("mounts", _field)


@contextlib.contextmanager
def narrowing_fields() -> Iterator[None]:
    """As `mount_fields`, of mounts that would allow more than those around them."""
    try:
        yield
    except Forbidden as error:
        if error.code in ("mounts.widened", "mounts.proxy_in_use"):
            rename_fields(error, "mounts", _field)
        raise


_NAMES = {"ai.allow_connections": "ai.allow", "storage.space": "storage.workspace"}


def _field(field: str) -> str:
    for name, here in _NAMES.items():
        if field == name or field.startswith(f"{name}."):
            return here + field.removeprefix(name)
    if field.startswith("ai.provider_defaults."):
        # A provider's name has no camelCase, and its default is the reference itself.
        return "ai.defaults." + field.removeprefix("ai.provider_defaults.").removesuffix(".connection")
    return camel(field)


def _references(defaults: Mapping[str, values.AiDefault]) -> dict[str, str]:
    return {provider: default.connection for provider, default in defaults.items()}


def _listed(given: tuple[str, ...] | None) -> list[str] | None:
    return None if given is None else list(given)


def _given(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
