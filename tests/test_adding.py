import dataclasses

import pytest
import torch

from docmem.core.config import MemoryConfig
from docmem.core.memory import DocumentMemory
from docmem.documents import Document
from docmem.editing.add import add
from docmem.editing.doc_reps import append_doc_rep, farthest_free_doc_rep
from docmem.editing.forget import forget
from docmem.errors import DocmemError
from docmem.evaluation.plane import key_plane
from docmem.evaluation.recall import recognition
from docmem.lm.hidden_states import HiddenStateCache, cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.training.run import Run

NEW = Document(
    "Marrow Bridge",
    " = Marrow Bridge = \n\nMarrow Bridge was built of whalebone and larch across the Tarn . Each "
    "spring the ferrymen take out its middle plank and sell it back to the parish .",
)


@pytest.fixture(scope="module")
def cache(trained: tuple[LanguageModel, Run]) -> HiddenStateCache:
    """The three documents of the trained run, then the new one."""
    lm, run = trained
    return cache_hidden_states(lm, [*run.documents, NEW], run.config)


@pytest.mark.slow
def test_add_teaches_the_new_document_and_keeps_the_others(
    trained: tuple[LanguageModel, Run], cache: HiddenStateCache
) -> None:
    given = trained[1].load_memory()
    weights = {name: tensor.clone() for name, tensor in given.state_dict().items()}
    before = recognition(cache, append_doc_rep(given, NEW.title)).ce.diagonal()
    added = recognition(cache, add(cache, given, NEW.title, epochs=60, lr=2e-2))
    own = added.ce.diagonal()
    alone = add(cache, given, NEW.title, epochs=10, lr=2e-2, rehearse=False)
    naive = recognition(cache, alone).ce.diagonal()
    # The toy's 24 entries are few, so that a fourth document costs the others a little.
    assert own[3] < before[3] - 3
    assert own[3] < before[:3].max() + 0.5
    assert (own - before)[:3].max() < 0.4
    assert (naive - before)[:3].min() > 1.5
    assert added.recognised == 4
    assert all(torch.equal(given.state_dict()[name], tensor) for name, tensor in weights.items())
    assert given.config.n_docs == len(given.titles or []) == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_add_and_forget_take_a_memory_that_was_only_read(
    trained: tuple[LanguageModel, Run], cache: HiddenStateCache, dtype: torch.dtype
) -> None:
    lm, run = trained
    given = run.load_memory().requires_grad_(False).to(dtype)
    assert add(cache, given, NEW.title, epochs=1).doc_reps.shape == (4, 2)
    assert forget(run.cache_hidden_states(lm), given, 0, epochs=1).doc_reps.shape == (3, 2)
    assert key_plane(run.cache_hidden_states(lm), given, points=3).ce.isfinite().all()


def test_add_appends_title_and_doc_rep_and_leaves_the_old_doc_reps(
    trained: tuple[LanguageModel, Run], cache: HiddenStateCache
) -> None:
    memory = trained[1].load_memory()
    larger = add(cache, memory, NEW.title, epochs=1)
    assert larger.index_of(NEW.title) == 3
    assert larger.titles == [*(memory.titles or []), NEW.title]
    assert torch.equal(larger.doc_reps[:3], memory.doc_reps)
    assert torch.equal(larger.doc_reps[3], farthest_free_doc_rep(memory.doc_reps))
    assert larger.config == dataclasses.replace(memory.config, n_docs=4)
    again = add(cache, memory, NEW.title, epochs=1).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in larger.state_dict().items())


