"""Mounts of one execution, which narrow those of its runtime for that execution alone."""

from __future__ import annotations

from gateway.core.errors import Forbidden
from gateway.core.mounts import Mounts, effective, narrowed
from gateway.core.runtime_config import Proxy
from gateway.core.scope import Scope
from gateway.domain.runtimes.service import Runtime
from gateway.domain.vault import Vault, VaultPlace


async def usable(vault: Vault, scope: Scope, runtime: Runtime, own: Mounts | None) -> VaultPlace:
    """What an execution may use now. Its space is read each time, since it may be narrowed at any moment.

    Raises NotFound.
    """
    place = await vault.in_space(scope, runtime.space_id)
    return VaultPlace(place.owner, effective(effective(place.mounts or Mounts(), runtime.mounts), own))


async def check(vault: Vault, scope: Scope, runtime: Runtime, own: Mounts) -> None:
    """Raises Forbidden with each field that would allow more than the runtime may use now, or without the saved proxy
    that the runtime's traffic takes already; NotFound."""
    of_runtime = (await usable(vault, scope, runtime, None)).mounts or Mounts()
    mounts = narrowed(of_runtime, own)
    proxy = runtime.config.proxy
    if own.proxies is None or not isinstance(proxy, Proxy) or proxy.id is None or proxy.name is None:
        return
    if not mounts.allows_proxy(proxy.id, proxy.name):
        message = "The runtime was launched with a saved proxy that this lacks; its traffic can't take another way"
        error = {"field": "proxies.allow", "message": message, "value": proxy.name, "code": "mounts.proxy_in_use"}
        raise Forbidden(f"proxies.allow: {message}.", "mounts.proxy_in_use", details={"errors": [error]})
