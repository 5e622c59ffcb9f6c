import base64
import dataclasses
import io
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toys import DOCUMENTS, quick_config, toy_lm

from docmem import explore
from docmem.core.config import MemoryConfig
from docmem.core.hook import attach
from docmem.core.memory import DocumentMemory
from docmem.documents import Document
from docmem.errors import DocmemError
from docmem.evaluation.cached import first_segments, measure_plane
from docmem.evaluation.plane import KeyPlane, key_plane, plane_of
from docmem.explore import KeyPlaneExplorer
from docmem.lm.cross_entropy import cross_entropies_at
from docmem.lm.generation import generate
from docmem.lm.hidden_states import HiddenStateCache
from docmem.lm.loading import LanguageModel
from docmem.plots import key_plane as draw_key_plane
from docmem.plots.style import document_color, new_figure
from docmem.training.config import TrainConfig
from docmem.training.run import Run
from docmem.training.train import train


@pytest.fixture(scope="module")
def cache(trained: tuple[LanguageModel, Run]) -> HiddenStateCache:
    lm, run = trained
    return run.cache_hidden_states(lm)


@pytest.fixture(scope="module")
def plane(trained: tuple[LanguageModel, Run], cache: HiddenStateCache) -> KeyPlane:
    return key_plane(cache, trained[1].load_memory(), points=5, extent=1.5)


@pytest.fixture
def explorer(
    trained: tuple[LanguageModel, Run], cache: HiddenStateCache, plane: KeyPlane
) -> KeyPlaneExplorer:
    return explore.key_plane(trained[1], cache=cache, plane=plane, prompt="Cyclone")


