"""The widgets, used as a reader does: in JupyterLab, with a mouse. `make test-browser`.

Screenshots stay in outputs/browser/.
"""

import base64
import dataclasses
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
import torch
from execute import fast
from lab import chromium, jupyter_lab
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Route, expect

import docmem
from docmem import explore
from docmem.explore._plane import NEW_TOKENS
from docmem.lm.cross_entropy import cross_entropies_at
from docmem.lm.hidden_states import cache_hidden_states
from docmem.training.run import Run

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "outputs" / "browser"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the notebooks run, and leave their runs."""
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """JupyterLab's, with a place for the notebook's name."""
    with jupyter_lab(folder) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all tests."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def ran(address: str, browser: Browser, folder: Path) -> Iterator[Callable[[str], Page]]:
    """A notebook by its name, run with FAST; at the end its console must hold no error.

    The cells that show an explorer stand there twice: several on a page must work.
    """
    errors: list[str] = []
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.on("console", lambda message: heard(message, errors))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.route(re.compile(r"^https?://(?!127\.0\.0\.1)"), lambda route: outside(route, errors))
    PICTURES.mkdir(parents=True, exist_ok=True)

    def open_and_run(name: str) -> Page:
        cells = copy_to_run(ROOT / "notebooks" / name, folder / name)
        page.goto(address.format(name))
        run_all(page, cells)
        return page

    yield open_and_run
    page.screenshot(path=PICTURES / "last.png")
    page.close()
    assert not errors


def heard(message: ConsoleMessage, errors: list[str]) -> None:
    """Keep what the console calls an error."""
    if message.type == "error":
        errors.append(f"{message.text} ({message.location.get('url', '')})")


def outside(route: Route, errors: list[str]) -> None:
    """Of the net a notebook shows its badge; all else has to come with the package."""
    if not route.request.url.endswith("/colab-badge.svg"):
        errors.append(f"The page asked for {route.request.url}")
    route.fulfill(content_type="image/svg+xml", body='<svg xmlns="http://www.w3.org/2000/svg"/>')


def copy_to_run(path: Path, copy: Path) -> int:
    """The notebook without outputs, with FAST, its explorers twice; how many cells have code."""
    notebook = fast(nbformat.read(path, as_version=4))
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if "explore." in cell.source:
                cells.append(nbformat.v4.new_code_cell(cell.source))
    notebook.cells = cells
    nbformat.write(notebook, copy)
    return sum(cell.cell_type == "code" for cell in cells)


def run_all(page: Page, cells: int) -> None:
    """Run every cell, once all are there and the kernel is, and wait until they are done."""
    expect(page.locator(".jp-CodeCell")).to_have_count(cells, timeout=120_000)
    expect(page.locator("#jp-main-statusbar")).to_contain_text("| Idle", timeout=120_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    prompts = page.locator(".jp-CodeCell .jp-InputPrompt")
    failed = page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']")

    def done() -> bool:
        assert not failed.count(), failed.first.text_content()
        return all(re.fullmatch(r"\[\d+\]:", text) for text in prompts.all_text_contents())

    until("all cells have run", done, seconds=400)


def until(what: str, condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for a condition of the page, or fail saying what was waited for."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"It never happened: {what}."
        time.sleep(0.05)


def perplexities(plane: Locator) -> list[float]:
    """What a key plane shows for each document."""
    texts = plane.locator(".docmem-number").all_inner_texts()
    return [float(text.replace(",", "")) for text in texts]


def rounded(perplexity: float) -> float:
    """What rounding may take from a perplexity: from 100 on they are shown without decimals."""
    return 0.006 if perplexity < 100 else 0.51


def place(plane: Locator) -> list[float]:
    """The DocRep that a key plane shows, to two decimals."""
    text = plane.locator(".docmem-plane__coordinates").inner_text().replace("−", "-")
    return [float(number) for number in re.findall(r"-?\d+\.\d+", text)]


def test_key_plane_page_shows_what_the_package_measures(
    ran: Callable[[str], Page], folder: Path
) -> None:
    page = ran("02_key_space.ipynb")
    planes = page.locator(".docmem-plane")
    expect(planes).to_have_count(2)
    first, second = planes.all()

    runs = [Run.open(path) for path in (folder / "outputs" / "tiny").iterdir()]
    (run,) = (run for run in runs if run.config.doc_rep_init == "spread")
    lm = docmem.load_lm("tiny")
    one_segment = dataclasses.replace(run.config, max_segments=1)
    cache = cache_hidden_states(lm, run.documents, one_segment)

    first.scroll_into_view_if_needed()
    first.screenshot(path=PICTURES / "plane_at_first.png")
    at_first, elsewhere = perplexities(first), perplexities(second)
    started = place(first)
    box = first.locator(".docmem-plane__map").bounding_box()
    assert box is not None
    x, y = box["x"] + 0.62 * box["width"], box["y"] + 0.55 * box["height"]
    page.mouse.move(x, y)
    page.mouse.down()
    how = first.locator(".docmem-plane__how")
    for step in range(1, 21):
        page.mouse.move(x + 3 * step, y - 4 * step)
        page.wait_for_timeout(15)
    expect(how).to_have_text("interpolated")
    moving = perplexities(first)
    assert moving != at_first
    page.mouse.up()

    # At rest the page shows what the package measures there: the DocRep is shown to two
    # decimals, so between its least and its most in that square.
    written = first.locator(".docmem-plane__text")
    expect(how).to_have_text("measured")
    expect(written).to_have_attribute("data-stale", "false", timeout=30_000)
    rested, doc_rep = perplexities(first), place(first)
    first.screenshot(path=PICTURES / "plane_dragged.png")
    assert rested != at_first and doc_rep != started
    ticks = torch.linspace(-0.005, 0.005, 3)
    around = torch.tensor(doc_rep) + torch.cartesian_prod(ticks, ticks)
    measured = cross_entropies_at(cache, run.load_memory(), around).exp()
    for shown, there in zip(rested, measured, strict=True):
        assert there.min() - rounded(shown) <= shown <= there.max() + rounded(shown)

    # A walk ends on a document's own DocRep, known exactly.
    first.get_by_label("Walk to").select_option("3")
    first.get_by_role("button", name="Walk").click()
    expect(first.locator(".docmem-plane__bars")).to_have_class(re.compile("moving"))
    expect(first.get_by_role("button", name="▶ Walk")).to_be_visible(timeout=30_000)
    expect(how).to_have_text("measured")
    expect(written).to_have_attribute("data-stale", "false", timeout=30_000)
    own = run.load_memory().doc_reps[3]
    exactly = cross_entropies_at(cache, run.load_memory(), own[None]).exp()[:, 0].tolist()
    for shown, there in zip(perplexities(first), exactly, strict=True):
        assert shown == pytest.approx(there, abs=rounded(shown))
    prompt = first.get_by_role("textbox", name="Prompt").input_value()
    with docmem.attach(lm.model, run.load_memory(), run.config.hook_memory_layer) as hooked:
        text = docmem.generate(hooked, lm.tokenizer, prompt, own, max_new_tokens=NEW_TOKENS)
    assert written.inner_text().split() == (prompt + text).split()
    first.screenshot(path=PICTURES / "plane_walked.png")

    # The second one has not moved with the first, and moves by keys.
    assert perplexities(second) == elsewhere
    second.locator(".docmem-plane__map").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    until("the arrow keys moved the second point", lambda: perplexities(second) != elsewhere)
    expect(second.locator(".docmem-plane__how")).to_have_text("measured", timeout=30_000)
    second.screenshot(path=PICTURES / "plane_second.png")


def test_scrubber_page_shows_the_frames_of_the_package(
    ran: Callable[[str], Page], folder: Path
) -> None:
    page = ran("03_memory_selection.ipynb")
    # A scrubber is the one output with a Play widget.
    scrubbers = page.locator(".jp-OutputArea-output").filter(has=page.locator(".widget-play"))
    expect(scrubbers).to_have_count(2)
    first, second = scrubbers.all()
    trained = list(map(Run.open, folder.glob("outputs/tiny/*")))
    # Other notebooks have trained there too; those of this one have 64 entries.
    runs = {run.config.key_activation: run for run in trained if run.config.hook_memory_dim == 64}
    own = explore.scrubber({name: runs[name] for name in ("relu", "tanh")})

    def shown(scrubber: Locator) -> bytes:
        """The PNG that the page shows."""
        return base64.b64decode(
            scrubber.locator("img.widget-image").evaluate(
                """async (image) => {
                    const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
                    return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
                }"""
            )
        )

    first.scroll_into_view_if_needed()
    last = own.epochs[-1]
    until("the last snapshot is shown", lambda: shown(first) == own.frame(last))
    first.screenshot(path=PICTURES / "scrubber_last.png")

    first.get_by_title("one snapshot back").click()
    expect(first.get_by_text(f"epoch {own.epochs[-2]:.4g} of {last:.4g}")).to_be_visible()
    until("one snapshot back", lambda: shown(first) == own.frame(own.epochs[-2]))

    first.locator(".noUi-handle").press("Home")
    expect(first.get_by_text(f"epoch {own.epochs[0]:.4g} of {last:.4g}")).to_be_visible()
    until("the start", lambda: shown(first) == own.frame(own.epochs[0]))
    first.screenshot(path=PICTURES / "scrubber_start.png")

    first.locator(".widget-play button").first.click()
    expect(first.get_by_text(f"epoch {last:.4g} of {last:.4g}")).to_be_visible(timeout=60_000)
    until("played to the end", lambda: shown(first) == own.frame(last))
    assert shown(second) == own.frame(last)
