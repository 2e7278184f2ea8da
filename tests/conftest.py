"""Fixtures that all tests share: a real PostgreSQL, a fresh migrated database a test, a gateway without browsers."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from httpx._config import DEFAULT_TIMEOUT_CONFIG
from httpx._transports import default as httpx_transport
from hypothesis import settings as hypothesis_settings

from gateway.app import Gateway, build
from gateway.crypto.keyring import create_key_file
from gateway.domain.accounts.first_start import write_first_key
from gateway.domain.secrets import KeySource, SecretStore
from gateway.observer.observers import Watcher
from gateway.settings import Settings
from gateway.store import database as of_database
from gateway.store import schema
from gateway.store.database import Database
from gateway.store.embedded import EmbeddedPostgres
from gateway.telemetry import logs
from tests.support import missing, node, scratch, surroundings
from tests.support.away import Away
from tests.support.databases import TEMPLATE, execute, fresh_database, named
from tests.support.launchers import WorkingLauncher
from tests.support.once import compiling_once, reading_certificates_once
from tests.support.secret_search import answers, noting, places
from tests.support.secret_search.search import searching

# A busy machine makes no example wrong.
hypothesis_settings.register_profile("busy", deadline=None)
hypothesis_settings.load_profile("busy")

# Five seconds by default, which a gateway on a busy machine may need for an answer.
for _part in ("connect", "read", "write", "pool"):
    setattr(DEFAULT_TIMEOUT_CONFIG, _part, 60.0)

# Each client would read the certificates of the machine anew, and each database compile the same statements, which
# together take a sixth of the time of tests with a gateway in this process.
for _module, _name, _once in (
    (httpx_transport, "create_ssl_context", reading_certificates_once),
    (of_database, "create_async_engine", compiling_once),
):
    setattr(_module, _name, _once(getattr(_module, _name)))

# What takes longest, in processor time and while it waits, longest first; a missing name costs a moment at the
# end of a run.
_LONGEST = (
    "test_tenancy",
    "test_faults",
    "test_doctor",
    "test_isolation",
    "test_attach",
    "test_discovery",
    "test_launcher",
    "test_several_gateways",
    "test_profile_faults",
    "test_workers",
    "test_clients",
    "test_observer",
    "test_cli",
    "test_page_attacks",
    "test_lease_sockets",
    "test_tools",
    "test_live_view",
    "test_errors",
    "test_browser_extensions",
    "test_storage",
    "test_policy_clients",
    "test_openapi",
    "test_stagehand_invoked",
    "test_embedded",
    "test_shutdown",
    "test_browsers",
    "test_server_protocol",
    "test_golden",
    "test_runtime_limits",
    "test_lifecycle",
    "test_vault",
    "test_recording",
    "test_event_streams",
    "test_proxies",
    "test_secrets",
    "test_executions",
    "test_docs_page",
    "test_stagehand",
    "test_browser_use_invoked",
    "test_audit",
    "test_large_commands",
    "test_processes",
    "test_runtimes",
    "test_supervisor",
    "test_operations",
    "test_profiles",
    "test_connections",
    "test_egress_browser",
    "test_saved_proxies_of_launches",
    "test_readme",
    "test_invocations",
    "test_secrets_of_steps",
    "test_workspaces_page",
    "test_runtimes_and_leases",
    "test_executions_across_gateways",
    "test_network",
    "test_downloads",
    "test_hostile_extensions",
    "test_extras",
    "test_alerts",
    "test_lying_process",
    "test_profile_races",
    "test_extensions",
    "test_events",
    "test_extension_packages",
    "test_lists",
    "test_user_agent",
    "test_house",
    "test_backup",
    "test_networks",
)


def pytest_configure(config: pytest.Config) -> None:
    """A directory of this run's own for all that is temporary; its workers share it.

    pytest's usual one is shared, and closed to other users by each further run, browsers and databases among them.
    """
    surroundings.normalize()
    if not hasattr(config, "workerinput"):
        root = tempfile.mkdtemp(prefix="gw-", dir=scratch.place())
        # Browsers and databases have users of their own, who pass through it.
        Path(root).chmod(0o711)
        os.environ["PYTEST_DEBUG_TEMPROOT"] = os.environ["TMPDIR"] = tempfile.tempdir = root


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported and collected stays until the end, so no garbage collection need scan it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Workers are given a file at a time; the long ones come first, so that none is left for the end."""
    if hasattr(config, "workerinput"):
        places = {name: place for place, name in enumerate(_LONGEST)}
        items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop("PYTEST_DEBUG_TEMPROOT"), ignore_errors=True)
        # Whoever runs tests several times in one process (mutmut) makes a further one.
        tempfile.tempdir = None
        del os.environ["TMPDIR"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", [])]
    if lines := missing.summary(skipped):
        terminalreporter.section("NOT TESTED HERE", "!", red=True, bold=True)
        for line in lines:
            terminalreporter.line(line, red=True, bold=True)


@pytest.fixture(scope="session", autouse=True)
def _logging() -> Iterator[None]:
    """All is logged, and what may not have a secret is heard of."""
    logs.configure("debug", "json")
    with pytest.MonkeyPatch.context() as patch:
        for each in (noting, places, answers):
            each.listen(patch)
        yield


@pytest.fixture(scope="module", autouse=True)
def _no_secret_is_seen(_logging: None) -> Iterator[None]:
    """No secret that a module used may be where none belongs (tests/support/secret_search)."""
    with searching() as search:
        noting.note_first(search)
        yield
        places.take_metrics()
        if found := search.found():
            pytest.fail("Secrets were found:\n" + "\n".join(found), pytrace=False)


@pytest.fixture(scope="session")
def node_modules() -> None:
    """What the clients on Node.js need."""
    node.install_packages()


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server: the one of GATEWAY_TEST_DATABASE_URL, or one of the tests' own."""
    given = os.environ.get("GATEWAY_TEST_DATABASE_URL")
    if given is not None:
        yield given
        return
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), 870000)
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def own_server() -> Iterator[EmbeddedPostgres]:
    """A database server that a test may stop and start."""
    with tempfile.TemporaryDirectory(prefix="gateway-db-") as directory:
        Path(directory).chmod(0o711)
        server = EmbeddedPostgres(Path(directory), Settings().uid_base)
        try:
            yield server
        finally:
            server.stop()


