"""Many documents: samples are what the whole would give, and cost no more as documents grow."""

import base64
import dataclasses
import itertools
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import DOCUMENTS, quick_config, toy_lm

from docmem import explore, plots
from docmem.core.memory import DocumentMemory
from docmem.documents import Document
from docmem.errors import DocmemError
from docmem.evaluation import recall
from docmem.evaluation.cached import measure, measure_plane
from docmem.evaluation.plane import key_plane
from docmem.evaluation.recall import completion, recognition, sampled
from docmem.explore import _baked
from docmem.explore.page import write_page
from docmem.lm.hidden_states import cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.plots.animation import SelectionPicture, color_limits, panels_at
from docmem.plots.figures import Result, table
from docmem.plots.plane import farthest_points
from docmem.plots.style import document_color, new_figure
from docmem.training import train as training
from docmem.training.run import Run
from docmem.training.train import train

N_DOCS = 70


@pytest.fixture(scope="module")
def many() -> list[Document]:
    """Seventy documents: the words of three, each time begun at another place."""
    words = " ".join(document.text for document in DOCUMENTS).split()
    starts = itertools.islice(itertools.cycle(range(0, len(words) - 20)), N_DOCS)
    return [Document(f"Text {n}", " ".join(words[s : s + 20])) for n, s in enumerate(starts)]


