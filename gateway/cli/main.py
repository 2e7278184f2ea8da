"""The one command, `gateway`: up, serve, migrate, keys, secrets, audit, doctor."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
import uvloop

from gateway import __version__, settings
from gateway.core.errors import ConfigurationError, GatewayError
from gateway.core.scope import Scope
from gateway.crypto.keyring import create_key_file
from gateway.domain import audit
from gateway.domain.accounts.access import Access
from gateway.domain.accounts.first_start import ensure_organization, write_first_key
from gateway.domain.audit import Action, Audit, Head
from gateway.domain.secrets import KeySource, SecretStore, rotate
from gateway.settings import Settings
from gateway.store import schema
from gateway.store.database import Database
from gateway.store.embedded import EmbeddedPostgres
from gateway.telemetry import logs

# Of the 100 connections that the gateway's own PostgreSQL takes, the rest is for other commands.
OWN_POOL_SIZE = 80

# Signals that came before it served.
_told: list[int] = []


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 when it failed with a sentence, 2 for wrong usage."""
    parsed = _parser().parse_args(arguments)
    flags = {name: value for name in settings.options() if (value := getattr(parsed, name, None)) is not None}
    try:
        loaded, warnings = settings.load(os.environ, flags)
        settings.forget_secrets()
        for warning in warnings:
            print(f"Warning: {warning}", file=sys.stderr)
        style = loaded.log_format if loaded.log_format != "auto" else ("console" if sys.stderr.isatty() else "json")
        logs.configure(loaded.log_level, style)
        code: int = parsed.run(loaded, parsed)
        return code
    except GatewayError as error:
        print(f"gateway: {logs.redact(error.message)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception:
        # Through the log, which redacts; Python's own way out would not.
        structlog.get_logger("gateway").exception("gateway failed in a way that was not foreseen")
        return 1


def _parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    group = options.add_argument_group("options, each also an environment variable")
    for name, field in settings.options().items():
        variable = settings.variable(name)
        help_text = f"{field.description} [{variable}]".replace("%", "%%")
        if settings.is_secret(field):
            continue
        if field.annotation is bool:
            # What is on by default has a flag that turns it off.
            action = argparse.BooleanOptionalAction if field.default else "store_true"
            group.add_argument(settings.flag(name), dest=name, action=action, default=None, help=help_text)
        else:
            group.add_argument(settings.flag(name), dest=name, metavar="VALUE", help=help_text)
    secret = [settings.variable(name) for name, field in settings.options().items() if settings.is_secret(field)]
    options.epilog = f"Environment alone, since command lines can be read by others: {', '.join(secret)}."

    parser = argparse.ArgumentParser(prog="gateway", description="A self-hosted gateway to real Chromium browsers.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(parent: Any, name: str, text: str, run: Callable[[Settings, Any], int]) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = parent.add_parser(
            # Without abbreviations: --master-keys would be one of --master-keys-file, and be taken with the keys.
            name,
            help=text,
            description=text,
            parents=[options],
            epilog=options.epilog,
            allow_abbrev=False,
        )
        made.set_defaults(run=run)
        return made

    command(commands, "up", "Get all that is missing, and serve: for one machine.", _up)
    command(commands, "serve", "Serve with a database and master keys that are given: for production.", _serve)
    command(commands, "migrate", "Bring the database's schema up to date.", _migrate)
    command(commands, "doctor", "Check browser, sandbox, database, keys and ports, and say what to do.", _doctor)

    keys = commands.add_parser("keys", help="API keys of the organization and its subaccounts.")
    key_commands = keys.add_subparsers(title="commands", required=True, metavar="COMMAND")
    create = command(key_commands, "create", "Make an API key and show it once.", _keys_create)
    create.add_argument("--name", help="a name to know it by")
    create.add_argument("--subaccount", type=UUID, help="id of the subaccount that it is for")
    create.add_argument(
        "--expires-at", type=_time_to_come, metavar="TIME", help="time with zone, such as 2027-01-31T00:00:00Z"
    )
    command(key_commands, "list", "List API keys, without the keys.", _keys_list)
    revoke = command(key_commands, "revoke", "Refuse an API key from now on.", _keys_revoke)
    revoke.add_argument("key", help="its id or its prefix (bctrl_...)")

    secrets = commands.add_parser("secrets", help="Stored secrets.")
    secret_commands = secrets.add_subparsers(title="commands", required=True, metavar="COMMAND")
    rotation = command(
        secret_commands,
        "rotate",
        "Re-wrap every stored secret under the first master key, while serving.",
        _secrets_rotate,
    )
    rotation.add_argument(
        "--new-key", metavar="ID", help="first add a fresh master key of this id to the top of the master key file"
    )

    log = commands.add_parser("audit", help="The audit log.")
    log_commands = log.add_subparsers(title="commands", required=True, metavar="COMMAND")
    verification = command(
        log_commands, "verify", "Check that the audit log is as it was written; tell its head.", _audit_verify
    )
    verification.add_argument(
        "--pinned", type=_head, metavar="SEQUENCE:HASH", help="a head from earlier, which must still be in the log"
    )
    verification.add_argument(
        "--after",
        type=_head,
        default=audit.BEGINNING,
        metavar="SEQUENCE:HASH",
        help="begin behind this event, which was the last one of what was removed",
    )
    exporting = command(log_commands, "export", "Write the audit log as lines of JSON.", _audit_export)
    exporting.add_argument(
        "--since", type=_time, metavar="TIME", help="from this time on, with zone, such as 2027-01-31T00:00:00Z"
    )
    exporting.add_argument("--organization", type=UUID, metavar="ID", help="of this organization alone")
    return parser


def _head(text: str) -> Head:
    try:
        return Head.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text[:100]!r} {error}") from None


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 2027-01-31T00:00:00Z") from None
    if time.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no zone; end it with Z or an offset such as +01:00")
    return time


