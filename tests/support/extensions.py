"""Unpacked extensions for tests, written into a directory that the users of browsers can read."""

from __future__ import annotations

import base64
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.core.launch import LaunchedExtension
from tests.support.devtools import DevTools
from tests.support.waiting import until


def id_of(key: bytes) -> str:
    """Chromium's id of an extension with this public key."""
    return hashlib.sha256(key).hexdigest()[:32].translate(str.maketrans("0123456789abcdef", "abcdefghijklmnop"))


@contextmanager
def unpacked(name: str, files: Mapping[str, str], **manifest: Any) -> Iterator[LaunchedExtension]:
    """An extension of manifest 3; its id follows from `name`. `manifest` adds to its manifest.json."""
    key = f"the key of {name}".encode()
    whole = {"manifest_version": 3, "name": name, "version": "1.0", "key": base64.b64encode(key).decode(), **manifest}
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        directory.chmod(0o755)
        for file, text in {"manifest.json": json.dumps(whole), **files}.items():
            (directory / file).write_text(text)
            (directory / file).chmod(0o644)
        yield LaunchedExtension(id_of(key), made)


async def workers(client: DevTools, extension: LaunchedExtension) -> list[str]:
    """The targets of its service worker: one, or none where it has not started."""
    infos = (await client.send("Target.getTargets"))["targetInfos"]
    own = f"chrome-extension://{extension.id}/"
    return [info["targetId"] for info in infos if info["type"] == "service_worker" and info["url"].startswith(own)]


async def worker_of(client: DevTools, extension: LaunchedExtension) -> str:
    """A session with the service worker of an extension, once its script has its APIs."""

    async def is_there() -> bool:
        return bool(await workers(client, extension))

    await until(is_there, "the extension has a service worker")
    session = await client.session((await workers(client, extension))[0])

    async def has_apis() -> bool:
        return bool(await client.evaluate("typeof chrome == 'object' && 'runtime' in chrome", session))

    await until(has_apis, "its script runs")
    return session
