"""Studies routing and together: numbers, drawings and claims."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from drawn import ToyPool, drawn, marks, through_json
from torch import Tensor
from torch.nn import functional

from docmem.core.blocks import find_blocks
from docmem.core.hook import attach
from docmem.core.memory import DocumentMemory
from docmem.evaluation.recall import completion, prompts, recognition
from docmem.experiments import load_study
from docmem.experiments.studies import routing, together
from docmem.experiments.studies.attribution import passages, strangers

HARDLY = -0.1


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> ToyPool:
    """A pool whose runs are shared."""
    return ToyPool(seeds=2, folder=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def routed(small: ToyPool) -> routing.Results:
    """What routing measures, through JSON; a toy's memory hardly knows its documents."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routing, "THRESHOLD", HARDLY)
        return through_json("routing", routing.Routing().measure(small))


@pytest.fixture(scope="module")
def asked(small: ToyPool) -> together.Results:
    """What together measures, through JSON."""
    return through_json("together", together.Together().measure(small))


@torch.no_grad()
def read(model: Any, ids: Tensor) -> float:
    """Cross entropy of one row of tokens."""
    return functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:]).item()


@pytest.fixture
def in_force(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The DocReps that any memory is called by, as they come."""
    seen: list[Any] = []
    forward = DocumentMemory.forward

    def spied(memory: DocumentMemory, h: Tensor, doc_rep: Tensor | None = None) -> Tensor:
        seen.append(doc_rep)
        return forward(memory, h, doc_rep)

    monkeypatch.setattr(DocumentMemory, "forward", spied)
    return seen


def seeds(value: float, step: float = 0.001) -> list[float]:
    """Five a little apart."""
    return [value + step * n for n in range(5)]


def verdicts(name: str, results: Any) -> list[str]:
    """The verdicts of a study's claims, none of which speaks of what is not a number."""
    judged = load_study(name).claims(results)
    assert not any("nan" in one.found for one in judged)
    return [one.verdict for one in judged]


# Routing


def test_prompts_are_routed_by_what_they_cost(small: ToyPool, routed: routing.Results) -> None:
    run, model = small.run(2), small.lm.model
    groups = passages(run.config, small.documents(2), strangers(small, 2))
    groups["strange"] = groups["strange start"] + groups["strange later"]
    for name in routing.LINES:
        right: dict[int, list[bool]] = {2: [], 16: []}
        for whose, text in groups[name]:
            for tokens, hits in right.items():
                ids = small.lm.tokenize([text], tokens).input_ids
                with attach(model, run.load_memory()) as hooked:
                    costs = []
                    for index in range(3):
                        with hooked.document(index):
                            costs.append(read(model, ids))
                known = min(costs) - read(model, ids) < HARDLY
                own = costs.index(min(costs)) == whose
                hits.append({"seen": known and own, "unseen": own, "strange": known}[name])
        for tokens, hits in right.items():
            assert routed.at(name, tokens)[1] == pytest.approx(np.mean(hits)), (name, tokens)
    own = recognition(small.cache_hidden_states(run), run.load_memory()).own
    assert routed.own[1] == pytest.approx(own)
    assert routed.documents == 3
    assert min(routed.forwards) > 1


def test_route_is_to_the_lowest_if_it_is_far_below_the_base_lm() -> None:
    ce = torch.tensor([[3.0, 1.0, 4.0], [2.0, 2.0, 5.0], [3.5, 1.9, 3.0]])  # the last is the base's
    nearest, found = routing.route(ce)
    assert nearest.tolist() == [1, 0, 0]
    assert found.tolist() == [1, -1, -1]


def test_completed_is_by_address_and_the_base_lms_where_none_is_found(
    small: ToyPool, in_force: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lm = small.run(1), small.lm
    group = passages(run.config, small.documents(1), [])["seen"]
    doc_reps = run.load_memory().doc_reps
    wanted = lm.tokenize([text for _, text in group], 32).input_ids[:, 16:]

    def parrot(model: Any, ids: Tensor, new: int) -> Tensor:
        """The truth under the own DocRep, nothing under another or none; by the base LM half."""
        in_force.clear()
        model(ids)
        said = torch.full((3, new), -1)
        if not in_force:
            said[:, :8] = wanted[:, :8]
        elif in_force[0] is not None:
            own = (in_force[0] == doc_reps).all(1)
            said[own] = wanted[own]
        return said

    monkeypatch.setattr(routing, "greedy", parrot)
    shares = routing.completed(lm, run, group, torch.tensor([0, 0, -1]))
    assert shares == pytest.approx({"true": 1.0, "found": 0.5, "none": 0.0, "base": 0.5})


def test_routing_figure_shows_the_measured_values(routed: routing.Results) -> None:
    left, right = drawn("routing", routed).axes
    for line, name in zip(left.lines, routing.LINES, strict=False):
        mean = 100 * np.mean([shares[name] for shares in routed.shares], axis=0)
        np.testing.assert_allclose(line.get_xydata(), np.column_stack([routing.TOKENS, mean]))
    assert marks(right) == [100 * one for key in routing.ADDRESSES for one in routed.completed[key]]


def made_up_routes(
    seen: float, strange: float, lost: float, unseen: float, own: float = 0.2
) -> routing.Results:
    """Five seeds a little apart; of prompts of eight tokens, and of 32 the unseen ones."""

    def shares(step: float) -> dict[str, list[float]]:
        return {
            "seen": [0.0, 0.0, seen + step, 0.0, 0.0],
            "unseen": [0.0, 0.0, 0.0, 0.0, unseen + step],
            "strange": [1.0, 1.0, strange + step, 1.0, 1.0],
        }

    completed = {"true": seeds(0.9), "found": seeds(0.9 - lost, 0.002)}
    return routing.Results(10, [own] * 5, list(map(shares, seeds(0))), completed, forwards=seeds(3))


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (made_up_routes(0.95, 0.05, 0.01, 0.2), ["holds"] * 4),
        (made_up_routes(0.85, 0.2, 0.1, 0.098), ["does not hold"] * 4),
        (made_up_routes(0.95, 0.05, 0.01, 0.2, own=1.1), ["inconclusive"] * 4),
    ],
)
def test_routing_verdicts(made: routing.Results, expected: list[str]) -> None:
    assert verdicts("routing", made) == expected


