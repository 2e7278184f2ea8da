"""Clients that generators make of the served document: complete, without warnings, and able to do the README's flow."""

from __future__ import annotations

import importlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from tests.support.clients import attach_websockets
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.node import SCRIPTS, run_node

PACKAGE = "generated_client"
GENERATOR_SECONDS = 300.0

# To generate a client and to import it takes seconds; tests/http/test_openapi.py checks the document itself.
pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    with temporary_data_dir() as data_dir, GatewayProcess.start(data_dir) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def document(gateway: GatewayProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The document that the gateway serves, in a directory of its own."""
    path = tmp_path_factory.mktemp("generated") / "openapi.json"
    path.write_bytes(httpx.get(f"{gateway.base_url}/openapi.json", timeout=60).raise_for_status().content)
    return path


@pytest.fixture(scope="module")
def python_client(document: Path) -> Iterator[ModuleType]:
    """The package that openapi-python-client makes; no warning, since each one is something that is left out."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning"),
            *("--path", document, "--output-path", document.parent / PACKAGE),
        ],
        capture_output=True,
        text=True,
        timeout=GENERATOR_SECONDS,
        check=False,
        # It formats what it makes with the ruff that it finds.
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(document.parent))
    yield importlib.import_module(PACKAGE)
    sys.path.remove(str(document.parent))


async def test_a_client_of_openapi_python_client_runs_the_first_flow(
    python_client: ModuleType, gateway: GatewayProcess
) -> None:
    models = importlib.import_module(f"{PACKAGE}.models")
    types = importlib.import_module(f"{PACKAGE}.types")
    client = python_client.AuthenticatedClient(gateway.base_url, gateway.api_key, timeout=httpx.Timeout(60))

    async def call(tag: str, operation: str, *at: object, **given: object) -> object:
        module = importlib.import_module(f"{PACKAGE}.api.{tag}.{operation}")
        answer = await module.asyncio_detailed(*at, client=client, **given)
        assert answer.status_code == 200, answer.content
        return answer.parsed

    async with client:
        space = await call("spaces", "spaces_create", body=models.CreateSpace(name="generated"))
        assert isinstance(space, models.Space)
        runtime = await call("runtimes", "runtimes_create", space.id, body=models.CreateRuntime())
        assert isinstance(runtime, models.Runtime)
        at = (space.id, runtime.id)
        body = models.CreateConnection(protocol="cdp")
        lease = await call("connections", "runtimes_connections_create", *at, body=body)
        assert isinstance(lease, models.CreatedConnection)
        assert isinstance(lease.endpoint, models.WebsocketEndpoint)
        assert await attach_websockets(lease.endpoint.url) is None

        leases = await call("connections", "runtimes_connections_list", *at)
        assert [row.id for row in leases.connections] == [lease.id]  # type: ignore[attr-defined]
        run = await call("runs", "runs_get", runtime.active_run_id)
        assert isinstance(run, models.Run)
        file = types.File(io.BytesIO(b"text"), "a.txt", "text/plain")
        stored = await call("storage", "storage_files_upload", space.id, body=models.UploadFile(file=file))
        assert isinstance(stored, models.StorageFile)
        content = await call("storage", "storage_files_content", space.id, stored.id)
        assert content.payload.read() == b"text"  # type: ignore[attr-defined]

        stopped = await call("runtimes", "runtimes_stop", *at)
        assert isinstance(stopped, models.Runtime)
        assert (stopped.status, stopped.active_run_id) == ("stopped", None)
        streamed = await call("runs", "runs_events_stream", runtime.active_run_id)
        assert isinstance(streamed, str)
        assert "event: " in streamed


def test_a_generated_client_has_a_model_of_each_schema(python_client: ModuleType, document: Path) -> None:
    """None is left out or stands for any value, as with `oneOf` beside properties."""
    models = importlib.import_module(f"{PACKAGE}.models")
    schemas = json.loads(document.read_bytes())["components"]["schemas"]
    assert [name for name in schemas if not hasattr(getattr(models, name, None), "to_dict")] == []


def test_a_change_that_a_generated_client_sends_has_only_what_was_set(python_client: ModuleType) -> None:
    """A default of null in the document would be sent, and would remove the stored key."""
    models = importlib.import_module(f"{PACKAGE}.models")
    assert models.UpdateAiConnection(label="new").to_dict() == {"label": "new"}
    assert models.UpdateSubaccount(name="new").to_dict() == {"name": "new"}
    assert models.UpdateSpace(mounts=models.Mounts()).to_dict() == {"mounts": {}}


@pytest.mark.usefixtures("node_modules")
async def test_a_client_of_openapi_typescript_is_type_checked_and_runs_the_first_flow(
    document: Path, gateway: GatewayProcess
) -> None:
    directory = document.parent
    programs = SCRIPTS / "node_modules" / ".bin"
    (directory / "node_modules").symlink_to(SCRIPTS / "node_modules")
    (directory / "package.json").write_text('{"type": "module"}')
    flow = Path(shutil.copy(SCRIPTS / "generated.ts", directory))
    # The strictest way, in which whatever has a default in a body would have to be given.
    await run_node(
        programs / "openapi-typescript", "openapi.json", "--output=schema.d.ts", "--default-non-nullable=true",
        directory=directory,
    )  # fmt: skip
    await run_node(
        programs / "tsc", "--noEmit", "--strict", "--target", "esnext", "--module", "nodenext",
        "--lib", "esnext,dom", "--types", "node", "--allowImportingTsExtensions", flow.name, directory=directory,
    )  # fmt: skip
    printed = await run_node(
        flow, given=json.dumps({"baseUrl": gateway.base_url, "apiKey": gateway.api_key}), directory=directory
    )
    outcome = json.loads(printed)
    assert outcome.pop("browser").partition("/")[0] in ("Chrome", "HeadlessChrome")
    assert outcome == {"leases": [True], "runs": [True], "status": "stopped"}
