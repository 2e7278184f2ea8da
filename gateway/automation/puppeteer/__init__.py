"""The vocabulary `puppeteer`: calls by the names and argument orders of Puppeteer, over the library's objects.

Actions wait for their element, as those of its locators do. Selectors may begin with `xpath/`, `text/` or `css/`. Calls
that are Playwright's to the letter are taken from there (`calls.take`).
"""

from gateway.automation.calls import Vocabulary
from gateway.automation.puppeteer import browser, events, frame, handles, keyboard, mouse, page

calls = Vocabulary("puppeteer")
# In the order in which they are listed.
for part in (browser, page, keyboard, mouse, frame, handles, events):
    calls.include(part.calls)
