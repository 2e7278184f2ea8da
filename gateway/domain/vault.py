"""The vault: secrets that pages are given, by names. What is secret is encrypted in a row of its own.

A key belongs to exactly one owner, an organization or a subaccount; neither sees the other's. The mounts of a space say
which keys its runtimes may use, and whether their values may be read as text. Every opening is in the audit log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from gateway.core import origins as origins_of
from gateway.core.errors import Conflict, Forbidden, NotFound, PayloadTooLarge, RequestInvalid, invalid_field
from gateway.core.ids import new_id
from gateway.core.mounts import Mounts, VaultMount
from gateway.core.scope import Scope
from gateway.core.sealed import SecretOwner
from gateway.core.secret import remember
from gateway.crypto.totp import TotpSeed
from gateway.domain.audit import Action, Audit
from gateway.domain.secrets import SecretStore
from gateway.domain.spaces import find_space
from gateway.store import vault as store
from gateway.store.database import Connection, Database
from gateway.store.vault import VaultEntry, VaultFilter

__all__ = ["Vault", "VaultEntry", "VaultLimits", "VaultPlace", "VaultSecret", "VaultValue"]

KEY_CHARACTERS = 512
Field = Literal["username", "password", "totp", "value"]
FIELDS: tuple[Field, ...] = ("username", "password", "totp", "value")

# As segments of a path, which a client or a proxy may change on the way.
_SEGMENT = re.compile(r"[^/\\\x00-\x1f\x7f]+")
_DOTS = frozenset((".", ".."))
# At the end of a path they are operations, and at its beginning another spelling of it.
_LAST = frozenset(("totp", "value"))
_FIRST = "secrets"


@dataclass(frozen=True, slots=True)
class VaultSecret:
    """What is secret: a login, with a TOTP seed if it has one; or a value."""

    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    totp: str | None = field(default=None, repr=False)
    value: str | None = field(default=None, repr=False)
    notes: str | None = field(default=None, repr=False)

    @property
    def kind(self) -> str:
        return "login" if self.value is None else "value"

    def texts(self) -> list[str]:
        """What is masked while the request is served. A name is not secret by itself."""
        return [text for text in (self.password, self.totp, self.value, self.notes) if text]

    def encode(self) -> str:
        named = {name: getattr(self, name) for name in ("username", "password", "totp", "value", "notes")}
        return json.dumps({name: value for name, value in named.items() if value is not None})

    @classmethod
    def decode(cls, text: str) -> VaultSecret:
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class VaultValue:
    """An entry, and what is secret of it."""

    entry: VaultEntry
    secret: VaultSecret


@dataclass(frozen=True, slots=True)
class VaultLimits:
    """Of an entry's secret in bytes, and of the entries of an owner. `raw_reads` without mounts that allow them."""

    entry_bytes: int
    max_entries: int
    raw_reads: bool


@dataclass(frozen=True, slots=True)
class VaultPlace:
    """Whose vault is meant, and the mounts that restrict it; None where no space was named."""

    owner: Scope
    mounts: Mounts | None = None


