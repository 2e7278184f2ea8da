"""Where Stagehand and browser-use are installed, and what is to be run where they are not.

Their dependencies are apart from the gateway's, each below a directory of its own: `stagehand/worker.mjs` is Stagehand
and the gateway's worker in one file, `browser-use/` a virtual environment. `make agents`, or `python -m
gateway.agents.install`, makes them from the locks beside this module.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Final, NamedTuple

from gateway.agents.jobs import Library
from gateway.settings import AgentSettings

ROOM: Final = Path(__file__).parent
_CHECKOUT: Final = ROOM.parent.parent
# Written last, with what was installed.
_STAMP: Final = "installed"


class _Lock(NamedTuple):
    version: str
    # What an installation is made of; another one is needed where any of it has changed.
    sources: tuple[Path, ...]


_STAGEHAND: Final = ("package.json", "package-lock.json", "worker.mjs")
# Is run from here, by the Python of browser-use's environment.
BROWSER_USE_WORKER: Final = ROOM / "browser_use" / "worker.py"
LOCKS: Final[dict[Library, _Lock]] = {
    "stagehand": _Lock("3.7.3", tuple(ROOM / "stagehand" / name for name in _STAGEHAND)),
    "browser-use": _Lock("0.13.14", (ROOM / "browser_use" / "requirements.txt",)),
}


class Installation:
    """The agents of one machine. Whether they are there is looked up each time: one may be installed meanwhile."""

    def __init__(self, settings: AgentSettings) -> None:
        # Node.js may read the real place alone, and would look at each link on the way to it.
        self.directory = (settings.agents_dir or default_directory()).resolve()

    def place(self, library: Library) -> Path:
        """The directory of one library."""
        return self.directory / library

    def missing(self, library: Library) -> str | None:
        """Why a library can't be used, with the command to run; None where it can."""
        try:
            found = (self.place(library) / _STAMP).read_text()
        except (FileNotFoundError, NotADirectoryError):
            return f"{library} {LOCKS[library].version} is not installed. Run {command()}."
        except OSError as error:
            return f"{library} can't be read in {self.place(library)} ({error.strerror}). Run {command()}."
        if found != fingerprint(library):
            return f"What is installed of {library} is of another version of the gateway. Run {command()}."
        return None

    def has_installed(self, library: Library) -> None:
        """Note that a library is completely installed."""
        (self.place(library) / _STAMP).write_text(fingerprint(library))

    def begins(self, library: Library) -> None:
        """Note that a library is being installed: it can't be used until that is done."""
        self.place(library).mkdir(parents=True, exist_ok=True)
        (self.place(library) / _STAMP).unlink(missing_ok=True)

    @property
    def bundle(self) -> Path:
        """Stagehand and the worker, in one file."""
        return self.place("stagehand") / "worker.mjs"

    @property
    def python(self) -> Path:
        """Of the environment of browser-use."""
        return self.place("browser-use") / "bin" / "python"


def fingerprint(library: Library) -> str:
    """Of what an installation is made."""
    digest = hashlib.sha256()
    for source in LOCKS[library].sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()


def default_directory() -> Path:
    """In the checkout, or else in the environment of the gateway."""
    return _CHECKOUT / ".venv-agents" if is_checkout() else Path(sys.prefix) / "share" / "browser-gateway" / "agents"


def is_checkout() -> bool:
    return (_CHECKOUT / "Makefile").exists()


def command() -> str:
    """What installs the agents."""
    return "`make agents`" if is_checkout() else f"`{sys.executable} -m gateway.agents.install`"


def node() -> Path:
    """The Node.js of Playwright's package, on which Stagehand runs."""
    import playwright

    return Path(playwright.__file__).parent / "driver" / "node"
