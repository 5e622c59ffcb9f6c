"""What the paper leaves open: numbers are the runs', drawings are the numbers', claims follow."""

import copy
import functools
import importlib.util
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from drawn import drawn, marks
from matplotlib.figure import Figure
from torch import Tensor, nn

from docmem.documents import Document
from docmem.editing.doc_reps import drop_doc_rep
from docmem.editing.forget import forget
from docmem.errors import DocmemError
from docmem.evaluation.recall import recognition
from docmem.experiments import experiment, pool
from docmem.experiments.baselines import (
    DocumentMemoryBaseline,
    LoRA,
    PerDocumentLoRA,
    UngatedMemory,
    train_for_equal_time,
)
from docmem.experiments.pool import RunPool
from docmem.experiments.studies import attribution, capacity, forgetting
from docmem.experiments.studies import baselines as study
from docmem.lm.cross_entropy import base_cross_entropies
from docmem.lm.hidden_states import HiddenStateCache
from docmem.plots.style import NEGATIVE
from docmem.training.run import Run

MINE = ("capacity", "baselines", "attribution", "forgetting")


class Counted(RunPool):
    """A laboratory that gives as many documents as asked for, however fast it is."""

    def documents(self, count: int | None = None) -> list[Document]:
        """The first documents."""
        return super().documents()[:count]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunPool]:
    """A laboratory for tests, with short segments and few passages, points and rounds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "FAST", {**pool.FAST, "segment_length": 40})
        patch.setattr(capacity, "DOCUMENTS", (2, 3))
        patch.setattr(capacity, "ENTRIES", (16, 32))
        patch.setattr(attribution, "LATER", 2)
        patch.setattr(attribution, "GRID", 3)
        patch.setattr(attribution, "STEPS", 2)
        patch.setattr(study, "PROMPT", 8)
        patch.setattr(study, "NEW", 8)
        patch.setattr(forgetting, "POINTS", 3)
        patch.setattr(forgetting, "forget", functools.partial(forget, epochs=2))
        yield RunPool(fast=True, seeds=1, folder=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def counted(small: RunPool) -> RunPool:
    """The same laboratory, with 2 or 3 documents; the LM is shared."""
    same = Counted(fast=True, seeds=2, folder=small.folder)
    same.__dict__["lm"] = small.lm
    return same


@pytest.fixture(scope="module")
def results(small: RunPool, counted: RunPool) -> dict[str, Any]:
    """The numbers of every experiment, through JSON."""
    measured = {
        name: experiment(name).measure(counted if name == "capacity" else small) for name in MINE
    }
    return json.loads(json.dumps(measured, allow_nan=False))


def titled(figure: Figure, title: str) -> Any:
    """The Axes whose title begins so."""
    (found,) = [axes for axes in figure.axes if axes.get_title("left").startswith(title)]
    return found


def verdicts(name: str, numbers: dict[str, Any]) -> list[str]:
    found = experiment(name).claims(numbers)
    assert not any("nan" in claim.ours for claim in found)
    return [claim.verdict for claim in found]


@pytest.mark.parametrize("name", MINE)
def test_drawn_from_json_alone_with_claims(name: str, results: dict[str, Any]) -> None:
    before = copy.deepcopy(results[name])
    figure = drawn(name, results[name])
    assert results[name] == before
    assert "what was trained" in figure.texts[-1].get_text().replace("\n", " ")
    assert experiment(name).QUESTION.endswith("?")
    assert len(experiment(name).ALT) > 100
    assert set(verdicts(name, results[name])) <= {"holds", "partly", "not"}


def run_of_size(counted: RunPool, count: int, entries: int) -> Run:
    """The second seed's run on so many documents, with so many entries."""
    sizes = {"max_labels": count, "hook_memory_dim": entries, "num_epochs": capacity.EPOCHS}
    return counted.run(2, counted.documents(count), **sizes)


