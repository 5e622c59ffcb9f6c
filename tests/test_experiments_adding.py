"""Adding a document: numbers are the memories', drawings are the numbers', claims follow."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from docmem.evaluation.recall import recognition
from docmem.experiments import pool
from docmem.experiments.pool import RunPool
from docmem.experiments.studies import adding
from docmem.lm.cross_entropy import base_cross_entropies
from docmem.lm.hidden_states import cache_hidden_states
from docmem.plots.style import new_figure


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunPool]:
    """A laboratory for tests, with short segments and few entries, rounds and points."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "FAST", {**pool.FAST, "segment_length": 40, "hook_memory_dim": 16})
        patch.setattr(adding, "POINTS", 3)
        patch.setattr(adding, "ROUNDS", 2)
        yield RunPool(fast=True, seeds=1, folder=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def results(small: RunPool) -> dict[str, Any]:
    """The experiment's numbers, through JSON."""
    return json.loads(json.dumps(adding.measure(small), allow_nan=False))


def test_each_way_is_measured_on_the_memory_it_leaves(
    small: RunPool, results: dict[str, Any]
) -> None:
    *known, new = documents = small.documents(adding.DOCUMENTS)
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
        (seed,) = results["ways"][name]["seeds"]
        found = recognition(cache, memory)
        assert seed["own"] == pytest.approx(found.ce.diagonal().tolist(), rel=1e-4), name
        assert seed["other"] == pytest.approx(found.other, rel=1e-4), name
        assert (seed["recognised"], seed["readings"]) == (found.recognised, readings), name
    way = results["ways"]["added"]
    assert way["places"] == added.doc_reps.tolist()
    extent = results["extent"]
    with torch.no_grad():
        corner = torch.tensor([[-extent, extent]])  # the last row, the first column
        ce = [cache.cross_entropies(n, added, corner).item() for n in range(3)]
    lowest = (torch.tensor(ce) - base_cross_entropies(cache)).min().item()
    assert way["map"][-1][0] == pytest.approx(lowest, abs=1e-3)


def test_drawn_from_json_alone(results: dict[str, Any]) -> None:
    before = copy.deepcopy(results)
    figure = adding.draw(new_figure(*adding.SIZE), results, "what was trained")
    assert results == before
    assert "what was trained" in figure.texts[-1].get_text().replace("\n", " ")
    assert adding.QUESTION.endswith("?")
    assert len(adding.ALT) > 100
    for axes, name in zip(figure.axes, adding.MAPS, strict=False):
        assert np.array_equal(axes.images[0].get_array(), results["ways"][name]["map"])
        assert [text.get_text() for text in axes.texts] == ["3"]
    (right,) = [axes for axes in figure.axes if axes.get_ylabel().startswith("change")]
    drawn = [line.get_ydata().tolist() for line in right.lines if line.get_marker() == "o"]
    trained = results["ways"]["trained"]["seeds"][0]["own"]
    for name, values in zip(("naive", "added", "anew"), drawn, strict=True):
        own = results["ways"][name]["seeds"][0]["own"]
        assert values == [own[n] - trained[n] for n in range(2)]


def made_up(new: float, cost: float, harm: float) -> dict[str, Any]:
    """Two seeds: ten documents at 0.5, and what the ways make of them and of the new one."""

    def seeds(others: float, last: float) -> dict[str, Any]:
        own = [0.5] * 9 + [others, last]
        return {"seeds": [{"own": own, "other": 4.0, "recognised": 11, "readings": 9}] * 2}

    naive = {"seeds": [{**seed, "own": [0.5 + harm] * 10 + [0.1]} for seed in seeds(0, 0)["seeds"]]}
    ways = {
        "trained": seeds(0.5, 6.0),
        "naive": naive,
        "added": seeds(0.5 + cost, new),
        "anew": seeds(0.5, 0.5),
    }
    return {"extent": 1.0, "ways": ways}


@pytest.mark.parametrize(
    ("new", "cost", "harm", "expected"),
    [
        (0.7, 0.09, 0.6, ["holds"] * 4),
        (0.8, 0.09, 0.6, ["not", "holds", "holds", "holds"]),
        (0.7, 0.11, 0.4, ["holds", "not", "not", "holds"]),
        (3.5, -0.2, 0.6, ["not", "holds", "holds", "not"]),
    ],
)
def test_claims_go_both_ways(new: float, cost: float, harm: float, expected: list[str]) -> None:
    found = adding.claims(made_up(new, cost, harm))
    assert [claim.verdict for claim in found] == expected
    assert not any("nan" in claim.ours for claim in found)


def test_one_document_harmed_is_enough(results: dict[str, Any]) -> None:
    numbers = made_up(0.5, 2.0, 0.6)  # one of ten; the others as they were
    assert max(adding.changes(numbers, "added")) == 2.0
    assert adding.claims(numbers)[1].verdict == "not"