def _time_to_come(text: str) -> datetime:
    time = _time(text)
    if time <= datetime.now(UTC):
        raise argparse.ArgumentTypeError(f"{text!r} is not in the future")
    return time


# Serving


def _up(loaded: Settings, _: argparse.Namespace) -> int:
    # Imported where it is used: the other commands do not need browsers and a server.
    from gateway import server
    from gateway.launchers.local import browsers

    loaded.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    loaded = _with_own_keys(loaded, make=True)
    with _database(loaded) as (database_url, database_text):
        found = browsers.get(loaded.chromium, _say)

        async def serve() -> None:
            database = Database(database_url, loaded.database_pool_size)
            try:
                await database.check()
                await schema.upgrade(database)
                keys = KeySource.of(loaded)
                first_key = await write_first_key(database, SecretStore(keys), loaded.data_dir / "api-key")

                def started(address: str) -> None:
                    _announce(loaded, address, str(found.default), database_text, first_key)

                await server.serve(loaded, database, keys, found, started)
            finally:
                await database.close()

        return _run(serve)


def _serve(loaded: Settings, _: argparse.Namespace) -> int:
    from gateway import server
    from gateway.launchers.local import browsers

    if loaded.database_url is None:
        raise ConfigurationError("`gateway serve` needs GATEWAY_DATABASE_URL; `gateway up` brings its own database.")
    keys = KeySource.of(loaded)
    loaded.data_dir.mkdir(parents=True, exist_ok=True)
    found = browsers.find(loaded.chromium)
    if found is None:
        raise ConfigurationError("There is no browser; `gateway doctor` says what to do.")
    database_url = loaded.database_url

    async def serve() -> None:
        database = Database(database_url, loaded.database_pool_size)
        try:
            await database.check()
            state = await schema.state(database)
            if state.behind:
                raise ConfigurationError(state.sentence())
            await ensure_organization(database)

            def started(address: str) -> None:
                _announce(loaded, address, str(found.default), "the one given", None)

            await server.serve(loaded, database, keys, found, started)
        finally:
            await database.close()

    return _run(serve)


def _run(serve: Callable[[], Awaitable[None]]) -> int:
    """Run until it has stopped, which is 0; a signal before it serves gives the start up."""
    from gateway import server

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None

        def give_up(number: int) -> None:
            if not _told:
                _told.append(number)
                task.cancel()

        server.hear_signals(give_up)
        if not _told:
            await serve()

    with contextlib.suppress(asyncio.CancelledError):
        uvloop.run(run())
    return 128 + _told[0] if _told else 0


def _announce(loaded: Settings, address: str, browser: str, database: str, first_key: str | None) -> None:
    _say(f"Listening on {address}")
    _say(f"Browser: {browser}")
    if loaded.unsafe_no_sandbox:
        _say("UNSAFE: browsers run without Chromium's sandbox (GATEWAY_UNSAFE_NO_SANDBOX).")
    _say(f"Database: {database}")
    _say(f"API docs: {loaded.public_url or address}/docs")
    if first_key is not None:
        _say(f"First API key, shown this once (also in {loaded.data_dir / 'api-key'}): {first_key}")


