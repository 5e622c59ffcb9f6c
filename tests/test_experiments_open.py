"""Studies attribution, forgetting: numbers, drawings and claims."""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from drawn import ToyPool, drawn, marks, through_json
from matplotlib.figure import Figure
from torch import nn

from docmem.documents import Document
from docmem.editing.doc_reps import drop_doc_rep
from docmem.editing.forget import forget
from docmem.evaluation.recall import recognition
from docmem.experiments import load_study
from docmem.experiments.drawing import PlaneMap
from docmem.experiments.pool import RunPool
from docmem.experiments.studies import attribution, forgetting
from docmem.lm.cross_entropy import base_cross_entropies
from docmem.lm.hidden_states import cache_hidden_states
from docmem.plots.style import NEGATIVE

NAMES = ("attribution", "forgetting")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToyPool]:
    """A pool whose runs are shared, and studies with few passages, points and epochs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attribution, "LATER", 2)
        patch.setattr(attribution, "DESCENT", {"points": 3, "steps": 2})
        patch.setattr(forgetting, "POINTS", 3)
        patch.setattr(forgetting, "forget", functools.partial(forget, epochs=2))
        yield ToyPool(folder=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def results(small: ToyPool) -> dict[str, Any]:
    """What each study measures, through JSON."""
    return {name: through_json(name, load_study(name).measure(small)) for name in NAMES}


def panel(figure: Figure, title: str) -> Any:
    """The Axes whose title begins so."""
    (found,) = [axes for axes in figure.axes if axes.get_title("left").startswith(title)]
    return found


def verdicts(name: str, results: Any) -> list[str]:
    """The verdicts of a study's claims, none of which speaks of what is not a number."""
    judged = load_study(name).claims(results)
    assert not any("nan" in one.found for one in judged)
    return [one.verdict for one in judged]


# Attribution


def test_passages_share_no_word_with_training(small: ToyPool) -> None:
    run = small.run(1)
    words = [f"w{n}" for n in range(300)]
    found = attribution.passages(
        run.config, small.documents(1), [Document("Stranger", " ".join(words))]
    )
    length, later = run.config.segment_length, attribution.LATER
    start = " ".join(words[:length])
    afterwards = [" ".join(words[length * n : length * (n + 1)]) for n in range(1, 1 + later)]
    assert found["strange start"] == [(0, start)]
    assert found["strange later"] == [(0, text) for text in afterwards]
    for index, document in enumerate(small.documents(1)):
        known = document.text.split()
        assert found["seen"][index] == (index, " ".join(known[:length]))
        mine = [text for doc_id, text in found["unseen"] if doc_id == index]
        assert mine[0] == " ".join(known[length : 2 * length])
        assert len(mine) == later


def test_strangers_are_the_documents_that_the_seed_did_not_draw(small: ToyPool) -> None:
    found, whole = attribution.strangers(small, 1), RunPool().documents(1, 6)
    assert [one.title for one in whole] == [one.title for one in (*small.documents(1), *found)]
    assert [one.title for one in attribution.strangers(small, 2)] != [one.title for one in found]


def test_attribution_scores_are_read_passage_by_passage(
    small: ToyPool, results: dict[str, Any]
) -> None:
    run = small.run(1)
    memory, lm, found = run.load_memory(), small.lm, results["attribution"]
    groups = attribution.passages(run.config, small.documents(1), [])
    for group in ("seen", "unseen"):
        hits = []
        for place, (doc_id, text) in enumerate(groups[group]):
            ids = lm.tokenize([text], run.config.max_length).input_ids
            with torch.no_grad():
                base = nn.functional.cross_entropy(lm.model(ids).logits[0, :-1], ids[0, 1:])
                cache = attribution.cache_passages(lm, run, [text])
                under = [cache.cross_entropies(0, memory, one[None]).item()
                         for one in memory.doc_reps]  # fmt: skip
            score = min(under) - base.item()
            assert found.scores[group][0][place] == pytest.approx(score, abs=1e-4)
            hits.append(under.index(min(under)) == doc_id)
        assert found.lowest[group] == pytest.approx([np.mean(hits)])
    for group, strange in attribution.STRANGE.items():
        (known,), (others,) = found.scores[group], found.scores[strange]
        assert len(others) == len(known)
        pairs = [(s > k) + (s == k) / 2 for k in known for s in others]
        assert found.auc(group) == pytest.approx([np.mean(pairs)])
    assert found.documents == 3
    own = recognition(small.cache_hidden_states(run), memory).own
    assert found.own == pytest.approx([own], rel=1e-4)


