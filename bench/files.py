"""What a large file costs: memory of the gateway and bytes a second, up into storage and down out of it.

python -m bench.files [--mib 2048] [--at-once 1] [--bucket] [--json]

`--bucket` stores in a server of buckets in this process, which is what then is measured more than the gateway.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import httpx
import psutil

from bench.figures import table, verdict
from tests.support.buckets import serving_bucket
from tests.support.gateway_process import GatewayProcess, temporary_data_dir

MIB = 1024 * 1024
# Of memory, each file on its way may add so much: a few parts of 8 MiB.
GROWTH_MIB = 64.0
_TAIL = b"\r\n--x--\r\n"
_SAMPLE_SECONDS = 0.02


@dataclass(frozen=True)
class Figures:
    """Of one direction: MiB a second of all files together, and MiB that the gateway's memory grew by at most."""

    direction: str
    mib_per_second: float
    growth_mib: float


class Memory:
    """The most memory that a process has had in a `with` block, beyond what it had at its begin."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.growth = 0.0

    def __enter__(self) -> Memory:
        self._before = self._process.memory_info().rss
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            self.growth = max(self.growth, (self._process.memory_info().rss - self._before) / MIB)


class Client:
    """Speaks plain HTTP on sockets, so that it costs less than what it measures."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._port = int(gateway.base_url.rpartition(":")[2])
        self._key = gateway.api_key

    def upload(self, path: str, name: str, mib: int) -> str:
        """The id of a new file of that size."""
        head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
        chunk = bytes(range(256)) * (MIB // 256)
        with self._asked("POST", path, len(head) + mib * MIB + len(_TAIL)) as connection:
            connection.sendall(head)
            for _ in range(mib):
                connection.sendall(chunk)
            connection.sendall(_TAIL)
            answer = b""
            while b"}" not in answer:
                answer += connection.recv(65536)
        found = re.search(rb'"id":"([0-9a-f-]+)"', answer)
        assert found is not None, answer
        return found[1].decode()

    def download(self, path: str, mib: int) -> None:
        buffer = bytearray(MIB)
        with self._asked("GET", path, 0) as connection:
            got = b""
            while b"\r\n\r\n" not in got:
                got += connection.recv(65536)
            head, _, body = got.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            left = mib * MIB - len(body)
            while left > 0:
                read = connection.recv_into(buffer)
                assert read, "the answer ended early"
                left -= read

    @contextlib.contextmanager
    def _asked(self, method: str, path: str, length: int) -> Iterator[socket.socket]:
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: localhost",
            f"Authorization: Bearer {self._key}",
            f"Content-Length: {length}",
            "Content-Type: multipart/form-data; boundary=x",
        ]
        with socket.create_connection(("127.0.0.1", self._port)) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            yield connection


def measure(gateway: GatewayProcess, mib: int, at_once: int) -> list[Figures]:
    with httpx.Client(base_url=gateway.base_url, headers=gateway.headers, timeout=60, trust_env=False) as api:
        space = api.post("/v1/spaces", json={}).raise_for_status().json()["id"]
    path = f"/v1/spaces/{space}/storage/files"
    client = Client(gateway)
    # What is only made once is not what a large file costs.
    client.download(f"{path}/{client.upload(path, 'first.bin', 32)}/content", 32)
    figures = []
    with ThreadPoolExecutor(at_once) as threads:
        with Memory(gateway.pid) as memory:
            started = time.perf_counter()
            files = list(threads.map(lambda number: client.upload(path, f"{number}.bin", mib), range(at_once)))
            seconds = time.perf_counter() - started
        figures.append(Figures("upload", at_once * mib / seconds, memory.growth))
        with Memory(gateway.pid) as memory:
            started = time.perf_counter()
            list(threads.map(lambda file: client.download(f"{path}/{file}/content", mib), files))
            seconds = time.perf_counter() - started
        figures.append(Figures("download", at_once * mib / seconds, memory.growth))
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--bucket", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        env = {"GATEWAY_WARM_BROWSERS": "0"}
        if options.bucket:
            bucket = stack.enter_context(serving_bucket())
            env |= {
                "GATEWAY_FILES_URL": f"s3://{bucket.name}?endpoint={bucket.endpoint}&region=us-east-1",
                "GATEWAY_FILES_ACCESS_KEY": "access",
                "GATEWAY_FILES_SECRET_KEY": "secret",
            }
        data_dir = stack.enter_context(temporary_data_dir())
        gateway = stack.enter_context(GatewayProcess.start(data_dir, **env))
        figures = measure(gateway, options.mib, options.at_once)
    goal = GROWTH_MIB * options.at_once
    met = all(figure.growth_mib <= goal for figure in figures)
    if options.json:
        print(json.dumps([asdict(figure) for figure in figures]))
        return 0 if met else 1
    print(f"{options.at_once} x {options.mib} MiB, {'bucket' if options.bucket else 'directory'}\n")
    rows = [
        (figure.direction, f"{figure.mib_per_second:.0f}", f"{figure.growth_mib:.1f}", verdict(figure.growth_mib, goal))
        for figure in figures
    ]
    print(table(("direction", "MiB/s", "memory grew by, MiB", f"at most {goal:g}"), rows))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
