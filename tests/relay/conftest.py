from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.model_server import ModelServer, Text


@pytest.fixture(scope="session")
def running_models() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def models(running_models: ModelServer) -> ModelServer:
    """The providers, which reply with what they were sent."""
    running_models.forget()
    running_models.rules = [lambda asked: Text(f"You wrote: {asked.text}")]
    return running_models
