"""Types secrets of the vault into pages, for steps that name them.

The process that carries out steps may be under the control of a hostile page. So it says which element it means, and
never has the secret: the gateway finds the element, learns the origins around it from the browser, and types.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

from gateway.core.mounts import Mounts
from gateway.core.observation import Observed
from gateway.core.secret_entry import SecretEntry
from gateway.domain.events.run_commands import Commands
from gateway.domain.execution.mounts import usable
from gateway.domain.runtimes.service import Runtime
from gateway.domain.vault import Vault
from gateway.observer.devtools import DevToolsError
from gateway.observer.entering import EnteringError, marked_element
from gateway.observer.observers import BrowserObservers


class NotEntered(Exception):
    """Raised when a page did not take a secret, with the code of the step's error."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class StepSecrets:
    def __init__(self, vault: Vault, observers: BrowserObservers, commands: Commands) -> None:
        self._vault = vault
        self._observers = observers
        self._commands = commands
        self._typed: dict[UUID, list[str]] = {}

    def typed(self, runtime_id: UUID) -> list[str]:
        """Secrets that were typed into a runtime's pages, by steps or for agents: they can be read from these."""
        return self._typed.get(runtime_id, [])

    async def enter(
        self,
        observed: Observed,
        runtime: Runtime,
        mounts: Mounts | None,
        entry: SecretEntry,
        seconds: float,
        conceal: Callable[[str], None] | None = None,
    ) -> None:
        """Type a secret into a page within so many seconds; `conceal` gets its value before the page does. `mounts`
        are those of the execution. A password or value is masked in what is recorded of the run from then on.

        Raises NotEntered; NotFound, Forbidden, RequestInvalid of the vault.
        """
        observation = self._observers.of(observed.runtime_id)
        if observation is None:
            raise NotEntered("The gateway has no connection to the browser now.", "execute.page_unresponsive")
        try:
            async with (
                asyncio.timeout(seconds),
                marked_element(observation.devtools, entry.page_id, entry.mark) as element,
            ):
                value = await self._value(observed, runtime, mounts, entry, element.origins)
                self._note(observed, entry, value)
                if conceal is not None:
                    conceal(value)
                await element.enter(value, replaces=entry.replaces)
        except EnteringError as error:
            raise NotEntered(str(error), "execute.failed") from None
        except DevToolsError:
            raise NotEntered("The page was closed, or opened another address.", "execute.failed") from None
        except TimeoutError:
            raise NotEntered("The page did not take the secret in time.", "execute.timeout") from None

    def _note(self, observed: Observed, entry: SecretEntry, value: str) -> None:
        if entry.field not in ("password", "value"):
            return
        runtime_id = observed.runtime_id
        if runtime_id not in self._typed:
            self._typed[runtime_id] = []
            observed.browser.ended.add_done_callback(lambda _: self._typed.pop(runtime_id, None))
        if value not in self._typed[runtime_id]:
            self._typed[runtime_id].append(value)
            self._commands.conceal(observed.run_id, value)

    async def _value(
        self, observed: Observed, runtime: Runtime, mounts: Mounts | None, entry: SecretEntry, origins: list[str]
    ) -> str:
        place = await usable(self._vault, observed.owner, runtime, mounts)
        return await self._vault.for_page(place.owner, place.mounts or Mounts(), entry.key, entry.field, origins)
