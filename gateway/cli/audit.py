"""`gateway audit`: verification and export of the audit log."""

from __future__ import annotations

import argparse
from uuid import UUID

from gateway.cli.commands import Commands
from gateway.cli.output import accept_json, say, say_json
from gateway.cli.values import head, time
from gateway.cli.with_database import require_schema, with_database
from gateway.domain import audit_reading
from gateway.settings import Settings
from gateway.store.database import Database


def add_to(commands: Commands) -> None:
    group = commands.group("audit")
    verification = commands.add(
        "verify", "Verify that the audit log is unchanged, and print its head.", verify, to=group
    )
    accept_json(verification)
    verification.add_argument(
        "--pinned", type=head, metavar="SEQUENCE:HASH", help="an earlier head, which must still be in the log"
    )
    verification.add_argument(
        "--after",
        type=head,
        default=audit_reading.BEGINNING,
        metavar="SEQUENCE:HASH",
        help="begin after this event, the last one of a part that was removed",
    )
    exporting = commands.add("export", "Write the audit log as lines of JSON.", export, to=group)
    exporting.add_argument(
        "--since", type=time, metavar="TIME", help="from this time on, with zone, such as 2027-01-31T00:00:00Z"
    )
    exporting.add_argument("--organization", type=UUID, metavar="ID", help="of this organization only")


def verify(loaded: Settings, parsed: argparse.Namespace) -> int:
    async def verify(database: Database) -> int:
        await require_schema(database)
        events, head = await audit_reading.verify(database, after=parsed.after, pinned=parsed.pinned)
        if parsed.json:
            say_json({"events": events, "head": str(head)})
            return 0
        say(f"{events} events, each as it was written. The head, to be kept elsewhere and given to --pinned:")
        say(str(head))
        return 0

    return with_database(loaded, verify)


def export(loaded: Settings, parsed: argparse.Namespace) -> int:
    async def export(database: Database) -> int:
        await require_schema(database)
        async for lines in audit_reading.export(database, since=parsed.since, organization_id=parsed.organization):
            say("\n".join(lines))
        return 0

    return with_database(loaded, export)
