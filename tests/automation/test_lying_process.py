"""A process of steps that a page has taken over gets no secret, and has none typed, by what it says of its pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.execution import Executing, step
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.pages import PageServer
from tests.support.remote import Remote

LYING = Path(__file__).parents[1] / "support" / "lying"
PASSWORD = "correct-horse-battery-9b21"
REFERENCE = {"secret": "site/login", "field": "password"}
TYPED = "Array.from(document.querySelectorAll('input'), (field) => field.value)"


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    with (
        temporary_data_dir() as data_dir,
        GatewayProcess.start(data_dir, GATEWAY_EGRESS_ALLOW="127.0.0.1", PYTHONPATH=str(LYING)) as started,
    ):
        yield started


@pytest_asyncio.fixture(scope="module")
async def attacked(remote: Remote, pages: PageServer) -> Executing:
    """A runtime whose workspace may use secrets of the pages' origin."""
    workspace = await remote.post("/v1/workspaces", {"name": "login", "mounts": {"vault": {"allow": ["site"]}}})
    made = await remote.post(f"/v1/workspaces/{workspace['id']}/runtimes", {"kind": "browser", "alias": "main"})
    for key in ("site/login", "site/further"):
        body = {"username": "ada", "password": PASSWORD, "origins": [pages.base_url]}
        (await remote.api.put(f"/v1/vault/{key}", json=body)).raise_for_status()
    return Executing(remote, f"/v1/spaces/{workspace['id']}/runtimes/{made['id']}", pages.base_url)


@pytest.mark.parametrize(
    ("lie", "code", "answer"),
    [
        ("origin", "execute.failed", "vault.origin_refused"),
        ("page", "execute.failed", "The element is no longer in its page."),
        ("key", "execute.failed", "The step refers to no such secret."),
        ("step", "execute.failed", "The step refers to no such secret."),
        ("mark", "execute.process_lost", ""),
        ("types", "execute.process_lost", ""),
    ],
)
async def test_a_lie_gets_nothing(
    attacked: Executing, gateway: GatewayProcess, lie: str, code: str, answer: str
) -> None:
    with PageServer() as evil:
        results = await attacked.run(
            step("page.goto", "{pages}/playground"),
            step("context.newPage", alias="evil"),
            step("page.goto", f"{evil.base_url}/form", ref="evil"),
            step("page.evaluate", f"document.querySelector('input').dataset.lie = '{lie}'", ref="evil"),
            step("page.fill", "input", REFERENCE, ref="evil"),
        )
        error = results[-1]["error"]
        assert (len(results), error["code"]) == (5, code), error
        assert answer in error["message"]
        # Masked, it would show that the process had it.
        assert not {PASSWORD, "***"} & set(error["message"].replace("'", " ").split())
        # The process may be another one by now, which knows all pages by their ids.
        for page in await attacked.value(step("context.pages")):
            typed = await attacked.value(step("page.evaluate", TYPED, ref=page["id"]))
            assert not {PASSWORD, "***"} & set(typed), page
            if page["url"].startswith(evil.base_url):
                await attacked.value(step("page.close", ref=page["id"]))
    assert PASSWORD not in gateway.log


async def test_one_that_does_not_lie_has_it_typed(attacked: Executing) -> None:
    """So that the lies above are what is refused."""
    filled = step("page.fill", "#password", REFERENCE)
    read = step("page.evaluate", "document.querySelector('#password').value.length")
    assert await attacked.value(step("page.goto", "{pages}/playground"), filled, read) == len(PASSWORD)
