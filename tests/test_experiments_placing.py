"""Where documents live: the numbers are the runs', the drawing the numbers', claims follow."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from docmem.documents import Document
from docmem.editing.place import doc_reps_from_lm, mean_states
from docmem.evaluation.recall import recognition
from docmem.experiments import pool
from docmem.experiments.pool import RunPool
from docmem.experiments.studies import placing
from docmem.experiments.studies.attribution import passages
from docmem.lm.cross_entropy import base_cross_entropies
from docmem.lm.hidden_states import HiddenStateCache
from docmem.plots.style import new_figure


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunPool]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "FAST", {**pool.FAST, "segment_length": 40, "hook_memory_dim": 16})
        patch.setattr(placing, "SHUFFLES", 20)
        yield RunPool(fast=True, seeds=2, folder=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def results(small: RunPool) -> dict[str, Any]:
    """The numbers, through JSON."""
    return json.loads(json.dumps(placing.measure(small), allow_nan=False))


def test_numbers_are_of_runs_on_those_doc_reps(small: RunPool, results: dict[str, Any]) -> None:
    documents, usual = small.documents(), small.run(1)
    text = small.cache_hidden_states(usual)
    from_lm = doc_reps_from_lm(text, len(documents), 2)
    run = small.run(1, documents, from_lm)
    assert run.path != usual.path
    assert torch.equal(run.load_memory().doc_reps, from_lm)
    assert results["places"]["lm"]["map"] == pytest.approx(from_lm.numpy())
    assert results["places"]["orthogonal"]["map"] == pytest.approx(
        usual.load_memory().doc_reps.numpy()
    )
    for name, one in (("lm", run), ("orthogonal", usual)):
        seed = results["places"][name]["seeds"][0]
        assert seed["own"] == pytest.approx(recognition(text, one.load_memory()).own, rel=1e-4)
        own, other, right = [], [], []
        for doc_id, words in passages(one, [])["unseen"]:
            batch = small.lm.tokenize([words], one.config.max_length)
            cache = HiddenStateCache(small.lm, [batch], [0], one.config.hook_memory_layer)
            with torch.no_grad():
                ce = cache.cross_entropies(0, one.load_memory(), one.load_memory().doc_reps)
            over = (ce - base_cross_entropies(cache)).tolist()
            right.append(ce.argmin().item() == doc_id)
            own.append(over.pop(doc_id))
            other += over
        assert len(own) == results["passages"] > 3
        assert seed["unseen_own"] == pytest.approx(np.mean(own), abs=1e-4)
        assert seed["unseen_other"] == pytest.approx(np.mean(other), abs=1e-4)
        assert seed["attributed"] == pytest.approx(np.mean(right))


def test_shuffled_doc_reps_are_the_lms_in_another_order(results: dict[str, Any]) -> None:
    shuffled, from_lm = (results["places"][name]["map"] for name in ("shuffled", "lm"))
    assert sorted(shuffled) == sorted(from_lm)
    assert shuffled != from_lm


def test_likeness_is_of_words_that_say_something() -> None:
    alike = placing.likeness([
        Document("A", "the heron of the reeds"),
        Document("B", "a heron and an engine"),
        Document("C", "the columns of the mill"),
    ])  # fmt: skip
    assert np.diag(alike) == pytest.approx(1)
    assert 0 < alike[0, 1] == alike[1, 0] < 1
    assert alike[0, 2] == alike[1, 2] == 0


def test_rank_correlation_is_spearmans_over_pairs() -> None:
    assert placing.ranks(np.array([5.0, 1.0, 5.0, 9.0])) == [2.5, 1.0, 2.5, 4.0]
    points = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    near = placing.nearness(points)
    assert near[1, 3] == -6
    assert placing.rank_correlation(near, np.exp(near)) == pytest.approx(1)
    assert placing.rank_correlation(near, -near) == pytest.approx(-1)
    # Pairs (0,1) (0,2) (0,3) (1,2) (1,3) (2,3): d² of the ranks is 2, so 1 - 6·2 / (6·35).
    left, right = np.zeros((2, 4, 4))
    upper = np.triu_indices(4, 1)
    left[upper], right[upper] = [1, 2, 3, 4, 5, 6], [2, 1, 3, 4, 5, 6]
    assert placing.rank_correlation(left, right) == pytest.approx(1 - 12 / 210)


def test_chance_is_the_share_of_deals_that_reach_a_correlation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(placing, "SHUFFLES", 400)
    line = placing.nearness(torch.arange(6.0)[:, None] ** 2)
    assert placing.chance(line, line) < 0.01
    noise = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    assert placing.chance(line, -line) > 0.9
    assert 0.05 < placing.chance(line, placing.nearness(noise)) < 1


def test_selections_follow_where_doc_reps_lie(small: RunPool) -> None:
    memory = small.run(1).load_memory()
    selections = memory.select(memory.doc_reps).detach()
    cosines = torch.nn.functional.cosine_similarity(selections[None], selections[:, None], dim=2)
    assert placing.neighbours(cosines.numpy(), memory)["selected"] == pytest.approx(1)
    near = placing.nearness(memory.doc_reps)
    assert placing.neighbours(near, memory)["near"] == pytest.approx(1)


def test_passages_nearest_their_documents_by_states(
    small: RunPool, results: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small.run(1)
    unseen = placing.Unseen(small.lm, run)
    assert results["by_states"] == pytest.approx(
        unseen.by_states(mean_states(small.cache_hidden_states(run), len(run.documents)))
    )
    means = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    monkeypatch.setattr(placing, "mean_states", lambda *_: means[unseen.doc_ids] * 0.5 + 7)
    assert unseen.by_states(means) == 1
    assert unseen.by_states(means.roll(1, 0)) == 0


def test_drawn_from_json_alone(results: dict[str, Any]) -> None:
    before = copy.deepcopy(results)
    figure = placing.draw(new_figure(*placing.SIZE), results, "what was trained")
    assert results == before
    assert "what was trained" in figure.texts[-1].get_text().replace("\n", " ")
    assert placing.QUESTION.endswith("?")
    for axes, name in zip(figure.axes, ("orthogonal", "lm"), strict=False):
        places = [patch.get_offsets()[0].tolist() for patch in axes.collections]
        assert places == pytest.approx(np.array(results["places"][name]["map"]))
        assert len(axes.lines) == 3  # every pair of three
    drawn = [dot for line in figure.axes[3].lines[::2] for dot in line.get_ydata()]
    assert drawn == [
        seed["unseen_own"] for name in placing.PLACES for seed in results["places"][name]["seeds"]
    ]


def test_lines_join_the_most_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "DRAWN", 1)
    places, alike = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.full((3, 3), 0.1)
    alike[0, 2] = alike[2, 0] = 0.5
    axes = new_figure(3, 3).subplots()
    placing.draw_plane(axes, places, alike)
    (line,) = axes.lines
    assert line.get_xydata().tolist() == [[0.0, 0.0], [0.0, 1.0]]


def test_claims_go_both_ways(results: dict[str, Any]) -> None:
    for claim in placing.claims(results):
        assert claim.verdict in ("holds", "partly", "not")
        assert "nan" not in claim.ours

    def numbers(lm: dict[str, float], rest: dict[str, float], rho: float) -> dict[str, Any]:
        def seeds(values: dict[str, float]) -> dict[str, Any]:
            return {"seeds": [{k: v + 0.001 * n for k, v in values.items()} for n in range(3)]}

        one = {"documents": 10, "rho": rho, "chance": 0.5 - rho, "unprojected": 0.0}
        return {
            "documents": 10, "passages": 40, "by_states": 0.2,
            "neighbours": {"memorised": one, "more": one},
            "places": {"orthogonal": seeds(rest), "lm": seeds(lm), "shuffled": seeds(rest)},
        }  # fmt: skip

    good = {"own": 0.1, "recognised": 10, "selected": 0.5, "unseen_own": -0.5, "attributed": 0.9,
            "continued": 0.9}  # fmt: skip
    bad = {"own": 0.5, "recognised": 9, "selected": 0.1, "unseen_own": 0.5, "attributed": 0.1,
           "continued": 0.1}  # fmt: skip
    made = numbers(good, bad, 0.49)
    for seed in made["places"]["lm"]["seeds"]:
        seed["recognised"] = 10
    assert [claim.verdict for claim in placing.claims(made)] == ["holds"] * 5
    assert [claim.verdict for claim in placing.claims(numbers(bad, good, 0.1))] == ["not"] * 5
