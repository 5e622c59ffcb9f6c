"""The study placing: its numbers are the runs', its drawing the numbers', claims follow."""

import numpy as np
import pytest
import torch
from drawn import ToyPool, drawn, marks, through_json

from docmem.documents import Document
from docmem.editing.place import doc_reps_from_lm, mean_states
from docmem.evaluation.recall import recognition
from docmem.experiments.studies import placing
from docmem.experiments.studies.attribution import passages
from docmem.lm.cross_entropy import base_cross_entropies
from docmem.lm.hidden_states import HiddenStateCache
from docmem.plots.style import new_figure


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> ToyPool:
    """A pool whose runs are shared."""
    return ToyPool(seeds=2, folder=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def results(small: ToyPool) -> placing.Results:
    """What the study measures, through JSON."""
    return through_json("placing", placing.Placing().measure(small))


def test_placings_are_measured_on_their_runs(small: ToyPool, results: placing.Results) -> None:
    documents, usual = small.documents(2), small.run(2)
    text = small.cache_hidden_states(usual)
    from_lm = doc_reps_from_lm(text, len(documents), 2)
    run = small.run(2, documents, from_lm)
    assert run.path != usual.path
    assert torch.equal(run.load_memory().doc_reps, from_lm)
    alike = placing.likeness(documents)
    for name, one in (("lm", run), ("usual", usual)):
        found, memory = results.placings[name], one.load_memory()
        known = recognition(text, memory)
        assert found.own[1] == pytest.approx(known.own, rel=1e-4)
        assert found.recognised[1] == known.recognised
        near = placing.nearness(memory.doc_reps)
        assert found.near[1] == pytest.approx(placing.rank_correlation(alike, near))
        own, right = [], []
        for doc_id, words in passages(one.config, documents, [])["unseen"]:
            batch = small.lm.tokenize([words], one.config.max_length)
            cache = HiddenStateCache(small.lm, [batch], [0], one.config.hook_memory_layer)
            with torch.no_grad():
                ce = cache.cross_entropies(0, memory, memory.doc_reps)
            over = (ce - base_cross_entropies(cache)).tolist()
            right.append(ce.argmin().item() == doc_id)
            own.append(over[doc_id])
        assert len(own) > 3
        assert found.unseen_own[1] == pytest.approx(np.mean(own), abs=1e-4)
        assert found.attributed[1] == pytest.approx(np.mean(right))


def test_shuffled_doc_reps_are_the_lms_in_another_order(results: placing.Results) -> None:
    shuffled, from_lm = (results.placings[name].map for name in ("shuffled", "lm"))
    assert sorted(shuffled) == sorted(from_lm)
    assert shuffled != from_lm


def test_maps_and_likeness_are_the_first_seeds(small: ToyPool, results: placing.Results) -> None:
    doc_reps = small.run(1).load_memory().doc_reps
    assert results.placings["usual"].map == pytest.approx(doc_reps.numpy())
    assert results.titles == [one.title for one in small.documents(1)]
    assert results.likeness == placing.likeness(small.documents(1)).tolist()
    assert small.documents(1) != small.documents(2)


def test_likeness_counts_words_other_than_stop_words() -> None:
    alike = placing.likeness([
        Document("A", "the heron of the reeds"),
        Document("B", "a heron and an engine"),
        Document("C", "the columns of the mill"),
    ])  # fmt: skip
    assert np.diag(alike) == pytest.approx(1)
    assert 0 < alike[0, 1] == alike[1, 0] < 1
    assert alike[0, 2] == alike[1, 2] == 0


def test_rank_correlation_is_spearmans_over_pairs() -> None:
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
    right[upper] = [2, 2 + 1e-7, 2, 2, 2 - 1e-7, 2]  # as three DocReps spread evenly
    assert placing.rank_correlation(left, right) == 0


def test_neighbours_compare_likeness_with_doc_reps_and_selections(small: ToyPool) -> None:
    memory = small.run(1).load_memory()
    memory.doc_reps = torch.tensor([[0.0, 0.5], [0.9, 0.0], [0.1, -0.3]])
    selections = memory.select(memory.doc_reps).detach()
    cosines = torch.nn.functional.cosine_similarity(selections[None], selections[:, None], dim=2)
    assert placing.neighbours(cosines.numpy(), memory)["selected"] == pytest.approx(1)
    near = placing.nearness(memory.doc_reps)
    assert placing.neighbours(near, memory)["near"] == pytest.approx(1)


def test_by_states_counts_passages_nearest_their_documents(
    small: ToyPool, results: placing.Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small.run(1)
    unseen = placing.Unseen(small.lm, run, small.documents(1))
    assert results.by_states[0] == pytest.approx(
        unseen.by_states(mean_states(small.cache_hidden_states(run), len(run.documents)))
    )
    means = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    monkeypatch.setattr(placing, "mean_states", lambda *_: means[unseen.doc_ids] * 0.5 + 7)
    assert unseen.by_states(means) == 1
    assert unseen.by_states(means.roll(1, 0)) == 0


def test_figure_shows_the_measured_values(results: placing.Results) -> None:
    figure = drawn("placing", results)
    for axes, name in zip(figure.axes, ("usual", "lm"), strict=False):
        places = [patch.get_offsets()[0].tolist() for patch in axes.collections]
        assert places == pytest.approx(np.array(results.placings[name].map))
        assert len(axes.lines) == 3  # every pair of three
    for axes, key, scale in zip(figure.axes[2:], placing.PANELS, (1, 1, 100), strict=True):
        assert marks(axes) == [
            scale * value
            for name in placing.PLACINGS
            for value in getattr(results.placings[name], key)
        ]


def test_lines_join_the_most_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "DRAWN", 1)
    places, alike = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.full((3, 3), 0.1)
    alike[0, 2] = alike[2, 0] = 0.5
    axes = new_figure(3, 3).subplots()
    placing.draw_places(axes, places, alike)
    (line,) = axes.lines
    assert line.get_xydata().tolist() == [[0.0, 0.0], [0.0, 1.0]]


GOOD = {"own": 0.1, "near": 0.5, "selected": 0.5, "unseen_own": -0.5, "attributed": 0.9}
BAD = {"own": 0.5, "near": 0.1, "selected": 0.1, "unseen_own": 0.5, "attributed": 0.1}


def made_up(lm: dict[str, float], rest: dict[str, float]) -> placing.Results:
    """Five seeds a little apart, of values that every seed has."""

    def placed(values: dict[str, float], step: float) -> placing.Placed:
        seeds = {key: [value + step * n for n in range(-2, 3)] for key, value in values.items()}
        return placing.Placed(**seeds, recognised=[10] * 5, map=[])

    placings = {"usual": placed(rest, 0.001), "lm": placed(lm, 0.002), "shuffled": placed(rest, 0)}
    return placing.Results(list("abcdefghij"), [], [0.2] * 5, placings)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (made_up(GOOD, BAD), ["holds"] * 5),
        (made_up(BAD, GOOD), ["does not hold"] * 5),
        # No difference is shown, where one was claimed, as it was where none was.
        (made_up(BAD, BAD), ["does not hold"] * 2 + ["holds"] + ["does not hold"] * 2),
    ],
)
def test_verdicts(made: placing.Results, expected: list[str]) -> None:
    judged = placing.Placing().claims(made)
    assert [one.verdict for one in judged] == expected
    assert not any("nan" in one.found for one in judged)
