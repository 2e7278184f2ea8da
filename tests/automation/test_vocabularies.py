"""Every call of every vocabulary, by the example of its declaration, on a real page."""

from __future__ import annotations

import pytest

from gateway.automation.calls import ANY
from gateway.automation.vocabularies import VOCABULARIES
from tests.support.execution import EVERY_CALL, Drivers, example, filled

LEAST = {"playwright": 60, "puppeteer": 40, "selenium": 30}


@pytest.mark.thorough
@pytest.mark.parametrize(("driver", "name"), EVERY_CALL, ids=lambda part: part)
async def test_the_example_of_a_call_works(drivers: Drivers, driver: str, name: str) -> None:
    executing = await drivers.of(driver)
    call = VOCABULARIES[driver].calls[name]
    result = await executing.last(*example(driver, call))
    if (code := call.example.error) is not None:
        assert result["error"]["code"] == code
        return
    assert result["ok"], result
    if call.example.value is not ANY:
        assert result.get("value") == filled(call.example.value, executing.pages)
    if call.binds is not None and call.example.value is not None:
        assert result["binding"]["alias"] == "made"


@pytest.mark.parametrize("driver", VOCABULARIES)
def test_each_call_is_described(driver: str) -> None:
    vocabulary = VOCABULARIES[driver]
    assert len(vocabulary.calls) >= LEAST.get(driver, 1)
    for call in vocabulary:
        assert call.summary, call.name
        assert list(call.schema().get("properties", {})) == [parameter.name for parameter in call.parameters]
