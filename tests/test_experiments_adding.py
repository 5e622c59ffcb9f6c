"""The study adding: its numbers are the memories', its drawing the numbers', claims follow."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from drawn import ToyPool, drawn, marks, through_json

from docmem.evaluation.recall import recognition
from docmem.experiments.studies import adding
from docmem.experiments.studies.forgetting import worst
from docmem.lm.cross_entropy import base_cross_entropies
from docmem.lm.hidden_states import cache_hidden_states


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToyPool]:
    """A pool whose runs are shared, and a study with few epochs and points."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adding, "POINTS", 3)
        patch.setattr(adding, "EPOCHS", 2)
        yield ToyPool(folder=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def results(small: ToyPool) -> adding.Results:
    """What the study measures, through JSON."""
    return through_json("adding", adding.Adding().measure(small))


def test_each_way_is_measured_on_its_memory(small: ToyPool, results: adding.Results) -> None:
    *known, new = documents = small.documents(1, adding.DOCUMENTS)
    run, anew = small.run(1, known), small.run(1, documents)
    cache = cache_hidden_states(small.lm, documents, run.config)
    added = adding.add(cache, run.load_memory(), new.title, epochs=2)
    memories = {
        "trained": (adding.append_doc_rep(run.load_memory(), new.title), 0),
        "naive": (adding.add(cache, run.load_memory(), new.title, epochs=2, rehearse=False), 4),
        "added": (added, 8),
        "anew": (anew.load_memory(), 6),  # two epochs of three documents
    }
    for name, (memory, readings) in memories.items():
        way, found = results.ways[name], recognition(cache, memory)
        assert way.own[0] == pytest.approx(found.ce.diagonal().tolist(), rel=1e-4), name
        assert (way.recognised, way.readings) == ([found.recognised], [readings]), name
    shown, extent = results.maps["added"], results.extent
    assert shown.doc_reps == added.doc_reps.tolist()
    assert extent >= added.doc_reps.abs().max()
    with torch.no_grad():
        corner = torch.tensor([[-extent, extent]])  # the last row, the first column
        ce = [cache.cross_entropies(n, added, corner).item() for n in range(3)]
    lowest = (torch.tensor(ce) - base_cross_entropies(cache)).min().item()
    assert shown.values[-1][0] == pytest.approx(lowest, abs=1e-3)


def test_figure_shows_the_measured_values(results: adding.Results) -> None:
    figure = drawn("adding", results)
    for axes, shown in zip(figure.axes, results.maps.values(), strict=False):
        assert np.array_equal(axes.images[0].get_array(), shown.values)
        assert [text.get_text() for text in axes.texts] == ["3"]
    known, costs = figure.axes[-2:]
    ways = results.ways.values()
    new, others = ([way.own[0][-1] for way in ways], [np.mean(way.own[0][:-1]) for way in ways])
    assert marks(known) == pytest.approx(new + others)
    trained = results.ways["trained"].own[0]
    assert marks(costs) == [
        results.ways[name].own[0][n] - trained[n]
        for name in ("naive", "added", "anew")
        for n in range(2)
    ]


def made_up(new: float, cost: float, harm: float) -> adding.Results:
    """Five seeds a little apart: ten documents, and what the ways make of them and of the new."""

    def way(own: list[float], step: float) -> adding.Way:
        seeds = [[ce + step * seed for ce in own] for seed in range(5)]
        return adding.Way(seeds, [11] * 5, [9] * 5)

    ways = {
        "trained": way([0.5] * 10 + [6.0], 0.001),
        "naive": way([0.5 + harm] * 10 + [0.1], 0.002),
        "added": way([0.5] * 9 + [0.5 + cost, new], 0.003),
        "anew": way([0.5] * 11, 0.004),
    }
    return adding.Results(1.0, ways, {})


@pytest.mark.parametrize(
    ("new", "cost", "harm", "expected"),
    [
        (0.54, 0.09, 0.6, ["holds"] * 4),
        (0.6, 0.09, 0.6, ["does not hold", "holds", "holds", "holds"]),
        # One of ten is harmed; in the mean over them that would not be seen.
        (0.54, 0.11, 0.4, ["holds", "does not hold", "does not hold", "holds"]),
        (3.5, -0.2, 0.6, ["does not hold", "holds", "holds", "does not hold"]),
    ],
)
def test_verdicts(new: float, cost: float, harm: float, expected: list[str]) -> None:
    judged = adding.Adding().claims(made_up(new, cost, harm))
    assert [one.verdict for one in judged] == expected
    assert not any("nan" in one.found for one in judged)


def test_costs_are_changes_and_the_worst_counts() -> None:
    made = made_up(0.5, 2.0, 0.6)
    assert made.costs("added").shape == (5, 10)
    assert worst(made.costs("added")) == pytest.approx([2.0, 2.002, 2.004, 2.006, 2.008])
    assert made.costs("added").mean() == pytest.approx(0.204)