def _with_own_keys(loaded: Settings, *, make: bool = False) -> Settings:
    """With the master key of the data directory, where no other is given. The first `up` makes it, and says so;
    another command must not, since what it would write then, a gateway with its own key could not read."""
    if loaded.master_keys is not None or loaded.master_keys_file is not None:
        return loaded
    file = loaded.data_dir / "master-keys"
    if not file.exists():
        if not make:
            return loaded
        create_key_file(file)
        _say(f"Made a master key in {file}; without it the stored provider keys can't be read, so keep a copy.")
    return loaded.model_copy(update={"master_keys_file": file})


# The database


@contextlib.contextmanager
def _database(loaded: Settings) -> Iterator[tuple[str, str]]:
    """The database's URL, and in words which one it is. One of our own is started, and stopped in the end."""
    if loaded.database_url is not None:
        yield loaded.database_url, "the one of GATEWAY_DATABASE_URL"
        return
    if loaded.database_pool_size > OWN_POOL_SIZE:
        raise ConfigurationError(
            f"GATEWAY_DATABASE_POOL_SIZE is {loaded.database_pool_size}; the gateway's own PostgreSQL takes at most "
            f"{OWN_POOL_SIZE}."
        )
    embedded = EmbeddedPostgres(loaded.data_dir, loaded.uid_base)
    try:
        _on_signals(_leave)
        yield embedded.start(), f"its own PostgreSQL in {loaded.data_dir / 'postgres'}"
    finally:
        # From here on it is about to end anyway, and must not do so before its database.
        _on_signals(signal.SIG_IGN)
        embedded.stop()


def _on_signals(handler: Callable[[int, Any], None] | signal.Handlers) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _leave(number: int, _: object) -> None:
    """Leave by an exception, so that what was started is stopped. Where one is lost, `_run` finds that it was told."""
    _told.append(number)
    raise SystemExit(128 + number)


def _migrate(loaded: Settings, _: argparse.Namespace) -> int:
    async def migrate(database: Database) -> int:
        before = await schema.upgrade(database)
        if before.behind:
            _say(f"Migrated the database from {before.current or 'nothing'} to {before.head}.")
        else:
            _say(f"The database is at {before.head} already.")
        return 0

    return _with_database(loaded, migrate)


def _with_database(loaded: Settings, work: Callable[[Database], Awaitable[int]]) -> int:
    with _database(loaded) as (url, _):

        async def run() -> int:
            database = Database(url, 2)
            try:
                await database.check()
                return await work(database)
            finally:
                await database.close()

        return uvloop.run(run())


# Keys


@dataclass(frozen=True, slots=True)
class _Keys:
    access: Access
    organization: Scope


@contextlib.asynccontextmanager
async def _audited(database: Database, organization: Scope) -> AsyncIterator[Audit]:
    """What is done in the block is the operator's, and is in the audit log when it ends."""
    log = Audit(database)
    with audit.acting(replace(audit.OPERATOR, scope=organization)):
        try:
            yield log
        finally:
            await log.write()


@contextlib.asynccontextmanager
async def _keys(loaded: Settings, database: Database) -> AsyncIterator[_Keys]:
    from gateway.crypto.tokens import TokenIssuer

    await _require_schema(database)
    organization = Scope(await ensure_organization(database))
    async with _audited(database, organization) as log:
        async with database.begin() as connection:
            pepper = await SecretStore(KeySource.of(loaded), log).pepper(connection)
        yield _Keys(Access(database, TokenIssuer(pepper), log), organization)


def _keys_create(loaded: Settings, parsed: argparse.Namespace) -> int:
    loaded = _with_own_keys(loaded)

    async def create(database: Database) -> int:
        async with _keys(loaded, database) as keys:
            scope = keys.organization
            if parsed.subaccount is not None:
                scope = await keys.access.scope_of_subaccount(scope, parsed.subaccount)
            key, secret = await keys.access.create_key(scope, parsed.name, parsed.expires_at)
        _say(f"Key {key.id}, shown this once:", file=sys.stderr)
        _say(secret)
        return 0

    return _with_database(loaded, create)


