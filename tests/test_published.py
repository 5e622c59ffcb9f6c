"""The published curves: whole, and plausible as what they are said to be."""

import pytest

from docmem.evaluation import published
from docmem.evaluation.published import EPOCHS, RUNS, TITLES, PublishedRun

EACH = pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)


@EACH
def test_every_curve_has_a_value_at_every_epoch(run: PublishedRun) -> None:
    assert len(run.positive_ce) == len(run.guidance_term) == len(EPOCHS)


@EACH
def test_the_guidance_term_is_clamped_as_the_authors_program_clamps_it(run: PublishedRun) -> None:
    for positive_ce, term in zip(run.positive_ce, run.guidance_term, strict=True):
        assert 0 < term <= run.guidance * positive_ce


@EACH
def test_every_run_learned_its_documents(run: PublishedRun) -> None:
    assert 3.5 < run.positive_ce[0] < 4.5
    assert run.positive_ce[-1] < 0.2 * run.positive_ce[0]


def test_runs_are_told_apart_by_their_names() -> None:
    assert len({run.name for run in RUNS}) == len(RUNS)
    assert RUNS[2].name == "tanh, 10 documents, α 0.1"


def test_the_module_says_what_it_shows_by_example() -> None:
    assert published.RUNS[2][:3] == ("tanh", 10, 0.1)
    assert len(set(TITLES)) == RUNS[2].n_docs
