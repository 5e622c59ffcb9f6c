"""A page of `docmem page`, from its file and without a network. `make test-browser`.

Screenshots stay in outputs/browser/.
"""

import base64
import dataclasses
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lab import chromium
from playwright.sync_api import Browser, Locator, Page, expect
from toys import DOCUMENTS, quick_config, toy_lm

from docmem.evaluation.cached import first_segments, measure_plane
from docmem.evaluation.plane import KeyPlane
from docmem.explore import _baked
from docmem.explore.page import write_page
from docmem.lm.cross_entropy import cross_entropies_at
from docmem.training.run import Run
from docmem.training.train import train

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "outputs" / "browser"
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
POINTS = 9
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Run], KeyPlane]:
    """The page of a tanh and a relu run of the toy LM, the runs, and the first one's map."""
    lm, folder = toy_lm(), tmp_path_factory.mktemp("page")
    documents = [dataclasses.replace(DOCUMENTS[0], title='<b>$x$ & "quotes" 風 🌊'), *DOCUMENTS[1:]]
    runs = []
    for name in ("tanh", "relu"):
        config = dataclasses.replace(
            quick_config(folder / name), key_activation=name, num_epochs=60, save_freq=20
        )
        runs.append(train(config, lm=lm, documents=documents, progress=False))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_baked, "NEW_TOKENS", 8)  # the toy's context is short
        patched.setattr(_baked, "EVERYDAY", "I bought bread.")
        path = write_page(
            runs, folder / "page.html", lm=lm, points=POINTS, text_points=5, with_lm=True
        )
    PICTURES.mkdir(parents=True, exist_ok=True)
    return path, runs, measure_plane(runs[0], lambda: lm, POINTS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def opened(
    made: tuple[Path, list[Run], KeyPlane], browser: Browser, request: pytest.FixtureRequest
) -> Iterator[Page]:
    """The page in a context with the parameters' options: no network, no word in its console."""
    said: list[str] = []
    options: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}}
    context = browser.new_context(**{**options, **getattr(request, "param", {})})
    context.set_offline(True)
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda asked: said.append(asked.url) if asked.url[:4] == "http" else None)
    page.goto(made[0].as_uri())
    yield page
    context.close()
    assert not said


def shown(page: Page) -> list[float]:
    """The perplexities beside the map."""
    texts = page.locator("#plane .docmem-number").all_inner_texts()
    return [float(text.replace(",", "")) for text in texts]


def box_of(locator: Locator) -> dict[str, float]:
    locator.scroll_into_view_if_needed()
    box = locator.bounding_box()
    assert box is not None
    return dict(box)


def ring(page: Page, axis: torch.Tensor) -> torch.Tensor:
    """Where the ring is in the plane, by its place in the drawing; `axis` is the drawn map's."""
    moved = page.locator("#plane .docmem-plane__map > g").last.get_attribute("transform")
    left, top = map(float, re.findall(r"[\d.]+", moved or ""))
    reach = (axis[-1] + (axis[1] - axis[0]) / 2).item()
    return torch.tensor(
        [(left - 34) / 400 * 2 * reach - reach, reach - (top - 10) / 400 * 2 * reach]
    )


PLANE = "JSON.parse(document.getElementById('baked').textContent).memories[0].plane"
BEGIN = f"{PLANE}.begin"


def drawn_axis(page: Page) -> torch.Tensor:
    return torch.tensor(page.evaluate(f"{PLANE}.scene.axis"))


def assert_shows_the_map(page: Page, plane: KeyPlane) -> None:
    """The numbers are the package's, interpolated where the ring is."""
    place = (ring(page, drawn_axis(page)) / plane.axis[-1]).clamp(-1, 1)[None, None, None]
    sample = torch.nn.functional.grid_sample
    wanted = sample(plane.ce[None], place, align_corners=True)[0, :, 0, 0].exp()
    for number, value in zip(shown(page), wanted.tolist(), strict=True):
        assert number == pytest.approx(value, abs=0.02 if value < 100 else 0.6, rel=1e-3)


