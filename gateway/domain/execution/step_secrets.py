"""Types secrets of the vault into pages, for steps that name them.

The process that carries out steps may be under the control of a hostile page. So it says which element it means, and
never has the secret: the gateway finds the element, learns the origins around it from the browser, and types.
"""

from __future__ import annotations

import asyncio
from typing import Final
from uuid import UUID

from gateway.core.mounts import Mounts
from gateway.core.observation import Observed
from gateway.core.secret import remember
from gateway.core.secret_entry import SecretEntry
from gateway.domain.events.run_commands import Commands
from gateway.domain.execution.mounts import usable
from gateway.domain.runtimes.service import Runtime
from gateway.domain.vault import Vault
from gateway.observer.devtools import DevToolsError
from gateway.observer.entering import EnteringError, marked_element
from gateway.observer.observers import BrowserObservers

# What the pages of a browser that has ended reported is noted by then.
_CONCEALED_SECONDS: Final = 30.0


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

    def typed(self, run_id: UUID) -> list[str]:
        """Secrets that were typed into a run's pages, by steps or for agents: they can be read from these."""
        return self._typed.get(run_id, [])

    async def enter(
        self,
        observed: Observed,
        runtime: Runtime,
        mounts: Mounts | None,
        entry: SecretEntry,
        seconds: float,
        *,
        for_agent: bool = False,
    ) -> None:
        """Type a secret into a page within so many seconds. `mounts` are those of the execution. From then on a
        password or value, and all that is typed for an agent, is masked in what is recorded of the run.

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
                self._conceal(observed, entry, value, for_agent)
                await element.enter(value, replaces=entry.replaces)
        except EnteringError as error:
            raise NotEntered(str(error), "execute.failed") from None
        except DevToolsError:
            raise NotEntered("The page was closed, or opened another address.", "execute.failed") from None
        except TimeoutError:
            raise NotEntered("The page did not take the secret in time.", "execute.timeout") from None

    def _conceal(self, observed: Observed, entry: SecretEntry, value: str, for_agent: bool) -> None:
        can_be_read = entry.field in ("password", "value")
        if for_agent:
            # In what the agent and its tools say.
            remember((value,))
        elif not can_be_read:
            return
        run_id = observed.run_id
        if run_id not in self._typed:
            self._typed[run_id] = []
            observed.browser.ended.add_done_callback(lambda _: self._run_ended(run_id))
        if can_be_read and value not in self._typed[run_id]:
            self._typed[run_id].append(value)
        self._commands.conceal(run_id, value)

    def _run_ended(self, run_id: UUID) -> None:
        del self._typed[run_id]
        asyncio.get_running_loop().call_later(_CONCEALED_SECONDS, self._commands.end_concealing, run_id)

    async def _value(
        self, observed: Observed, runtime: Runtime, mounts: Mounts | None, entry: SecretEntry, origins: list[str]
    ) -> str:
        place = await usable(self._vault, observed.owner, runtime, mounts)
        return await self._vault.for_page(place.owner, place.mounts or Mounts(), entry.key, entry.field, origins)
