"""Launching and stopping leaves nothing. The same for 200 cycles, with memory, is `python -m bench.leaks`."""

from __future__ import annotations

import httpx
import pytest

from bench.footprint import settled
from bench.leaks import Cycles
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.tiers import first_of

WARM_UP = 2
CYCLES = 6


def client(gateway: GatewayProcess) -> httpx.Client:
    return httpx.Client(base_url=gateway.base_url, headers=gateway.headers, timeout=60, trust_env=False)


@pytest.mark.parametrize("warm", first_of([1, 0]))
def test_launch_attach_and_stop_leave_no_process_descriptor_or_directory(warm: int) -> None:
    with (
        temporary_data_dir() as data_dir,
        GatewayProcess.start(data_dir, GATEWAY_WARM_BROWSERS=str(warm)) as gateway,
        client(gateway) as api,
    ):
        cycles = Cycles(api)
        for _ in range(WARM_UP):
            cycles.run(attach=True)
        before = settled(gateway, warm)
        for _ in range(CYCLES):
            cycles.run(attach=True)
        assert settled(gateway, warm, before).counts == before.counts


def test_ending_the_gateway_with_live_runtimes_leaves_no_process_and_no_directory() -> None:
    with temporary_data_dir() as data_dir, GatewayProcess.start(data_dir) as gateway:
        with client(gateway) as api:
            space = api.post("/v1/spaces", json={"name": "leaks"}).raise_for_status().json()["id"]
            for _ in range(3):
                api.post(f"/v1/spaces/{space}/runtimes", json={"type": "browser"}).raise_for_status()
        assert len(gateway.descendants()) > 3
        assert gateway.terminate() == 0
        assert gateway.leftovers() == []
        assert list((data_dir / "runtimes").iterdir()) == []
