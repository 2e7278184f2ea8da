"""Loads extensions into a browser that starts, once it is seen that their policies hold (extension_policy.py)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any

from gateway.core.errors import LaunchFailed
from gateway.core.launch import Failure, LaunchedExtension
from gateway.launchers import failures
from gateway.launchers.local.launch_process import CommandRefused, LaunchProcess

# Arguments of a browser that loads extensions over DevTools; a lease's policy refuses that to clients.
ARGUMENTS = ("--enable-unsafe-extension-debugging",)
# Playwright's, which such a browser does not get.
LEFT_OUT = ("--disable-extensions",)

# What Chromium answers for an address that a policy closes.
_BLOCKED = "net::ERR_BLOCKED_BY_ADMINISTRATOR"
# Any of the addresses that the policies close. All are in one file, so one shows that the browser has read it.
_CLOSED = "chrome://version/"
_FILE_ACCESS = "chrome.extension.isAllowedFileSchemeAccess()"


def preferences(extensions: Sequence[LaunchedExtension]) -> dict[str, Any]:
    """`extensions.settings` of the preferences, which has everything that Chromium knows of extensions: nothing but
    that these have no access to files, which unpacked ones have otherwise."""
    # Before Chromium has read the manifest, an extension has the id of its path.
    ids = {each.id for each in extensions} | {_id_of(each.directory) for each in extensions}
    return {each: {"newAllowFileAccess": False} for each in sorted(ids)}


def _id_of(directory: str) -> str:
    """The id that Chromium gives to an unpacked extension without a key."""
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:32]
    return digest.translate(str.maketrans("0123456789abcdef", "abcdefghijklmnop"))


async def load(process: LaunchProcess, extensions: Sequence[LaunchedExtension]) -> None:
    """Raises LaunchFailed if the policies do not hold or the browser does not load one of them, and PipeClosed."""
    try:
        await _load(process, extensions)
    except CommandRefused as error:
        # By an operator's policy against DevTools, for one.
        raise _not_contained(f"it answers {failures.clean(str(error))!r}, so that it can't be checked") from error


async def _load(process: LaunchProcess, extensions: Sequence[LaunchedExtension]) -> None:
    target = (await process.command("Target.createTarget", url="about:blank"))["targetId"]
    session = (await process.command("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
    if (await process.command("Page.navigate", session, url=_CLOSED)).get("errorText") != _BLOCKED:
        raise _not_contained("it opens its own pages")
    for extension in extensions:
        await _load_one(process, extension)
    for extension in extensions:
        await process.command("Page.navigate", session, url=f"chrome-extension://{extension.id}/manifest.json")
        answer = await process.command(
            "Runtime.evaluate", session, expression=_FILE_ACCESS, awaitPromise=True, returnByValue=True
        )
        # This finds a Chromium that does not heed the preference; an extension can't change what it says before.
        if answer["result"].get("value") is not False:
            raise _not_contained("it gives an extension access to files")
    await process.command("Target.closeTarget", targetId=target)


async def _load_one(process: LaunchProcess, extension: LaunchedExtension) -> None:
    try:
        loaded = (await process.command("Extensions.loadUnpacked", path=extension.directory))["id"]
    except CommandRefused as error:
        words = failures.clean(str(error))
        raise LaunchFailed(
            f"The browser does not load the extension {extension.id}: {words}.",
            failure=Failure.EXTENSION_REFUSED,
            advice="See that this version of Chromium supports its manifest, or launch without it.",
        ) from error
    if loaded != extension.id:
        raise LaunchFailed(
            f"The browser loads the extension {extension.id} as {loaded}.",
            failure=Failure.EXTENSION_REFUSED,
            advice="Upload the extension again.",
        )


def _not_contained(what: str) -> LaunchFailed:
    return LaunchFailed(
        f"The policy that contains extensions does not hold in the browser: {what}.",
        failure=Failure.EXTENSIONS_NOT_CONTAINED,
        advice="Launch without extensions, and run `gateway doctor` on the gateway's machine.",
    )
