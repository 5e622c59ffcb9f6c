"""The study guidance: its numbers are the runs', its drawing is the numbers', its claims follow."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from drawn import ToyPool, drawn, marks, through_json

from docmem.evaluation.recall import recognition
from docmem.experiments.studies import guidance


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToyPool]:
    """A pool, and the study with few DocReps and negatives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guidance, "RANDOM_DOC_REPS", 2)
        patch.setattr(guidance, "NEGATIVES", ("other", "zero"))
        yield ToyPool(folder=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def results(small: ToyPool) -> Any:
    """What the study measures, through JSON."""
    return through_json("guidance", guidance.Guidance().measure(small))


def test_guidance_reads_what_its_runs_know(small: ToyPool, results: Any) -> None:
    run = small.run(1, guidance=0.0)
    cache, memory = small.cache_hidden_states(run), run.load_memory()
    none = results.weights["0"]
    ce = recognition(cache, memory).ce
    assert none.own == pytest.approx([ce.trace().item() / 3], rel=1e-4)
    assert none.other == pytest.approx([(ce.sum() - ce.trace()).item() / 6], rel=1e-4)
    assert none.gap == pytest.approx([none.other[0] - none.own[0]])
    with torch.no_grad():
        origin = [cache.cross_entropies(n, memory, torch.zeros(1, 2)).item() for n in range(3)]
    assert none.origin == pytest.approx([np.mean(origin)], rel=1e-4)


def test_guidance_begins_with_the_procedure(small: ToyPool, results: Any) -> None:
    assert (results.alpha, results.tau) == ("0.2", small.config().target_negative_ce)
    # The setting that is changed nowhere is one run, which other studies share.
    usual = results.weights["0.2"]
    assert usual == results.negatives["other"] == results.forms["absolute"]
    assert usual.own == pytest.approx(
        [recognition(small.cache_hidden_states(small.run(1)), small.run(1).load_memory()).own]
    )
    others = (*results.weights.values(), *results.negatives.values(), *results.forms.values())
    assert sum(one == usual for one in others) == 3
    config = replace(small, procedure="paper").config()
    assert f"{config.guidance:g}" in guidance.ALPHAS


def test_guidance_figure_shows_the_measured_values(results: Any) -> None:
    top, *_, bottom, _, _ = drawn("guidance", results).axes
    assert marks(top) == [
        getattr(results.weights[alpha], key)[0]
        for key in guidance.DOC_REPS
        for alpha in guidance.ALPHAS
    ]
    assert marks(bottom) == [
        100 * getattr(results.weights[alpha], f"continued_{key}")[0]
        for key in ("own", "other")
        for alpha in guidance.ALPHAS
    ]


GOOD = {"own": 0.3, "other": 4.8, "origin": 4.5, "continued_other": 0.1}
BAD = {"own": 0.3, "other": 3.0, "origin": 2.0, "continued_other": 0.9}


def known(values: dict[str, float], **changes: float) -> guidance.Known:
    """Five seeds, near these means."""
    numbers = {**values, "random": 4.0, "continued_own": 1.0, **changes}
    return guidance.Known(
        **{key: [value + 0.001 * seed for seed in range(5)] for key, value in numbers.items()}
    )


def verdicts(
    none: dict[str, float], usual: dict[str, float], slow: float, rest: float, form: float
) -> list[str]:
    """What is said of memories without guidance and with it.

    `slow` is the own cross entropy at α 0.5, `rest` the other of further negatives, and `form`
    what the squared form adds to other.
    """
    weights = {alpha: known(usual) for alpha in guidance.ALPHAS}
    weights |= {"0": known(none), "0.5": known(usual, own=slow)}
    rests = dict.fromkeys(("random", "zero", "perturb"), known(usual, other=rest))
    forms = {"squared": known(usual, other=usual["other"] + form), "absolute": known(usual)}
    made = guidance.Results("0.2", 5.0, weights, {"other": known(usual), **rests}, forms)
    return [judged.verdict for judged in guidance.Guidance().claims(made)]


def test_guidance_claims_go_both_ways() -> None:
    assert verdicts(BAD, GOOD, 0.8, 4.0, 0.1) == ["holds"] * 6
    assert verdicts(GOOD, BAD, 0.2, 5.0, 0.5) == ["does not hold"] * 5 + ["partly"]
    # No difference is an answer too, where there is a margin.
    assert verdicts(GOOD, GOOD, 0.3, 4.9, 0.0) == ["does not hold"] * 5 + ["holds"]


def test_memories_that_learned_nothing_say_nothing() -> None:
    worse = {**GOOD, "own": 1.2}
    found = verdicts(BAD, worse, 1.7, 4.0, 0.0)
    assert found == [*["inconclusive"] * 3, "holds", "inconclusive", "inconclusive"]
    assert verdicts({**BAD, "own": 1.2}, GOOD, 0.8, 4.0, 0.1)[:3] == ["inconclusive"] * 3
