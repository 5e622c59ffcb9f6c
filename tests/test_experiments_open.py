"""Studies capacity, baselines, attribution, forgetting: numbers, drawings and claims."""

import functools
import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from drawn import ToyPool, drawn, marks, through_json
from matplotlib.figure import Figure
from torch import Tensor, nn

from docmem.documents import Document
from docmem.editing.doc_reps import drop_doc_rep
from docmem.editing.forget import forget
from docmem.errors import DocmemError
from docmem.evaluation.recall import recognition
from docmem.experiments import load_study
from docmem.experiments.baselines import Baseline, LoRA, train_for_equal_time
from docmem.experiments.drawing import PlaneMap
from docmem.experiments.pool import RunPool
from docmem.experiments.studies import attribution, baselines, capacity, forgetting
from docmem.lm.cross_entropy import base_cross_entropies
from docmem.lm.hidden_states import HiddenStateCache, cache_hidden_states
from docmem.plots.style import NEGATIVE

NAMES = ("capacity", "baselines", "attribution", "forgetting")
KINDS = tuple(baselines.KINDS)


class CountedPool(ToyPool):
    """A pool that gives as many documents as asked for, though it is fast."""

    def documents(self, count: int | None = None) -> list[Document]:
        """The first documents."""
        return super().documents()[:count]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToyPool]:
    """A pool whose runs are shared, and studies with few passages, points and epochs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capacity, "DOCUMENTS", (2, 3))
        patch.setattr(capacity, "ENTRIES", (8, 16))
        patch.setattr(attribution, "LATER", 2)
        patch.setattr(attribution, "DESCENT", {"points": 3, "steps": 2})
        patch.setattr(baselines, "PROMPT", 8)
        patch.setattr(baselines, "NEW", 8)
        patch.setattr(forgetting, "POINTS", 3)
        patch.setattr(forgetting, "forget", functools.partial(forget, epochs=2))
        yield ToyPool(folder=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def counted(small: ToyPool) -> CountedPool:
    """A pool with two seeds, and as many documents as asked for."""
    return CountedPool(seeds=2, folder=small.folder)


@pytest.fixture(scope="module")
def results(small: ToyPool, counted: CountedPool) -> dict[str, Any]:
    """What each study measures, through JSON."""
    return {
        name: through_json(name, load_study(name).measure(counted if name == "capacity" else small))
        for name in NAMES
    }


def panel(figure: Figure, title: str) -> Any:
    """The Axes whose title begins so."""
    (found,) = [axes for axes in figure.axes if axes.get_title("left").startswith(title)]
    return found


def verdicts(name: str, results: Any) -> list[str]:
    """The verdicts of a study's claims, none of which speaks of what is not a number."""
    claims = load_study(name).claims(results)
    assert not any("nan" in claim.ours for claim in claims)
    return [claim.verdict for claim in claims]


# Capacity


def test_capacity_cell_is_a_run_of_its_size(counted: CountedPool, results: dict[str, Any]) -> None:
    found = results["capacity"]
    own = []
    for row, count in enumerate((2, 3)):
        for column, entries in enumerate((8, 16)):
            sizes = {"max_labels": count, "hook_memory_dim": entries, "num_epochs": capacity.EPOCHS}
            run = counted.run(2, counted.documents(count), **sizes)
            memory = run.load_memory()
            assert (memory.config.n_docs, memory.config.memory_dim) == (count, entries)
            ce = recognition(counted.cache_hidden_states(run), memory).ce
            mean = ce.trace().item() / count
            assert found.own[row][column][1] == pytest.approx(mean, rel=1e-4)
            first, last = (epoch.positive_ce for epoch in run.load_history())
            assert found.gained[row][column][1] == pytest.approx(first - last)
            own.append(mean)
    assert len(set(own)) == 4


