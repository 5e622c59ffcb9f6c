"""The study adding: its numbers are the memories', its drawing the numbers', claims follow."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from drawn import ToyPool, drawn, marks, through_json

from docmem.evaluation.recall import recognition
from docmem.experiments.studies import adding
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
    *known, new = documents = small.documents(adding.DOCUMENTS)
    run, anew = small.run(1, known), small.run(1, documents)
    cache = cache_hidden_states(small.lm, documents, run.config)
    added = adding.add(cache, run.load_memory(), new.title, epochs=2, weight_decay=0)
    memories = {
        "trained": (adding.append_doc_rep(run.load_memory(), new.title), 0),
        "naive": (
            adding.add(
                cache, run.load_memory(), new.title, epochs=2, rehearse=False, weight_decay=0
            ),
            4,
        ),
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
    """Two seeds: ten documents at 0.5, and what the ways make of them and of the new one."""

    def way(own: list[float]) -> adding.Way:
        return adding.Way([own] * 2, [11] * 2, [9] * 2)

    ways = {
        "trained": way([0.5] * 10 + [6.0]),
        "naive": way([0.5 + harm] * 10 + [0.1]),
        "added": way([0.5] * 9 + [0.5 + cost, new]),
        "anew": way([0.5] * 11),
    }
    return adding.Results(1.0, ways, {})


@pytest.mark.parametrize(
    ("new", "cost", "harm", "expected"),
    [
        (0.7, 0.09, 0.6, ["holds"] * 4),
        (0.8, 0.09, 0.6, ["not", "holds", "holds", "holds"]),
        (0.7, 0.11, 0.4, ["holds", "not", "not", "holds"]),
        (3.5, -0.2, 0.6, ["not", "holds", "holds", "not"]),
    ],
)
def test_verdicts(new: float, cost: float, harm: float, expected: list[str]) -> None:
    claims = adding.Adding().claims(made_up(new, cost, harm))
    assert [claim.verdict for claim in claims] == expected
    assert not any("nan" in claim.ours for claim in claims)


def test_one_harmed_document_is_enough() -> None:
    made = made_up(0.5, 2.0, 0.6)  # one of ten; the others as they were
    assert max(made.costs("added")) == 2.0
    assert adding.Adding().claims(made)[1].verdict == "not"
