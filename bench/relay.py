"""What the relay adds to a model's calls and streams, beside the same calls without it, in one run.

python -m bench.relay [--count 500] [--events 2000] [--json]

Three processes: a stand-in for the provider, a relay with a database and a saved connection, and the client, which
calls the provider directly and through the relay in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import uvloop

from bench.figures import percentile, table, verdict
from gateway.core.ids import new_id
from gateway.core.mounts import AiMount, Mounts
from gateway.core.scope import Scope
from gateway.crypto.keyring import create_key_file
from gateway.domain.ai.choice import AiChoices, AiRequest
from gateway.domain.ai.connections import AiConnectionRequest, AiConnections
from gateway.domain.ai.providers import ProviderClient
from gateway.domain.audit import Audit
from gateway.domain.secrets import KeySource, SecretStore
from gateway.egress.outbound import Outbound
from gateway.egress.proxy import EgressProxy
from gateway.relay.relay import Relay
from gateway.settings import Settings
from gateway.store import accounts
from gateway.store.database import Database
from gateway.store.embedded import EmbeddedPostgres
from gateway.store.schema import upgrade

MODEL = "bench"
KEY = "sk-of-the-bench-0123456789"
GOAL_MS = 2.0
PACE_SECONDS = 0.005
BODIES = {"8 KB": 8_000, "400 KB, a screenshot": 400_000}
_USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
_MANY = 1_000_000_000


# The provider: as little as can answer, so that what is measured is the way to it.


async def _provide(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # It is cancelled with its loop, at the end of the bench; Python 3.11 would print that.
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            asked = json.loads(await reader.readexactly(length))
            if asked.get("stream"):
                await _stream(writer, int(asked["user"]), paced=bool(asked.get("seed")))
            else:
                message = {"role": "assistant", "content": "word " * 100}
                body = json.dumps({"choices": [{"index": 0, "message": message}], "usage": _USAGE}).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                    % (len(body), body)
                )
            await writer.drain()
    writer.close()


async def _stream(writer: asyncio.StreamWriter, count: int, *, paced: bool) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(count):
        document = {"choices": [{"index": 0, "delta": {"content": "a few words more"}}], "at": time.monotonic()}
        _chunk(writer, b"data: %s\n\n" % json.dumps(document).encode())
        await writer.drain()
        if paced:
            await asyncio.sleep(PACE_SECONDS)
    _chunk(writer, b'data: {"choices": [], "usage": %s}\n\n' % json.dumps(_USAGE).encode())
    _chunk(writer, b"data: [DONE]\n\n")
    writer.write(b"0\r\n\r\n")


def _chunk(writer: asyncio.StreamWriter, event: bytes) -> None:
    writer.write(b"%x\r\n%s\r\n" % (len(event), event))


async def _provider() -> None:
    server = await asyncio.start_server(_provide, "127.0.0.1", 0, limit=2**20)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


# The relay, with all that a call of a gateway's agent goes through.


def _relay(port: int) -> None:
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as directory:
        Path(directory).chmod(0o711)
        file = Path(directory) / "master-keys"
        create_key_file(file)
        settings = Settings(
            data_dir=Path(directory),
            egress_allow=("127.0.0.1",),
            relay_max_calls=1_000_000,
            relay_max_tokens=_MANY,
            relay_answer_bytes=_MANY,
        )
        server = EmbeddedPostgres(settings.data_dir / "postgres", settings.uid_base)
        try:
            uvloop.run(_relaying(port, settings, KeySource(file.read_text, file), server.start()))
        finally:
            server.stop()


async def _relaying(port: int, settings: Settings, keys: KeySource, url: str) -> None:
    database = Database(url, settings.database_pool_size)
    await upgrade(database)
    audit = Audit(database)
    outbound = Outbound(EgressProxy(settings))
    secrets = SecretStore(keys, audit)
    providers = ProviderClient("", "", "", 1, outbound)
    scope = Scope(new_id())
    async with database.begin() as connection:
        await accounts.add_organization(connection, scope.organization_id, "bench")
    base_url = f"http://127.0.0.1:{port}/v1"
    request = AiConnectionRequest("main", "openai-compatible", default_model=MODEL, base_url=base_url)
    await AiConnections(database, secrets, providers, outbound, audit).create(scope, KEY, request)
    choices = AiChoices(database, secrets, outbound, settings)
    choice = await choices.choose(scope, Mounts(ai=AiMount()), None, "", AiRequest(connection="main"))
    relay = Relay(settings, outbound)
    async with audit.running():
        endpoint = await relay.open(choice.target, choices.key(choice))
        print(json.dumps([endpoint.address.base_url, endpoint.address.token]), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await relay.aclose()
    await database.close()


# The client


class Way:
    """A connection, kept between calls, to the provider or to the relay."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        self.seconds: dict[str, list[float]] = {name: [] for name in BODIES}
        self.late: list[float] = []
        self.rates: list[float] = []

    def call(self, name: str) -> None:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "x" * BODIES[name]}]}
        text = json.dumps(body)
        began = time.perf_counter()
        self._connection.request("POST", "/v1/chat/completions", text, self._headers)
        answer = self._connection.getresponse()
        assert json.loads(answer.read())["usage"] == _USAGE, answer.status
        self.seconds[name].append(time.perf_counter() - began)

    def stream(self, events: int, *, paced: bool) -> None:
        body = {"model": MODEL, "messages": [], "stream": True, "user": str(events), "seed": int(paced)}
        body["stream_options"] = {"include_usage": True}
        began = time.perf_counter()
        self._connection.request("POST", "/v1/chat/completions", json.dumps(body), self._headers)
        answer = self._connection.getresponse()
        seen = 0
        for line in iter(answer.readline, b""):
            if line.startswith(b'data: {"choices": [{'):
                seen += 1
                if paced:
                    self.late.append(time.monotonic() - json.loads(line[6:])["at"])
        assert seen == events
        if not paced:
            self.rates.append(events / (time.perf_counter() - began))