def test_capacity_figure_shows_the_measured_values(results: dict[str, Any]) -> None:
    figure = drawn("capacity", results["capacity"])
    own = np.array(results["capacity"].own)
    heat = panel(figure, "mean over seeds")
    np.testing.assert_allclose(heat.images[0].get_array(), own.mean(2))
    texts = {text.get_position(): text.get_text() for text in heat.texts}
    assert texts[1, 0] == f"{own[0, 1].mean():.2f}"  # 16 entries across, 2 documents up
    middle, right = figure.axes[1:3]
    np.testing.assert_allclose([line.get_ydata() for line in middle.lines], own.mean(2))
    for line, count, values in zip(right.lines, (2, 3), own, strict=True):
        spots = [entries / count for entries in (8, 16) for _ in range(2)]
        np.testing.assert_allclose(line.get_xydata(), list(zip(spots, values.ravel(), strict=True)))


def made_up_cells(
    own: Sequence[Sequence[float]], entries: Sequence[int] = (16, 32, 64)
) -> capacity.Results:
    """Two seeds a little to either side of these means, [documents][entries]."""
    seeds = [[[ce - 0.01, ce + 0.01] for ce in row] for row in own]
    rest = [[[0.01] * 2] * len(entries)] * len(own)
    return capacity.Results([5, 10, 20][: len(own)], list(entries), 40, seeds, rest)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ([[2.5, 1.5, 1.0], [3.5, 2.6, 1.5], [4.5, 3.6, 2.6]], ["holds"] * 4),
        ([[2.6, 3.6, 4.5], [1.5, 2.6, 3.5], [1.0, 1.5, 2.5]], ["not", "not", "not", "holds"]),
        # Where the entries do not matter, twice the documents cost the same with twice as many.
        ([[1.0] * 3, [2.0] * 3, [3.0] * 3], ["not", "holds", "not", "not"]),
        (
            [[2.5, 2.6, 1.0], [3.5, 2.5, 1.5], [4.5, 3.5, 2.6]],
            ["partly", "partly", "holds", "partly"],
        ),
    ],
)
def test_capacity_verdicts(own: list[list[float]], expected: list[str]) -> None:
    assert verdicts("capacity", made_up_cells(own)) == expected


def test_doubled_compares_the_diagonal_with_the_documents() -> None:
    both, alone = made_up_cells([[1.0, 2.0], [4.0, 8.0]], (16, 32)).doubled()
    assert both.ravel() == pytest.approx([7.0])
    assert alone.ravel() == pytest.approx([3.0, 6.0])


# Baselines


@pytest.fixture(scope="module")
def trained_baselines(small: ToyPool) -> dict[str, Baseline]:
    """Each baseline, trained for as long as two epochs of the first take."""
    documents, config = small.documents(), small.config(seed=1)
    made = {
        name: kind(small.lm, documents, config, lr)
        for name, (kind, lr, *_) in baselines.KINDS.items()
    }
    train_for_equal_time(list(made.values()), 2)
    return made


def test_baselines_have_one_size_and_equal_time(
    trained_baselines: dict[str, Baseline], results: dict[str, Any]
) -> None:
    first = trained_baselines["document memory"]
    assert len(first.seconds) == 2
    measured = results["baselines"].baselines
    for name, one in trained_baselines.items():
        assert measured[name].parameters == [one.parameters]
        assert measured[name].bytes == [one.bytes]
        assert one.seconds[-1] >= first.seconds[-1], name
        assert len(one.losses) == len(one.seconds)
        # It stops as soon as it has had them.
        assert len(one.seconds) == 1 or one.seconds[-2] < first.seconds[-1], name
        (seconds,) = measured[name].seconds
        assert seconds[-1] >= measured["document memory"].seconds[0][-1]
        # What is stored are the float32 numbers, with little besides.
        assert 0 < one.bytes - 4 * one.parameters < 0.2 * one.bytes + 8192, name