def test_point_moves_by_mouse_and_keys_and_shows_the_packages_numbers(
    opened: Page, made: tuple[Path, list[Run], KeyPlane]
) -> None:
    plane = made[2]
    begin = plane.doc_reps[opened.evaluate(BEGIN)]
    torch.testing.assert_close(ring(opened, drawn_axis(opened)), begin, atol=0.01, rtol=0)
    assert_shows_the_map(opened, plane)
    at_first, box = shown(opened), box_of(opened.locator("#plane svg"))
    x, y = box["x"] + 0.6 * box["width"], box["y"] + 0.55 * box["height"]
    opened.mouse.move(x, y)
    opened.mouse.down()
    for step in range(40):
        opened.mouse.move(x + 3 * step, y - 3 * step)
    opened.mouse.up()
    assert shown(opened) != at_first
    assert_shows_the_map(opened, plane)
    opened.locator("#plane svg").focus()
    before = shown(opened)
    for key in ("ArrowLeft", "ArrowLeft", "ArrowDown", "Shift+ArrowUp"):
        opened.keyboard.press(key)
    assert shown(opened) != before
    assert_shows_the_map(opened, plane)
    expect(opened.locator(".docmem-plane__heard")).to_contain_text("Recalled best")
    opened.screenshot(path=PICTURES / "page.png", full_page=True)


def test_walk_ends_on_a_document_with_its_text(
    opened: Page, made: tuple[Path, list[Run], KeyPlane]
) -> None:
    opened.get_by_label("Walk to").select_option("2")
    opened.get_by_role("button", name="Walk").click()
    expect(opened.get_by_role("button", name="▶ Walk")).to_be_visible(timeout=10_000)
    place = ring(opened, drawn_axis(opened))
    torch.testing.assert_close(place, made[2].doc_reps[2], atol=0.01, rtol=0)
    prepared = opened.evaluate(PLANE)
    which = np.frombuffer(base64.b64decode(prepared["written"][0]["data"]), np.uint32)
    text = prepared["prompts"][0] + "".join(words for words, _ in prepared["texts"][which[25 + 2]])
    assert opened.locator(".docmem-plane__text").inner_text().split() == text.split()
    before = shown(opened)
    opened.get_by_label("Prompt", exact=True).select_option(index=1)
    opened.locator("#plane").get_by_role("button", name="relu memory").click()
    assert shown(opened) != before
    assert torch.equal(ring(opened, drawn_axis(opened)), place)
    expect(opened.get_by_label("Prompt", exact=True)).to_have_value(prepared["prompts"][1])
    expect(opened.locator(".docmem-plane__text")).to_contain_text(prepared["prompts"][1])


def test_walk_has_no_way_from_a_document_to_itself(opened: Page) -> None:
    opened.get_by_label("Walk from").select_option("2")
    to = opened.get_by_label("Walk to").locator("option")
    disabled = [option.is_disabled() for option in to.all()]
    assert disabled == [False, False, True]


@pytest.mark.parametrize("opened", [PHONE], indirect=True)
def test_phone_has_no_sideways_scroll_and_moves_by_touch(
    opened: Page, made: tuple[Path, list[Run], KeyPlane]
) -> None:
    assert opened.evaluate("document.documentElement.scrollWidth") == 390
    box = box_of(opened.locator("#plane svg"))
    before = shown(opened)
    opened.touchscreen.tap(box["x"] + 0.7 * box["width"], box["y"] + 0.3 * box["height"])
    assert shown(opened) != before
    assert_shows_the_map(opened, made[2])
    opened.screenshot(path=PICTURES / "page_phone.png", full_page=True)
    text = box_of(opened.locator(".docmem-plane__text"))
    assert text["y"] + text["height"] - box_of(opened.locator("#plane svg"))["y"] < 700
    upright = opened.evaluate("""() => [...document.querySelectorAll("#plane svg text:not(.label)")]
        .map((text) => parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().d)""")
    assert len(upright) == 6 + 3 and min(upright) >= 10.99  # ticks and documents


