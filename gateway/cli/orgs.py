"""`gateway orgs`: the organizations of a gateway, which see nothing of each other."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.cli.auditing import audited
from gateway.cli.commands import Commands
from gateway.cli.output import accept_json, say, say_json
from gateway.cli.with_database import require_schema, with_database
from gateway.domain.accounts.first_start import ensure_organization
from gateway.domain.accounts.organizations import Organization, Organizations
from gateway.settings import Settings
from gateway.store.database import Database


def add_to(commands: Commands) -> None:
    group = commands.group("orgs")
    creation = commands.add("create", "Make an organization and show its id.", create, to=group)
    creation.add_argument("name", help="a name for lists")
    accept_json(commands.add("list", "List organizations.", list_organizations, to=group))
    suspension = commands.add(
        "suspend", "Refuse an organization's keys from now on, and end its runtimes and leases.", suspend, to=group
    )
    resumption = commands.add("resume", "Accept the keys of a suspended organization again.", resume, to=group)
    for parser in (suspension, resumption):
        parser.add_argument("organization", help="its id, or its name")


def create(loaded: Settings, parsed: argparse.Namespace) -> int:
    async def create(organizations: Organizations) -> None:
        say(str((await organizations.create(parsed.name)).id))

    return _with_organizations(loaded, create)


def list_organizations(loaded: Settings, parsed: argparse.Namespace) -> int:
    async def show(organizations: Organizations) -> None:
        found = await organizations.all()
        if parsed.json:
            say_json([_as_document(each) for each in found])
            return
        for each in found:
            say(f"{each.id}  {each.name}  {_state(each)}")

    return _with_organizations(loaded, show)


def suspend(loaded: Settings, parsed: argparse.Namespace) -> int:
    async def suspend(organizations: Organizations) -> None:
        found = await organizations.suspend((await organizations.find(parsed.organization)).id)
        say(f"Organization {found.id} ({found.name}) is suspended; its runtimes end within seconds.")

    return _with_organizations(loaded, suspend)


def resume(loaded: Settings, parsed: argparse.Namespace) -> int:
    async def resume(organizations: Organizations) -> None:
        found = await organizations.resume((await organizations.find(parsed.organization)).id)
        say(f"Organization {found.id} ({found.name}) is active.")

    return _with_organizations(loaded, resume)


def _state(organization: Organization) -> str:
    at = organization.suspended_at
    return f"suspended {at:%Y-%m-%d %H:%M}" if at is not None else "active"


def _as_document(organization: Organization) -> dict[str, Any]:
    return {
        "id": organization.id,
        "name": organization.name,
        "createdAt": organization.created_at,
        "suspendedAt": organization.suspended_at,
    }


def _with_organizations(loaded: Settings, run: Callable[[Organizations], Awaitable[None]]) -> int:
    async def act(database: Database) -> int:
        await require_schema(database)
        await ensure_organization(database)
        async with audited(database, None) as log:
            await run(Organizations(database, log))
        return 0

    return with_database(loaded, act)
