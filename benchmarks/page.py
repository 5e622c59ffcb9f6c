"""The page of two runs: how large it is, and how it moves in headless Chromium."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser

from benchmarks.measure import Numbers
from docmem.experiments.rivals import seconds_of
from docmem.explore._baked import NEW_TOKENS
from docmem.explore.page import write_page
from docmem.lm.loading import LanguageModel
from docmem.training.run import Run
from tests.browser.lab import chromium

PROMPT = "The harbour master"
# The times at which what is said of happens, from now on.
ON_FRAME = """() => {
  const times = [];
  const tick = (now) => { times.push(now); requestAnimationFrame(tick); };
  requestAnimationFrame(tick);
  return times;
}"""
ON_CHANGE = """(element) => {
  const times = [];
  new MutationObserver(() => times.push(performance.now())).observe(element, {childList: true});
  return times;
}"""


def page(runs: Sequence[Run], lm: LanguageModel) -> Numbers:
    """The page without the LM and with it, opened from their files."""
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        path = Path(folder) / "page.html"
        seconds = seconds_of(lambda: write_page(runs, path, lm=lm, with_lm=True))
        live = path.with_stem("page_lm")
        sizes = {"MB": path.stat().st_size / 1e6, "MB with the LM": live.stat().st_size / 1e6}
        used = {**moved(browser, path), **written(browser, live)}
        return {"seconds to write both": seconds, **sizes, **used}


def moved(browser: Browser, path: Path) -> Numbers:
    """How soon the page is there, and how smoothly the ring is dragged over the map."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.goto(path.as_uri())
    opened.wait_for_selector("html[data-ready]")
    painted = "performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"
    first = opened.evaluate(painted)
    box = opened.locator("#plane svg").bounding_box()
    assert box is not None
    x, y = box["x"] + 0.3 * box["width"], box["y"] + 0.7 * box["height"]
    opened.mouse.move(x, y)
    opened.mouse.down()
    times = opened.evaluate_handle(ON_FRAME)
    for step in range(100):
        opened.mouse.move(x + step, y - step)
    gaps = np.diff(times.json_value())
    opened.close()
    frames = 1000 / float(np.median(gaps))
    return {"seconds to the first picture": first, "frames per second": frames}


def written(browser: Browser, path: Path) -> Numbers:
    """How fast the LM in the page writes, and then measures every document where the ring is."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.goto(path.as_uri())
    prompt = opened.get_by_label("Prompt", exact=True)
    how = opened.locator(".docmem-plane__how")
    seconds = []
    for _ in range(2):  # the first time the LM is unpacked, compiled, and reads the documents
        prompt.fill(PROMPT)
        times = opened.locator(".docmem-plane__text").evaluate_handle(ON_CHANGE)
        prompt.press("Enter")
        how.get_by_text("interpolated").wait_for()
        took = seconds_of(lambda: how.get_by_text("measured", exact=True).wait_for(timeout=120_000))
        seconds.append(took)
    gaps = np.diff(times.json_value()[1:NEW_TOKENS])  # one change a token, after the prepared text
    opened.close()
    return {
        "tokens per second": 1000 / float(np.median(gaps)),
        "seconds until all is measured, at first": seconds[0],
        "seconds until all is measured, later": seconds[1],
    }
