"""What a gateway does where an extra of the package is not installed: works without it, and says what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from gateway.core import extras
from gateway.core.extras import Extra
from tests.support.databases import fresh_database
from tests.support.gateway_process import ROOT, GatewayProcess, temporary_data_dir

EXTRAS = [extras.EMBEDDED, extras.RECORDINGS, extras.DOCS]


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a Python that finds none of the extras' modules."""
    directory = tmp_path_factory.mktemp("without")
    hidden = "".join(f"sys.modules[{extra.module!r}] = None\n" for extra in EXTRAS)
    (directory / "sitecustomize.py").write_text(f"import sys\n{hidden}")
    return {"PYTHONPATH": os.pathsep.join([str(directory), str(ROOT)])}


@pytest_asyncio.fixture(scope="module")
async def own_database(template_url: str) -> AsyncIterator[str]:
    async with fresh_database(template_url) as url:
        yield url


@pytest.fixture(scope="module")
def gateway(without: dict[str, str], own_database: str) -> Iterator[GatewayProcess]:
    with (
        temporary_data_dir() as data_dir,
        GatewayProcess.start(data_dir, GATEWAY_DATABASE_URL=own_database, **without) as gateway,
    ):
        yield gateway


def run(without: dict[str, str], *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    command = [sys.executable, "-m", "gateway", *arguments]
    return subprocess.run(
        command, env=kept | without | env, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False
    )


@pytest.mark.parametrize("extra", EXTRAS, ids=lambda extra: extra.name)
def test_every_extra_is_installed_for_the_tests(extra: Extra) -> None:
    assert extra.installed


def test_up_without_a_database_says_what_to_install(without: dict[str, str], tmp_path: Path) -> None:
    done = run(without, "up", "--port", "0", "--data-dir", str(tmp_path))
    assert done.returncode == 1
    assert "pip install 'browser-gateway[embedded]'" in done.stderr
    assert "Or set GATEWAY_DATABASE_URL." in done.stderr


async def test_recording_by_default_refuses_the_start(
    without: dict[str, str], template_url: str, tmp_path: Path
) -> None:
    async with fresh_database(template_url) as url:
        options = {"GATEWAY_DATABASE_URL": url, "GATEWAY_RECORDING": "true"}
        done = run(without, "up", "--port", "0", "--data-dir", str(tmp_path), **options)
    assert done.returncode == 1
    assert "GATEWAY_RECORDING is on." in done.stderr
    assert "pip install 'browser-gateway[recordings]'" in done.stderr


def test_doctor_names_each_that_is_missing(without: dict[str, str], tmp_path: Path) -> None:
    printed = run(without, "doctor", "--data-dir", str(tmp_path)).stdout
    assert [extra.name for extra in EXTRAS if extra.advice not in printed] == []


@pytest.mark.thorough
def test_the_page_of_docs_is_not_implemented_and_its_document_is_served(gateway: GatewayProcess) -> None:
    refused = httpx.get(f"{gateway.base_url}/docs")
    assert (refused.status_code, refused.json()["code"]) == (501, "docs.not_installed")
    assert "browser-gateway[docs]" in refused.json()["error"]
    assert httpx.get(f"{gateway.base_url}/openapi.json").json()["openapi"].startswith("3.")


def test_a_runtime_starts_and_only_its_recording_is_refused(gateway: GatewayProcess) -> None:
    with httpx.Client(base_url=gateway.base_url, headers=gateway.headers, timeout=60) as api:
        space = api.post("/v1/spaces", json={"name": "without"}).raise_for_status().json()
        runtimes = f"/v1/spaces/{space['id']}/runtimes"
        refused = api.post(runtimes, json={"type": "browser", "config": {"recording": True}})
        assert (refused.status_code, refused.json()["code"]) == (501, "recording.not_installed")
        assert "browser-gateway[recordings]" in refused.json()["error"]
        runtime = api.post(runtimes, json={"type": "browser"}).raise_for_status().json()
        api.post(f"{runtimes}/{runtime['id']}/stop").raise_for_status()
