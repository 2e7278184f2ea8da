"""Extensions in real browsers: that they work, and that a launch is refused where they can't be contained."""

from __future__ import annotations

from uuid import uuid4

import pytest

from gateway.core.errors import NotSupported
from gateway.launchers.base import LaunchedExtension, LaunchSpec
from tests.support.launchers import local_launcher


async def test_a_launch_with_extensions_is_refused_where_they_are_not_available() -> None:
    extension = LaunchedExtension("a" * 32, "/nonexistent")
    async with local_launcher(warm_browsers=0) as launcher:
        with pytest.raises(NotSupported) as refused:
            await launcher.check(LaunchSpec(uuid4(), "chromium", extensions=(extension,)))
    assert refused.value.code == "extensions.not_available"
