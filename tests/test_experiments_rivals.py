"""Rivals: what they learn and read, what is measured of them, the drawing and the claims."""

import dataclasses
import importlib.util
import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from drawn import ToyPool, drawn, through_json
from torch import Tensor, nn
from toys import CONTEXT

from docmem.documents import as_read
from docmem.errors import DocmemError
from docmem.evaluation.recall import prompts, recognition
from docmem.experiments import rivals_measured
from docmem.experiments.drawing import MARKS
from docmem.experiments.pool import FIRST_TUNING_SEED, RunPool
from docmem.experiments.rivals import Rival, train_in_turns
from docmem.experiments.rivals_lora import LoRA
from docmem.experiments.rivals_rates import SINGLE, Tried, search
from docmem.experiments.studies import rivals
from docmem.experiments.studies.attribution import strangers
from docmem.lm.cross_entropy import base_cross_entropies
from docmem.lm.forward import TokenBatch
from docmem.lm.generation import greedy
from docmem.lm.hidden_states import HiddenStateCache, cache_hidden_states
from docmem.training.config import TrainConfig

# One rate for each optimizer.
KINDS = {
    name: kind._replace(adamw=kind.adamw[1:2], muon=kind.muon[:1])
    for name, kind in rivals.KINDS.items()
}


@dataclasses.dataclass(frozen=True)
class RoomyPool(ToyPool):
    """A toy pool whose segments leave room for a document before them."""

    def config(self, **changes: Any) -> TrainConfig:
        """Two segments of at most 22 tokens."""
        small = {"segment_length": 12, "max_segments": 2, "max_length": 22}
        return dataclasses.replace(super().config(**changes), **small)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoomyPool]:
    """A pool, and a study with short completions."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("PROMPT", 8), ("NEW", 8), ("USED", 4), ("ROUNDS", 2)):
            patch.setattr(rivals_measured, name, value)
        patch.setattr(rivals, "KINDS", KINDS)
        yield RoomyPool(folder=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def trained(pool: RoomyPool) -> dict[str, Any]:
    """Each rival, trained for at least two epochs, and as long as two of the memory take."""
    made = {name: made_of(pool, name) for name in KINDS}
    first, *others = [one for one in made.values() if one.trained]
    train_in_turns(first, others, 2)
    return made


@pytest.fixture(scope="module")
def results(pool: RoomyPool) -> rivals.Results:
    """What is measured, through JSON."""
    found: rivals.Results = through_json("rivals", rivals.Rivals().measure(pool))
    return found


def made_of(pool: RunPool, name: str, **changes: Any) -> Rival:
    """An untrained rival."""
    config = dataclasses.replace(pool.config(seed=1), optimizer="adamw", lr=2e-2, **changes)
    return KINDS[name].rival(pool.lm, pool.documents(1), config)


def mean_loss(logits: Tensor, ids: Tensor) -> float:
    """Cross entropy of the last tokens but the first of these, by torch."""
    predicted = logits[0, -ids.shape[1] : -1]
    return nn.functional.cross_entropy(predicted, ids[0, 1:]).item()


# The rivals


def test_all_have_at_least_the_epochs_and_the_seconds_of_the_memory(
    trained: dict[str, Any], results: rivals.Results
) -> None:
    memory = trained["document memory"]
    assert len(memory.seconds) == 2
    assert memory.seconds[0] > memory.setup  # reading the hidden states is part of it
    for name, one in trained.items():
        assert results.rivals[name].parameters == [one.parameters]
        assert results.rivals[name].kilobytes == [pytest.approx(one.bytes / 3000)]
        if name == "in the context":
            assert (one.parameters, one.seconds) == (0, [])
            continue
        assert one.seconds[-1] >= memory.seconds[-1], name
        assert len(one.losses) == len(one.seconds) >= 2
        # It stops as soon as it has had both.
        assert len(one.seconds) == 2 or one.seconds[-2] < memory.seconds[-1], name


def test_rivals_of_the_embedded_lm_are_as_large_as_the_memory() -> None:
    whole = RunPool(seeds=1)
    documents, config = whole.documents(1, 3), whole.config(seed=1, max_segments=1)
    sizes = [
        kind.rival(whole.lm, documents, config).parameters for kind in KINDS.values() if kind.adamw
    ]
    assert max(sizes) < 1.15 * min(sizes)
    assert len(set(sizes)) > 1


def test_a_lora_of_the_least_rank_is_in_the_last_blocks_alone(trained: dict[str, Any]) -> None:
    each = trained["LoRA per document"]
    assert {one.shape[0] for name, one in each.stored.items() if "lora_A" in name} == {1}
    assert {name.split("layers.")[1][0] for name in each.stored} == {"1", "2"}
    size = trained["document memory"].parameters
    assert 0.8 * size < each.parameters < 1.2 * size


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_rivals_learn_and_the_lm_stays(pool: RoomyPool, optimizer: Any) -> None:
    before = {name: tensor.clone() for name, tensor in pool.lm.model.state_dict().items()}
    for name, kind in KINDS.items():
        if not kind.adamw:
            continue
        one = made_of(pool, name)
        one.config = dataclasses.replace(one.config, optimizer=optimizer)
        if optimizer == "muon" and "LoRA" in name:  # of rank 1 or 2: no matrix to move
            with pytest.raises(ValueError, match="empty parameter list"):
                one.epoch()
            continue
        started = [parameter.detach().clone() for parameter in one.trained]
        untrained = one.own_cross_entropy()
        one.epoch()
        one.epoch()
        pairs = zip(started, one.trained, strict=True)
        moved = [not torch.equal(old, new) for old, new in pairs]
        assert sum(moved) > len(moved) / 2, name
        assert one.own_cross_entropy() < untrained, name
    now = pool.lm.model.state_dict()
    assert now.keys() == before.keys()
    assert all(torch.equal(now[name], tensor) for name, tensor in before.items())
    assert not any(parameter.requires_grad for parameter in pool.lm.model.parameters())


@torch.no_grad()
def test_each_address_is_read_and_continued_as_by_hand(trained: dict[str, Any]) -> None:
    memory, each, prefix, cartridge, context = (
        trained[name] for name in ("document memory", *rivals.PER_DOCUMENT, "in the context")
    )
    lm, config, index = memory.lm, memory.config, 2
    expected = recognition(memory.cache, memory.memory).ce[1, 2].item()
    assert memory.read(memory.cache, 1, 2).item() == pytest.approx(expected, rel=1e-4)
    cache = cache_hidden_states(lm, memory.documents, dataclasses.replace(config, batch_size=1))
    assert cache.doc_ids == [0, 0, 1, 1, 2, 2]
    ids, mask = cache.batches[index]
    assert mask.all()
    each.model.set_adapter("2")
    by_hand = {"each": (each, mean_loss(each.model(ids).logits, ids), greedy(each.model, ids, 5))}
    for name, one in (("prefix", prefix), ("cartridge", cartridge)):  # as peft itself does it
        one.model.set_adapter("2")
        logits = one.model(input_ids=ids, attention_mask=mask.long()).logits
        written = greedy(one.model, ids, 5)
        by_hand[name] = (one, mean_loss(logits, ids), written)
    opening = as_read(context.documents[2].text, config.segment_length, 2)
    both = torch.cat([lm.tokenize([opening], CONTEXT - 22).input_ids, ids], dim=1)
    logits = lm.model(both).logits
    by_hand["context"] = context, mean_loss(logits, ids), greedy(lm.model, both, 5)
    found = {}
    for name, (one, loss, written) in by_hand.items():
        found[name] = one.read(cache, index, 2).item()
        assert found[name] == pytest.approx(loss, rel=1e-4), name
        assert torch.equal(one.generate(ids, 2, 5), written), name
        assert one.read(cache, index, 1).item() != pytest.approx(loss, rel=1e-4), name
    assert len(set(found.values())) == len(found)
    # Rows of different lengths are read as each alone.
    padded = TokenBatch(*(torch.cat([some, some.roll(4, 1)]) for some in (ids, mask.clone())))
    padded.attention_mask[1, :4] = False
    cache.batches += [padded, TokenBatch(ids[:, :-4], mask[:, :-4])]
    for one in (prefix, cartridge, context):
        two, first, second = (one.read(cache, n, 2).item() for n in (-2, index, -1))
        long, short = ids.shape[1] - 1, ids.shape[1] - 5
        mean = (first * long + second * short) / (long + short)
        assert two == pytest.approx(mean, rel=1e-4)


def test_a_cartridge_begins_as_the_cache_of_its_document(pool: RoomyPool) -> None:
    one: Any = made_of(pool, "CARTRIDGE")
    text = pool.documents(1)[2].text
    ids = pool.lm.tokenize([text], one.tokens + 1).input_ids
    expected = pool.lm.model(ids, use_cache=True).past_key_values
    found = one.past(2, 1)
    assert found.get_seq_length() == one.tokens + 1 == ids.shape[1]
    for left, right in zip(found.layers, expected.layers, strict=True):
        torch.testing.assert_close(left.keys, right.keys)
        torch.testing.assert_close(left.values, right.values)


def test_rivals_need_peft_and_say_so(pool: RoomyPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for name in ("one LoRA", "prefix tuning"):
        with pytest.raises(DocmemError, match="pip install peft"):
            made_of(pool, name)


# What is measured


class Parrot(Rival):
    """Reads document d under address a at 1 + 2·d + |d - a|, and completes one's own rightly."""

    parameters, bytes = 7, 3000

    def __init__(self, pool: RunPool, addresses: int, passages: HiddenStateCache) -> None:
        self.documents, self.addresses = pool.documents(1), addresses
        self.seconds, self.losses = [], []
        rows = zip(*prompts(passages, 8, 8), strict=True)
        self.right = {tuple(ids.tolist()): (new, int(whose)) for ids, new, whose in rows}
        self.first = next(iter(self.right))

    def _build(self) -> dict[str, Tensor]:
        return {}

    def read(self, cache: Any, index: int, address: int) -> Tensor:
        document = cache.doc_ids[index]
        return torch.tensor(1.0 + 2 * document + abs(document - address))

    def generate(self, ids: Tensor, address: int, new: int) -> Tensor:
        said = torch.full((len(ids), new), -1)
        for row, given in enumerate(map(tuple, ids.tolist())):
            right, whose = self.right[given]
            known = new if address == whose else new // 2 if given == self.first else 0
            said[row, :known] = right[:known]
        return said


