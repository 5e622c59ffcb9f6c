"""The studies procedure and capacity, and invented documents: numbers, drawings and claims."""

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import ToyPool, drawn, marks, through_json

from docmem.documents import Document, load_documents
from docmem.evaluation.recall import completion, recognition
from docmem.experiments import load_study
from docmem.experiments.claims import LEARNED
from docmem.experiments.invented import WORDS, invented
from docmem.experiments.pool import RunPool
from docmem.experiments.studies import capacity, procedure
from docmem.experiments.studies.capacity import Known
from docmem.training.run import Run


class CountedPool(ToyPool):
    """A pool that gives as many documents as asked for, though it is fast."""

    def documents(self, seed: int, count: int | None = None) -> list[Document]:
        """The first documents."""
        return super().documents(seed)[:count]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> CountedPool:
    """A pool whose runs are shared."""
    return CountedPool(folder=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def results(small: CountedPool) -> dict[str, Any]:
    """What the studies measure of two and three documents, through JSON."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capacity, "COUNTS", {2: None})
        patch.setattr(capacity, "MANY", {3: 1})
        patch.setattr(procedure, "CROWDS", {"tiny": (2,)})
        return {
            name: through_json(name, load_study(name).measure(small))
            for name in ("capacity", "procedure")
        }


def verdicts(name: str, results: Any) -> list[str]:
    """The verdicts of a study's claims."""
    return [judged.verdict for judged in load_study(name).claims(results)]


def check(pool: ToyPool, found: Known, run: Run) -> None:
    """What was found is what the run's memory knows."""
    memory, cache = run.load_memory(), pool.cache_hidden_states(run)
    ce, count = recognition(cache, memory).ce, len(run.documents)
    others = [ce[i, j].item() for i in range(count) for j in range(count) if i != j]
    margins = [
        min(ce[i, j].item() for j in range(count) if j != i) - ce[i, i].item() for i in range(count)
    ]
    assert found.own == pytest.approx([ce.trace().item() / count], rel=1e-4)
    assert found.other == pytest.approx([np.mean(others)], rel=1e-4)
    assert found.gap == pytest.approx([np.mean(others) - ce.trace().item() / count], rel=1e-3)
    assert found.lowest_pair == pytest.approx([min(others)], rel=1e-4)
    assert found.margin == pytest.approx([min(margins)], rel=1e-3)
    assert found.completed == pytest.approx([completion(cache, memory).own])
    fastest = min(epoch.seconds for epoch in run.load_history())
    assert found.seconds == pytest.approx([2 * fastest / count])


def made_up(own: float, lowest: float = 3.0, other: float = 4.0) -> Known:
    """Five seeds near these means."""

    def near(mean: float) -> list[float]:
        return [mean + 0.001 * seed for seed in range(5)]

    return Known(near(own), near(other), near(lowest), near(lowest - own), near(1), near(1))


# Invented documents


def test_invented_documents_go_on_like_the_encyclopedia() -> None:
    known, first_words = set(), set()
    for article in load_documents():
        known |= set(pairwise(article.text.split()))
        first_words |= set(article.text.split()[:-1])
    made = invented(3, seed=2)
    for document in made:
        words = document.text.split()
        assert len(words) == WORDS
        assert all(pair in known or pair[0] not in first_words for pair in pairwise(words))
    assert len({one.text for one in made}) == len({one.title for one in made}) == 3
    assert invented(5, seed=2)[:3] == made
    assert invented(3, seed=3) != made


# Capacity


def test_more_documents_than_there_are_articles_are_invented(tmp_path: Path) -> None:
    pool = RunPool(folder=tmp_path)
    many, few = capacity.documents(pool, 2, 50), capacity.documents(pool, 2, 10)
    assert len(many) == len({one.title for one in many}) == 50
    assert many[:10] == few == pool.documents(2)
    assert many[:20] == pool.documents(2, 20)
    assert many[20:] == invented(30, 2)


def test_capacity_cells_are_runs_of_their_size(small: CountedPool, results: dict[str, Any]) -> None:
    found = results["capacity"]
    assert found.crowd == 2
    assert found.counts["2"] == found.sizes["usual"]
    three = small.run(1, small.documents(1, 3), max_labels=3, max_segments=1)
    check(small, found.counts["3"], three)
    for name, change, shape in (
        ("32 entries", {"hook_memory_dim": 32}, (32, 2)),
        ("8-D DocReps", {"key_dim": 8}, (16, 8)),
    ):
        sizes: dict[str, Any] = {"max_labels": 2, "max_segments": 1, **change}
        run = small.run(1, small.documents(1, 2), **sizes)
        config = run.load_memory().config
        assert (config.n_docs, config.memory_dim, config.key_dim) == (2, *shape)
        check(small, found.sizes[name], run)


@pytest.mark.parametrize(
    ("pool", "counts", "crowd"),
    [
        (RunPool(), {"10": 5, "20": 5, "50": 5, "100": 1, "200": 1}, 50),
        (RunPool(procedure="paper"), {"10": 5, "20": 5}, 20),
        (RunPool("smollm2-135m", seeds=3), {"10": 3, "20": 3}, 20),
    ],
)
def test_only_the_embedded_lm_by_its_preset_has_many(
    pool: RunPool, counts: dict[str, int], crowd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, fields = [], [field.name for field in dataclasses.fields(Known)]
    monkeypatch.setattr(capacity, "crowd", lambda *asked, **size: trained.append((*asked, size)))
    monkeypatch.setattr(capacity, "one_run", lambda *_: dict.fromkeys(fields, 0.5))
    found = capacity.Capacity().measure(pool)
    assert {name: len(one.own) for name, one in found.counts.items()} == counts
    assert found.crowd == crowd
    sizes = [count for _, _, count, size in trained if size]
    assert sizes == [crowd] * 3 * counts[str(crowd)]


def test_capacity_figure_shows_the_measured_values(results: dict[str, Any]) -> None:
    found = results["capacity"]
    panels = drawn("capacity", found).axes
    measures = ("own", "lowest_pair", "margin", "completed", "seconds")
    for groups, row in ((found.counts, panels[:5]), (found.sizes, panels[5:])):
        for axes, key in zip(row, measures, strict=True):
            assert marks(axes) == [ce for one in groups.values() for ce in getattr(one, key)]


HOLDS, NOT, OPEN = "holds", "does not hold", "inconclusive"


@pytest.mark.parametrize(
    ("few", "usual", "small", "large", "long", "expected"),
    [
        ((0.2, 3.0), (0.5, 1.0), (0.9, 1.0), (0.5, 1.0), (0.5, 3.0), [HOLDS] * 5),
        ((0.2, 1.0), (0.5, 1.1), (0.4, 1.0), (0.0, 1.0), (0.5, 0.5), [HOLDS, *[NOT] * 4]),
        # Of what was not learned, only the learning is judged.
        ((0.2, 3.0), (1.3, 1.0), (1.9, 1.0), (1.3, 1.0), (0.5, 3.0), 
         [NOT, OPEN, OPEN, HOLDS, HOLDS]),
    ],
)  # fmt: skip
def test_capacity_verdicts(
    few: tuple[float, float],
    usual: tuple[float, float],
    small: tuple[float, float],
    large: tuple[float, float],
    long: tuple[float, float],
    expected: list[str],
) -> None:
    sizes = [made_up(*one) for one in (usual, small, large, long)]
    counts = {"10": made_up(*few), "50": sizes[0]}
    found = capacity.Results(counts, 50, dict(zip(capacity.SIZES, sizes, strict=True)))
    assert verdicts("capacity", found) == expected


# Procedure


def test_procedure_trains_every_combination(small: CountedPool, results: dict[str, Any]) -> None:
    found = results["procedure"].combinations
    assert len(found) == 8
    check(small, found["Muon, spread, one per row"], small.run(1))
    paper = {
        "optimizer": "adamw", "lr": procedure.ADAMW_LR["preset"], "doc_rep_init": "orthogonal",
        "negative_rows": None,
    }  # fmt: skip
    check(small, found["AdamW, orthogonal, one negative"], small.run(1, **paper))
    # A step has one row here, so that one negative or one for each is nearly the same.
    assert len({round(one.own[0], 3) for one in found.values()}) >= 4


def test_each_procedure_is_one_of_the_combinations(tmp_path: Path) -> None:
    for name, parts in (
        ("preset", ("Muon", "spread", "one per row")),
        ("paper", ("AdamW", "orthogonal", "one negative")),
    ):  # fmt: skip
        pool = RunPool(procedure=name, folder=tmp_path)  # type: ignore[arg-type]
        assert pool.config(**procedure.settings(pool, *parts)) == pool.config()


def test_procedure_trains_without_and_with_guidance(
    small: CountedPool, results: dict[str, Any]
) -> None:
    found = results["procedure"]
    assert found.crowds == ["2 documents"]
    check(small, found.plain["sigmoid"], small.run(1, key_activation="sigmoid", guidance=0.0))
    check(small, found.guided["relu"], small.run(1, key_activation="relu"))
    assert found.guided["2 documents"] == results["capacity"].counts["2"]
    two = {"max_labels": 2, "max_segments": 1, "guidance": 0.0}
    plain = small.run(1, small.documents(1, 2), **two)
    check(small, found.plain["2 documents"], plain)


def test_mean_of_a_part_is_over_its_four_combinations(results: dict[str, Any]) -> None:
    found = results["procedure"]
    named = [f"Muon, {places}, {rows}" for places in ("orthogonal", "spread")
             for rows in procedure.NEGATIVES]  # fmt: skip
    expected = np.mean([found.combinations[name].lowest_pair for name in named], 0)
    assert found.mean("lowest_pair", "Muon") == pytest.approx(expected)


def test_procedure_figure_shows_the_measured_values(results: dict[str, Any]) -> None:
    found = results["procedure"]
    panels = drawn("procedure", found).axes
    for axes, key in zip(panels[:4], procedure.MEASURES, strict=True):
        cells = [getattr(one, key) for one in found.combinations.values()]  # AdamW's first
        assert marks(axes) == [value for cell in cells for value in cell]
    for axes, names, key in (
        (panels[4], procedure.ACTIVATIONS, "own"), (panels[5], procedure.ACTIVATIONS, "gap"),
        (panels[6], procedure.ACTIVATIONS, "margin"), (panels[7], ["2 documents"], "own"),
        (panels[8], ["2 documents"], "margin"),
    ):  # fmt: skip
        assert marks(axes) == [
            value for group in (found.plain, found.guided) for name in names
            for value in getattr(group[name], key)
        ]  # fmt: skip
    # Without the combinations more documents stand beside the activations.
    own, *_ = few = drawn("procedure", replace(found, combinations={})).axes
    assert len(few) == 3
    names = (*procedure.ACTIVATIONS, *found.crowds)
    groups = found.plain, found.guided
    assert marks(own) == [x for group in groups for name in names for x in group[name].own]


def made_up_procedure(
    plain: Sequence[float], sigmoid: float, crowd: float, better: float, own: float = 0.3
) -> procedure.Results:
    """Made-up results.

    Args:
        plain: other of tanh and relu without a negative, and half their lowest pair.
        sigmoid: other of sigmoid with guidance.
        crowd: what guidance adds to the worst margin of many documents.
        better: how much better Muon, spread and a negative for each row are, nats.
        own: of memories without a negative.
    """
    others = dict(zip(("tanh", "relu"), plain, strict=True))
    without = {name: made_up(own, other / 2, other) for name, other in others.items()}
    without |= {"sigmoid": made_up(own, other=own), "50 documents": made_up(own, 1.0)}
    guided = {name: made_up(0.3, 2.5) for name in others}
    guided |= {"sigmoid": made_up(0.3, other=sigmoid), "50 documents": made_up(0.3, 1 + crowd)}
    cells = {
        f"{optimizer}, {places}, {rows}": made_up(
            0.6 - better * (optimizer == "Muon"),
            1 + better * ((places == "spread") + (rows == "one per row")),
        )
        for optimizer in procedure.OPTIMIZERS
        for places in procedure.PLACES
        for rows in procedure.NEGATIVES
    }
    return procedure.Results(cells, without, guided)


def test_procedure_claims_go_both_ways() -> None:
    good = made_up_procedure((4.0, 3.5), 4.0, 0.5, 0.5)
    assert verdicts("procedure", good) == ["holds"] * 9
    bad = made_up_procedure((1.8, 1.0), 0.4, -0.5, -0.2)
    assert verdicts("procedure", bad) == [
        *["does not hold"] * 2, "holds", "partly", "does not hold", "holds",
        *["does not hold"] * 3,
    ]  # fmt: skip
    same = made_up_procedure((4.0, 1.0), 4.0, 0.1, 0.0)
    assert verdicts("procedure", same)[:2] == ["partly"] * 2
    assert verdicts("procedure", same)[5:] == ["holds", *["does not hold"] * 3]
    far = made_up_procedure((6.0, 5.5), 4.0, 0.5, 0.5)
    assert [verdicts("procedure", far)[place] for place in (2, 5)] == ["does not hold"] * 2
    assert verdicts("procedure", replace(good, combinations={})) == ["holds"] * 6


def test_procedure_says_nothing_of_what_was_not_learned() -> None:
    found = made_up_procedure((6.0, 6.0), 4.0, 0.5, 0.5, own=LEARNED + 0.1)
    assert verdicts("procedure", found)[:6] == ["inconclusive"] * 6
