import dataclasses
from collections.abc import Callable

import pytest
import torch
from slow import slow
from torch import Tensor

from docmem.core.memory import DocumentMemory
from docmem.editing import forget as forgetting
from docmem.editing.doc_reps import drop_doc_rep
from docmem.editing.forget import forget
from docmem.errors import DocmemError
from docmem.evaluation.recall import recognition
from docmem.lm.cross_entropy import base_cross_entropies, cross_entropies_at
from docmem.lm.hidden_states import HiddenStateCache, cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.training.run import Run

# A grid of 25 points that forgetting was not shown.
AXIS = torch.linspace(-1, 1, 5)
GRID = torch.cartesian_prod(AXIS, AXIS)
# The toy's weights are far from where they must go, so that steps are larger than the default's.
THOROUGH = {"epochs": 30, "lr": 5e-3}


@pytest.fixture(scope="module")
def cache(trained: tuple[LanguageModel, Run]) -> HiddenStateCache:
    """The three documents of the trained run."""
    lm, run = trained
    return run.cache_hidden_states(lm)


def above_base_lm(
    cache: HiddenStateCache, memory: DocumentMemory, document: int, place: Tensor
) -> Tensor:
    """A document's cross entropy minus the base LM's, at a place and at the grid: (26,)."""
    ce = cross_entropies_at(cache, memory, torch.cat([place[None], GRID]))[document]
    return ce - base_cross_entropies(cache)[document]


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def same(state: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert state.keys() == other.keys()
    return all(torch.equal(state[name], other[name]) for name in state)


@pytest.mark.parametrize("gone", [0, slow(1), slow(2)])
def test_forget_puts_the_text_at_the_base_lm_everywhere_and_keeps_the_others(
    trained: tuple[LanguageModel, Run], cache: HiddenStateCache, gone: int
) -> None:
    memory = trained[1].load_memory()
    place = memory.doc_reps[gone]
    assert above_base_lm(cache, memory, gone, place)[0] < -3
    forgotten = forget(cache, memory, gone, **THOROUGH)
    assert above_base_lm(cache, forgotten, gone, place).min() >= 0
    change = recognition(cache, forgotten).ce.diagonal() - recognition(cache, memory).ce.diagonal()
    kept = [index for index in range(3) if index != gone]
    assert change[kept].max() < 0.1


@pytest.mark.slow
def test_several_are_forgotten_at_once_and_what_is_not_named_again_comes_back(
    trained: tuple[LanguageModel, Run], cache: HiddenStateCache
) -> None:
    memory = trained[1].load_memory()
    own = memory.doc_reps

    def lowest(forgotten: DocumentMemory, gone: int) -> float:
        return above_base_lm(cache, forgotten, gone, own[gone]).min().item()

    first = forget(cache, memory, 0, **THOROUGH)
    both = forget(cache, first, [0, "Quillon Engine"], **THOROUGH)
    assert min(lowest(both, 0), lowest(both, 2)) >= 0
    kept = recognition(cache, both).own_ce[1] - recognition(cache, memory).own_ce[1]
    assert kept < 0.1
    assert lowest(forget(cache, first, 2, **THOROUGH), 0) < lowest(first, 0)


def test_forget_without_the_kept_texts_harms_the_other_documents(
    trained: tuple[LanguageModel, Run], cache: HiddenStateCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the second hinge is for: without it the test above fails."""
    split: Callable[..., tuple[list[int], list[int | None]]] = forgetting._split

    def unread(cache: HiddenStateCache, gone: set[int]) -> tuple[list[int], list[int | None]]:
        forgotten, kept = split(cache, gone)
        return forgotten, [None] * len(kept)

    monkeypatch.setattr(forgetting, "_split", unread)
    memory = trained[1].load_memory()
    harmed = recognition(cache, forget(cache, memory, 0, **THOROUGH)).ce.diagonal()
    assert (harmed - recognition(cache, memory).ce.diagonal())[1:].min() > 1


@pytest.mark.slow
def test_margin_sets_how_far_above_the_base_lm_the_text_ends(
    trained: tuple[LanguageModel, Run], cache: HiddenStateCache
) -> None:
    memory = trained[1].load_memory()
    place = memory.doc_reps[0]
    far = forget(cache, memory, 0, margin=1.5, **THOROUGH)  # 0.3 leaves it less than 0.5 above
    assert above_base_lm(cache, far, 0, place).min() > 1


def test_forget_changes_nothing_where_the_text_is_above_the_margin(
    trained: tuple[LanguageModel, Run], cache: HiddenStateCache
) -> None:
    memory = drop_doc_rep(drop_doc_rep(trained[1].load_memory(), 2), 1)
    lm, run = trained
    alone = cache_hidden_states(lm, run.documents[:1], run.config)
    assert same(
        forget(alone, memory, 0, margin=-10, weight_decay=0, **THOROUGH).state_dict(),
        memory.state_dict(),
    )


def test_forget_changes_neither_the_given_memory_nor_the_lm(
    trained: tuple[LanguageModel, Run], cache: HiddenStateCache
) -> None:
    lm, run = trained
    memory = run.load_memory()
    before, before_lm = copied(memory.state_dict()), copied(lm.model.state_dict())
    flags = [parameter.requires_grad for parameter in lm.model.parameters()]
    forgotten = forget(cache, memory, 0, epochs=1)
    assert not same(forgotten.state_dict(), before)
    assert same(memory.state_dict(), before)
    assert all(parameter.grad is None for parameter in memory.parameters())
    assert same(lm.model.state_dict(), before_lm)
    assert [parameter.requires_grad for parameter in lm.model.parameters()] == flags
    assert all(parameter.grad is None for parameter in lm.model.parameters())


def test_forget_takes_a_title_and_keeps_doc_reps_and_titles(
    trained: tuple[LanguageModel, Run], cache: HiddenStateCache
) -> None:
    memory = trained[1].load_memory()
    by_title = forget(cache, memory, "Thornwick Light", epochs=1)
    assert same(by_title.state_dict(), forget(cache, memory, [1, 1], epochs=1).state_dict())
    assert same(by_title.state_dict(), forget(cache, memory, 1, epochs=1).state_dict())
    assert not same(by_title.state_dict(), forget(cache, memory, 2, epochs=1).state_dict())
    assert torch.equal(by_title.doc_reps, memory.doc_reps)
    assert by_title.titles == memory.titles
    assert by_title.config == memory.config


def test_the_seed_alone_decides_the_random_points(
    trained: tuple[LanguageModel, Run], cache: HiddenStateCache
) -> None:
    memory = trained[1].load_memory()
    first = forget(cache, memory, 0, epochs=1, seed=1).state_dict()
    torch.rand(3)  # the global generator plays no part
    assert same(first, forget(cache, memory, 0, epochs=1, seed=1).state_dict())
    assert not same(first, forget(cache, memory, 0, epochs=1, seed=2).state_dict())


def test_an_epoch_of_forget_reads_every_kept_batch_once_and_points_within_the_extent(
    trained: tuple[LanguageModel, Run], cache: HiddenStateCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, read = trained[1].load_memory(), []
    original = HiddenStateCache.cross_entropies

    def noted(
        self: HiddenStateCache, index: int, memory: DocumentMemory, doc_reps: Tensor
    ) -> Tensor:
        if torch.is_grad_enabled():
            read.append((self.doc_ids[index], index, doc_reps))
        return original(self, index, memory, doc_reps)

    monkeypatch.setattr(HiddenStateCache, "cross_entropies", noted)
    forget(cache, memory, 1, epochs=2, extent=0.5)
    kept = [index for index, doc_id in enumerate(cache.doc_ids) if doc_id != 1]
    texts = [index for index, doc_id in enumerate(cache.doc_ids) if doc_id == 1]
    assert [index for _, index, _ in read[1::2]] == kept * 2
    assert {index for _, index, _ in read[::2]} == set(texts)
    for doc_id, _, doc_reps in read[1::2]:
        assert torch.equal(doc_reps, memory.doc_reps[[doc_id]])
    for _, _, doc_reps in read[::2]:
        assert torch.equal(doc_reps[0], memory.doc_reps[1])
    drawn = torch.cat([doc_reps[1:] for _, _, doc_reps in read[::2]])
    assert len(drawn) == forgetting.POINTS * len(kept) * 2
    assert 0.4 < drawn.abs().max() <= 0.5


def test_forget_the_only_document(trained: tuple[LanguageModel, Run]) -> None:
    lm, run = trained
    memory = drop_doc_rep(drop_doc_rep(run.load_memory(), 2), 1)
    cache = cache_hidden_states(lm, run.documents[:1], run.config)
    assert forgetting._split(cache, {0})[1] == [None]
    place = memory.doc_reps[0]
    assert above_base_lm(cache, memory, 0, place)[0] < -3
    short = dataclasses.replace(run.config, batch_size=1, segment_length=8)
    longer = cache_hidden_states(lm, run.documents[:1], short)
    with pytest.raises(DocmemError, match=r"epochs is 1, and in the 1 step .* batches are read"):
        forget(longer, memory, 0, epochs=1)
    forgotten = forget(cache, memory, 0, epochs=100, lr=5e-3)
    assert above_base_lm(cache, forgotten, 0, place).min() >= 0


def test_forget_rejects_an_unknown_document(
    trained: tuple[LanguageModel, Run], cache: HiddenStateCache
) -> None:
    memory = trained[1].load_memory()
    with pytest.raises(DocmemError, match=r"no document called 'Thornwick'.*'Thornwick Light'"):
        forget(cache, memory, "Thornwick")
    with pytest.raises(DocmemError, match="There is no document 3: this memory holds 3"):
        forget(cache, memory, 3)
