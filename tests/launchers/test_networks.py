"""A runtime's own network, from within: what a process there reaches that broke out of Chromium's sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import psutil
import pytest
import pytest_asyncio

from gateway.core.errors import LaunchFailed
from gateway.launchers.base import BrowserName, LaunchSpec
from gateway.launchers.local import networks
from gateway.launchers.local.launcher import LocalLauncher
from gateway.launchers.local.local_browser import LocalBrowser
from gateway.launchers.local.networks import Networks
from tests.support.browser_kinds import EACH_KIND
from tests.support.devtools import DevTools
from tests.support.egress import serving
from tests.support.gateway_process import temporary_data_dir
from tests.support.launchers import local_launcher
from tests.support.networks import namespace_of
from tests.support.waiting import until

UNAVAILABLE = networks.why_none("auto")
needs_networks = pytest.mark.skipif(UNAVAILABLE is not None, reason=f"no networks of their own: {UNAVAILABLE}")

# Tries each address, and prints what it got.
NATIVE = """
import json, socket, sys
def tried(kind, host, port):
    try:
        if kind == "abstract":
            socket.socket(socket.AF_UNIX).connect(chr(0) + host)
            return "connected"
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as made:
            made.settimeout(5)
            if kind == "udp":
                return str(made.sendto(b"x", (host, port)))
            made.connect((host, port))
            made.sendall(b"GET http://127.0.0.1:1/ HTTP/1.1\\r\\nHost: 127.0.0.1:1\\r\\n\\r\\n")
            return made.recv(64).split(b" ")[1].decode()
    except OSError as error:
        return error.strerror
print(json.dumps([tried(*each) for each in json.loads(sys.argv[1])]))
"""
REFUSED, UNREACHABLE = "Connection refused", "Network is unreachable"
CONNECTED = """new Promise(done => {{
    const socket = new WebSocket('ws://127.0.0.1:{port}/');
    socket.onopen = socket.onerror = event => done(event.type);
}})"""

Address = tuple[str, str, int]


@pytest_asyncio.fixture(scope="module")
async def launcher() -> AsyncIterator[LocalLauncher]:
    async with local_launcher(warm_browsers=0, egress_allow=("127.0.0.1",)) as opened:
        yield opened


@contextlib.asynccontextmanager
async def launched(launcher: LocalLauncher, name: BrowserName | None = None) -> AsyncIterator[LocalBrowser]:
    browser = await launcher.launch(LaunchSpec(uuid4(), name))
    try:
        yield browser
    finally:
        await browser.stop()
        await browser.removed.wait()


async def tried(browser: LocalBrowser, *addresses: Address, inside: bool = True) -> list[str]:
    """What a process of the runtime's user gets at each address: in the runtime's network, or in the machine's."""
    home = Path(browser.files_dir).parent.stat()
    enter = ["nsenter", f"--net=/proc/{browser.group}/ns/net", "--"] if inside else []
    user = ["setpriv", "--reuid", str(home.st_uid), "--regid", str(home.st_gid), "--clear-groups", "--no-new-privs"]
    done = await asyncio.to_thread(
        subprocess.run,
        [*enter, *user, "--", sys.executable, "-I", "-c", NATIVE, json.dumps(addresses)],
        capture_output=True,
        check=True,
        timeout=60,
        cwd="/",
        env={},
    )
    answers: list[str] = json.loads(done.stdout)
    return answers


@pytest.fixture
def machine() -> Iterator[list[Address]]:
    """Listeners on every address of the machine, as its services have them."""
    with contextlib.ExitStack() as stack:
        everywhere = stack.enter_context(socket.create_server(("", 0)))
        port = everywhere.getsockname()[1]
        datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        datagrams.bind(("", 0))
        name = f"machine-{uuid4()}"
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0{name}")
        abstract.listen()
        own = {
            each.address
            for of_one in psutil.net_if_addrs().values()
            for each in of_one
            if each.family == socket.AF_INET
        }
        assert "127.0.0.1" in own
        yield [
            *(("tcp", address, port) for address in sorted(own)),
            *(("udp", address, datagrams.getsockname()[1]) for address in sorted(own - {"127.0.0.1"})),
            ("abstract", name, 0),
        ]