def test_baselines_of_the_embedded_lm_are_as_large_as_the_memory() -> None:
    """The toy LM's memory is too small for that: a LoRA's least rank is 1."""
    whole = RunPool(seeds=1)
    documents, config = whole.documents(3), whole.config(seed=1, max_segments=1)
    sizes = [
        kind(whole.lm, documents, config, lr).parameters
        for kind, lr, *_ in baselines.KINDS.values()
    ]
    assert max(sizes) < 1.15 * min(sizes)
    assert len(set(sizes)) > 1


def test_baselines_learn_and_the_lm_stays(small: ToyPool) -> None:
    documents, config = small.documents(), small.config(seed=1)
    before = {name: tensor.clone() for name, tensor in small.lm.model.state_dict().items()}
    for name, (kind, lr, *_) in baselines.KINDS.items():
        one = kind(small.lm, documents, config, lr)
        started = [parameter.detach().clone() for parameter in one.trained]
        untrained, _ = baselines.own_and_other(one.cross_entropies())
        one.epoch()
        one.epoch()
        pairs = zip(started, one.trained, strict=True)
        moved = [not torch.equal(old, new) for old, new in pairs]
        assert sum(moved) > len(moved) / 2, name
        own, _ = baselines.own_and_other(one.cross_entropies())
        assert own < untrained, name
    now = small.lm.model.state_dict()
    assert now.keys() == before.keys()
    assert all(torch.equal(now[name], tensor) for name, tensor in before.items())
    assert not any(parameter.requires_grad for parameter in small.lm.model.parameters())


def test_addresses_are_doc_reps_adapters_or_one(trained_baselines: dict[str, Baseline]) -> None:
    shapes = [tuple(one.cross_entropies().shape) for one in trained_baselines.values()]
    assert shapes == [(3, 3), (3, 1), (3, 1), (3, 3)]
    memory: Any = trained_baselines["document memory"]
    expected = recognition(memory.cache, memory.memory).ce
    torch.testing.assert_close(memory.cross_entropies(), expected)
    # Of a LoRA per document: adapter 2 alone, read by hand.
    each: Any = trained_baselines["LoRA per document"]
    each.model.set_adapter("2")
    (index,) = [i for i, doc_id in enumerate(each.cache.doc_ids) if doc_id == 1]
    ids, mask = each.cache.batches[index]
    assert mask.all()
    with torch.no_grad():
        logits = each.model(input_ids=ids).logits
    by_hand = nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]).item()
    assert each.cross_entropies()[1, 2].item() == pytest.approx(by_hand, rel=1e-4)


def test_own_and_other_of_a_square_and_of_one_column() -> None:
    values = torch.tensor([[1.0, 5.0, 6.0], [7.0, 2.0, 8.0], [9.0, 10.0, 3.0]])
    assert baselines.own_and_other(values) == pytest.approx((2.0, 45 / 6))
    assert baselines.own_and_other(torch.tensor([[1.0], [2.0], [6.0]])) == (3.0, 3.0)


def test_completed_counts_tokens_by_document_and_address(small: ToyPool, unchecked: None) -> None:
    class Parrot:
        """Says the truth to document 0 under address 0, half of it under 1, else nothing."""

        documents, addresses = (None, None), 2

        def __init__(self, cache: HiddenStateCache) -> None:
            self.cache = cache

        def generate(self, ids: Tensor, address: int, new: int) -> Tensor:
            _, wanted, doc_ids = baselines.prompts(self.cache, baselines.PROMPT, new)
            said = torch.full_like(wanted, -1)
            right = new if address == 0 else new // 2
            said[doc_ids == 0, :right] = wanted[doc_ids == 0, :right]
            return said

    cache = small.cache_hidden_states(small.run(1))
    shares = baselines.completed.__wrapped__(Parrot(cache))  # type: ignore[attr-defined]
    assert shares.tolist() == [[1.0, 0.5], [0.0, 0.0]]