def test_a_cell_is_a_run_of_its_size(counted: RunPool, results: dict[str, Any]) -> None:
    numbers = results["capacity"]
    found = []
    for row, count in enumerate((2, 3)):
        for column, entries in enumerate((16, 32)):
            run = run_of_size(counted, count, entries)
            seed = numbers["cells"][row][column][1]
            ce = recognition(counted.cache_hidden_states(run), run.load_memory()).ce
            assert ce.shape == (count, count)
            assert seed["own"] == pytest.approx(ce.trace().item() / count, rel=1e-4)
            rest = (ce.sum() - ce.trace()).item() / (count * (count - 1))
            assert seed["other"] == pytest.approx(rest, rel=1e-4)
            first, last = (epoch.positive_ce for epoch in run.load_history())
            assert seed["gained"] == pytest.approx(first - last)
            found.append(seed["own"])
    assert len(set(found)) == 4


def test_capacity_is_drawn_as_it_was_measured(results: dict[str, Any]) -> None:
    numbers = results["capacity"]
    figure = drawn("capacity", numbers)
    own = np.array([[[seed["own"] for seed in cell] for cell in row] for row in numbers["cells"]])
    heat = titled(figure, "mean over seeds")
    np.testing.assert_allclose(heat.images[0].get_array(), own.mean(2))
    texts = {text.get_position(): text.get_text() for text in heat.texts}
    assert texts[1, 0] == f"{own[0, 1].mean():.2f}"  # 32 entries across, 2 documents up
    middle, right = (figure.axes[index] for index in (1, 2))
    np.testing.assert_allclose([line.get_ydata() for line in middle.lines], own.mean(2))
    for line, count, values in zip(right.lines, (2, 3), own, strict=True):
        spots = [entries / count for entries in (16, 32) for _ in range(2)]
        np.testing.assert_allclose(line.get_xydata(), list(zip(spots, values.ravel(), strict=True)))


def made_up_cells(
    own: Sequence[Sequence[float]], entries: Sequence[int] = (16, 32, 64)
) -> dict[str, Any]:
    """Two seeds a little to either side of these means, [documents][entries]."""
    cells = [
        [[{"own": ce + d, "other": 5.0, "gained": 0.01} for d in (-0.01, 0.01)] for ce in row]
        for row in own
    ]
    return {"documents": [5, 10, 20], "entries": list(entries), "epochs": 40, "cells": cells}


def test_capacity_claims_go_both_ways() -> None:
    good = [[2.5, 1.5, 1.0], [3.5, 2.6, 1.5], [4.5, 3.6, 2.6]]
    assert verdicts("capacity", made_up_cells(good)) == ["holds"] * 4
    backwards = [row[::-1] for row in good[::-1]]
    assert verdicts("capacity", made_up_cells(backwards)) == ["not", "not", "not", "holds"]
    # Where the entries do not matter, twice the documents cost the same with twice as many.
    assert verdicts("capacity", made_up_cells([[1.0] * 3, [2.0] * 3, [3.0] * 3])) == [
        "not", "holds", "not", "not",
    ]  # fmt: skip
    bent = [[2.5, 2.6, 1.0], [3.5, 2.5, 1.5], [4.5, 3.5, 2.6]]
    assert verdicts("capacity", made_up_cells(bent))[:2] == ["partly", "partly"]


def test_beside_compares_along_and_across_the_diagonal() -> None:
    both, alone = capacity.beside(made_up_cells([[1.0, 2.0], [4.0, 8.0]], (16, 32)))
    assert both == pytest.approx([7.0])
    assert alone == pytest.approx([3.0, 6.0])


@pytest.fixture(scope="module")
def baselines(small: RunPool) -> dict[str, Any]:
    """Each baseline, raced for two epochs of the first."""
    documents, config = small.documents(), small.config(seed=1)
    before = {name: tensor.clone() for name, tensor in small.lm.model.state_dict().items()}
    kinds = (DocumentMemoryBaseline, UngatedMemory, LoRA, PerDocumentLoRA)
    made = [kind(small.lm, documents, config) for kind in kinds]
    started = [[p.detach().clone() for p in one.trained] for one in made]
    train_for_equal_time(made, 2)
    return {
        "lm": before,
        "started": dict(zip(study.NAMES, started, strict=True)),
        **dict(zip(study.NAMES, made, strict=True)),
    }


