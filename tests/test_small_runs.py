"""Runs of one document, of two words each, in one dimension: what can be drawn is drawn."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toys import DOCUMENTS, toy_lm

from docmem import explore
from docmem.cli.main import main
from docmem.documents import Document
from docmem.evaluation.attribution import pointed_to
from docmem.evaluation.recall import Completion, Recognition
from docmem.lm.loading import LanguageModel
from docmem.plots.figures import Result, draw_figures, no_map, table
from docmem.training.config import TrainConfig
from docmem.training.run import Run
from docmem.training.train import train

MAPS = {"key_plane.png", "perplexity_wells.png"}


def drawn(run: Run, folder: Path, lm: LanguageModel) -> set[str]:
    """The names of what is drawn, and of maps that were there before."""
    folder.mkdir()
    for name in MAPS:
        (folder / name).write_text("of another run")
    draw_figures([run], folder, lm=lm, points=3)
    return {path.name for path in folder.iterdir() if path.suffix != ".mp4"}


def test_a_run_whose_doc_reps_span_no_plane_has_all_figures_but_the_maps(
    config: TrainConfig, lm: LanguageModel, tmp_path: Path
):
    line = replace(config, key_dim=1, num_epochs=1)
    run = train(line, lm=lm, documents=DOCUMENTS, progress=False)
    there = {"losses.png", "memory_selection_tanh.gif", "results.json", "results.md"}
    assert drawn(run, tmp_path / "out", lm) == there
    assert no_map(run).startswith("No map is drawn: 3 DocReps of length 1 cannot span a plane")
    assert no_map(run) in (tmp_path / "out" / "results.md").read_text()
    assert json.loads((tmp_path / "out" / "results.json").read_text())["key_plane"] is None
    shutil.rmtree(run.path / "snapshots")
    with pytest.warns(UserWarning, match="has lost its snapshots, so there is no GIF"):
        assert drawn(run, tmp_path / "again", lm) == there - {"memory_selection_tanh.gif"}


@pytest.mark.slow
def test_a_single_document_has_dashes_where_there_is_no_other(
    config: TrainConfig, lm: LanguageModel, tmp_path: Path
):
    alone = replace(config, negative_key_type="random", num_epochs=1)
    run = train(alone, lm=lm, documents=DOCUMENTS[:1], progress=False)
    assert drawn(run, tmp_path / "out", lm) >= MAPS
    page = (tmp_path / "out" / "results.md").read_text()
    assert "nan" not in page and "inf" not in page
    assert "–: there is none" in page
    assert "\n1 document, LM" in page
    (row,) = (line for line in page.splitlines() if line.startswith("| Cyclone Odalys"))
    assert [cell.strip() for cell in row.split("|")[4:6]] == ["–", "–"]
    results = (tmp_path / "out" / "results.json").read_text()
    numbers = json.loads(results, parse_constant=pytest.fail)["runs"]["tanh"]
    assert numbers["margin"] is None is numbers["completion"]["other"]
    found = explore.attribution(run, lm=lm).explanation
    assert found.search is not None  # two numbers are a plane, for one document too
    title = run.titles[0]
    assert pointed_to(lm, run.load_memory(), -1, "a") == (
        title,
        False,
    )  # one token names no document


def result(texts: int, doc_reps: int, n_docs: int) -> Result:
    """A result of so many texts, each read under so many DocReps."""
    read = torch.arange(texts)
    places = (read[:, None] + torch.arange(doc_reps)) % n_docs
    known = Recognition(torch.rand(texts, doc_reps), read, places)
    return Result("tanh", known, Completion(1, 0.5, 0.1), torch.rand(texts), 1.0, n_docs)


@pytest.mark.parametrize(
    ("texts", "doc_reps", "n_docs", "sample", "nearest"),
    [(20, 20, 20, False, False), (40, 20, 40, False, True), (60, 20, 200, True, True)],
)
def test_the_table_says_what_was_drawn_and_what_was_read(
    texts: int, doc_reps: int, n_docs: int, sample: bool, nearest: bool
):
    said = table([result(texts, doc_reps, n_docs)]).replace("\n", " ")
    assert ("A sample: the texts of 60 documents, drawn at random." in said) is sample
    assert ("under its own DocRep and the 19 nearest" in said) is nearest
    assert "there is none" not in said


def test_a_text_beyond_the_context_is_said_once(
    config: TrainConfig, capfd: pytest.CaptureFixture[str], tmp_path: Path
):
    lm = toy_lm()
    lm.tokenizer.model_max_length = lm.context or 0
    folder = train(config, lm=lm, documents=DOCUMENTS, progress=False).path
    lm.model.save_pretrained(tmp_path / "lm")
    lm.tokenizer.save_pretrained(tmp_path / "lm")
    capfd.readouterr()
    given = ["attribute", str(folder), "--lm", str(tmp_path / "lm"), "--text", "storm " * 999]
    assert main(given) == 1
    said = capfd.readouterr().err
    assert "exceeds the context" in said
    assert "longer than the specified maximum" not in said


@pytest.mark.slow
def test_documents_of_two_words_can_be_drawn(
    config: TrainConfig, lm: LanguageModel, tmp_path: Path
):
    documents = [Document("A", "one lamp"), Document("B", "two ships")]
    run = train(replace(config, num_epochs=1), lm=lm, documents=documents, progress=False)
    assert drawn(run, tmp_path / "out", lm) >= MAPS
    assert "nan" not in (tmp_path / "out" / "results.md").read_text()