class Vault:
    def __init__(self, database: Database, secrets: SecretStore, audit: Audit, limits: VaultLimits) -> None:
        self._database = database
        self._secrets = secrets
        self._audit = audit
        self._limits = limits

    async def in_space(self, scope: Scope, space_id: UUID) -> VaultPlace:
        """The vault of a space's owner, restricted by the space's mounts. Raises NotFound."""
        async with self._database.connect() as connection:
            space = await find_space(connection, scope, space_id)
        return VaultPlace(space.owner, space.mounts)

    async def set(
        self,
        place: VaultPlace,
        key: str,
        secret: VaultSecret,
        *,
        label: str | None = None,
        origins: Sequence[str] = (),
        patterns: Sequence[str] = (),
    ) -> VaultEntry:
        """Store an entry in place of the one that has the key. Raises RequestInvalid, PayloadTooLarge, Conflict."""
        remember(secret.texts())
        with self._audit.noting(Action.VAULT_WRITTEN) as noting:
            check_key(key)
            _check_allowed(place.mounts, key)
            encoded = secret.encode()
            if len(encoded.encode()) > self._limits.entry_bytes:
                raise PayloadTooLarge(
                    f"An entry of the vault may have {self._limits.entry_bytes} bytes.", "vault.too_large"
                )
            if secret.totp is not None:
                _seed(secret.totp)
            new = {
                "id": new_id(),
                "key": key,
                "kind": secret.kind,
                "has_totp": secret.totp is not None,
                "label": label,
                "origins": [_origin(each, "origins", at) for at, each in enumerate(origins)],
                "origin_patterns": [_pattern(each, at) for at, each in enumerate(patterns)],
            }
            async with self._database.begin() as connection:
                await store.lock_owner(connection, place.owner)
                if await store.get(connection, place.owner, key) is None:
                    await self._check_room(connection, place.owner)
                entry = await store.put(connection, place.owner, new)
                await self._secrets.put(connection, _owner(entry), encoded)
            noting.object_id = entry.id
            return entry

    async def _check_room(self, connection: Connection, owner: Scope) -> None:
        most = self._limits.max_entries
        if await store.count(connection, owner) >= most:
            raise Conflict(f"The vault has its maximum of {most} entries.", "vault.full", details={"limit": most})

    async def get(self, place: VaultPlace, key: str) -> VaultValue:
        """The secret as text. Raises NotFound, Forbidden where no mounts allow that."""
        with self._audit.noting(Action.VAULT_VALUE_READ) as noting:
            async with self._database.connect() as connection:
                entry = await _find(connection, place, key)
                noting.object_id = entry.id
                self._check_raw(place.mounts)
                return VaultValue(entry, await self._open(connection, entry))

    async def metadata(self, place: VaultPlace, key: str) -> VaultEntry:
        """Raises NotFound, Forbidden."""
        with self._audit.noting(Action.VAULT_READ) as noting:
            async with self._database.connect() as connection:
                entry = await _find(connection, place, key)
            noting.object_id = entry.id
            return entry

    async def listed(
        self,
        place: VaultPlace,
        *,
        prefix: str | None = None,
        has_totp: bool | None = None,
        after: str | None = None,
        limit: int,
    ) -> list[VaultEntry]:
        """In the order of keys; of a space, those that its mounts allow."""
        wanted = VaultFilter(prefix, has_totp, after=after)
        if place.mounts is not None:
            mount = place.mounts.vault or VaultMount(allow=())
            wanted = VaultFilter(prefix, has_totp, mount.allow, mount.deny or (), after)
        with self._audit.noting(Action.VAULT_READ):
            async with self._database.connect() as connection:
                return await store.listed(connection, place.owner, wanted, limit)

    async def delete(self, place: VaultPlace, key: str) -> None:
        """Raises NotFound, Forbidden."""
        with self._audit.noting(Action.VAULT_DELETED) as noting:
            async with self._database.begin() as connection:
                entry = await _find(connection, place, key, lock=True)
                noting.object_id = entry.id
                await self._secrets.remove(connection, entry.id)
                await store.remove(connection, entry.id)

    async def totp(self, place: VaultPlace, key: str) -> str:
        """The code of now. Raises NotFound, Forbidden, RequestInvalid (`vault.no_totp`)."""
        with self._audit.noting(Action.VAULT_TOTP_READ) as noting:
            async with self._database.connect() as connection:
                entry = await _find(connection, place, key)
                noting.object_id = entry.id
                return _code(await self._open(connection, entry), key)

    async def for_page(self, owner: Scope, mounts: Mounts, key: str, field: str, origins: Sequence[str]) -> str:
        """A field of a secret, to be typed into a page. `origins` are those of the frame and of all that contain it,
        as the browser writes them, and each must be one of the secret's.

        Raises NotFound, Forbidden (`vault.key_forbidden`, `vault.origin_refused`), RequestInvalid.
        """
        if field not in FIELDS:
            raise invalid_field("field", f"A secret has {', '.join(FIELDS)}", field, code="literal_error")
        with self._audit.noting(Action.VAULT_USED) as noting:
            async with self._database.connect() as connection:
                entry = await _find(connection, VaultPlace(owner, mounts), key)
                noting.object_id = entry.id
                _check_origins(entry, origins)
                secret = await self._open(connection, entry)
            if field == "totp":
                code = _code(secret, key)
                remember((code,))
                return code
            found: str | None = getattr(secret, field)
            if found is None:
                raise RequestInvalid(f"The secret {key!r} has no {field}.", "vault.no_field")
            return found

    async def for_request(self, owner: Scope, mounts: Mounts, key: str, origin: str | None) -> VaultSecret:
        """A secret for a request that the gateway itself sends. With `origin`, the one that is sent the secret, it must
        be one of the secret's. Raises NotFound, Forbidden (`vault.key_forbidden`, `vault.origin_refused`)."""
        with self._audit.noting(Action.VAULT_USED) as noting:
            async with self._database.connect() as connection:
                entry = await _find(connection, VaultPlace(owner, mounts), key)
                noting.object_id = entry.id
                if origin is not None:
                    _check_origins(entry, [origin])
                return await self._open(connection, entry)

    async def _open(self, connection: Connection, entry: VaultEntry) -> VaultSecret:
        opened = await self._secrets.open(connection, _owner(entry))
        if opened is None:
            # Deleted in between.
            raise _not_found(entry.key)
        secret = VaultSecret.decode(opened)
        remember(secret.texts())
        return secret

    def _check_raw(self, mounts: Mounts | None) -> None:
        if mounts is None:
            if self._limits.raw_reads:
                return
            raise Forbidden(
                "Values of the vault are read as text through a workspace whose mounts allow it; name one.",
                "vault.raw_reads_forbidden",
            )
        if mounts.vault is None or not mounts.vault.allow_raw_reads:
            raise Forbidden(
                "The mounts of the workspace do not allow to read values as text (vault.allowRawReads).",
                "vault.raw_reads_forbidden",
            )