@needs_networks
@pytest.mark.parametrize("name", EACH_KIND)
async def test_a_process_in_a_runtimes_network_reaches_nothing_but_its_exit(
    launcher: LocalLauncher, machine: list[Address], name: BrowserName
) -> None:
    async with launched(launcher, name) as attacker, launched(launcher) as victim:
        assert len({namespace_of(pid) for pid in (attacker.group, victim.group, "self")}) == 3
        assert set(await tried(attacker, *machine)) == {REFUSED, UNREACHABLE}
        others = [port for port in ports(victim) if port not in ports(attacker)]
        assert others
        assert set(await tried(attacker, *(("tcp", "127.0.0.1", port) for port in others))) == {REFUSED}
        everywhere: list[Address] = [
            ("tcp", "169.254.169.254", 80),
            ("tcp", "1.1.1.1", 443),
            ("udp", "1.1.1.1", 53),
            ("udp", "224.0.0.251", 5353),
            ("tcp", "2606:4700:4700::1111", 443),
            ("udp", "fe80::1", 53),
        ]
        answers = await tried(attacker, *everywhere)
        assert answers[:-1] == [UNREACHABLE] * (len(everywhere) - 1)
        assert answers[-1] in (UNREACHABLE, "Invalid argument")
        # By its policy: no service is there.
        assert await tried(attacker, ("tcp", "127.0.0.1", attacker.listener.port)) == ["502"]
        # The same process in the machine's network would reach the services.
        assert REFUSED not in (reached := await tried(attacker, machine[-1], inside=False))
        assert reached == ["connected"]


def ports(browser: LocalBrowser) -> list[int]:
    """Of its DevTools and of its egress listener."""
    devtools = urlsplit(browser.devtools_url).port
    assert devtools is not None
    return [devtools, browser.listener.port]


@needs_networks
async def test_a_network_has_loopback_and_one_device_that_leads_nowhere(launcher: LocalLauncher) -> None:
    async with launched(launcher) as browser:
        net = Path(f"/proc/{browser.group}/net")
        devices = [line.split(":")[0].strip() for line in (net / "dev").read_text().splitlines()[2:]]
        assert sorted(devices) == ["eth0", "eth1", "lo"]
        assert (net / "route").read_text().splitlines()[1:] == []
        routes = {line.split()[-1] for line in (net / "ipv6_route").read_text().splitlines()}
        assert routes <= {"lo"}
        addresses = (net / "fib_trie").read_text()
        assert {line.split()[-1] for line in addresses.splitlines() if line.strip().startswith("|--")} <= {
            "0.0.0.0",
            "127.0.0.0",
            "127.0.0.1",
            "127.255.255.255",
            "192.0.2.1",
        }


@needs_networks
@pytest.mark.parametrize("name", EACH_KIND)
async def test_a_page_is_online_and_reaches_what_is_allowed(launcher: LocalLauncher, name: BrowserName) -> None:
    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nAccess-Control-Allow-Origin: *\r\n\r\nhere")
        writer.close()

    async with launched(launcher, name) as browser, DevTools.attach(browser) as client, serving(page) as port:
        session = await client.first_page()
        await client.evaluate(
            "window.changes = []; ononline = onoffline = event => changes.push(event.type); 1", session
        )
        assert await client.evaluate(f"fetch('http://127.0.0.1:{port}/').then(a => a.text())", session) == "here"
        assert await client.evaluate("[navigator.onLine, changes.length]", session) == [True, 0]
        assert browser.usage.refused == {}


@needs_networks
async def test_a_service_of_the_machine_may_have_the_number_of_a_browsers_port(launcher: LocalLauncher) -> None:
    async with launched(launcher) as browser, DevTools.attach(browser) as client:
        for number in ports(browser):
            with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", number)) as service:
                session = await client.first_page()
                asking = asyncio.create_task(client.evaluate(CONNECTED.format(port=number), session))
                accepted, _ = await asyncio.get_running_loop().run_in_executor(None, service.accept)
                accepted.close()
                assert await asking == "error"


