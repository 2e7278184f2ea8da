"""All vocabularies, by the name of the driver that they are of."""

from gateway.automation import playwright, puppeteer, selenium, stagehand
from gateway.automation.calls import Vocabulary

# Of a runtime that was created without a driver.
DEFAULT_DRIVER = "playwright"

VOCABULARIES: dict[str, Vocabulary] = {
    module.calls.name: module.calls for module in (playwright, puppeteer, selenium, stagehand)
}
