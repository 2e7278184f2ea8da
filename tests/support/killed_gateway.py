"""A gateway that kills itself at a named point of the save of a profile, as the kernel would: no handler runs.

    KILL_AT=uploading:3 python -m tests.support.killed_gateway up ...

A point is the n-th time that the gateway gets there; `POINTS` has them in the order of a save.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from gateway.cli.main import main
from gateway.crypto.streams import StreamSealer
from gateway.domain.events.service import Events
from gateway.domain.profiles import launched
from gateway.domain.profiles.launched import RuntimeProfile
from gateway.domain.profiles.packing import Packing
from gateway.domain.profiles.states import ProfileStates
from gateway.observer.devtools import DevTools
from gateway.store import browser_profiles
from gateway.store.objects import Objects
from tests.support.gateway_process import GatewayProcess

# Of a profile with 10 MB that do not compress. The state before is the last one until the row is committed.
BEFORE_COMMIT = (
    "closing:1",
    "cookies asked:1",
    "cookies answered:1",
    "browser asked to close:1",
    "browser closed:1",
    "settled:1",
    *(f"packing:{number}" for number in range(1, 21)),
    *(f"encrypting:{number}" for number in range(1, 9)),
    *(f"uploading:{number}" for number in range(1, 9)),
    "all chunks handed over:1",
    "uploaded:1",
    "row looked at:1",
    "key written:1",
    "row written:1",
)
AFTER_COMMIT = ("committed:1", "files released:1", "published:1")
POINTS = (*BEFORE_COMMIT, *AFTER_COMMIT)


class KilledGateway(GatewayProcess):
    program = "tests.support.killed_gateway"


class _Kill:
    """Counts how often each point is reached."""

    def __init__(self, at: str) -> None:
        self._name, _, times = at.partition(":")
        self._left = int(times)

    def __call__(self, name: str) -> None:
        if name == self._name:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def _patch_closing(kill: _Kill) -> None:
    close: Any = vars(launched)["close_in_order"]

    async def close_in_order(*given: Any) -> Any:
        kill("closing")
        cookies = await close(*given)
        kill("browser closed")
        return cookies

    _replace(launched, "close_in_order", close_in_order)
    call, send = DevTools.call, DevTools.send

    async def called(self: DevTools, method: str, *given: Any) -> Any:
        if method == "Storage.getCookies":
            kill("cookies asked")
        answer = await call(self, method, *given)
        if method == "Storage.getCookies":
            kill("cookies answered")
        return answer

    def sent(self: DevTools, method: str, *given: Any) -> None:
        send(self, method, *given)
        if method == "Browser.close":
            kill("browser asked to close")

    _replace(DevTools, "call", called)
    _replace(DevTools, "send", sent)
    _replace(RuntimeProfile, "settled", _then(RuntimeProfile.settled, kill, "settled"))


def _patch_stream(kill: _Kill) -> None:
    chunks, update = Packing.chunks, StreamSealer.update

    def packed(self: Packing, header: bytes) -> Iterator[bytes]:
        for chunk in chunks(self, header):
            kill("packing")
            yield chunk

    def sealed(self: StreamSealer, data: bytes) -> Iterator[bytes]:
        for chunk in update(self, data):
            kill("encrypting")
            yield chunk

    _replace(Packing, "chunks", packed)
    _replace(StreamSealer, "update", sealed)
    put = Objects.put

    async def handed(given: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in given:
            kill("uploading")
            yield chunk
        kill("all chunks handed over")

    async def putting(self: Objects, key: str, given: AsyncIterator[bytes]) -> int:
        size = await put(self, key, handed(given))
        kill("uploaded")
        return size

    _replace(Objects, "put", putting)


def _patch_row(kill: _Kill) -> None:
    has_state, save = browser_profiles.has_state, browser_profiles.save
    _replace(browser_profiles, "has_state", _then(has_state, kill, "row looked at"))
    _replace(browser_profiles, "save", _then(save, kill, "row written"))
    _replace(ProfileStates, "keep_key", _then(ProfileStates.keep_key, kill, "key written"))
    replaced, release, publish = ProfileStates.replaced, RuntimeProfile.release_files, Events.update

    def committed(self: ProfileStates, object_id: Any) -> None:
        kill("committed")
        replaced(self, object_id)

    def released(self: RuntimeProfile) -> None:
        release(self)
        kill("files released")

    def published(self: Events, scope: Any, kind: str, *given: Any) -> None:
        publish(self, scope, kind, *given)
        if kind == "browser_profile.saved":
            kill("published")

    _replace(ProfileStates, "replaced", committed)
    _replace(RuntimeProfile, "release_files", released)
    _replace(Events, "update", published)


def _replace(owner: Any, name: str, by: Any) -> None:
    setattr(owner, name, by)


def _then(original: Callable[..., Any], kill: _Kill, name: str) -> Any:
    async def patched(*given: Any) -> Any:
        result = await original(*given)
        kill(name)
        return result

    return patched


if __name__ == "__main__":
    at = _Kill(os.environ["KILL_AT"])
    _patch_closing(at)
    _patch_stream(at)
    _patch_row(at)
    raise SystemExit(main())