def test_baselines_figure_shows_the_measured_values(results: dict[str, Any]) -> None:
    found = results["baselines"].baselines
    figure = drawn("baselines", results["baselines"])
    for line, name in zip(panel(figure, "Learning").lines, KINDS, strict=True):
        assert [line.get_xdata().tolist()] == found[name].seconds
        assert [line.get_ydata().tolist()] == found[name].losses
    for title, kind, scale in (("Cross entropy", "", 1), ("Completion", "completed_", 100)):
        expected = [
            scale * getattr(found[name], kind + key)[0] for key in ("own", "other")
            for name in KINDS
        ]  # fmt: skip
        axes = panel(figure, title)
        assert marks(axes) == expected
        lowest, highest = axes.get_ylim()
        assert lowest == 0
        assert max(expected) <= highest
    bars = [bar.get_width() for bar in panel(figure, "Parameters").patches]
    assert bars == [found[name].bytes[0] / 1e6 for name in KINDS]


@pytest.mark.parametrize(
    ("memory", "others", "gap", "expected"),
    [(0.5, 0.6, 4.0, "holds"), (0.7, 0.6, 0.1, "not")],
)
def test_baselines_verdicts(memory: float, others: float, gap: float, expected: str) -> None:
    def seeds(own: float, gap: float) -> baselines.Trained:
        pair = [own, own + 0.01]
        return baselines.Trained(
            pair, [own + gap] * 2, [0.9] * 2, [0.1] * 2, [9] * 2, [99] * 2, [[1.0]] * 2, [pair] * 2
        )

    gaps = dict(zip(KINDS, (gap, 0.0, 0.0, 1.0), strict=True))
    made = {
        name: seeds(memory if name == "document memory" else others, gaps[name]) for name in KINDS
    }
    assert verdicts("baselines", baselines.Results(made)) == [expected] * 4


def test_lora_needs_peft_and_says_so(small: ToyPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DocmemError, match="pip install peft"):
        LoRA(small.lm, small.documents(), small.config())


# Attribution


def test_passages_share_no_word_with_training(small: ToyPool) -> None:
    run = small.run(1)
    words = [f"w{n}" for n in range(300)]
    found = attribution.passages(
        run.config, small.documents(), [Document("Stranger", " ".join(words))]
    )
    length, later = run.config.segment_length, attribution.LATER
    start = " ".join(words[:length])
    afterwards = [" ".join(words[length * n : length * (n + 1)]) for n in range(1, 1 + later)]
    assert found["strange start"] == [(0, start)]
    assert found["strange later"] == [(0, text) for text in afterwards]
    for index, document in enumerate(small.documents()):
        known = document.text.split()
        assert found["seen"][index] == (index, " ".join(known[:length]))
        mine = [text for doc_id, text in found["unseen"] if doc_id == index]
        assert mine[0] == " ".join(known[length : 2 * length])
        assert len(mine) == later


def test_attribution_scores_are_read_passage_by_passage(
    small: ToyPool, results: dict[str, Any]
) -> None:
    run = small.run(1)
    memory, lm, found = run.load_memory(), small.lm, results["attribution"]
    groups = attribution.passages(run.config, small.documents(), [])
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
        if group == "unseen":
            assert found.hits == [float(hit) for hit in hits]
    for group, strange in attribution.STRANGE.items():
        (known,), (others,) = found.scores[group], found.scores[strange]
        assert len(others) == len(known)
        pairs = [(s > k) + (s == k) / 2 for k in known for s in others]
        assert found.auc[group] == pytest.approx([np.mean(pairs)])
    assert found.documents == 3


def test_attribution_by_descent_takes_the_nearest_doc_rep(
    small: ToyPool, results: dict[str, Any]
) -> None:
    run = small.run(1)
    memory = run.load_memory()
    for group in ("seen", "unseen"):
        cut = attribution.passages(run.config, small.documents(), [])[group]
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
    assert areas == pytest.approx([found.auc["seen"][0], found.auc["unseen"][0]])