@contextlib.contextmanager
def _process(*arguments: str) -> Iterator[tuple[psutil.Process, str]]:
    """A part of this bench in a process of its own, and the line that it begins with."""
    command = [sys.executable, "-m", "bench.relay", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield psutil.Process(process.pid), process.stdout.readline()
        finally:
            process.stdin.close()


def _processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _measured(count: int, events: int) -> dict[str, Any]:
    before = 0.0
    with _process("--provider") as (_, port), _process("--relay", port.strip()) as (process, address):
        base_url, token = json.loads(address)
        direct = Way(int(port), KEY)
        relayed = Way(int(base_url.rpartition(":")[2]), token)
        for at in range(count + 20):
            # The first ones open connections.
            if at == 20:
                before = _processor_seconds(process)
                for way in (direct, relayed):
                    way.seconds = {name: [] for name in BODIES}
            for way in (direct, relayed) if at % 2 else (relayed, direct):
                for name in BODIES:
                    way.call(name)
        of_calls = _processor_seconds(process) - before
        for at in range(6):
            for way in (direct, relayed) if at % 2 else (relayed, direct):
                way.stream(events, paced=False)
                way.stream(events // 10, paced=True)
    return {
        "processor_ms": 1000 * of_calls / (count * len(BODIES)),
        "calls": {
            name: {
                side: {f"p{percent}": 1000 * percentile(way.seconds[name], percent) for percent in (50, 99)}
                for side, way in (("direct", direct), ("relayed", relayed))
            }
            for name in BODIES
        },
        "late": {
            side: {f"p{percent}": 1000 * percentile(way.late, percent) for percent in (50, 99)}
            for side, way in (("direct", direct), ("relayed", relayed))
        },
        "rates": {side: percentile(way.rates, 50) for side, way in (("direct", direct), ("relayed", relayed))},
    }


def _report(figures: dict[str, Any]) -> str:
    rows = []
    for name, sides in figures["calls"].items():
        added = sides["relayed"]["p50"] - sides["direct"]["p50"]
        cells = [f"{sides[side][p]:.2f}" for side in ("direct", "relayed") for p in ("p50", "p99")]
        rows.append([f"call, {name}, ms", *cells, f"+{added:.2f}", verdict(added, GOAL_MS)])
    late = figures["late"]
    cells = [f"{late[side][p]:.2f}" for side in ("direct", "relayed") for p in ("p50", "p99")]
    rows.append(["event of a paced stream, ms", *cells, f"+{late['relayed']['p50'] - late['direct']['p50']:.2f}", ""])
    rates = figures["rates"]
    share = rates["relayed"] / rates["direct"]
    rows.append(
        [
            "stream at full speed, events/s",
            f"{rates['direct']:.0f}",
            "",
            f"{rates['relayed']:.0f}",
            "",
            f"{share:.2f}",
            "",
        ]
    )
    rows.append(["the relay's processor time, ms a call", "", "", f"{figures['processor_ms']:.2f}", "", "", ""])
    return table(("", "direct p50", "p99", "relayed p50", "p99", "", "goal"), rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="calls of each size and way")
    parser.add_argument("--events", type=int, default=2000, help="events of a stream at full speed")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--provider", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--relay", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.provider:
        uvloop.run(_provider())
    elif options.relay is not None:
        _relay(options.relay)
    else:
        figures = _measured(options.count, options.events)
        print(json.dumps(figures) if options.json else _report(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
