"""The published curves: complete, and within the bounds that their definitions set."""

import re
from pathlib import Path
from typing import Any

import pytest

from docmem.documents import PAPER_TITLES, Document
from docmem.evaluation import published
from docmem.evaluation.published import EPOCHS, RUNS, PublishedRun
from docmem.training.config import preset
from docmem.training.setup import configured_documents

EACH = pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)


@EACH
def test_every_curve_has_a_value_at_every_epoch(run: PublishedRun) -> None:
    assert len(run.positive_ce) == len(run.guidance_term) == len(EPOCHS)


@EACH
def test_guidance_term_is_at_most_guidance_times_positive_ce(run: PublishedRun) -> None:
    for positive_ce, term in zip(run.positive_ce, run.guidance_term, strict=True):
        assert 0 < term <= run.guidance * positive_ce


@EACH
def test_positive_ce_falls_to_a_fifth_or_less(run: PublishedRun) -> None:
    assert 3.5 < run.positive_ce[0] < 4.5
    assert run.positive_ce[-1] < 0.2 * run.positive_ce[0]


def test_the_name_of_a_run_says_its_settings() -> None:
    run = PublishedRun("relu", 5, 0.25, (), ())
    assert run.name == "relu, 5 documents, α 0.25"
    assert len({run.name for run in RUNS}) == len(RUNS)


def test_the_docstrings_example_names_the_run_that_it_says() -> None:
    example = published.__doc__ or ""
    (index,) = re.findall(r"RUNS\[(\d)\]\.positive_ce +# tanh, ten documents, α 0\.1", example)
    assert RUNS[int(index)].name == "tanh, 10 documents, α 0.1"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, list(PAPER_TITLES[:10])),
        ({"max_labels": 20}, list(PAPER_TITLES)),
        ({"max_labels": 2, "titles": ("Page 7", "Slashdot")}, ["Page 7", "Slashdot"]),
    ],
)
def test_seed_1_reads_the_pages_that_the_authors_seed_1_drew(
    changes: dict[str, Any], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = [f"Page {n}" for n in range(300)] + sorted(PAPER_TITLES)
    pages = [Document(title, "Some words .") for title in titles]
    monkeypatch.setattr("docmem.documents.read_wikitext", lambda *_: pages)
    found = configured_documents(preset("pythia-1b", **changes))
    assert [document.title for document in found] == expected
    drawn = configured_documents(preset("pythia-1b", seed=2))
    assert len({document.title for document in drawn} - set(PAPER_TITLES)) > 3


def test_a_folder_with_the_beginning_of_wikitexts_name_is_read_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wikitext-mine").mkdir()
    for title in "abcdefgh":
        Path("wikitext-mine", f"{title}.txt").write_text("some words")
    found = configured_documents(preset("tiny", documents="wikitext-mine", max_labels=3))
    assert [document.title for document in found] == ["a", "b", "c"]
