"""Makes the processes that carry out steps take memory, as for a huge value: for the PYTHONPATH of a gateway.

A page's title `takes N` says how many bytes `page.title` takes before it returns.
"""

from __future__ import annotations

from playwright.async_api import Page

_HONEST = Page.title


async def _title(self: Page) -> str:
    title = await _HONEST(self)
    if title.startswith("takes "):
        # Reserved and never written, which the limit counts all the same.
        bytearray(int(title.removeprefix("takes ")))
    return title


Page.title = _title  # type: ignore[method-assign]