def test_attribution_by_descent_takes_the_nearest_doc_rep(
    small: ToyPool, results: dict[str, Any]
) -> None:
    run = small.run(1)
    memory = run.load_memory()
    for group in ("seen", "unseen"):
        cut = attribution.passages(run.config, small.documents(1), [])[group]
        cache = attribution.cache_passages(small.lm, run, [text for _, text in cut])
        ends = attribution.search_descent(cache, memory, points=3, steps=2).doc_reps
        right = [
            int((memory.doc_reps - end).norm(dim=1).argmin()) == doc_id
            for end, (doc_id, _) in zip(ends, cut, strict=True)
        ]
        assert results["attribution"].descent[group] == pytest.approx([np.mean(right)])


def test_roc_auc_counts_pairs() -> None:
    assert attribution.roc_auc([-3.0, -2.0], [-1.0, -2.5]) == pytest.approx(3 / 4)
    assert attribution.roc_auc([0.0], [0.0]) == pytest.approx(1 / 2)
    assert attribution.roc_auc([-3.0, -2.0], [1.0, 2.0]) == 1.0


def test_attribution_figure_shows_the_measured_values(results: dict[str, Any]) -> None:
    found = results["attribution"]
    figure = drawn("attribution", found)
    assert marks(panel(figure, "Which document?")) == [
        100 * shares[group][0] for group in ("seen", "unseen")
        for shares in (found.lowest, found.descent)
    ]  # fmt: skip
    middle = marks(panel(figure, "Is it any of them?"))
    assert middle == [s for name in attribution.GROUPS for s in sorted(found.scores[name][0])]
    curves = panel(figure, "ROC").lines[:2]
    areas = [np.trapezoid(line.get_ydata(), line.get_xdata()) for line in curves]
    assert areas == pytest.approx([found.auc("seen")[0], found.auc("unseen")[0]])


def made_up_attribution(
    shares: tuple[float, float, float], strange: float, own: float
) -> attribution.Results:
    """Five seeds a little apart; a share of strangers scores as known passages do."""
    seen, descent, later = ([share + 0.001 * seed for seed in range(5)] for share in shares)
    alike = round(100 * strange)
    known = [[-3.0] * 100] * 5
    others = [[-3.0] * (alike + seed) + [0.0] * (100 - alike - seed) for seed in range(5)]
    scores = {"seen": known, "unseen": known, "strange start": others, "strange later": others}
    return attribution.Results(
        10, [own] * 5, {"seen": seen, "unseen": later}, {"seen": descent, "unseen": later}, scores
    )


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (made_up_attribution((0.96, 0.96, 0.2), 0.01, 0.2), ["holds"] * 4),
        (made_up_attribution((0.96, 0.5, 0.098), 0.3, 0.2),
         ["partly", "does not hold", "does not hold", "holds"]),
        (made_up_attribution((0.5, 0.5, 0.02), 0.7, 0.2), ["does not hold"] * 4),
        (made_up_attribution((0.96, 0.96, 0.2), 0.01, 1.2), ["inconclusive"] * 4),
    ],
)  # fmt: skip
def test_attribution_verdicts(made: attribution.Results, expected: list[str]) -> None:
    assert verdicts("attribution", made) == expected


# Forgetting