@pytest.fixture(scope="module")
def run(many: list[Document], tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = quick_config(tmp_path_factory.mktemp("many") / "run")
    few = dataclasses.replace(config, num_epochs=1, save_freq=1, snapshot_freq=1)
    return train(few, lm=toy_lm(), documents=many, progress=False)


def test_sampled_documents_are_the_same_each_time_and_lie_all_over() -> None:
    assert sampled(5, 60).tolist() == [0, 1, 2, 3, 4]
    chosen = sampled(1000, 60)
    assert torch.equal(chosen, sampled(1000, 60))
    assert chosen.diff().min() > 0 and len(chosen) == 60
    assert torch.histc(chosen.float(), 5, 0, 1000).min() >= 5


@pytest.mark.slow
def test_recognition_of_a_sample_is_the_nearest_part_of_the_whole(
    lm: LanguageModel, run: Run
) -> None:
    memory, texts = run.load_memory(), torch.tensor([3, 40, 69])
    whole = recognition(run.cache_hidden_states(lm), memory, doc_reps=N_DOCS)
    cache = cache_hidden_states(lm, [run.documents[i] for i in texts.tolist()], run.config)
    part = recognition(cache, memory, texts, doc_reps=5)
    assert part.ce.shape == (3, 5)
    for row, text in enumerate(texts.tolist()):
        near = (memory.doc_reps - memory.doc_reps[text]).norm(dim=1).argsort()[:5]
        assert sorted(part.doc_reps[row].tolist()) == sorted(near.tolist())
        torch.testing.assert_close(part.ce[row], whole.ce[text, part.doc_reps[row]])
    torch.testing.assert_close(part.own_ce, whole.ce.diagonal()[texts])
    low, document, doc_rep = part.lowest_pair
    assert document in texts and document != doc_rep
    assert whole.ce[document, doc_rep].item() == pytest.approx(low)
    assert part.other == pytest.approx(part.ce[~part.is_own].mean().item())


@pytest.mark.slow
def test_page_and_explorer_of_many_documents_say_how_many_they_show(
    lm: LanguageModel, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_baked, "NEW_TOKENS", 2)
    run = Run.open(shutil.copytree(run.path, tmp_path / "run"))
    page = write_page([run], tmp_path / "page.html", lm=lm, points=3, text_points=2)
    text = page.read_text()
    assert " of 60 documents by the passages" in " ".join(text.split())
    found = re.search(r'<script type="application/json" id="baked">(.*?)</script>', text)
    assert found is not None
    baked = json.loads(found[1])
    (memory,), plane = baked["memories"], measure_plane(run, lm, 3)
    scene = memory["plane"]["scene"]
    shown = plane.documents.tolist()
    assert scene["titles"] == [run.titles[number] for number in shown]
    ce = np.frombuffer(base64.b64decode(memory["plane"]["ce"]["data"]), "<f4").reshape(60, 3, 3)
    assert [shown[index] for index in ce.argmin(0).flatten()] == plane.nearest.flatten().tolist()
    assert len(memory["recall"]) == len(scene["points"]) == 60
    assert all(len(passage["ce"]) == 60 for passage in memory["passages"])
    training = baked["training"]["runs"][0]
    size = len(training["epochs"]) * 60 * training["entries"]
    for panel in training["panels"]:
        assert len(base64.b64decode(panel["values"]["data"])) == size
    explorer = explore.key_plane(run, 2, lm=lm)
    assert explorer.alt.startswith("The DocRep plane of 60 of 70 documents")
    scene = explorer.widget.scene  # numbered and coloured as in the run
    assert [run.titles[number - 1] for number in scene["numbers"]] == scene["titles"]
    assert scene["colors"] == [document_color(number - 1) for number in scene["numbers"]]
    unread = next(title for title in run.titles if title not in explorer.titles)
    with pytest.raises(DocmemError, match="is not shown: of 70 documents the plane shows 60"):
        explorer.snap(unread)
    explorer.close()


def test_documents_that_share_a_doc_rep_are_read_under_their_own(
    lm: LanguageModel, run: Run
) -> None:
    memory = run.load_memory()
    memory.doc_reps[:] = memory.doc_reps[0].clone()
    part = recognition(run.cache_hidden_states(lm), memory, doc_reps=4)
    assert part.is_own.sum(1).tolist() == [1] * N_DOCS


def test_completion_of_a_sample_takes_the_others_from_all_documents(
    lm: LanguageModel, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, seen = torch.tensor([3, 69]), []
    kept = recall.readers_of

    def noted(own: torch.Tensor, n_docs: int, others: int) -> torch.Tensor:
        seen.append(kept(own, n_docs, others))
        return seen[-1]

    monkeypatch.setattr(recall, "readers_of", noted)
    cache = cache_hidden_states(lm, [run.documents[i] for i in texts.tolist()], run.config)
    completion(cache, run.load_memory(), 4, 3, texts=texts)
    assert set(seen[0][:, 0].tolist()) == {3, 69}
    assert seen[0].max() > 2  # not rows of the sample


def test_measure_reads_a_sample_and_the_table_says_so(
    lm: LanguageModel, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for constant, value in (("TEXTS", 6), ("DOC_REPS", 4)):
        monkeypatch.setattr(f"docmem.evaluation.recall.{constant}", value, raising=True)
    monkeypatch.setattr("docmem.evaluation.cached.TEXTS", 6)
    found = measure(run, lambda: lm)
    assert found.recognition.texts.tolist() == sampled(N_DOCS, 6).tolist()
    assert found.base_ce.shape == (6,)
    again = measure(run, lambda: pytest.fail("measured twice"))
    assert torch.equal(again.recognition.doc_reps, found.recognition.doc_reps)
    says = " ".join(table([Result("tanh", *found, 1.0, N_DOCS)]).split())
    assert "the texts of 6 documents, drawn at random" in says
    assert f"{found.recognition.recognised} of 6" in says


def test_map_of_a_sample_knows_its_documents(
    lm: LanguageModel, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("docmem.evaluation.cached.TEXTS", 6)
    plane = measure_plane(run, lambda: lm, points=3)
    assert plane.documents.tolist() == sampled(N_DOCS, 6).tolist()
    memory, last = run.load_memory(), plane.documents[-1].item()
    alone = cache_hidden_states(
        lm, [run.documents[last]], dataclasses.replace(run.config, max_segments=1)
    )
    torch.testing.assert_close(plane.ce_of(last), key_plane(alone, memory, points=3).ce[0])
    assert set(plane.nearest.unique().tolist()) <= set(plane.documents.tolist())
    assert plane.shares.shape == (N_DOCS,)
    left = next(index for index in range(N_DOCS) if index not in plane.documents)
    with pytest.raises(DocmemError, match=f"Document {left} is not in this map, which is of 6 of"):
        plane.ce_of(left)
    assert set(farthest_points(plane, 3)) <= set(plane.documents.tolist())
    assert len({*farthest_points(plane._replace(doc_reps=torch.zeros(N_DOCS, 2)), 3)}) == 3
    figure = plots.key_plane(new_figure(9, 6.6), plane, run.titles, "note")
    assert " of 6 DocReps" in figure.get_suptitle()
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [N_DOCS, 6]


def test_snapshots_are_ten_an_epoch_at_most(run: Run) -> None:
    epochs = run.load_snapshots().epochs
    assert epochs == pytest.approx([n / 10 for n in range(11)])
    assert training.SNAPSHOTS_PER_EPOCH == 10


def test_heat_maps_show_sixty_of_more_documents(run: Run) -> None:
    snapshots = run.load_snapshots()
    picture = SelectionPicture(run, color_limits(snapshots, [0, 1]))
    shown = panels_at(snapshots, 1)
    picture.show(shown, 0.1)
    rows = sampled(N_DOCS, 60)
    for image, values in zip(picture.images, shown.values(), strict=True):
        assert np.array_equal(image.get_array(), values.numpy())
    assert torch.equal(shown["Document selection: of the document's DocRep"],
                       snapshots.document[1][rows])  # fmt: skip
    words = [text.get_text() for text in picture.figure.texts]
    assert any(word.endswith("60 of 70 documents, one in 5 is named") for word in words)


def test_one_document_has_no_other(lm: LanguageModel) -> None:
    single = recall.Recognition.of_all(torch.tensor([[1.0]]))
    assert math.isnan(single.other)


def test_cost_of_recognition_grows_with_the_texts_only(
    lm: LanguageModel, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    kept = recall.cross_entropies_of

    def counted(
        cache: object, memory: DocumentMemory, row: int, under: torch.Tensor
    ) -> torch.Tensor:
        read.append(len(under))
        return kept(cache, memory, row, under)

    monkeypatch.setattr(recall, "cross_entropies_of", counted)
    recognition(run.cache_hidden_states(lm), run.load_memory())
    assert read == [recall.DOC_REPS] * N_DOCS


def test_widget_of_many_documents_shows_the_sample(
    lm: LanguageModel, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("docmem.explore._plane.TEXTS", 6)
    monkeypatch.setattr("docmem.evaluation.cached.TEXTS", 6)
    chosen = sampled(N_DOCS, 6).tolist()
    explorer = explore.key_plane(run, points=3, lm=lm)
    assert explorer.titles == [run.titles[index] for index in chosen]
    assert len(explorer.rest(0.1, 0.2).ce) == 6
    explorer.snap(explorer.titles[-1])
    expected = run.load_memory().doc_reps[chosen[-1]]
    torch.testing.assert_close(explorer.reading.doc_rep, expected, rtol=1e-5, atol=1e-6)
    plane = measure_plane(run, lambda: lm, points=3)
    again = explore.key_plane(run, lm=lm, plane=plane)
    torch.testing.assert_close(again.plane.ce, explorer.plane.ce)
    with pytest.raises(DocmemError, match="of which 6 are shown"):
        explore.key_plane(run, lm=lm, plane=plane._replace(texts=None))
