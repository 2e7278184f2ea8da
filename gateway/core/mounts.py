"""Mounts of a space: what its runtimes may use of storage, vault and AI connections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from gateway.core.canonical import texts, to_json


@dataclass(frozen=True, slots=True)
class StorageMount:
    """The space whose storage is used, by id or name."""

    space: str


@dataclass(frozen=True, slots=True)
class VaultMount:
    """Prefixes of keys. `deny` beats `allow`; None is absent, which an empty tuple is not."""

    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] | None = None
    allow_raw_reads: bool | None = None


@dataclass(frozen=True, slots=True)
class AiDefault:
    """The AI connection, by id or label, and the model that are used when a request names none."""

    connection: str
    model: str | None = None


@dataclass(frozen=True, slots=True)
class AiMount:
    """AI connections that may be used, by id or label.

    `defaults` are by the tool that asks (stagehand, browser_use), `provider_defaults` by provider (openai, ...).
    """

    allow_connections: tuple[str, ...] | None = None
    defaults: Mapping[str, AiDefault] | None = None
    provider_defaults: Mapping[str, AiDefault] | None = None

    def connections(self) -> Iterator[tuple[str, str]]:
        """Each AI connection that is named: its field, below the mounts, and its id or label."""
        for place, name in enumerate(self.allow_connections or ()):
            yield f"ai.allow_connections.{place}", name
        for field in ("defaults", "provider_defaults"):
            for key, default in (getattr(self, field) or {}).items():
                yield f"ai.{field}.{key}.connection", default.connection


@dataclass(frozen=True, slots=True)
class Mounts:
    storage: StorageMount | None = None
    vault: VaultMount | None = None
    ai: AiMount | None = None

    def to_json(self) -> dict[str, Any]:
        mounts: dict[str, Any] = to_json(self)
        return mounts

    def changed(self, changes: MountChanges) -> Mounts:
        storage, vault, ai = changes.get("storage", self.storage), changes.get("vault", self.vault), self.ai
        if "ai" in changes:
            change = changes["ai"]
            ai = None if change is None else replace(ai or AiMount(), **change)
        return Mounts(storage, vault, ai)

    @classmethod
    def from_json(cls, json: dict[str, Any]) -> Mounts:
        storage, vault, ai = json.get("storage"), json.get("vault"), json.get("ai")
        return cls(
            storage=None if storage is None else StorageMount(**storage),
            vault=None if vault is None else _vault(vault),
            ai=None if ai is None else _ai(ai),
        )


class AiChange(TypedDict, total=False):
    """What is given replaces what was, the rest stays: a generation of the API gives all that it has words for."""

    allow_connections: tuple[str, ...] | None
    defaults: Mapping[str, AiDefault] | None
    provider_defaults: Mapping[str, AiDefault] | None


class MountChanges(TypedDict, total=False):
    """Each kind of mount that is given replaces what was; None clears it."""

    storage: StorageMount | None
    vault: VaultMount | None
    ai: AiChange | None


def _vault(json: dict[str, Any]) -> VaultMount:
    return VaultMount(texts(json.get("allow")), texts(json.get("deny")), json.get("allow_raw_reads"))


def _ai(json: dict[str, Any]) -> AiMount:
    allowed = texts(json.get("allow_connections"))
    return AiMount(allowed, _defaults(json.get("defaults")), _defaults(json.get("provider_defaults")))


def _defaults(json: dict[str, Any] | None) -> dict[str, AiDefault] | None:
    return None if json is None else {key: AiDefault(**default) for key, default in json.items()}