def swipe(page: Page, start: tuple[float, float], by: tuple[float, float]) -> None:
    """One finger from a place, by so many pixels."""
    send = page.context.new_cdp_session(page).send
    for share in range(11):
        at = {"x": start[0] + by[0] * share / 10, "y": start[1] + by[1] * share / 10}
        kind = "touchMove" if share else "touchStart"
        send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [at]})
        page.wait_for_timeout(16)
    send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait_for_timeout(300)


@pytest.mark.parametrize("opened", [PHONE], indirect=True)
def test_finger_drags_the_ring_and_scrolls_the_page_from_elsewhere(opened: Page) -> None:
    opened.locator("#plane").evaluate("el => el.scrollIntoView({ behavior: 'instant' })")
    box, drawn = box_of(opened.locator("#plane svg")), drawn_axis(opened)
    opened.touchscreen.tap(box["x"] + 0.5 * box["width"], box["y"] + 0.6 * box["height"])
    at, scrolled = ring(opened, drawn), opened.evaluate("scrollY")
    swipe(opened, (box["x"] + 0.7 * box["width"], box["y"] + 0.9 * box["height"]), (0, -100))
    assert opened.evaluate("scrollY") > scrolled + 50
    assert torch.equal(ring(opened, drawn), at)
    box, scrolled = box_of(opened.locator("#plane svg")), opened.evaluate("scrollY")
    held = (box["x"] + 0.5 * box["width"] + 12, box["y"] + 0.6 * box["height"] - 12)
    swipe(opened, held, (-40, -90))
    assert opened.evaluate("scrollY") == scrolled
    moved = ring(opened, drawn) - at
    assert moved[0] < -0.1 and moved[1] > 0.2


@pytest.mark.parametrize("opened", [PHONE], indirect=True)
def test_finger_shows_a_document_s_pattern_and_then_an_entry(opened: Page) -> None:
    training = opened.locator("#training")
    training.get_by_role("button", name="Quillon Engine").tap()
    expect(training.locator(".docmem-readout")).to_contain_text("The rows of 3 Quillon Engine")
    training.locator(".docmem-cells > canvas").nth(1).tap()
    opened.wait_for_timeout(200)  # the chip has lost the focus
    expect(training.locator(".docmem-readout")).to_contain_text("entry 12, 2 Thornwick Light")


def test_training_scrubs_and_says_who_opens_an_entry(opened: Page) -> None:
    training = opened.locator("#training")
    slider = training.get_by_role("slider")
    expect(training.locator("output")).to_have_text("epoch 60 of 60")
    canvas = training.locator(".docmem-cells > canvas").nth(1)
    pixels = """(canvas) => {
        const { width, height } = canvas;
        const copy = new OffscreenCanvas(width, height).getContext("2d");
        copy.drawImage(canvas, 0, 0);
        return Array.from(copy.getImageData(0, 0, width, height).data);
    }"""
    last = canvas.evaluate(pixels)
    slider.press("Home")
    expect(training.locator("output")).to_have_text("epoch 0 of 60")
    expect(training).to_contain_text("before training")
    assert canvas.evaluate(pixels) != last
    training.get_by_label("one snapshot on").click()
    expect(training.locator("output")).not_to_have_text("epoch 0 of 60")
    training.get_by_role("button", name="Play").click()
    expect(training.locator("output")).to_have_text("epoch 60 of 60", timeout=20_000)
    assert canvas.evaluate(pixels) == last
    box = box_of(canvas)
    opened.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    expect(training.locator(".docmem-readout")).to_contain_text("entry 12, 2 Thornwick Light")
    expect(training.locator(".docmem-readout")).to_contain_text("Opened by")
    training.get_by_role("button", name="Quillon Engine").hover()
    faded = np.array(canvas.evaluate(pixels)).reshape(3, -1, 4)
    assert (faded[:2, :, 3] < 100).all() and (faded[2, :, 3] == 255).all()
    chip = training.get_by_role("button", name="Quillon Engine")
    chip.click()  # it stays, as it has to for a finger
    opened.mouse.move(0, 0)
    expect(training.locator(".docmem-readout")).to_contain_text("The rows of 3 Quillon Engine")
    chip.click()
    opened.mouse.move(0, 0)
    expect(training.locator(".docmem-readout")).to_contain_text("Point at or tap")