def check_key(key: str) -> None:
    """Raises RequestInvalid for a key that a path can't carry unchanged."""
    segments = key.split("/")
    is_right = (
        len(key) <= KEY_CHARACTERS
        and all(_SEGMENT.fullmatch(segment) and segment not in _DOTS for segment in segments)
        and key.isprintable()
        and key == key.strip()
        and segments[0] != _FIRST
        and (len(segments) == 1 or segments[-1] not in _LAST)
    )
    if not is_right:
        raise RequestInvalid(
            f"A key has 1 to {KEY_CHARACTERS} characters, in segments between slashes; it does not begin with "
            f"{_FIRST}/ or end with /{' or /'.join(sorted(_LAST))}.",
            "vault.invalid_key",
        )


def is_allowed(mounts: Mounts, key: str) -> bool:
    """Whether mounts allow to use a key; without a vault mount none may be used."""
    return mounts.vault is not None and mounts.vault.allows(key)


def _check_allowed(mounts: Mounts | None, key: str) -> None:
    if mounts is not None and not is_allowed(mounts, key):
        raise Forbidden(
            "The mounts do not allow to use this key of the vault (vault.allow, vault.deny).", "vault.key_forbidden"
        )


def _check_origins(entry: VaultEntry, pages: Sequence[str]) -> None:
    if not entry.origins and not entry.origin_patterns:
        raise Forbidden(
            "The secret has no origins, so that no page and no server is given it; set its origins or originPatterns.",
            "vault.origin_refused",
        )
    for page in pages or ("null",):
        if not origins_of.matches(page, entry.origins, entry.origin_patterns):
            shown = page[:200]
            raise Forbidden(
                f"The secret is not for pages of {shown}.", "vault.origin_refused", details={"origin": shown}
            )


async def _find(connection: Connection, place: VaultPlace, key: str, *, lock: bool = False) -> VaultEntry:
    """Raises Forbidden, also for a key that there is not: who may not use it learns nothing of it; NotFound."""
    _check_allowed(place.mounts, key)
    entry = await store.get(connection, place.owner, key, lock=lock) if "\0" not in key else None
    if entry is None:
        raise _not_found(key)
    return entry


def _not_found(key: str) -> NotFound:
    shown = key[:100]
    return NotFound(f"There is no secret {shown!r} in the vault.", "vault.secrets.not_found", details={"id": shown})


def _owner(entry: VaultEntry) -> SecretOwner:
    return SecretOwner("vault", entry.organization_id, entry.subaccount_id, entry.id)


def _origin(text: str, field: str, at: int) -> str:
    try:
        return origins_of.Origin.parse(text).text
    except ValueError as error:
        raise invalid_field(f"{field}.{at}", str(error).capitalize(), text) from None


def _pattern(text: str, at: int) -> str:
    try:
        origins_of.OriginPattern.parse(text)
    except ValueError as error:
        raise invalid_field(f"originPatterns.{at}", str(error).capitalize(), text) from None
    return text


def _seed(text: str) -> TotpSeed:
    try:
        return TotpSeed.parse(text)
    except ValueError as error:
        raise invalid_field("totp", str(error).capitalize()) from None


def _code(secret: VaultSecret, key: str) -> str:
    if secret.totp is None:
        raise RequestInvalid(f"The secret {key[:100]!r} has no TOTP seed.", "vault.no_totp")
    return _seed(secret.totp).code()
