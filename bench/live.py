"""Time from a press in a live view's page to the changed pixel in its picture, all on one machine.

python -m bench.live [--count 200] [--viewers 1] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Any
from urllib.parse import quote

import uvloop
from playwright.async_api import Frame, async_playwright

from bench.figures import percentile, table, verdict
from gateway.launchers.local import browsers
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.remote import Remote

GOAL_MS = 120.0
VIEWPORT = {"width": 1280, "height": 800}
# Between two presses, so that none waits for the picture of the one before; odd, so that they fall at any moment.
PAUSE_SECONDS = 0.217

# Each press changes the colour of everything.
PAGE = "data:text/html," + quote(
    "<!doctype html><title>Bench</title><body style='background: #000'><script>let on = false;"
    "addEventListener('mousedown', () => { document.body.style.background = (on = !on) ? '#fff' : '#000' })</script>"
)

# In the viewer's page: when it was pressed, and when the picture was drawn that shows it.
WATCH = """
  const times = (window.times = []);
  let pressed = null;
  let before = null;
  const draw = CanvasRenderingContext2D.prototype.drawImage;
  CanvasRenderingContext2D.prototype.drawImage = function (...given) {
    draw.apply(this, given);
    const [now] = this.getImageData(this.canvas.width >> 1, this.canvas.height >> 1, 1, 1).data;
    if (pressed !== null && Math.abs(now - before) > 128) {
      times.push(performance.now() - pressed);
      pressed = null;
    }
    before = now;
  };
  addEventListener("mousedown", () => { pressed = performance.now(); }, true);
"""


async def measured(count: int, viewers: int) -> list[float]:
    """Milliseconds of each press; the other viewers only watch."""
    found = browsers.find(None)
    assert found is not None
    with temporary_data_dir() as data_dir, GatewayProcess.start(data_dir) as gateway:
        async with Remote(gateway) as remote, async_playwright() as playwright:
            runtime = await remote.runtime(viewport=VIEWPORT)
            run = (await remote.get(runtime))["activeRunId"]
            client = await playwright.chromium.connect_over_cdp((await remote.lease(runtime)).url)
            shown = await client.contexts[0].new_page()
            await shown.goto(PAGE)
            people = await playwright.chromium.launch(executable_path=found.get(None).path)
            frames: list[Frame] = []
            for _ in range(viewers):
                minted = await remote.post(f"/v1/runs/{run}/live", {"control": "input"})
                page = await people.new_page(viewport={"width": 1320, "height": 920})
                await page.add_init_script(WATCH)
                await page.goto(minted["iframeUrl"])
                await page.wait_for_selector("#status[data-state=live]")
                frames.append(page.main_frame)
            first = frames[0].page
            await first.wait_for_function("document.querySelector('#picture').width === 1280")
            box = await first.locator("#picture").bounding_box()
            assert box is not None
            await first.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            for number in range(count):
                await first.mouse.down()
                await first.wait_for_function("(seen) => times.length > seen", arg=number)
                await first.mouse.up()
                await asyncio.sleep(PAUSE_SECONDS)
            times: list[float] = await first.evaluate("times")
            await people.close()
            await client.close()
            return times


def figures(times: list[float]) -> dict[str, Any]:
    return {"presses": len(times), **{f"p{at}_ms": round(percentile(times, at), 1) for at in (50, 90, 99)}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--viewers", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = figures(uvloop.run(measured(options.count, options.viewers)))
    if options.json:
        print(json.dumps(found))
    else:
        print(table(list(found), [list(found.values())]))
        print(f"\nGoal: p50 at most {GOAL_MS:g} ms: {verdict(found['p50_ms'], GOAL_MS)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