# Together


@contextmanager
def by_hand(model: Any, memory: DocumentMemory, selections: Sequence[Tensor]) -> Iterator[None]:
    """Within: the LM reads with the memory's outputs under each selection added to its block's."""

    def after(_: Any, __: Any, output: Any) -> Any:
        h = output[0] if isinstance(output, tuple) else output
        out = h
        for selection in selections:
            key = memory.act_lm(memory.token_key(h)) * selection
            out = out + memory.act_lm(memory.output(memory.values(key)))
        return (out, *output[1:]) if isinstance(output, tuple) else out

    handle = find_blocks(model)[-1].register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


Selections = Callable[[Tensor, Tensor], list[Tensor]]


@torch.no_grad()
def test_pairs_are_read_under_what_they_are_called_by(
    small: ToyPool, asked: together.Results
) -> None:
    run, model = small.run(2), small.lm.model
    memory, cache = run.load_memory(), small.cache_hidden_states(run)
    ways: dict[str, Selections] = {
        "one": lambda one, other: [memory.select(one)],
        "halfway": lambda one, other: [memory.select((one + other) / 2)],
        "selections": lambda one, other: [memory.select(one) + memory.select(other)],
        "outputs": lambda one, other: [memory.select(one), memory.select(other)],
    }

    def over(document: int, selections: Sequence[Tensor]) -> float:
        """Cross entropy of a document, which is one segment here, minus that under its DocRep."""
        ids = cache.batches[document].input_ids
        with by_hand(model, memory, [memory.select(memory.doc_reps[document])]):
            own = read(model, ids)
        with by_hand(model, memory, selections):
            return read(model, ids) - own

    assert cache.doc_ids == [0, 1, 2]
    for name, selections in ways.items():
        pairs = [(first, (first + 1) % 3) for first in range(3)]
        read_so = [
            sorted(over(one, selections(*memory.doc_reps[list(pair)])) for one in pair)
            for pair in pairs
        ]
        better, worse = np.mean(read_so, axis=0)
        assert asked.ways[name].better[1] == pytest.approx(better, abs=1e-4), name
        assert asked.ways[name].worse[1] == pytest.approx(worse, abs=1e-4), name
    assert asked.own[1] == pytest.approx(recognition(cache, memory).own)
    assert asked.own_completed[1] == completion(cache, memory).own


def test_both_documents_of_every_pair_are_completed(
    small: ToyPool, in_force: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = small.cache_hidden_states(small.run(1))
    memory = small.run(1).load_memory()
    _, wanted, whose = prompts(cache, 16, 16)
    summed = together.Summed(memory, memory.select(memory.doc_reps).detach())

    def parrot(model: Any, ids: Tensor, new: int) -> Tensor:
        """The truth of pair 1's first document, half of its second."""
        in_force.clear()
        model(ids)
        pair = (in_force[0][:, None] == summed.doc_reps).all(2).float().argmax(1)
        said = torch.full_like(wanted, -1)
        said[(pair == 1) & (whose == 1)] = wanted[(pair == 1) & (whose == 1)]
        second = (pair == 1) & (whose == 2)
        said[second, : new // 2] = wanted[second, : new // 2]
        return said

    monkeypatch.setattr(together, "greedy", parrot)
    assert together.completed(cache, summed) == pytest.approx((1 + 0.5) / 6)


def test_together_figure_shows_the_measured_values(asked: together.Results) -> None:
    left, right = drawn("together", asked).axes
    ways = asked.ways.values()
    assert marks(left) == [x for key in ("better", "worse") for w in ways for x in getattr(w, key)]
    shares = [asked.own_completed, *(way.completed for way in ways)]
    assert marks(right) == [100 * one for group in shares for one in group]


def made_up_ways(
    halfway: float, selections: float, outputs: float, completed: float, own: float = 0.2
) -> together.Results:
    """Five seeds a little apart, of what both documents of a pair cost, and are completed."""

    def way(over: float, completed: float, step: float) -> together.Way:
        return together.Way(seeds(over, step), seeds(over + 0.1, step), seeds(completed, step))

    ways = {
        "one": way(0.0, 0.5, 0.001), "halfway": way(halfway, 0.1, 0.002),
        "selections": way(selections, 0.1, 0.003), "outputs": way(outputs, completed, 0.004),
    }  # fmt: skip
    return together.Results([own] * 5, [0.9] * 5, ways)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (made_up_ways(1.5, 0.5, 0.5, 0.7), ["holds"] * 5),
        (made_up_ways(0.8, 1.5, 1.5, 0.3), ["does not hold"] * 5),
        (made_up_ways(1.5, 1.5, 0.5, 0.494),
         ["holds", "does not hold", "holds", "holds", "does not hold"]),
        (made_up_ways(1.5, 0.5, 0.5, 0.7, own=1.1), ["inconclusive"] * 5),
    ],
)  # fmt: skip
def test_together_verdicts(made: together.Results, expected: list[str]) -> None:
    assert verdicts("together", made) == expected
