"""Browser extensions, and their limits."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from gateway.settings.files import FileSettings


class ExtensionSettings(FileSettings):
    """Browser extensions, whose packages are stored where files are."""

    extension_max_bytes: int = Field(
        64 * 1024**2, ge=1024, le=1024**3, description="Size of the package of one browser extension."
    )
    extension_max_unpacked_bytes: int = Field(
        256 * 1024**2, ge=1024, le=4 * 1024**3, description="Size of all files of one unpacked extension."
    )
    extension_max_files: int = Field(
        10_000, ge=1, le=100_000, description="Files and directories that the package of one extension may have."
    )
    extension_max_ratio: int = Field(
        100,
        ge=1,
        le=1100,
        description="How many times larger than its package an extension above 1 MiB may unpack to.",
    )
    extension_max_per_runtime: int = Field(10, ge=1, le=100, description="Extensions that one browser may load.")
    organization_max_extensions: int = Field(
        1000, ge=1, le=1_000_000, description="Extensions of one organization, with those of its subaccounts."
    )
    subaccount_max_extensions: int = Field(100, ge=1, le=1_000_000, description="Extensions of one subaccount.")
    extension_import_seconds: float = Field(
        60.0, gt=0, le=3600, description="Timeout of the import of an extension by its address, in seconds."
    )
    extension_import_redirects: int = Field(
        5, ge=0, le=20, description="Redirects that the import of an extension follows."
    )
    extension_cache_bytes: int = Field(
        2 * 1024**3,
        ge=0,
        le=1024**5,
        description="Size of unpacked extensions that are kept on this machine; what runtimes use is kept beyond it.",
    )

    @property
    def extensions_dir(self) -> Path:
        """Directory of unpacked extensions, which all workers of a gateway share."""
        return self.data_dir / "extensions"
