"""Mounts of a space: what its runtimes may use of storage, vault, AI connections and saved proxies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from gateway.core.canonical import texts, to_json
from gateway.core.errors import Forbidden


@dataclass(frozen=True, slots=True)
class StorageMount:
    """The space whose storage is used, by id or name."""

    space: str


@dataclass(frozen=True, slots=True)
class VaultMount:
    """Prefixes of keys. `deny` beats `allow`. Without `allow` every key may be used; an empty one allows none.

    Allowed is a prefix itself and what is below it (`a/b` is `a/b` and `a/b/c`, not `a/bc`); denied is whatever begins
    with a denied one.
    """

    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] | None = None
    allow_raw_reads: bool | None = None

    def allows(self, key: str) -> bool:
        """Whether a secret may be used; reading it as text needs `allow_raw_reads` besides."""
        return self._is_below_allowed(key) and not any(key.startswith(prefix) for prefix in self.deny or ())

    def _is_below_allowed(self, prefix: str) -> bool:
        return self.allow is None or any(_is_below(prefix, each) for each in self.allow)

    def narrowed(self, inner: VaultMount, found: _Widenings) -> VaultMount:
        allow = self.allow
        if inner.allow is not None:
            allow = found.kept("vault.allow", inner.allow, self._is_below_allowed)
        deny = tuple(dict.fromkeys((*(self.deny or ()), *(inner.deny or ())))) or None
        raw = self.allow_raw_reads
        if inner.allow_raw_reads is not None:
            if inner.allow_raw_reads and not raw:
                found.note("vault.allow_raw_reads", True)
            raw = inner.allow_raw_reads and bool(raw)
        return VaultMount(allow, deny, raw)


def _is_below(key: str, prefix: str) -> bool:
    return key == prefix or key.startswith(prefix if prefix.endswith("/") else f"{prefix}/")


@dataclass(frozen=True, slots=True)
class AiDefault:
    """The AI connection, by id or label, and the model that are used when a request names none."""

    connection: str
    model: str | None = None


@dataclass(frozen=True, slots=True)
class AiMount:
    """AI connections that may be used, by id or label; without `allow_connections` every one, with an empty one none.

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

    def allows(self, connection: str) -> bool:
        """Whether an AI connection may be used, named as the mount names it."""
        return self.allow_connections is None or connection in self.allow_connections

    def narrowed(self, inner: AiMount, found: _Widenings) -> AiMount:
        allowed = self.allow_connections
        if inner.allow_connections is not None:
            allowed = found.kept("ai.allow_connections", inner.allow_connections, self.allows)
        effective = AiMount(allowed)
        by_tool = effective._defaults("ai.defaults", self.defaults, inner.defaults, found)
        by_provider = effective._defaults(
            "ai.provider_defaults", self.provider_defaults, inner.provider_defaults, found
        )
        return AiMount(allowed, by_tool, by_provider)

    def _defaults(
        self,
        field: str,
        outer: Mapping[str, AiDefault] | None,
        inner: Mapping[str, AiDefault] | None,
        found: _Widenings,
    ) -> Mapping[str, AiDefault] | None:
        """Those of the inner mount before those around it. What is not allowed any more is no default either."""
        if outer is None and inner is None:
            return None
        for key, default in (inner or {}).items():
            if not self.allows(default.connection):
                found.note(f"{field}.{key}.connection", default.connection)
        merged = {**(outer or {}), **(inner or {})}
        return {key: default for key, default in merged.items() if self.allows(default.connection)}


@dataclass(frozen=True, slots=True)
class ProxiesMount:
    """Saved proxies that may be named, by id or name; without `allow` every one of the owner's, with an empty one none.

    By its id, a space of a subaccount may also be lent one of the organization's.
    """

    allow: tuple[str, ...] | None = None

    def named(self) -> Iterator[tuple[str, str]]:
        """Each proxy that is named: its field, below the mounts, and its id or name."""
        for place, name in enumerate(self.allow or ()):
            yield f"proxies.allow.{place}", name

    def allows(self, *names: str) -> bool:
        """Whether a proxy of these names, its id and its name, may be used."""
        return self.allow is None or any(name in self.allow for name in names)

    def narrowed(self, inner: ProxiesMount, found: _Widenings) -> ProxiesMount:
        if inner.allow is None:
            return self
        return ProxiesMount(found.kept("proxies.allow", inner.allow, self.allows))


