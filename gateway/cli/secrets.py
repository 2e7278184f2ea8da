"""`gateway secrets`: rotation of master keys."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from pathlib import Path

from gateway.cli.auditing import audited
from gateway.cli.commands import Commands
from gateway.cli.output import say
from gateway.cli.own_keys import with_own_keys
from gateway.cli.with_database import require_schema, with_database
from gateway.core.errors import ConfigurationError, GatewayError
from gateway.core.scope import Scope
from gateway.crypto.keyring import create_key_file
from gateway.domain.accounts.first_start import ensure_organization
from gateway.domain.audit import Action
from gateway.domain.secrets import KeySource, rotate
from gateway.settings import Settings
from gateway.store.database import Database


def add_to(commands: Commands) -> None:
    group = commands.group("secrets")
    rotation = commands.add(
        "rotate", "Re-wrap every stored secret under the first master key, while serving.", rotate_secrets, to=group
    )
    rotation.add_argument(
        "--new-key", metavar="ID", help="first add a new master key of this id to the top of the master key file"
    )


def rotate_secrets(loaded: Settings, parsed: argparse.Namespace) -> int:
    loaded = with_own_keys(loaded)
    if parsed.new_key is not None:
        if loaded.master_keys_file is None:
            raise ConfigurationError(
                "--new-key needs a master key file; with GATEWAY_MASTER_KEYS put the new key first."
            )
        _add_master_key(loaded.master_keys_file, parsed.new_key)
    keys = KeySource.of(loaded)

    async def rotate_all(database: Database) -> int:
        await require_schema(database)
        organization = Scope(await ensure_organization(database))
        async with audited(database, organization) as log:
            with log.noting(Action.SECRETS_ROTATED) as noting:
                rotation = await rotate(
                    database, keys, lambda done, left: say(f"{done} secrets re-wrapped, {left} left")
                )
                noting.details = {"masterKeyId": rotation.writing_id, "left": sum(rotation.left.values())}
        writing = rotation.writing_id
        for failure in rotation.undecryptable:
            say(failure.message, file=sys.stderr)
        if rotation.left:
            left = ", ".join(f"{count} by {key_id!r}" for key_id, count in rotation.left.items())
            raise GatewayError(
                f"Not all secrets are under master key {writing!r} yet ({left}), so keep the old keys. "
                "Run `gateway secrets rotate` again to re-wrap those that were in use meanwhile."
            )
        say(f"All {rotation.held.get(writing, 0)} secrets are under master key {writing!r}.")
        old = [key_id for key_id in keys.ring().key_ids if key_id != writing]
        if old:
            say(
                f"No secret needs {', '.join(map(repr, old))} any more. Once every gateway runs with {writing!r} "
                "first, and a last `gateway secrets rotate` finds nothing, take the old keys out."
            )
        return 0

    return with_database(loaded, rotate_all)


def _add_master_key(path: Path, key_id: str) -> None:
    """Put a fresh key at the top of the file, in one step: a gateway that reads it meanwhile sees a whole file."""
    from gateway.crypto.keyring import KeyRing

    path = path.resolve()
    fresh = path.with_name(path.name + ".new")
    try:
        before, owner = path.read_text(), path.stat()
        if key_id in KeyRing.parse(before).key_ids:
            raise ConfigurationError(f"The master key file has a key {key_id!r} already; give another id.")
        fresh.unlink(missing_ok=True)
        create_key_file(fresh, key_id)
        with open(fresh, "a") as file:
            file.write(before)
            file.flush()
            # Every reader of the old file, which may be a gateway of another user, can read the new one.
            if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(owner.st_mode))
            os.fsync(file.fileno())
        KeyRing.parse(fresh.read_text())
        fresh.replace(path)
    except OSError as error:
        raise ConfigurationError(f"The master key file {path} can't be changed: {error.strerror}.") from None
    finally:
        fresh.unlink(missing_ok=True)