def test_measures_are_counted_by_document_and_address(pool: RoomyPool) -> None:
    config = dataclasses.replace(pool.config(seed=1), batch_size=1)
    passages = cache_hidden_states(pool.lm, pool.documents(1), config)
    prose = cache_hidden_states(pool.lm, strangers(pool, 1), config)
    assert passages.doc_ids == [0, 0, 1, 1, 2, 2]
    base = base_cross_entropies(prose).mean().item()
    found = rivals_measured.measured(Parrot(pool, 3, passages), passages, prose)
    assert (found["own"], found["lowest_pair"]) == (pytest.approx(3.0), pytest.approx(2.0))
    assert found["other"] == pytest.approx(3.0 + 8 / 6)
    assert found["attributed"] == 100
    assert found["harm"] == pytest.approx(3.0 + 8 / 9 - base, rel=1e-5)
    assert found["completed_own"] == pytest.approx(100)
    assert found["completed_other"] == pytest.approx(100 / 12)
    found = rivals_measured.measured(Parrot(pool, 1, passages), passages, prose)
    assert (found["own"], found["other"], found["lowest_pair"]) == pytest.approx((4.0, 4.0, 1.0))
    assert found["attributed"] == pytest.approx(100 / 3)
    assert found["completed_own"] == found["completed_other"]  # of document 0, two of six
    assert found["completed_own"] == pytest.approx(100 * 2 / 6)
    assert (found["parameters"], found["kilobytes"]) == (7, 1.0)