def _keys_list(loaded: Settings, _: argparse.Namespace) -> int:
    loaded = _with_own_keys(loaded)

    async def listed(database: Database) -> int:
        async with _keys(loaded, database) as keys:
            found = await keys.access.keys(keys.organization)
        for key in found:
            whose = f"subaccount {key.subaccount_id}" if key.subaccount_id else "organization"
            state = f"revoked {key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else "active"
            used = f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never"
            _say(f"{key.id}  {key.prefix}  {whose}  {key.name or '-'}  {state}  used {used}")
        return 0

    return _with_database(loaded, listed)


def _keys_revoke(loaded: Settings, parsed: argparse.Namespace) -> int:
    loaded = _with_own_keys(loaded)

    async def revoke(database: Database) -> int:
        async with _keys(loaded, database) as keys:
            try:
                which: UUID | str = UUID(parsed.key)
            except ValueError:
                which = parsed.key
            key = await keys.access.revoke_key(keys.organization, which)
        _say(f"Key {key.id} ({key.prefix}) is revoked.")
        return 0

    return _with_database(loaded, revoke)


# Secrets


def _secrets_rotate(loaded: Settings, parsed: argparse.Namespace) -> int:
    loaded = _with_own_keys(loaded)
    if parsed.new_key is not None:
        if loaded.master_keys_file is None:
            raise ConfigurationError(
                "--new-key needs a master key file; with GATEWAY_MASTER_KEYS put the new key first."
            )
        _add_master_key(loaded.master_keys_file, parsed.new_key)
    keys = KeySource.of(loaded)

    async def rotate_all(database: Database) -> int:
        await _require_schema(database)
        organization = Scope(await ensure_organization(database))
        async with _audited(database, organization) as log:
            with log.noting(Action.SECRETS_ROTATED) as noting:
                rotation = await rotate(
                    database, keys, lambda done, left: _say(f"{done} secrets re-wrapped, {left} left")
                )
                noting.details = {"masterKeyId": rotation.writing_id, "left": sum(rotation.left.values())}
        writing = rotation.writing_id
        for failure in rotation.undecryptable:
            _say(failure.message, file=sys.stderr)
        if rotation.left:
            left = ", ".join(f"{count} by {key_id!r}" for key_id, count in rotation.left.items())
            raise GatewayError(
                f"Not all secrets are under master key {writing!r} yet ({left}), so keep the old keys. "
                "What was in use meanwhile is re-wrapped by another `gateway secrets rotate`."
            )
        _say(f"All {rotation.held.get(writing, 0)} secrets are under master key {writing!r}.")
        old = [key_id for key_id in keys.ring().key_ids if key_id != writing]
        if old:
            _say(
                f"No secret needs {', '.join(map(repr, old))} any more. Once every gateway runs with {writing!r} "
                "first, and a last `gateway secrets rotate` finds nothing, take the old keys out."
            )
        return 0

    return _with_database(loaded, rotate_all)


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
            # Whoever read the old file, which may be a gateway of another user, reads the new one.
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


# The audit log


def _audit_verify(loaded: Settings, parsed: argparse.Namespace) -> int:
    async def verify(database: Database) -> int:
        await _require_schema(database)
        events, head = await audit.verify(database, after=parsed.after, pinned=parsed.pinned)
        _say(f"{events} events, each as it was written. The head, to be kept elsewhere and given to --pinned:")
        _say(str(head))
        return 0

    return _with_database(loaded, verify)


def _audit_export(loaded: Settings, parsed: argparse.Namespace) -> int:
    async def export(database: Database) -> int:
        await _require_schema(database)
        async for lines in audit.export(database, since=parsed.since, organization_id=parsed.organization):
            try:
                _say("\n".join(lines))
            except BrokenPipeError:
                # Whoever read it has enough. What Python still holds must not be tried again at its end.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 1
        return 0

    return _with_database(loaded, export)


async def _require_schema(database: Database) -> None:
    state = await schema.state(database)
    if state.behind:
        raise ConfigurationError(state.sentence())


def _doctor(loaded: Settings, _: argparse.Namespace) -> int:
    from gateway.cli import doctor

    findings = doctor.run(loaded, embedded=loaded.database_url is None)
    _say(doctor.render(findings))
    return doctor.exit_code(findings)


def _say(line: str, file: Any = None) -> None:
    print(line, file=file or sys.stdout, flush=True)