@pytest.mark.parametrize(
    ("shares", "hits", "expected"),
    [
        ((0.96, 0.96, 0.51, 0.96, 0.76), [0.9, 0.8, 1.0, 0.9], ["holds"] * 5),
        (
            (0.96, 0.51, 0.49, 0.96, 0.76),
            [0.9, 0.8, 1.0, 0.9],
            ["holds", "partly", "partly", "holds", "holds"],
        ),
        ((0.94, 0.49, 0.1, 0.94, 0.74), [0.1, 0.0, 0.2, 0.1], ["not"] * 5),
    ],
)
def test_attribution_verdicts(
    shares: tuple[float, ...], hits: list[float], expected: list[str]
) -> None:
    seen, descent, later, known, unseen = ([share] * 2 for share in shares)
    made = attribution.Results(
        10, {"seen": seen, "unseen": later}, {"seen": descent, "unseen": later},
        {"seen": known, "unseen": unseen}, {}, hits,
    )  # fmt: skip
    assert verdicts("attribution", made) == expected


# Forgetting


def test_forgetting_reads_what_is_left_everywhere(small: ToyPool, results: dict[str, Any]) -> None:
    run = small.run(1)
    memory, kept, config = run.load_memory(), run.documents[1:], run.config
    found = results["forgetting"]
    text = cache_hidden_states(small.lm, run.documents[:1], config)
    base = base_cross_entropies(text)[0].item()
    cleaned = forget(small.cache_hidden_states(run), memory, 0, epochs=2, **forgetting.SETTINGS)
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
    last = [line for line in left.lines if len(line.get_xdata()) == 1 and line.get_marker() == "o"]
    assert {line.get_color() for line in last[4:]} == {NEGATIVE}
    before = found.ways["trained"].kept[0]
    changes = [a - b for way in ways for a, b in zip(way.kept[0], before, strict=True)]
    assert marks(panel(figure, "What it cost")) == changes
    assert any(change != 0 for change in changes)


def made_up_ways(
    dropped: float, forgotten: Sequence[float], gold: float, cost: float
) -> forgetting.Results:
    """Three seeds; `forgotten` is the lowest of each after forgetting, one document pays."""

    def way(left: Sequence[float], harm: float) -> forgetting.Way:
        kept = [[0.5] * 8 + [0.5 + harm]] * 3
        return forgetting.Way(list(left), list(left), kept, PlaneMap([[0.0]], []))

    return forgetting.Results(
        1.0,
        {
            "trained": way([-4.0] * 3, 0.0), "dropped": way([dropped] * 3, 0.0),
            "forgotten": way(forgotten, cost), "retrained": way([gold, gold + 0.01, gold], 0.0),
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    ("dropped", "forgotten", "gold", "cost", "expected"),
    [
        (-4.0, [0.3, 0.3, 0.3], 0.1, 0.09, ["holds"] * 4),
        (-0.9, [-0.2, -0.2, -0.2], 0.1, 0.11, ["not"] * 4),
        (-4.0, [-0.1, 0.3, 0.3], 0.1, -0.5, ["holds", "partly", "holds", "holds"]),
    ],
)
def test_forgetting_verdicts(
    dropped: float, forgotten: list[float], gold: float, cost: float, expected: list[str]
) -> None:
    assert verdicts("forgetting", made_up_ways(dropped, forgotten, gold, cost)) == expected


@pytest.mark.parametrize("key", ["there", "lowest"])
def test_forgetting_fails_where_either_point_is_low(key: str) -> None:
    made = made_up_ways(-4.0, [0.3, 0.3, 0.3], 0.1, 0.0)
    getattr(made.ways["forgotten"], key)[:] = [-0.1] * 3
    assert verdicts("forgetting", made)[1] == "not"