@dataclass(frozen=True, slots=True)
class Mounts:
    """What may be used. Of a kind that is absent nothing may, but for two: without `storage` each space has its own,
    and without `proxies` it may use those of its owner."""

    storage: StorageMount | None = None
    vault: VaultMount | None = None
    ai: AiMount | None = None
    proxies: ProxiesMount | None = None

    def allows_proxy(self, *names: str) -> bool:
        """Whether a saved proxy of these names, its id and its name, may be used."""
        return self.proxies is None or self.proxies.allows(*names)

    def to_json(self) -> dict[str, Any]:
        mounts: dict[str, Any] = to_json(self)
        return mounts

    def changed(self, changes: MountChanges) -> Mounts:
        storage, vault, ai = changes.get("storage", self.storage), changes.get("vault", self.vault), self.ai
        proxies = changes.get("proxies", self.proxies)
        if "ai" in changes:
            change = changes["ai"]
            ai = None if change is None else replace(ai or AiMount(), **change)
        return Mounts(storage, vault, ai, proxies)

    @classmethod
    def from_json(cls, json: dict[str, Any]) -> Mounts:
        storage, vault, ai, proxies = (json.get(kind) for kind in ("storage", "vault", "ai", "proxies"))
        return cls(
            storage=None if storage is None else StorageMount(**storage),
            vault=None if vault is None else _vault(vault),
            ai=None if ai is None else _ai(ai),
            proxies=None if proxies is None else ProxiesMount(texts(proxies.get("allow"))),
        )


def narrowed(outer: Mounts, inner: Mounts) -> Mounts:
    """What may be used where `inner` narrows `outer`: a runtime the mounts of its space, an execution those of both.

    Raises Forbidden, whose `details.errors` have each field that would allow more.
    """
    found = _Widenings()
    mounts = _narrowed(outer, inner, found)
    if found.errors:
        fields = ", ".join(each["field"] for each in found.errors)
        message = f"Mounts may be narrowed and not widened: {fields}."
        raise Forbidden(message, "mounts.widened", details={"errors": found.errors})
    return mounts


def effective(outer: Mounts, inner: Mounts | None) -> Mounts:
    """As `narrowed`, of mounts that were narrower once: what `outer` does not allow any more is left out."""
    return outer if inner is None else _narrowed(outer, inner, _Widenings())


class _Widenings:
    """The fields of inner mounts that would allow more than the outer ones."""

    def __init__(self) -> None:
        self.errors: list[dict[str, Any]] = []

    def note(self, field: str, value: Any = None) -> None:
        shown = {} if value is None else {"value": value}
        message = "The mounts around it do not allow this"
        self.errors.append({"field": field, "message": message, **shown, "code": "mounts.widened"})

    def kept(self, field: str, given: tuple[str, ...], is_allowed: Callable[[str], bool]) -> tuple[str, ...]:
        """Those of a list that are allowed."""
        for place, each in enumerate(given):
            if not is_allowed(each):
                self.note(f"{field}.{place}", each)
        return tuple(each for each in given if is_allowed(each))


def _narrowed(outer: Mounts, inner: Mounts, found: _Widenings) -> Mounts:
    vault, ai, proxies = outer.vault, outer.ai, outer.proxies
    if inner.vault is not None:
        if vault is None:
            found.note("vault")
        else:
            vault = vault.narrowed(inner.vault, found)
    if inner.ai is not None:
        if ai is None:
            found.note("ai")
        else:
            ai = ai.narrowed(inner.ai, found)
    if inner.storage not in (None, outer.storage):
        found.note("storage.space", inner.storage.space if inner.storage else None)
    if inner.proxies is not None:
        proxies = (proxies or ProxiesMount()).narrowed(inner.proxies, found)
    return Mounts(outer.storage, vault, ai, proxies)


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
    proxies: ProxiesMount | None


def _vault(json: dict[str, Any]) -> VaultMount:
    return VaultMount(texts(json.get("allow")), texts(json.get("deny")), json.get("allow_raw_reads"))


def _ai(json: dict[str, Any]) -> AiMount:
    allowed = texts(json.get("allow_connections"))
    return AiMount(allowed, _defaults(json.get("defaults")), _defaults(json.get("provider_defaults")))


def _defaults(json: dict[str, Any] | None) -> dict[str, AiDefault] | None:
    return None if json is None else {key: AiDefault(**default) for key, default in json.items()}