def test_the_best_rate_of_the_tuning_seed_is_taken(
    pool: RoomyPool, results: rivals.Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = {
        name: [(one.optimizer, one.lr) for one in some] for name, some in results.tried.items()
    }
    for name, kind in KINDS.items():
        adamw, muon = ([(of, rate) for rate in getattr(kind, of)] for of in ("adamw", "muon"))
        if name == "document memory":
            assert tried[name] == muon  # the preset's
        elif "LoRA" in name:
            assert tried[name] == adamw  # of rank 1 or 2: no matrix
        elif kind.adamw:
            assert tried[name] == adamw + muon
    assert "in the context" not in tried
    made: list[tuple[str, int, str, float]] = []

    def one_seed(_: Any, seed: int, settings: Any) -> tuple[Any, float, int]:
        for name, changes in settings.items():
            optimizer, rate = changes.values()
            made.append((name, seed, optimizer, rate))
        row = {key.name: 0 for key in dataclasses.fields(rivals.Measured)}
        return {"any": row | {"seconds": [], "losses": []}}, 1.0, 3

    some = [
        Tried("adamw", 0.1, 2.0), Tried("muon", 0.2, 1.0), Tried("muon", 9.0)
    ]  # fmt: skip
    monkeypatch.setattr(rivals, "one_seed", one_seed)
    monkeypatch.setattr(rivals, "search", lambda *_: {"one LoRA": some})
    rivals.Rivals().measure(dataclasses.replace(pool, seeds=2))
    assert made == [("one LoRA", seed, "muon", 0.2) for seed in (1, 2)]


def test_rates_are_tried_for_half_the_training_on_the_tuning_seed(
    pool: RoomyPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int, float, int]] = []

    def train_for(rival: Rival, epochs: int, seconds: float = 0) -> None:
        asked.append((type(rival).__name__, epochs, seconds, rival.config.seed))
        rival.seconds.append(7.0)
        if rival.config.lr == 1.0:
            raise DocmemError("The loss is nan.")

    kinds = {
        name: KINDS[name]._replace(adamw=(1e-3, 1.0), muon=())
        for name in ("one LoRA", "prefix tuning")
    }
    monkeypatch.setattr(Rival, "train_for", train_for)
    found = search(pool, kinds)
    half = math.ceil(pool.config().num_epochs / 2)
    assert asked == [
        ("Memory", half, 0, FIRST_TUNING_SEED),
        *[("LoRA", half, 7.0, FIRST_TUNING_SEED)] * 2,
        *[("PrefixTuning", half, 7.0, FIRST_TUNING_SEED)] * 2,
    ]
    for some in found.values():
        assert [one.own is None for one in some] == [False, True]


