"""What the sessions with a run's pages share: the run's record, and the pages whose navigations they report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from gateway.core.failures import Failure
from gateway.core.observation import BoundedRecord, Level
from gateway.observer.masking import Masking
from gateway.observer.observers import Observation


class RunPages(Protocol):
    """The pages of one live run, as their sessions see them."""

    @property
    def observation(self) -> Observation: ...
    @property
    def record(self) -> BoundedRecord: ...
    @property
    def level(self) -> Level: ...
    @property
    def masking(self) -> Masking: ...

    @property
    def requests(self) -> bool:
        """Whether requests are recorded, where the level has them."""

    @property
    def user_agent_override(self) -> dict[str, Any] | None:
        """Parameters of Emulation.setUserAgentOverride for each session; None where the browser needs none."""

    def navigates(self, page_id: str) -> None:
        """A page begins to load another document."""

    def unseen_failed(self, page_id: str, fail: Callable[[str], None]) -> None:
        """A page's document could not be loaded, and its request was not seen. Discovery reports the address next, for
        which `fail` records it."""

    def navigation_failed(self, page_id: str, url: str, failure: Failure, *, answered: bool) -> None:
        """A page's document could not be loaded from this masked address; `answered`: the page shows an answer."""

    def is_new(self, time: float) -> bool:
        """Whether a page's message of this time is not recorded yet."""

    def attached(self, params: dict[str, Any], page_id: str | None = None) -> None:
        """A session with a page was opened; or with a frame or worker within the page `page_id`."""

    def detached(self, params: dict[str, Any]) -> None:
        """A session was closed."""