@pytest_asyncio.fixture(scope="session")
async def template_url(postgres_url: str) -> AsyncIterator[str]:
    """A migrated database that others are copied from, which takes a tenth of migrating anew."""
    if "GATEWAY_TEST_DATABASE_URL" not in os.environ:
        # Its data need not outlive the tests, and a database a test is many files to write through.
        for option in ("fsync", "full_page_writes"):
            await execute(postgres_url, f"ALTER SYSTEM SET {option} = off")
        await execute(postgres_url, "SELECT pg_reload_conf()")
    await execute(postgres_url, f"DROP DATABASE IF EXISTS {TEMPLATE}")
    await execute(postgres_url, f"CREATE DATABASE {TEMPLATE}")
    template = Database(named(postgres_url, TEMPLATE), 2)
    await schema.upgrade(template)
    await template.close()
    yield postgres_url
    await execute(postgres_url, f"DROP DATABASE {TEMPLATE}")


@pytest_asyncio.fixture
async def database_url(template_url: str) -> AsyncIterator[str]:
    """URL of a fresh, migrated, empty database."""
    async with fresh_database(template_url) as url:
        yield url


@pytest_asyncio.fixture
async def away(database_url: str) -> AsyncIterator[Away]:
    opened = Away(database_url, 4)
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url, 10)
    yield opened
    await opened.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, shutdown_grace_seconds=5)


@pytest.fixture
def keys(tmp_path: Path) -> KeySource:
    file = tmp_path / "master-keys"
    create_key_file(file)
    return KeySource(file.read_text, file)


@pytest.fixture
def launcher(tmp_path: Path) -> WorkingLauncher:
    """A launcher without browsers; a test that wants another one overrides this fixture."""
    return WorkingLauncher(tmp_path / "runtimes")


@pytest.fixture
def watchers() -> Sequence[Watcher] | None:
    """None of them, since there are no browsers; a test with real ones returns None for all that there are."""
    return ()


@pytest_asyncio.fixture
async def api_key(database: Database, keys: KeySource, tmp_path: Path) -> str:
    """The organization's first key."""
    key = await write_first_key(database, SecretStore(keys), tmp_path / "api-key")
    assert key is not None
    return key


@pytest_asyncio.fixture
async def gateway(
    settings: Settings,
    database: Database,
    keys: KeySource,
    launcher: WorkingLauncher,
    api_key: str,
    watchers: Sequence[Watcher] | None,
) -> AsyncIterator[Gateway]:
    """A whole gateway in this process, whose launcher starts no browsers."""
    built = await build(settings, database, keys, launcher, uuid4(), watchers)
    async with built.running():
        yield built


@pytest_asyncio.fixture
async def anonymous(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a key."""
    transport = httpx.ASGITransport(gateway.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8787") as client:
        yield client


@pytest_asyncio.fixture
async def client(gateway: Gateway, api_key: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the organization's key."""
    transport = httpx.ASGITransport(gateway.app)
    headers = {"Authorization": f"Bearer {api_key}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8787", headers=headers) as client:
        yield client