def test_contenders_are_as_large_and_get_the_same_seconds(
    baselines: dict[str, Any], results: dict[str, Any]
) -> None:
    sizes = [baselines[name].parameters for name in study.NAMES]
    assert max(sizes) < 1.15 * min(sizes)
    assert len(set(sizes)) > 1
    numbers = results["baselines"]
    assert [numbers[name][0]["parameters"] for name in study.NAMES] == sizes
    first = baselines["document memory"]
    assert len(first.seconds) == 2
    for name in study.NAMES:
        one = baselines[name]
        assert one.seconds[-1] >= first.seconds[-1], name
        assert len(one.losses) == len(one.seconds)
        # It stops as soon as it has had them.
        assert len(one.seconds) == 1 or one.seconds[-2] < first.seconds[-1], name
        assert numbers[name][0]["seconds"][-1] >= numbers["document memory"][0]["seconds"][-1]
        # What is stored are the float32 numbers, with little besides.
        assert 0 < one.bytes - 4 * one.parameters < 0.2 * one.bytes + 4096, name


def test_every_contender_learns_and_the_lm_stays(small: RunPool, baselines: dict[str, Any]) -> None:
    for name in study.NAMES:
        one = baselines[name]
        moved = [not torch.equal(old, new) for old, new in
                 zip(baselines["started"][name], one.trained, strict=True)]  # fmt: skip
        assert sum(moved) > len(moved) / 2, name
        own, _ = study.own_and_other(one.cross_entropies())
        assert own < base_cross_entropies(one.cache).mean(), name
    now = small.lm.model.state_dict()
    assert now.keys() == baselines["lm"].keys()
    assert all(torch.equal(now[name], tensor) for name, tensor in baselines["lm"].items())
    assert not any(parameter.requires_grad for parameter in small.lm.model.parameters())


def test_addresses_are_docreps_adapters_or_none(baselines: dict[str, Any]) -> None:
    shapes = {name: tuple(baselines[name].cross_entropies().shape) for name in study.NAMES}
    assert shapes == {
        "document memory": (3, 3), "without keys": (3, 1), "one LoRA": (3, 1), "a LoRA each": (3, 3)
    }  # fmt: skip
    memory = baselines["document memory"]
    expected = recognition(memory.cache, memory.memory).ce
    torch.testing.assert_close(memory.cross_entropies(), expected)
    # A LoRA each: adapter 2 alone, read by hand.
    each = baselines["a LoRA each"]
    each.model.set_adapter("2")
    (index,) = [i for i, doc_id in enumerate(each.cache.doc_ids) if doc_id == 1]
    ids, mask = each.cache.batches[index]
    assert mask.all()
    with torch.no_grad():
        logits = each.model(input_ids=ids).logits
    by_hand = nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]).item()
    assert each.cross_entropies()[1, 2].item() == pytest.approx(by_hand, rel=1e-4)


def test_own_and_other_of_a_matrix_made_by_hand() -> None:
    values = torch.tensor([[1.0, 5.0, 6.0], [7.0, 2.0, 8.0], [9.0, 10.0, 3.0]])
    assert study.own_and_other(values) == pytest.approx((2.0, 45 / 6))
    assert study.own_and_other(torch.tensor([[1.0], [2.0], [6.0]])) == (3.0, 3.0)


def test_recall_counts_tokens_by_document_and_address(small: RunPool) -> None:
    class Parrot:
        """Says the truth to document 0 under address 0, half of it under 1, else nothing."""

        n_docs = 2

        def __init__(self, cache: HiddenStateCache) -> None:
            self.cache = cache

        def generate(self, ids: Tensor, address: int, new: int) -> Tensor:
            _, wanted, doc_ids = study.prompts(self.cache, study.PROMPT, new)
            said = torch.full_like(wanted, -1)
            right = new if address == 0 else new // 2
            said[doc_ids == 0, :right] = wanted[doc_ids == 0, :right]
            return said

    cache = small.cache_hidden_states(small.run(1))
    shares = study.continued.__wrapped__(Parrot(cache), 2)
    assert shares.tolist() == [[1.0, 0.5], [0.0, 0.0]]


