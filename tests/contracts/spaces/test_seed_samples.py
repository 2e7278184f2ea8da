"""The samples of the public reference, run as they are printed there: only host, key and ids in the path are put in.

What a sample prints must be the answer that the reference's own response schema describes.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from playwright._impl._driver import compute_driver_executable

from tests.support.gateway_process import GatewayProcess, temporary_data_dir

CONTRACT = Path(__file__).parent / "samples"
SAMPLE_SECONDS = 30.0

# The samples' own placeholders.
HOST = "https://api.bctrl.ai"
KEY = "<token>"
RUNTIME_PATH = "/spaces/id/runtimes/runtimeId/"

# An object as console.log prints it is an expression: node reads it back, with no access to anything.
READ_BACK = """
const {readFileSync} = require('fs');
const printed = readFileSync(0, 'utf8');
process.stdout.write(JSON.stringify(require('vm').runInNewContext(`(${printed})`)));
"""


@dataclass(frozen=True)
class Operation:
    """One page of the reference: its OpenAPI document and its samples."""

    name: str

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((CONTRACT / f"{self.name}.json").read_text())
        return document

    @property
    def response_schema(self) -> dict[str, Any]:
        """The schema of the answer 200, with the components that it refers to."""
        document = self.document
        (path,) = document["paths"].values()
        schema: dict[str, Any] = path["post"]["responses"]["200"]["content"]["application/json"]["schema"]
        return schema | {"components": document["components"]}

    def sample(self, language: str) -> str:
        return (CONTRACT / f"{self.name}.{language}.txt").read_text()


def node(*arguments: str, text: str) -> str:
    executable, _ = compute_driver_executable()
    return run([executable, *arguments], text)


def run(command: list[str], text: str) -> str:
    """Output of a command that reads `text`; a sample comes in this way too, since it holds a key."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=SAMPLE_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def run_python(sample: str) -> Any:
    return ast.literal_eval(run([sys.executable, "-"], sample))


def run_javascript(sample: str) -> Any:
    return json.loads(node("-e", READ_BACK, text=node("--input-type=module", "-", text=sample)))


LANGUAGES: dict[str, Callable[[str], Any]] = {"py": run_python, "js": run_javascript}


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    with temporary_data_dir() as data_dir, GatewayProcess.start(data_dir) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def runtime_path(gateway: GatewayProcess) -> str:
    """Path of a live runtime below /v1, as the sample writes it."""
    with httpx.Client(base_url=gateway.base_url, headers=gateway.headers, timeout=60, trust_env=False) as api:
        space = api.post("/v1/spaces", json={"name": "samples"}).raise_for_status().json()
        runtime = api.post(f"/v1/spaces/{space['id']}/runtimes", json={"type": "browser"}).raise_for_status().json()
    return f"/spaces/{space['id']}/runtimes/{runtime['id']}/"


def put_in(sample: str, **values: str) -> str:
    """The sample with its placeholders replaced; each must be there exactly once, so that nothing else is changed."""
    for placeholder, value in values.items():
        assert sample.count(placeholder) == 1, placeholder
        sample = sample.replace(placeholder, value)
    return sample


def check(answer: Any, operation: Operation) -> None:
    """The answer keeps the response schema, formats too, and has no field that the schema doesn't name."""
    schema = operation.response_schema
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    assert [error.message for error in validator.iter_errors(answer)] == []
    named = schema["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]["properties"]
    assert set(answer) <= set(named)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_sample_that_creates_an_ai_connection_works_unchanged(language: str, gateway: GatewayProcess) -> None:
    operation = Operation("ai-connections-create")
    sample = put_in(operation.sample(language), **{HOST: gateway.base_url, KEY: gateway.api_key})
    answer = LANGUAGES[language](sample)
    check(answer, operation)
    assert answer["label"] == "Customer Support AI"
    assert answer["provider"] == "openai"
    assert answer["hasStoredKey"] is False


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_sample_that_creates_a_connection_works_unchanged(
    language: str, gateway: GatewayProcess, runtime_path: str
) -> None:
    operation = Operation("connections-create")
    values = {HOST: gateway.base_url, KEY: gateway.api_key, RUNTIME_PATH: runtime_path}
    answer = LANGUAGES[language](put_in(operation.sample(language), **values))
    check(answer, operation)
    assert answer["protocol"] == "cdp"
    assert answer["endpoint"]["type"] == "websocket"
    assert answer["runtimeId"] in runtime_path


@pytest.mark.parametrize("field", ["createdAt", "id", "endpoint"])
def test_the_check_itself_finds_a_wrong_format(field: str) -> None:
    """Guards against a format checker that passes everything, as it does where its packages are missing."""
    operation = Operation("connections-create")
    right = {
        "id": "0198b7d4-2f6c-7d3e-9a51-1c6f2b8e4d70",
        "runtimeId": "0198b7d4-2f6c-7d3e-9a51-1c6f2b8e4d71",
        "runId": "0198b7d4-2f6c-7d3e-9a51-1c6f2b8e4d72",
        "protocol": "cdp",
        "status": "active",
        "endpoint": {"type": "websocket", "url": "ws://127.0.0.1:8787/v1/connect/token"},
        "createdAt": "2026-01-02T03:04:05.678Z",
        "expiresAt": "2026-01-02T04:04:05.678Z",
        "closedAt": None,
        "revokedAt": None,
    }
    wrong = {"createdAt": "yesterday", "id": "17", "endpoint": {"type": "websocket", "url": "not a uri"}}
    check(right, operation)
    with pytest.raises(AssertionError):
        check(right | {field: wrong[field]}, operation)