@pytest.fixture
def sent(explorer: KeyPlaneExplorer, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the page is told."""
    messages: list[dict[str, Any]] = []
    monkeypatch.setattr(explorer.widget, "send", messages.append)
    return messages


def ask(explorer: KeyPlaneExplorer, kind: str, number: int, x: float, y: float, **more) -> None:
    """A question of the page, as it comes over the wire."""
    question = {"kind": kind, "number": number, "x": x, "y": y, **more}
    explorer.widget._handle_custom_msg(json.loads(json.dumps(question)), [])


def settle(explorer: KeyPlaneExplorer) -> None:
    """Wait until the worker has nothing left to do."""
    explorer._worker.submit(lambda: None).result(30)


def test_rest_measures_at_the_doc_rep_of_the_point(
    explorer: KeyPlaneExplorer, trained: tuple[LanguageModel, Run], cache: HiddenStateCache
) -> None:
    reading = explorer.rest(0.31, -0.77)
    doc_rep = torch.tensor([[0.31, -0.77]])
    expected = cross_entropies_at(cache, trained[1].load_memory(), doc_rep)[:, 0]
    assert reading.measured
    assert torch.equal(reading.doc_rep, doc_rep[0])
    torch.testing.assert_close(reading.ce, expected)
    torch.testing.assert_close(reading.perplexity, expected.exp())
    assert reading.nearest == int(expected.argmin())
    assert explorer.reading is reading
    assert explorer.point == (0.31, -0.77)


def test_move_to_a_grid_point_gives_the_values_of_the_map(
    explorer: KeyPlaneExplorer, plane: KeyPlane
) -> None:
    for up, y in enumerate(plane.axis.tolist()):
        for across, x in enumerate(plane.axis.tolist()):
            reading = explorer.move(x, y)
            assert not reading.measured
            torch.testing.assert_close(reading.ce, plane.ce[:, up, across])


def test_move_between_grid_points_interpolates_bilinearly(
    explorer: KeyPlaneExplorer, plane: KeyPlane
) -> None:
    # A quarter of a cell to the right of (0, 0), and half a cell up.
    reading = explorer.move(0.75 * 0.25, 0.75 * 0.5)
    (low, low_right), (high, high_right) = (
        (plane.ce[:, up, 2], plane.ce[:, up, 3]) for up in (2, 3)
    )
    expected = 0.5 * (0.75 * low + 0.25 * low_right) + 0.5 * (0.75 * high + 0.25 * high_right)
    torch.testing.assert_close(reading.ce, expected)


def test_selection_is_exact_in_move_and_rest(
    explorer: KeyPlaneExplorer, trained: tuple[LanguageModel, Run]
) -> None:
    expected = trained[1].load_memory().select(torch.tensor([0.4, 0.2])).detach()
    torch.testing.assert_close(explorer.move(0.4, 0.2).selection, expected)
    torch.testing.assert_close(explorer.rest(0.4, 0.2).selection, expected)


def test_point_outside_the_map_is_moved_to_its_edge(explorer: KeyPlaneExplorer) -> None:
    assert explorer.move(9, -9).doc_rep.tolist() == [1.5, -1.5]
    with pytest.raises(DocmemError, match="no point of the plane"):
        explorer.move(float("nan"), 0)


def test_snap_moves_to_the_doc_rep_of_a_document(
    explorer: KeyPlaneExplorer, trained: tuple[LanguageModel, Run]
) -> None:
    run = trained[1]
    for index, title in enumerate(run.titles):
        reading = explorer.snap(title)
        torch.testing.assert_close(reading.doc_rep, run.load_memory().doc_reps[index])
        assert reading.nearest == index
    with pytest.raises(DocmemError, match="no document called"):
        explorer.snap("Cyclon")
    explorer.plane = explorer.plane._replace(axis=explorer.plane.axis / 100)
    with pytest.raises(DocmemError, match=r"lies beyond the map, which ends at 0\.015"):
        explorer.snap(0)


def test_write_equals_generate_under_the_doc_rep(
    explorer: KeyPlaneExplorer, trained: tuple[LanguageModel, Run]
) -> None:
    lm, run = trained
    with attach(lm.model, run.load_memory(), -1) as hooked:
        expected = generate(
            hooked, lm.tokenizer, "Thornwick", torch.tensor([0.2, 0.1]), max_new_tokens=28
        )
    assert explorer.write(0.2, 0.1, "Thornwick") == expected == explorer.text
    with pytest.raises(DocmemError, match="The prompt is empty"):
        explorer.write(0.2, 0.1, "")
    assert explorer.prompt == "Thornwick"


def test_answer_carries_the_number_of_its_question(
    explorer: KeyPlaneExplorer, sent: list[dict[str, Any]]
) -> None:
    ask(explorer, "move", 5, 0.5, 0.25)
    assert [message["number"] for message in sent] == [5]
    reading = explorer.move(0.5, 0.25)
    answer = json.loads(json.dumps(sent[0]))
    assert answer["perplexity"] == reading.perplexity.tolist()
    assert answer["selection"] == reading.selection.tolist()
    assert (answer["measured"], answer["nearest"]) == (False, reading.nearest)
    assert (answer["x"], answer["y"]) == (0.5, 0.25)


def test_question_older_than_an_answered_one_is_dropped(
    explorer: KeyPlaneExplorer, sent: list[dict[str, Any]]
) -> None:
    ask(explorer, "move", 8, 0.5, 0.5)
    ask(explorer, "move", 7, -0.5, -0.5)
    ask(explorer, "rest", 6, -0.5, -0.5, write=True, prompt="Cyclone")
    settle(explorer)
    assert [message["number"] for message in sent] == [8]
    assert explorer.point == (0.5, 0.5)


def test_measurement_is_not_shown_after_a_newer_move(
    explorer: KeyPlaneExplorer, sent: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = explorer._measured

    def slow(point: tuple[float, float]) -> explore.PlaneReading:
        reading = measured(point)
        ask(explorer, "move", 3, 0.1, 0.1)  # while it was measured
        return reading

    monkeypatch.setattr(explorer, "_measured", slow)
    ask(explorer, "rest", 2, -1, -1, write=True, prompt="Cyclone")
    settle(explorer)
    assert [(message["number"], message["measured"]) for message in sent] == [(3, False)]
    assert explorer.point == (0.1, 0.1)


def test_only_the_newest_of_queued_questions_is_measured(
    explorer: KeyPlaneExplorer, sent: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, places, go, begun = explorer._measured, [], threading.Event(), threading.Event()

    def slow(point: tuple[float, float]) -> explore.PlaneReading:
        places.append(point)
        begun.set()
        assert go.wait(30)
        return measured(point)

    monkeypatch.setattr(explorer, "_measured", slow)
    for number in (1, 2, 3):
        ask(explorer, "rest", number, number / 10, 0, write=False, prompt="Cyclone")
        assert begun.wait(30)
    go.set()
    settle(explorer)
    assert places == [(0.1, 0), (0.3, 0)]
    assert [message["number"] for message in sent] == [3]


def test_rest_answers_with_measured_values_and_then_the_text(
    explorer: KeyPlaneExplorer, sent: list[dict[str, Any]]
) -> None:
    ask(explorer, "rest", 4, 0.3, 0.3, write=True, prompt="Quillon")
    settle(explorer)
    numbers, text = sent
    assert numbers["measured"]
    assert (numbers["prompt"], numbers["written"]) == ("Cyclone", False)
    assert text["written"]
    assert (text["prompt"], text["text"]) == ("Quillon", explorer.write(0.3, 0.3, "Quillon"))
    assert explorer.widget.state["perplexity"] == explorer.reading.perplexity.tolist()


def test_empty_prompt_is_answered_with_an_error_sentence(
    explorer: KeyPlaneExplorer, sent: list[dict[str, Any]]
) -> None:
    ask(explorer, "rest", 4, 0.3, 0.3, write=True, prompt="")
    settle(explorer)
    assert sent[-1]["kind"] == "error"
    assert sent[-1]["sentence"].startswith("The prompt is empty; give")


def test_page_gets_the_colours_of_the_figures(explorer: KeyPlaneExplorer, plane: KeyPlane) -> None:
    scene = json.loads(json.dumps(explorer.widget.scene))
    figure = draw_key_plane(new_figure(9, 6), plane, explorer.titles, "")
    drawn = np.asarray(figure.axes[0].images[0].get_array())
    every = (len(drawn) - 1) // 4
    ink = 1 - drawn[::every, ::every]  # the figure has one depth between two contours
    png = base64.b64decode(scene["map"].removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(png)) as opened:  # its first row is the top one
        seen = 1 - np.asarray(opened)[::-1] / 255
    unit = [part / np.linalg.norm(part, axis=2, keepdims=True).clip(1e-6) for part in (seen, ink)]
    coloured = (seen.max(2) > 0.1) & (ink.max(2) > 0.1)
    assert coloured.sum() > 5
    np.testing.assert_allclose(unit[0][coloured], unit[1][coloured], atol=0.03)
    assert scene["colors"] == [document_color(index) for index in range(3)]
    middle = scene["signed"][len(scene["signed"]) // 2]
    assert min(middle) > 240  # white at zero


def test_picture_shows_point_bars_selection_and_text(explorer: KeyPlaneExplorer) -> None:
    reading = explorer.rest(0.5, 0.25)
    figure = explorer.figure()
    plane, bars, strip, text = figure.axes
    assert plane.lines[-1].get_xydata().tolist() == [[0.5, 0.25]]
    ends = [bar.get_x() + bar.get_width() for bar in bars.patches]
    assert ends == pytest.approx(reading.perplexity.tolist())
    np.testing.assert_allclose(strip.images[0].get_array()[0], reading.selection)
    assert text.texts[0].get_text() == ""  # written elsewhere
    explorer.write(0.5, 0.25, "Quillon")
    written = explorer.figure().axes[-1].texts[0].get_text().replace("\n", " ")
    assert written.startswith("After “Quillon” the LM writes: ")
    assert explorer.text.split()[0] in written
    assert explorer.titles[reading.nearest] in explorer.alt
    assert "(0.50, 0.25)" in explorer.alt


def test_key_plane_measures_first_segments_over_all_doc_reps(
    trained: tuple[LanguageModel, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, run = trained
    memory = run.load_memory()
    with torch.no_grad():
        memory.doc_reps[1] = torch.tensor([0.3, -2.5])  # outside [-1, 1]²
    monkeypatch.setattr(run, "load_memory", lambda: memory)
    explorer = explore.key_plane(run, points=2, lm=lm)
    assert len(explorer.cache.batches) == len(run.documents)
    assert [len(batch.input_ids) for batch in explorer.cache.batches] == [1, 1, 1]
    assert explorer.prompt == run.documents[0].title
    corner = cross_entropies_at(explorer.cache, run.load_memory(), explorer.plane.axis[None])[:, 0]
    low, high = explorer.plane.axis.tolist()
    assert (-low, high) == pytest.approx((2.7, 2.7))  # a little beyond the farthest DocRep
    torch.testing.assert_close(explorer.move(low, high).ce, corner)


def test_longer_doc_reps_are_moved_in_their_principal_plane(
    trained: tuple[LanguageModel, Run], cache: HiddenStateCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained[1]
    torch.manual_seed(0)
    shape = MemoryConfig(d_model=32, n_docs=3, memory_dim=24, key_dim=4)
    memory = DocumentMemory(shape, run.titles)
    monkeypatch.setattr(Run, "load_memory", lambda _: memory)
    explorer = explore.key_plane(run, 2, cache=cache)
    origin, axes = plane_of(memory.doc_reps)
    expected = origin + torch.tensor([0.2, -0.4]) @ axes
    torch.testing.assert_close(explorer.rest(0.2, -0.4).doc_rep, expected)
    explore.key_plane(run, cache=cache, plane=explorer.plane)
    memory.doc_reps[0] *= 2
    with pytest.raises(DocmemError, match="it is of another run"):
        explore.key_plane(run, cache=cache, plane=explorer.plane)


def test_snap_reads_the_own_doc_rep_also_off_the_plane(
    lm: LanguageModel, config: TrainConfig
) -> None:
    documents = [*DOCUMENTS, Document("Fourth", "Nothing that stands in the others .")]
    long = dataclasses.replace(config, key_dim=3, num_epochs=2)
    run = train(long, lm=lm, documents=documents, progress=False)
    measured = measure_plane(run, lm, 3)
    assert measured.away is not None and measured.away.max() > 0.1
    assert torch.equal(measure_plane(run, lm, 3).away, measured.away)
    explorer = explore.key_plane(run, lm=lm, plane=measured)
    memory = run.load_memory()
    for index in range(4):
        reading = explorer.snap(index)
        expected = cross_entropies_at(first_segments(run, lm), memory, memory.doc_reps)[:, index]
        torch.testing.assert_close(reading.ce, expected)
        assert torch.equal(reading.doc_rep, memory.doc_reps[index])
    assert "The DocRep of Fourth, shown at" in explorer.figure().texts[-1].get_text()
    explorer.rest(0.1, 0.1)
    assert "Point of the plane (0.10, 0.10)" in explorer.figure().texts[-1].get_text()
    explorer.close()


def test_key_plane_rejects_another_map_and_doc_reps_without_a_plane(
    trained: tuple[LanguageModel, Run], plane: KeyPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, run = trained
    with pytest.raises(DocmemError, match="cache is of another LM than `lm`"):
        explore.key_plane(run, lm=toy_lm(), cache=run.cache_hidden_states(lm))
    other = KeyPlane(plane.axis, plane.ce[:2], plane.doc_reps[:2])
    with pytest.raises(DocmemError, match="The map is of 2 documents, this run holds 3"):
        explore.key_plane(run, lm=lm, plane=other)
    with pytest.raises(DocmemError, match="it is of another run"):
        explore.key_plane(run, lm=lm, plane=plane._replace(doc_reps=-plane.doc_reps))
    thin = DocumentMemory(MemoryConfig(d_model=32, n_docs=3, memory_dim=24, key_dim=1))
    monkeypatch.setattr(Run, "load_memory", lambda _: thin)
    with pytest.raises(DocmemError, match="cannot span a plane"):
        explore.key_plane(run, lm=lm)


def test_first_title_is_cut_to_what_the_lm_can_go_on_from(lm: LanguageModel, tmp_path: Path):
    documents = [Document("harbour master " * 20 + "again", "A text ."), *DOCUMENTS]
    config = dataclasses.replace(quick_config(tmp_path), num_epochs=1)
    run = train(config, lm=lm, documents=documents, progress=False)
    explorer = explore.key_plane(run, 2, lm=lm)
    assert explorer.prompt and documents[0].title.startswith(explorer.prompt)
    explorer.close()
