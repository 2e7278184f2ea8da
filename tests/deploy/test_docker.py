"""What deploy/docker and the Dockerfile say, without an engine: it agrees with the gateway and with itself."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gateway.crypto.keyring import KeyRing
from gateway.settings import Settings, load
from tests.support.gateway_process import ROOT

DIRECTORY = ROOT / "deploy" / "docker"
Json = dict[str, Any]


def composed(name: str) -> Json:
    found: Json = YAML(typ="safe").load((DIRECTORY / name).read_text())
    return found


def profile() -> Json:
    found: Json = json.loads((DIRECTORY / "seccomp.json").read_text())
    return found


def rules(call: str) -> list[Json]:
    return [each for each in profile()["syscalls"] if call in each["names"]]


@pytest.fixture(scope="module")
def service() -> Json:
    found: Json = composed("compose.yaml")["services"]["gateway"]
    return found


@pytest.mark.parametrize("call", ["clone", "unshare", "chroot"])
def test_the_profile_lets_everybody_make_chromiums_sandbox(call: str) -> None:
    assert [(each["action"], each.keys() & {"args", "includes", "excludes"}) for each in rules(call)] == [
        ("SCMP_ACT_ALLOW", set())
    ]


def test_calls_with_flags_that_can_not_be_checked_are_unknown_so_that_programs_use_older_ones() -> None:
    assert rules("clone3") == [{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]


@pytest.mark.parametrize(
    "call", ["mount", "umount2", "pivot_root", "setns", "bpf", "perf_event_open", "open_by_handle_at", "init_module"]
)
def test_the_profile_asks_for_a_capability_for_what_reaches_beyond_a_container(call: str) -> None:
    found = rules(call)
    assert found
    assert all(each["includes"]["caps"] for each in found)


@pytest.mark.parametrize("call", ["keyctl", "add_key", "request_key", "userfaultfd", "kexec_load", "reboot", "swapon"])
def test_the_profile_has_no_rule_for_what_is_refused_to_all(call: str) -> None:
    assert profile()["defaultAction"] == "SCMP_ACT_ERRNO"
    assert all("caps" in each.get("includes", {}) for each in rules(call))


def test_variables_are_options_of_the_gateway(service: Json) -> None:
    isolated = composed("compose.isolated.yaml")["services"]["gateway"]
    environment = service["environment"] | isolated["environment"]
    variables = {
        name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value)
        for name, value in environment.items()
        if name != "GATEWAY_DATABASE_URL_FILE"  # there is no such file here
    }
    loaded, warnings = load(variables, {})
    assert warnings == []
    assert loaded.public_url == "http://127.0.0.1:8787"


def test_the_engine_waits_longer_than_the_gateway_takes_to_stop(service: Json) -> None:
    assert int(service["stop_grace_period"].removesuffix("s")) > Settings().shutdown_grace_seconds


def test_a_container_is_hardened(service: Json) -> None:
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true", "seccomp=./seccomp.json"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert "cap_add" not in service
    assert "privileged" not in service


def test_root_of_a_container_has_the_rights_of_the_systemd_unit() -> None:
    unit = (ROOT / "deploy" / "systemd" / "browser-gateway.service").read_text()
    [rights] = re.findall(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)
    added = composed("compose.isolated.yaml")["services"]["gateway"]["cap_add"]
    assert sorted(f"CAP_{each}" for each in added) == sorted(rights.split())


def test_secrets_are_made_once_and_are_what_the_compose_file_and_the_gateway_read(tmp_path: Path) -> None:
    made = tmp_path / "secrets"

    def make() -> dict[str, str]:
        subprocess.run([DIRECTORY / "make-secrets", made], check=True, capture_output=True)
        return {file.name: file.read_text() for file in made.iterdir()}

    first = make()
    assert make() == first
    declared = composed("compose.yaml")["secrets"]
    assert {f"./secrets/{name}" for name in first} == {each["file"] for each in declared.values()}
    assert made.stat().st_mode & 0o777 == 0o700
    KeyRing.parse(first["master-keys"], "GATEWAY_MASTER_KEYS_FILE")
    loaded, _ = load({"GATEWAY_DATABASE_URL_FILE": str(made / "database-url")}, {})
    assert loaded.database_url == f"postgresql://gateway:{first['database-password']}@database/gateway"


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    copied = {
        name for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.MULTILINE) for name in line.split()[:-1]
    }
    assert copied
    assert {name for name in copied if not (ROOT / name).exists()} == set()
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {each.removeprefix("!") for each in ignored if each.startswith("!")} == copied
    assert "*" in ignored


def test_the_image_is_not_for_root_and_ends_with_its_process() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE)[-1] == "10001:10001"
    assert 'ENTRYPOINT ["/usr/bin/tini", "--", "gateway"]' in dockerfile
    assert "--require-hashes" in dockerfile