# The drawing and the claims


def made_up(own: Sequence[float], gap: Sequence[float], harm: Sequence[float]) -> rivals.Results:
    """Five seeds a little apart, with these means by rival; the memory is the first."""

    def measured(own: float, gap: float, harm: float, epochs: int) -> rivals.Measured:
        seeds = [own + 0.001 * seed for seed in range(5)]
        apart = [gap * (1 + 0.001 * seed) for seed in range(5)]
        shares = [90.0] * 5
        return rivals.Measured(
            seeds, [a + b for a, b in zip(seeds, apart, strict=True)], seeds, shares, shares,
            shares, [harm + 0.001 * seed for seed in range(5)], [50.0] * 5, [10 * epochs] * 5,
            [9.0] * 5, [[1.0 + n for n in range(epochs)]] * 5,
            [[3.0 - n + own for n in range(epochs)]] * 5,
        )  # fmt: skip

    epochs = (4, 5, 6, 6, 6, 6, 0)
    rows = zip(KINDS, own, gap, harm, epochs, strict=True)
    return rivals.Results({name: measured(*row) for name, *row in rows}, [60.0] * 5, 10, {})


HOLDS = made_up([0.3, 0.1, 0.1, 0.6, 0.9, 0.9, 0.7], [4, 0, 0, 6, 3, 3, 2], [0.1, 1, 1, 1, 1, 1, 0])
FAILS = made_up([0.3, 0.3, 0.3, 0.3, 0.3, 0.1, 0.3], [4, 0, 1, 4, 3, 3, 2], [0.5] * 7)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (HOLDS, ["holds"] * 6 + ["as it must be"]),
        (FAILS, ["does not hold"] * 6 + ["violated"]),
        (made_up([1.2, 1.3, 1.0, 1.3, 0.1, 2.0, 3.0], [4, 0, 0, 6, 3, 3, 2], [0.1] * 7),
         ["partly", "partly", "partly", *["inconclusive"] * 3, "as it must be"]),
    ],
)  # fmt: skip
def test_verdicts(made: rivals.Results, expected: list[str]) -> None:
    judged = rivals.Rivals().claims(made)
    assert [one.verdict for one in judged] == expected
    assert not any("nan" in one.found for one in judged)


