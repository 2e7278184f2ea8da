"""The vocabulary `playwright`: calls by the names and argument orders of Playwright's library, a module a subject.

Functions are called by the worker with the library's own objects. What a page decides comes back bounded (values.py).
"""

from gateway.automation.calls import Vocabulary
from gateway.automation.playwright import (
    browser,
    context,
    events,
    frame,
    handles,
    keyboard,
    locator,
    mouse,
    page_actions,
    page_appearance,
    page_finding,
    page_navigation,
    page_reading,
    page_scripts,
    page_waiting,
)

calls = Vocabulary("playwright")
# In the order in which they are listed.
for part in (
    browser,
    context,
    page_navigation,
    page_scripts,
    page_actions,
    page_reading,
    page_waiting,
    page_appearance,
    page_finding,
    keyboard,
    mouse,
    locator,
    frame,
    handles,
    events,
):
    calls.include(part.calls)