def test_forgetting_reads_what_is_left_everywhere(small: ToyPool, results: dict[str, Any]) -> None:
    run = small.run(1)
    (gone, *kept), config = small.documents(1), run.config
    memory, found = run.load_memory(), results["forgetting"]
    text = cache_hidden_states(small.lm, [gone], config)
    base = base_cross_entropies(text)[0].item()
    cleaned = forget(small.cache_hidden_states(run), memory, 0, epochs=2)
    anew = small.run(1, kept).load_memory()
    farthest = torch.cat([memory.doc_reps, anew.doc_reps]).abs().max().item()
    assert found.extent == pytest.approx(max(1.0, 1.08 * farthest))
    axis = (-found.extent, 0.0, found.extent)
    square = [(x, y) for y in axis for x in axis]
    others = cache_hidden_states(small.lm, kept, config)
    memories = {"trained": memory, "dropped": memory, "forgotten": cleaned, "retrained": anew}
    for name, asked in memories.items():
        way = found.ways[name]
        assert len(way.map.doc_reps) == (3 if name in ("trained", "forgotten") else 2)
        points = torch.tensor([*square, memory.doc_reps[0].tolist(), *way.map.doc_reps])
        with torch.no_grad():
            values = [text.cross_entropies(0, asked, one[None]).item() - base for one in points]
        assert np.ravel(way.map.values) == pytest.approx(values[:9], abs=1e-3), name
        assert way.there == pytest.approx([values[9]], abs=1e-3), name
        assert way.lowest == pytest.approx([min(values)], abs=1e-3), name
        known = recognition(others, asked if name == "retrained" else drop_doc_rep(asked, 0))
        assert way.kept[0] == pytest.approx(known.ce.diagonal().tolist(), rel=1e-4), name
    trained, dropped, forgotten = (found.ways[n] for n in ("trained", "dropped", "forgotten"))
    assert dropped.there == pytest.approx(trained.there, abs=1e-4)
    assert dropped.kept == trained.kept
    assert forgotten.there[0] > trained.there[0]


def test_forgetting_figure_shows_the_measured_values(results: dict[str, Any]) -> None:
    found = results["forgetting"]
    figure = drawn("forgetting", found)
    for name, title in forgetting.WAYS.items():
        axes, shown = panel(figure, title), found.ways[name].map
        np.testing.assert_array_equal(axes.images[0].get_array(), shown.values)
        numbered = name in ("trained", "forgotten")
        assert [text.get_text() for text in axes.texts] == (["1"] if numbered else [])
        dots = [tuple(line.get_xydata()[0]) for line in axes.lines if line.get_marker() == "o"]
        assert {tuple(place) for place in shown.doc_reps[numbered:]} <= set(dots)
    left = panel(figure, "What is left")
    ways = found.ways.values()
    assert marks(left) == [getattr(way, key)[0] for key in ("there", "lowest") for way in ways]
    last = [line for line in left.lines if len(line.get_xdata()) == 1 and line.get_marker() == "^"]
    assert len(last) == 4  # the second series has a mark and a colour of its own
    assert {line.get_color() for line in last} == {NEGATIVE}
    before = found.ways["trained"].kept[0]
    changes = [a - b for way in ways for a, b in zip(way.kept[0], before, strict=True)]
    assert marks(panel(figure, "What it cost")) == changes
    assert any(change != 0 for change in changes)


def made_up_ways(
    dropped: float, forgotten: float, gold: float, cost: float, own: float = 0.5
) -> forgetting.Results:
    """Five seeds a little apart: what is left by each way of removing; one document pays."""

    def way(left: float, harm: float, step: float) -> forgetting.Way:
        seeds = [left + step * n for n in range(5)]
        kept = [[own] * 8 + [own + harm + step * n] for n in range(5)]
        return forgetting.Way(seeds, seeds, kept, PlaneMap([[0.0]], []))

    return forgetting.Results(
        1.0,
        {
            "trained": way(-4.0, 0.0, 0.001), "dropped": way(dropped, 0.0, 0.001),
            "forgotten": way(forgotten, cost, 0.002), "retrained": way(gold, 0.0, 0.003),
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (made_up_ways(-4.0, 0.3, 0.5, 0.09), ["as it must be", "holds", "holds", "holds"]),
        (made_up_ways(-0.9, -0.2, 0.1, 0.11), ["violated"] + ["does not hold"] * 3),
        (made_up_ways(-4.0, 0.3, 0.5, 0.09, own=1.1), ["as it must be"] + ["inconclusive"] * 3),
    ],
)
def test_forgetting_verdicts(made: forgetting.Results, expected: list[str]) -> None:
    assert verdicts("forgetting", made) == expected