def test_title_follows_from_the_verdicts() -> None:
    study = rivals.Rivals()
    assert study.title(HOLDS) == study.finding
    assert study.title(FAILS) == study.shown


def test_equal_steps_and_seconds_are_the_memorys_and_learning_has_a_time() -> None:
    """Its four epochs end after 1, 2, 3, 4 seconds; the curves fall by one nat an epoch."""
    memory, without, lora = (
        dataclasses.replace(HOLDS.rivals[name], seconds=[seconds], losses=[losses])
        for name, seconds, losses in (
            ("document memory", [1.0, 2.0, 3.0, 4.0], [3.3, 2.3, 1.3, 0.3]),
            ("without keys", [0.8, 1.6, 2.4, 3.2, 4.0], [3.1, 2.1, 1.1, 0.1, 0.05]),
            ("one LoRA", [1.5, 3.0, 4.5, 6.0], [3.1, 2.2, 1.4, 0.6]),
        )
    )
    context = dataclasses.replace(memory, seconds=[[]], losses=[[]])
    made = dataclasses.replace(
        HOLDS, rivals={"document memory": memory, "a": without, "b": lora, "context": context}
    )
    assert made.after_equal_steps() == {"document memory": [0.3], "a": [0.1], "b": [0.6]}
    assert made.after_equal_seconds() == {"document memory": [0.3], "a": [0.05], "b": [1.4]}
    assert [one.reached for one in (memory, without, lora)] == [[4.0], [3.2], [6.0]]
    slow = dataclasses.replace(lora, losses=[[3.0, 2.5, 2.0, 1.5]])
    assert math.isnan(slow.reached[0])


def test_figure_shows_the_measured_values(results: rivals.Results) -> None:
    figure = drawn("rivals", results)
    every: list[Any] = figure.axes
    by_seconds, by_steps, *panels, last = every
    learners = [one for one in results.rivals.values() if any(one.losses)]
    assert len(learners) == 6
    lines = by_seconds.lines[: len(learners)]
    assert [line.get_xdata().tolist() for line in lines] == [one.seconds[0] for one in learners]
    for line, one in zip(by_steps.lines, learners, strict=False):
        assert line.get_ydata().tolist() == one.losses[0]
        assert line.get_xdata().tolist() == [3 * (1 + n) for n in range(len(one.losses[0]))]
    for axes, measures in zip(panels, rivals.PANELS.values(), strict=True):
        shown = [
            (line.get_color(), x, y)
            for line in axes.lines if line.get_marker() in MARKS
            for x, y in line.get_xydata()
        ]  # fmt: skip
        for key in measures:
            color = rivals.color_of(key)
            for row, (name, one) in enumerate(results.rivals.items()):
                (value,) = getattr(one, key)
                no_pair = key == "lowest_pair" and KINDS[name].abilities == SINGLE
                if value == value:
                    assert ((color, value, row) in shown) is not no_pair, key
    marks = {text.get_position(): text.get_text() == "✓" for text in last.texts}
    for row, kind in enumerate(KINDS.values()):
        assert tuple(marks[place, row] for place in range(3)) == kind.abilities


def test_lora_is_trained_as_its_settings_say(pool: RoomyPool) -> None:
    one = LoRA(pool.lm, pool.documents(1), dataclasses.replace(pool.config(), optimizer="adamw"))
    assert isinstance(one.optimizer, torch.optim.AdamW)
    assert one.optimizer.param_groups[0]["lr"] == pool.config().lr
