"""The published curves: complete, and within the bounds that their definitions set."""

import re

import pytest

from docmem.evaluation import published
from docmem.evaluation.published import EPOCHS, RUNS, TITLES, PublishedRun

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


def test_the_run_of_the_docstrings_example_has_one_title_per_document() -> None:
    example = published.__doc__ or ""
    (index,) = re.findall(r"RUNS\[(\d)\]\.positive_ce +# tanh, ten documents, α 0\.1", example)
    assert RUNS[int(index)].name == "tanh, 10 documents, α 0.1"
    assert len(set(TITLES)) == RUNS[int(index)].n_docs