@needs_networks
async def test_a_network_ends_with_its_runtime(launcher: LocalLauncher) -> None:
    async with launched(launcher) as browser:
        namespace, network = namespace_of(browser.group), browser.network
        assert network is not None
        (await network.connect("127.0.0.1", ports(browser)[0])).close()
    with pytest.raises(ConnectionRefusedError):
        await network.connect("127.0.0.1", ports(browser)[0])
    assert namespace not in _namespaces()


def _namespaces() -> set[str]:
    found = set()
    for pid in psutil.pids():
        with contextlib.suppress(OSError):
            found.add(namespace_of(pid))
            for descriptor in os.scandir(f"/proc/{pid}/fd"):
                found.add(os.readlink(descriptor))
    return found


@needs_networks
async def test_networks_are_made_ahead_and_none_is_left() -> None:
    before = psutil.Process().num_fds()
    made = Networks(ahead=3)
    taken = [await made.take() for _ in range(5)]
    sockets = [await each.new_socket() for each in taken]
    for each in sockets:
        each.bind(("127.0.0.1", 4711))
        each.close()
    for network in taken:
        network.close()
        network.close()
    made.close()
    await until(lambda: psutil.Process().num_fds() <= before, "no descriptor is left")
    with pytest.raises(ConnectionRefusedError):
        await taken[0].new_socket()


@needs_networks
async def test_a_wait_for_a_network_can_be_cancelled() -> None:
    before = psutil.Process().num_fds()
    made = Networks(ahead=0)
    waiting = asyncio.create_task(made.take())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    network = await made.take()
    asking = asyncio.create_task(network.new_socket())
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    network.close()
    made.close()
    await until(lambda: psutil.Process().num_fds() <= before, "no descriptor is left")


async def test_with_off_browsers_have_the_machines_network() -> None:
    async with local_launcher(warm_browsers=0, browser_network="off") as launcher, launched(launcher) as browser:
        assert browser.network is None
        assert launcher.no_networks == "GATEWAY_BROWSER_NETWORK is `off`"
        assert namespace_of(browser.group) == namespace_of("self")


@needs_networks
async def test_a_launch_without_its_network_fails(launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(self: Networks) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Networks, "take", fails)
    with pytest.raises(LaunchFailed, match="network of a browser can't be made: No space left"):
        await launcher.launch(LaunchSpec(uuid4()))


# Without the capability

OPEN = """
import asyncio, os, sys
from pathlib import Path
from gateway.core.errors import ConfigurationError
from gateway.launchers.local import browsers
from gateway.launchers.local.launcher import LocalLauncher
from gateway.settings import Settings
from gateway.telemetry import logs

async def main():
    logs.configure("info", "console")  # to stderr: a user id may be logged that other tests use
    settings = Settings(data_dir=Path(sys.argv[1]), warm_browsers=0, browser_network=sys.argv[2])
    launcher = LocalLauncher(settings, browsers.find(None))
    try:
        await launcher.open()
        print(launcher.no_networks)
    except ConfigurationError as error:
        print(error.message)
    await launcher.close()

asyncio.run(main())
"""


@needs_networks
@pytest.mark.parametrize("capability", ["sys_admin", "net_admin"])
def test_require_fails_a_start_without_the_capability_and_auto_does_not(capability: str) -> None:
    def opened(setting: str) -> str:
        with temporary_data_dir() as data_dir:
            done = subprocess.run(
                ["setpriv", "--bounding-set", f"-{capability}", sys.executable, "-c", OPEN, str(data_dir), setting],
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
        return done.stdout

    required = opened("require")
    assert required.startswith("GATEWAY_BROWSER_NETWORK is `require`")
    assert "CAP_SYS_ADMIN and CAP_NET_ADMIN" in required
    assert opened("auto") == "it needs the capabilities CAP_SYS_ADMIN and CAP_NET_ADMIN\n"
