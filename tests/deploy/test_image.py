"""A built image, run by a real engine as docs/docker.md says: GATEWAY_TEST_IMAGE names it, GATEWAY_TEST_ENGINE the
engine (`docker` or `podman`).
"""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.async_api import async_playwright

from gateway.store.embedded import EmbeddedPostgres
from tests.support.api import bearer, make_runtime, ok
from tests.support.gateway_process import ROOT
from tests.support.nginx import free_port
from tests.support.waiting import wait_until

IMAGE = os.environ.get("GATEWAY_TEST_IMAGE")
ENGINE = os.environ.get("GATEWAY_TEST_ENGINE", "docker")
START_SECONDS = 90.0
STOP_SECONDS = 30
RIGHTS = ["SETUID", "SETGID", "KILL", "CHOWN", "FOWNER", "DAC_OVERRIDE", "SYS_ADMIN", "NET_ADMIN"]

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(IMAGE is None, reason="GATEWAY_TEST_IMAGE names no image"),
]


class Contained(NamedTuple):
    name: str
    address: str
    key: str


def engine(*arguments: str | Path) -> str:
    done = subprocess.run([ENGINE, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(params=["user", "root"])
def contained(request: pytest.FixtureRequest, own_server: EmbeddedPostgres, tmp_path: Path) -> Iterator[Contained]:
    """A gateway in a container, which its user may write nothing of but its volume."""
    database_url = own_server.start()
    [sockets] = parse_qs(urlsplit(database_url).query)["host"]
    # The container's user is none of the server's.
    for each in (Path(sockets), *Path(sockets).glob(".s.*")):
        each.chmod(0o777)
    port = free_port()
    given = tmp_path / "secrets"
    given.mkdir()
    (given / "database-url").write_text(database_url)
    (given / "master-keys").write_text(f"main:{base64.b64encode(secrets.token_bytes(32)).decode()}")
    options: list[str] = [
        *("--network=host", "--read-only", "--tmpfs=/tmp:mode=1777", "--shm-size=512m", "--cap-drop=ALL"),
        "--security-opt=no-new-privileges",
        f"--security-opt=seccomp={ROOT / 'deploy' / 'docker' / 'seccomp.json'}",
        f"--volume={given}:/run/secrets:ro",
        f"--volume={sockets}:{sockets}",
        "--env=GATEWAY_DATABASE_URL_FILE=/run/secrets/database-url",
        "--env=GATEWAY_MASTER_KEYS_FILE=/run/secrets/master-keys",
        *("--env=GATEWAY_HOST=127.0.0.1", f"--env=GATEWAY_PORT={port}", "--env=GATEWAY_METRICS=off"),
    ]
    if request.param == "root":
        options += ["--user=0", "--env=GATEWAY_BROWSER_NETWORK=require", *(f"--cap-add={each}" for each in RIGHTS)]
    assert IMAGE is not None
    engine("run", "--rm", *options, IMAGE, "migrate")
    created = engine("run", "--rm", *options, IMAGE, "keys", "create", "--name", "test")
    name = f"gateway-test-{port}"
    engine("run", "--detach", f"--name={name}", *options, IMAGE)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _ready(address), "the gateway is ready", START_SECONDS)
        yield Contained(name, address, created.split()[-1])
        engine("stop", f"--time={STOP_SECONDS}", name)
        assert engine("inspect", "--format={{.State.ExitCode}}", name).strip() == "0"
    finally:
        subprocess.run([ENGINE, "rm", "--force", name], capture_output=True, check=False)


def _ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


async def test_a_lease_drives_a_sandboxed_browser_in_the_image(contained: Contained) -> None:
    async with httpx.AsyncClient(
        base_url=contained.address, headers=bearer(contained.key), timeout=60, trust_env=False
    ) as api:
        checks = (await ok(api.get("/readyz")))["checks"]
        assert checks["sandbox"] == {"ok": True, "on": True}
        runtime = await make_runtime(api, type="browser")
        path = f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}"
        lease = await ok(api.post(f"{path}/connections", json={"protocol": "cdp"}))
        async with async_playwright() as playwright:
            browser = await playwright.chromium.connect_over_cdp(lease["endpoint"]["url"])
            page = browser.contexts[0].pages[0]
            await page.goto("data:text/html,<h1>Hello</h1>")
            assert await page.inner_text("h1") == "Hello"
            assert len(await page.screenshot()) > 1000
            await browser.close()
        await ok(api.post(f"{path}/stop"))
