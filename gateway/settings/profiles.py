"""Saved profiles of browsers."""

from __future__ import annotations

from pydantic import Field

from gateway.settings.files import FileSettings


class ProfileSettings(FileSettings):
    """Saved profiles of browsers, which are stored where files are."""

    profile_max_bytes: int = Field(
        1024**3, ge=1024**2, le=1024**4, description="Bytes of a browser's files that are saved as one profile."
    )
    profile_max_entries: int = Field(
        50_000, ge=1000, le=10_000_000, description="Files and directories that are saved as one profile."
    )
    organization_max_profiles: int = Field(
        10_000, ge=1, le=10_000_000, description="Profiles of one organization, with those of its subaccounts."
    )
    organization_max_profile_bytes: int = Field(
        200 * 1024**3,
        ge=1,
        le=1024**5,
        description="Bytes in storage of all profiles of one organization, with those of its subaccounts.",
    )
    subaccount_max_profiles: int = Field(1000, ge=1, le=10_000_000, description="Profiles of one subaccount.")
    subaccount_max_profile_bytes: int = Field(
        50 * 1024**3, ge=1, le=1024**5, description="Bytes in storage of all profiles of one subaccount."
    )
    profile_close_seconds: float = Field(
        15.0,
        gt=0,
        le=120,
        description="Seconds for a browser with a profile to close in order; then it is killed, and nothing is saved.",
    )
    profile_wait_seconds: float = Field(
        20.0,
        ge=0,
        le=300,
        description="Seconds for which a launch, a clone, a reset and a deletion wait while the profile is still being "
        "saved.",
    )
    profile_store_seconds: float = Field(
        100.0,
        gt=0,
        le=110,
        description="Seconds in which a closed browser's profile must be stored; else it is not saved. The files of a "
        "browser that has ended are kept for two minutes.",
    )
    profile_restore_seconds: float = Field(
        60.0,
        gt=0,
        le=600,
        description="Seconds in which a launch must have read its profile from storage. A state that was replaced is "
        "kept for as long.",
    )
