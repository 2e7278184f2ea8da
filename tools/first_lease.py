"""Asks a running gateway for a space, a browser and a lease, and the browser for its version over the lease's socket.

python tools/first_lease.py ADDRESS API_KEY     # in an environment that has the gateway's requirements
"""

from __future__ import annotations

import json
import sys

import httpx
from websockets.sync.client import connect


def main(address: str, key: str) -> None:
    with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=60) as api:
        space = api.post("/v1/spaces", json={"name": "smoke"}).raise_for_status().json()
        runtimes = f"/v1/spaces/{space['id']}/runtimes"
        runtime = api.post(runtimes, json={"type": "browser"}).raise_for_status().json()
        lease = api.post(f"{runtimes}/{runtime['id']}/connections", json={"protocol": "cdp"}).raise_for_status().json()
        with connect(lease["endpoint"]["url"]) as socket:
            socket.send(json.dumps({"id": 1, "method": "Browser.getVersion"}))
            answer = json.loads(socket.recv(timeout=30))
        print(answer["result"]["product"])
        api.post(f"{runtimes}/{runtime['id']}/stop").raise_for_status()


if __name__ == "__main__":
    main(*sys.argv[1:])
