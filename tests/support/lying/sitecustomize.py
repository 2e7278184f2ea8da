"""Makes the processes that carry out steps lie, as one that a page has taken over: for the PYTHONPATH of a gateway.

An element's `data-lie` names what is wrong in what is asked for it. The step fails with all that the gateway answers.
"""

from __future__ import annotations

from typing import Any

from gateway.automation.outcomes import Secret
from gateway.core.secret_entry import MARK

_HONEST = Secret.enter


async def _enter(self: Secret, element: Any, *, replaces: bool) -> None:
    lie = await element.get_attribute("data-lie")
    if lie is None:
        await _HONEST(self, element, replaces=replaces)
        return
    entered: Any = self.entered
    session = entered.__self__
    mark = "5" * 32
    await element.evaluate("(element, mark) => element.setAttribute(...mark)", [MARK, mark])
    page = (await element.owner_frame()).page
    bank = next(each for each in page.context.pages if each.url.endswith("/playground"))
    asked: dict[str, Any] = {
        "type": "secret",
        "key": self.key,
        "field": self.field,
        "index": self.step,
        "page": await session.id_of(page),
        "mark": mark,
        "replaces": True,
        # As earlier versions did.
        "origins": ["{}://{}".format(*bank.url.split("/")[::2])],
    }
    match lie:
        case "page":
            asked["page"] = await session.id_of(bank)
        case "key":
            asked["key"] = "site/further"
        case "step":
            asked["index"] = self.step + 1
        case "mark":
            asked["mark"] = '"], input, [x="'
        case "types":
            asked["key"] = {"$ne": 1}
    raise ValueError(f"answered: {await session.gateway.ask(asked)}")


Secret.enter = _enter  # type: ignore[method-assign]