def test_headings_leave_no_level_out(opened: Page) -> None:
    levels = opened.locator("h1, h2, h3, h4, h5, h6").evaluate_all(
        "found => found.map((heading) => +heading.tagName[1])"
    )
    assert max(levels) == 3
    assert all(after <= before + 1 for before, after in itertools.pairwise([0, *levels]))


def test_recall_and_attribution_answer(opened: Page) -> None:
    recall = opened.locator("#recall")
    expect(recall.locator(".docmem-answer")).to_have_count(4)
    before = recall.locator(".docmem-answers").inner_text()
    recall.get_by_label("Document").select_option("1")
    assert recall.locator(".docmem-answers").inner_text() != before
    expect(recall.get_by_label("Document")).to_contain_text('<b>$x$ & "quotes" 風 🌊')
    recall.get_by_role("button", name="relu memory").click()
    expect(recall.get_by_label("Document")).to_have_value("1")
    attribution = opened.locator("#attribution")
    attribution.get_by_role("button", name="I bought bread.").click()
    expect(attribution.locator(".docmem-verdict")).to_contain_text("none of them")
    expect(attribution.locator(".docmem-row")).to_have_count(4)
    attribution.get_by_role("button", name="relu memory").click()
    expect(attribution.locator("[aria-pressed=true]").last).to_contain_text("I bought bread.")


@pytest.mark.parametrize(
    "opened", [{"color_scheme": "dark", "reduced_motion": "reduce"}], indirect=True
)
def test_dark_page_without_motion(opened: Page) -> None:
    ground = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", ground))) < 60
    expect(opened.locator("#plane image.dark")).to_be_visible()
    expect(opened.locator("#plane image.light")).to_be_hidden()
    opened.get_by_role("button", name="Walk").click()
    places = set()
    for _ in range(30):
        places.add(opened.locator("#plane .docmem-plane__map > g").last.get_attribute("transform"))
        opened.wait_for_timeout(50)
    assert len(places) <= 5  # steps, no glide
    opened.screenshot(path=PICTURES / "page_dark.png", full_page=True)


@pytest.mark.parametrize("opened", [{}, {"color_scheme": "dark"}], indirect=True)
def test_axe_finds_no_serious_fault(opened: Page) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not installed: npm install")
    opened.evaluate(AXE.read_text(encoding="utf-8"))
    found = opened.evaluate("axe.run()")
    serious = [
        (fault["id"], [(node["html"][:120], node["failureSummary"]) for node in fault["nodes"]][:4])
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
    ]
    assert not serious


def test_lm_inside_the_page_writes_after_any_prompt_and_measures(
    made: tuple[Path, list[Run], KeyPlane], browser: Browser
) -> None:
    context = browser.new_context()
    context.set_offline(True)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(made[0].with_stem("page_lm").as_uri())
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.fill("The harbour master")
    prompt.press("Enter")
    text = page.locator(".docmem-plane__text")
    expect(text).to_have_attribute("data-stale", "false", timeout=20_000)
    expect(text).to_contain_text("The harbour master")
    expect(text).not_to_have_text("The harbour master")
    expect(page.locator(".docmem-plane__how")).to_have_text("measured", timeout=20_000)
    size = made[0].with_stem("page_lm").stat().st_size / 1e6
    expect(page.locator("main")).to_contain_text(f"it has {size:.0f} MB")
    expect(page.locator("main")).not_to_contain_text("The buttons choose")  # it has one memory
    run, lm = made[1][0], toy_lm()
    memory = run.load_memory()
    place = memory.doc_reps[[page.evaluate(BEGIN)]]
    measured = cross_entropies_at(first_segments(run, lm), memory, place)[:, 0].exp()
    assert shown(page) == pytest.approx(measured.tolist(), rel=0.01, abs=0.02)  # float16 weights
    context.close()
    assert not said
