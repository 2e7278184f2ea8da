"""All vocabularies, by the name of the driver that they are of."""

from gateway.automation.calls import Vocabulary
from gateway.automation.playwright import calls as playwright

VOCABULARIES: dict[str, Vocabulary] = {vocabulary.name: vocabulary for vocabulary in (playwright,)}