def test_baselines_are_drawn_as_they_were_measured(results: dict[str, Any]) -> None:
    numbers = results["baselines"]
    figure = drawn("baselines", numbers)
    for line, name in zip(titled(figure, "Learning").lines, study.NAMES, strict=True):
        (seed,) = numbers[name]
        assert line.get_xdata().tolist() == seed["seconds"]
        assert line.get_ydata().tolist() == seed["losses"]
    for title, kind, scale in (("Who knows what", "", 1), ("Recall", "continued_", 100)):
        expected = [scale * numbers[name][0][kind + key] for key in ("own", "other")
                    for name in study.NAMES]  # fmt: skip
        assert marks(titled(figure, title)) == expected
    bars = [bar.get_width() for bar in titled(figure, "Parameters").patches]
    assert bars == [numbers[name][0]["bytes"] / 1e6 for name in study.NAMES]


@pytest.mark.parametrize(
    ("memory", "others", "gap", "expected"),
    [(0.5, 0.6, 4.0, ["holds"] * 4), (0.7, 0.6, 0.1, ["not"] * 4)],
)
def test_baselines_claims_go_both_ways(
    memory: float, others: float, gap: float, expected: list[str]
) -> None:
    def seeds(own: float, gap: float) -> list[dict[str, Any]]:
        return [
            {"own": own + d, "other": own + gap, "continued_own": 0.9, "losses": [1.0, own]}
            for d in (0.0, 0.01)
        ]

    numbers = {
        "document memory": seeds(memory, gap), "without keys": seeds(others, 0.0),
        "one LoRA": seeds(others, 0.0), "a LoRA each": seeds(others, 1.0),
    }  # fmt: skip
    assert verdicts("baselines", numbers) == expected


def test_lora_needs_a_library_and_says_so(small: RunPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DocmemError, match="pip install peft"):
        LoRA(small.lm, small.documents(), small.config())


def test_passages_share_no_word_with_training(small: RunPool) -> None:
    run = small.run(1)
    words = [f"w{n}" for n in range(300)]
    stranger = Document("Stranger", " ".join(words))
    found = attribution.passages(run, [stranger])
    length, later = run.config.segment_length, attribution.LATER
    start = " ".join(words[:length])
    afterwards = [" ".join(words[length * n : length * (n + 1)]) for n in range(1, 1 + later)]
    assert found["strange start"] == [(0, start)]
    assert found["strange later"] == [(0, text) for text in afterwards]
    for index, document in enumerate(run.documents):
        known = document.text.split()
        assert found["seen"][index] == (index, " ".join(known[:length]))
        mine = [text for doc_id, text in found["unseen"] if doc_id == index]
        assert mine[0] == " ".join(known[length : 2 * length])
        assert len(mine) == later


def test_attribution_scores_are_the_passages(small: RunPool, results: dict[str, Any]) -> None:
    run = small.run(1)
    memory, lm = run.load_memory(), small.lm
    numbers = results["attribution"]
    (seed,) = numbers["seeds"]
    groups = attribution.passages(run, [])
    for group in ("seen", "unseen"):
        hits = []
        for place, (doc_id, text) in enumerate(groups[group]):
            ids = lm.tokenize([text], run.config.max_length).input_ids
            with torch.no_grad():
                bare = nn.functional.cross_entropy(lm.model(ids).logits[0, :-1], ids[0, 1:])
            cache = attribution.read(lm, run, [text])
            with torch.no_grad():
                under = [cache.cross_entropies(0, memory, one[None]).item()
                         for one in memory.doc_reps]  # fmt: skip
            score = min(under) - bare.item()
            assert seed["scores"][group][place] == pytest.approx(score, abs=1e-4)
            hits.append(under.index(min(under)) == doc_id)
        assert seed["accuracy"][group]["lowest"] == pytest.approx(np.mean(hits))
        if group == "unseen":
            assert numbers["hits"] == [float(hit) for hit in hits]
    for group, strange in (("seen", "strange start"), ("unseen", "strange later")):
        known, others = seed["scores"][group], seed["scores"][strange]
        assert len(others) == len(known)
        pairs = [(s > k) + (s == k) / 2 for k in known for s in others]
        assert seed["auc"][group] == pytest.approx(np.mean(pairs))
    assert numbers["documents"] == numbers["strangers"] == 3


