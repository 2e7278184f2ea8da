"""Downloads of runs: read from the runtime's directory and saved as artifacts of the run."""

from __future__ import annotations

from gateway.core.errors import NotFound
from gateway.core.files_dir import NotAFile
from gateway.core.observation import Observed, SavedDownload
from gateway.domain.files.artifacts import DOWNLOAD, Artifacts
from gateway.domain.files.names import guessed_type, safe_name
from gateway.domain.runtimes.files import bytes_of

_FOLDER = "downloads"


class DownloadStore:
    """Saves downloads for the observer (see observer.downloads.Store)."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts

    def name(self, suggested: str) -> str:
        """A valid file name for the one that a server suggested."""
        return safe_name(suggested, "download")

    async def sizes(self, observed: Observed) -> dict[str, int]:
        """Bytes of each file in the runtime's directory, by name; empty where the directory can't be read."""
        try:
            found = await observed.browser.files.found()
        except NotAFile:
            return {}
        return {file.name: file.size for file in found}

    async def save(self, observed: Observed, path: str, name: str, page_id: str | None) -> SavedDownload:
        """Save the file at `path` in the runtime's directory. Raises NotFound, and what Artifacts.add raises."""
        directory = observed.browser.files
        segments = directory.relative(path)
        if segments is None:
            raise _unreadable("it lies outside of the runtime's directory")
        try:
            async with directory.reading(segments) as read:
                file, artifact = await self._artifacts.add(
                    observed,
                    bytes_of(read),
                    kind=DOWNLOAD,
                    name=name,
                    path=f"{_FOLDER}/{name}",
                    content_type=guessed_type(name),
                    page_id=page_id,
                )
        except NotAFile as error:
            raise _unreadable(error) from error
        return SavedDownload(artifact.id, file.id, file.path, file.size_bytes)


def _unreadable(cause: object) -> NotFound:
    return NotFound(f"The download can't be read: {cause}.", "runtime_file.not_found")