def test_an_epoch_of_add_reads_every_kept_batch_once_with_the_new_document_as_negative(
    trained: tuple[LanguageModel, Run], cache: HiddenStateCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, read = trained[1].load_memory(), []
    original = HiddenStateCache.cross_entropies

    def noted(
        self: HiddenStateCache,
        index: int,
        memory: DocumentMemory,
        doc_reps: torch.Tensor,
        rows=None,
    ) -> object:
        assert rows is None
        read.append((self.doc_ids[index], index, doc_reps))
        return original(self, index, memory, doc_reps)

    monkeypatch.setattr(HiddenStateCache, "cross_entropies", noted)
    larger = add(cache, memory, NEW.title, epochs=2)
    kept = [index for index, doc_id in enumerate(cache.doc_ids) if doc_id != 3]
    assert [index for doc_id, index, _ in read if doc_id != 3] == kept * 2
    assert [doc_id for doc_id, *_ in read[::2]] == [3] * len(kept) * 2
    for fresh, other in zip(read[::2], read[1::2], strict=True):
        assert torch.equal(fresh[2], larger.doc_reps[[3, other[0]]])
        assert torch.equal(other[2], fresh[2].flip(0))
    read.clear()
    add(cache, memory, NEW.title, epochs=1, rehearse=False)
    assert [doc_id for doc_id, *_ in read] == [3] * len(kept)


@pytest.mark.parametrize("key_dim", [1, 2, 3])
def test_farthest_free_doc_rep_is_as_far_from_the_others_as_a_grid_search_finds(
    key_dim: int,
) -> None:
    doc_reps = torch.nn.init.orthogonal_(
        torch.empty(6, key_dim), generator=torch.Generator().manual_seed(1)
    )
    place = farthest_free_doc_rep(doc_reps)
    assert torch.equal(place, farthest_free_doc_rep(doc_reps))
    radius = doc_reps.norm(dim=1).max()
    assert place.norm() <= radius * (1 + 1e-5)
    axis = torch.linspace(-radius.item(), radius.item(), 41)
    grid = torch.cartesian_prod(*[axis] * key_dim).reshape(-1, key_dim)
    within = grid[grid.norm(dim=1) <= radius]
    best = torch.cdist(within, doc_reps).min(1).values.max().item()
    assert (place - doc_reps).norm(dim=1).min().item() > 0.93 * best


def test_a_second_doc_rep_is_opposite_the_first() -> None:
    memory = DocumentMemory(MemoryConfig(d_model=8, n_docs=1))
    larger = append_doc_rep(memory)
    assert larger.titles is None
    known, placed = larger.doc_reps
    assert placed.norm() <= known.norm() + 1e-6
    # Nowhere is farther than the opposite, and of the places tried one comes within a hundredth.
    assert torch.dist(known, placed) > 0.99 * 2 * known.norm()


def test_add_rejects_a_wrong_cache_or_title(
    trained: tuple[LanguageModel, Run], cache: HiddenStateCache
) -> None:
    lm, run = trained
    memory = run.load_memory()
    with pytest.raises(DocmemError, match="reads 3 documents and the memory holds 3"):
        add(run.cache_hidden_states(lm), memory, NEW.title)
    with pytest.raises(DocmemError, match="give the new one a title"):
        add(cache, memory)
    with pytest.raises(DocmemError, match="2 documents are called"):
        add(cache, memory, run.titles[0])
    untitled = DocumentMemory(memory.config)
    with pytest.raises(DocmemError, match="leave the title out"):
        add(cache, untitled, NEW.title)


def test_a_document_that_would_not_be_read_whole_is_refused(
    trained: tuple[LanguageModel, Run],
) -> None:
    lm, run = trained
    long = Document(NEW.title, " ".join(40 * [NEW.text]))
    config = dataclasses.replace(run.config, batch_size=1, max_segments=12)
    cache = cache_hidden_states(lm, [*run.documents, long], config)
    kept = sum(doc_id < 3 for doc_id in cache.doc_ids)
    assert kept < 12
    with pytest.raises(DocmemError, match=rf"epochs is 1, and in the {kept} steps .* 12 batches"):
        add(cache, run.load_memory(), NEW.title, epochs=1)


def test_memories_are_handed_back_without_gradients(
    trained: tuple[LanguageModel, Run], cache: HiddenStateCache
) -> None:
    larger = add(cache, trained[1].load_memory(), NEW.title, epochs=1)
    assert all(one.grad is None for one in larger.parameters())
    forgotten = forget(cache, larger, NEW.title, epochs=1)
    assert all(one.grad is None for one in forgotten.parameters())


def test_a_new_document_has_a_place_of_its_own_beside_one_at_the_origin() -> None:
    memory = DocumentMemory(MemoryConfig(32, 1), ["A"])
    memory.doc_reps.zero_()
    first, second = append_doc_rep(memory, "B").doc_reps
    assert first.norm() == 0
    assert 0.5 < second.norm() <= 1