def test_auc_counts_pairs() -> None:
    assert attribution.auc([-3.0, -2.0], [-1.0, -2.5]) == pytest.approx(3 / 4)
    assert attribution.auc([0.0], [0.0]) == pytest.approx(1 / 2)
    assert attribution.auc([-3.0, -2.0], [1.0, 2.0]) == 1.0


def test_descent_goes_down_from_the_best_point_of_the_grid(
    small: RunPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small.run(1)
    memory, cache = run.load_memory(), small.cache_hidden_states(run)
    monkeypatch.setattr(attribution, "STEPS", 0)
    starts = attribution.descend(cache, memory)
    reach = max(1.0, memory.doc_reps.abs().max().item())
    axis = [-reach, 0.0, reach]
    grid = torch.tensor([(x, y) for x in axis for y in axis])
    best = grid[attribution.explained(cache, memory, grid).argmin(1)]
    torch.testing.assert_close(starts, best)
    monkeypatch.setattr(attribution, "STEPS", 8)
    ends = attribution.descend(cache, memory)
    before, after = (
        attribution.explained(cache, memory, points).diagonal() for points in (starts, ends)
    )
    assert (after < before).all()


def test_attribution_is_drawn_as_it_was_measured(results: dict[str, Any]) -> None:
    numbers = results["attribution"]
    (seed,) = numbers["seeds"]
    figure = drawn("attribution", numbers)
    left = marks(titled(figure, "Which document?"))
    assert left == [100 * seed["accuracy"][group][how] for group in ("seen", "unseen")
                    for how in ("lowest", "descent")]  # fmt: skip
    middle = marks(titled(figure, "Is it any of them?"))
    assert middle == [s for name in attribution.GROUPS for s in sorted(seed["scores"][name])]
    right = titled(figure, "ROC")
    for line, group in zip(right.lines, ("seen", "unseen"), strict=False):
        area = np.trapezoid(line.get_ydata(), line.get_xdata())
        assert area == pytest.approx(seed["auc"][group])


def made_up_attribution(
    seen: float, descent: float, later: float, known: float, unseen: float, hits: list[float]
) -> dict[str, Any]:
    seed = {
        "accuracy": {"seen": {"lowest": seen, "descent": descent}, "unseen": {"lowest": later}},
        "auc": {"seen": known, "unseen": unseen},
    }
    return {"documents": 10, "hits": hits, "seeds": [seed] * 2}


def test_attribution_claims_go_both_ways() -> None:
    above, chance = [0.9, 0.8, 1.0, 0.9], [0.1, 0.0, 0.2, 0.1]
    good = made_up_attribution(0.96, 0.96, 0.51, 0.96, 0.76, above)
    assert verdicts("attribution", good) == ["holds"] * 5
    between = made_up_attribution(0.96, 0.51, 0.49, 0.96, 0.76, above)
    assert verdicts("attribution", between) == ["holds", "partly", "partly", "holds", "holds"]
    bad = made_up_attribution(0.94, 0.49, 0.1, 0.94, 0.74, chance)
    assert verdicts("attribution", bad) == ["not"] * 5


def test_what_is_left_is_read_where_the_docrep_was(small: RunPool, results: dict[str, Any]) -> None:
    run = small.run(1)
    memory, kept = run.load_memory(), run.documents[1:]
    ways = results["forgetting"]["ways"]
    text = forgetting.read(small, run, run.documents[:1])
    bare = base_cross_entropies(text)[0].item()
    cleaned = forget(small.cache_hidden_states(run), memory, 0, epochs=2)
    anew = small.run(1, kept).load_memory()
    memories = {"trained": memory, "dropped": memory, "forgotten": cleaned, "retrained": anew}
    square = [(x, y) for y in (-1.0, 0.0, 1.0) for x in (-1.0, 0.0, 1.0)]
    for name, asked in memories.items():
        (seed,) = ways[name]["seeds"]
        places = ways[name]["places"]
        assert len(places) == (3 if name in ("trained", "forgotten") else 2)
        with torch.no_grad():
            points = torch.tensor([*square, memory.doc_reps[0].tolist(), *places])
            values = [text.cross_entropies(0, asked, one[None]).item() - bare for one in points]
        assert np.ravel(ways[name]["map"]) == pytest.approx(values[:9], abs=1e-3), name
        assert seed["there"] == pytest.approx(values[9], abs=1e-3), name
        assert seed["lowest"] == pytest.approx(min(values), abs=1e-3), name
        rest = asked if name == "retrained" else drop_doc_rep(asked, 0)
        found = recognition(forgetting.read(small, run, kept), rest)
        assert seed["kept"] == pytest.approx(found.ce.diagonal().tolist(), rel=1e-4), name
        assert seed["other"] == pytest.approx(found.other, rel=1e-4), name
    trained, dropped, forgotten = (ways[name]["seeds"][0] for name in list(ways)[:3])
    assert dropped["there"] == pytest.approx(trained["there"], abs=1e-4)
    assert dropped["kept"] == trained["kept"]
    assert forgotten["there"] > trained["there"]


def test_forgetting_is_drawn_as_it_was_measured(results: dict[str, Any]) -> None:
    numbers = results["forgetting"]
    ways = numbers["ways"]
    figure = drawn("forgetting", numbers)
    for name, title in forgetting.WAYS.items():
        axes = titled(figure, title)
        np.testing.assert_array_equal(axes.images[0].get_array(), ways[name]["map"])
        assert [text.get_text() for text in axes.texts] == (
            ["1"] if name in ("trained", "forgotten") else []
        )
        dots = [tuple(line.get_xydata()[0]) for line in axes.lines if line.get_marker() == "o"]
        rest = ways[name]["places"][1:] if axes.texts else ways[name]["places"]
        assert {tuple(place) for place in rest} <= set(dots)
    left = titled(figure, "What is left")
    assert marks(left) == [ways[n]["seeds"][0][k] for k in ("there", "lowest") for n in ways]
    last = [line for line in left.lines if len(line.get_xdata()) == 1 and line.get_marker() == "o"]
    assert {line.get_color() for line in last[4:]} == {NEGATIVE}
    before = ways["trained"]["seeds"][0]["kept"]
    changes = [
        a - b for n in ways for a, b in zip(ways[n]["seeds"][0]["kept"], before, strict=True)
    ]
    assert marks(titled(figure, "What it cost")) == changes
    assert any(change != 0 for change in changes)


def made_up_ways(
    dropped: float, forgotten: Sequence[float], gold: float, cost: float
) -> dict[str, Any]:
    """Three seeds; `forgotten` is the lowest of each after forgetting, one document pays."""

    def seeds(left: Sequence[float], harm: float) -> dict[str, Any]:
        return {
            "seeds": [{"there": ce, "lowest": ce, "kept": [0.5] * 8 + [0.5 + harm]} for ce in left]
        }

    return {
        "extent": 1.0,
        "gone": 0,
        "ways": {
            "trained": seeds([-4.0] * 3, 0.0), "dropped": seeds([dropped] * 3, 0.0),
            "forgotten": seeds(forgotten, cost), "retrained": seeds([gold, gold + 0.01, gold], 0.0),
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("dropped", "forgotten", "gold", "cost", "expected"),
    [
        (-4.0, [0.3, 0.3, 0.3], 0.1, 0.09, ["holds"] * 4),
        (-0.9, [-0.2, -0.2, -0.2], 0.1, 0.11, ["not"] * 4),
        (-4.0, [-0.1, 0.3, 0.3], 0.1, -0.5, ["holds", "partly", "holds", "holds"]),
    ],
)
def test_forgetting_claims_go_both_ways(
    dropped: float, forgotten: list[float], gold: float, cost: float, expected: list[str]
) -> None:
    assert verdicts("forgetting", made_up_ways(dropped, forgotten, gold, cost)) == expected


def test_low_anywhere_is_not_forgotten() -> None:
    """The map counts as well as the place, whichever is lower."""
    for key in ("there", "lowest"):
        numbers = made_up_ways(-4.0, [0.3, 0.3, 0.3], 0.1, 0.0)
        for seed in numbers["ways"]["forgotten"]["seeds"]:
            seed[key] = -0.1
        assert verdicts("forgetting", numbers)[1] == "not"
