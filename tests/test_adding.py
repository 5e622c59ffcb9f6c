import dataclasses

import pytest
import torch

from docmem.core.config import MemoryConfig
from docmem.core.memory import DocumentMemory
from docmem.documents import Document
from docmem.editing.add import add
from docmem.editing.doc_reps import free_place, with_place
from docmem.errors import DocmemError
from docmem.evaluation.recall import recognition
from docmem.lm.hidden_states import Prefix, read_documents
from docmem.lm.loading import LanguageModel
from docmem.training.run import Run

NEW = Document(
    "Marrow Bridge",
    " = Marrow Bridge = \n\nMarrow Bridge was built of whalebone and larch across the Tarn . Each "
    "spring the ferrymen take out its middle plank and sell it back to the parish .",
)


@pytest.fixture(scope="module")
def prefix(trained: tuple[LanguageModel, Run]) -> Prefix:
    """The three documents of the trained run, then the new one."""
    lm, run = trained
    return read_documents(lm, [*run.documents, NEW], run.config)


def test_the_new_document_is_known_and_the_others_stay(
    trained: tuple[LanguageModel, Run], prefix: Prefix
) -> None:
    given = trained[1].memory
    weights = {name: tensor.clone() for name, tensor in given.state_dict().items()}
    before = recognition(prefix, with_place(given, NEW.title)).ce.diagonal()
    added = recognition(prefix, add(prefix, given, NEW.title, rounds=60, lr=2e-2))
    own = added.ce.diagonal()
    alone = add(prefix, given, NEW.title, rounds=20, lr=2e-2, rehearse=False)
    naive = recognition(prefix, alone).ce.diagonal()
    # The toy's 24 entries are few, so that a fourth document costs the others a little.
    assert own[3] < before[3] - 3
    assert own[3] < before[:3].max() + 0.5
    assert (own - before)[:3].max() < 0.4
    assert (naive - before)[:3].min() > 1.5
    assert added.recognised == 4
    assert all(torch.equal(given.state_dict()[name], tensor) for name, tensor in weights.items())
    assert given.config.n_docs == len(given.titles or []) == 3


def test_it_is_called_by_its_title_and_the_old_docreps_are_where_they_were(
    trained: tuple[LanguageModel, Run], prefix: Prefix
) -> None:
    memory = trained[1].memory
    larger = add(prefix, memory, NEW.title, rounds=1)
    assert larger.index_of(NEW.title) == 3
    assert larger.titles == [*(memory.titles or []), NEW.title]
    assert torch.equal(larger.doc_reps[:3], memory.doc_reps)
    assert torch.equal(larger.doc_reps[3], free_place(memory.doc_reps))
    assert larger.config == dataclasses.replace(memory.config, n_docs=4)
    again = add(prefix, memory, NEW.title, rounds=1).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in larger.state_dict().items())


def test_a_round_reads_every_kept_batch_once_and_each_is_the_others_negative(
    trained: tuple[LanguageModel, Run], prefix: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, read = trained[1].memory, []
    original = Prefix.cross_entropies

    def noted(self: Prefix, index: int, memory: DocumentMemory, doc_reps: torch.Tensor) -> object:
        read.append((self.owners[index], index, doc_reps))
        return original(self, index, memory, doc_reps)

    monkeypatch.setattr(Prefix, "cross_entropies", noted)
    larger = add(prefix, memory, NEW.title, rounds=2)
    kept = [index for index, owner in enumerate(prefix.owners) if owner != 3]
    assert [index for owner, index, _ in read if owner != 3] == kept * 2
    assert [owner for owner, *_ in read[::2]] == [3] * len(kept) * 2
    for fresh, other in zip(read[::2], read[1::2], strict=True):
        assert torch.equal(fresh[2], larger.doc_reps[[3, other[0]]])
        assert torch.equal(other[2], fresh[2])
    read.clear()
    add(prefix, memory, NEW.title, rounds=1, rehearse=False)
    assert [owner for owner, *_ in read] == [3] * len(kept)


@pytest.mark.parametrize("key_dim", [1, 2, 3])
def test_the_free_place_is_as_far_from_the_others_as_can_be(key_dim: int) -> None:
    doc_reps = torch.nn.init.orthogonal_(
        torch.empty(6, key_dim), generator=torch.Generator().manual_seed(1)
    )
    place = free_place(doc_reps)
    assert torch.equal(place, free_place(doc_reps))
    radius = doc_reps.norm(dim=1).max()
    assert place.norm() <= radius * (1 + 1e-5)
    axis = torch.linspace(-radius.item(), radius.item(), 41)
    grid = torch.cartesian_prod(*[axis] * key_dim).reshape(-1, key_dim)
    within = grid[grid.norm(dim=1) <= radius]
    best = torch.cdist(within, doc_reps).min(1).values.max().item()
    assert (place - doc_reps).norm(dim=1).min().item() > 0.93 * best


def test_to_a_single_document_it_is_added_opposite() -> None:
    memory = DocumentMemory(MemoryConfig(d_model=8, n_docs=1))
    larger = with_place(memory)
    assert larger.titles is None
    known, placed = larger.doc_reps
    assert placed.norm() <= known.norm() + 1e-6
    # Nowhere is farther than the opposite, and of the places tried one comes within a hundredth.
    assert torch.dist(known, placed) > 0.99 * 2 * known.norm()


def test_what_cannot_be_added_is_said(trained: tuple[LanguageModel, Run], prefix: Prefix) -> None:
    lm, run = trained
    memory = run.memory
    with pytest.raises(DocmemError, match="reads 3 documents and the memory holds 3"):
        add(run.read(lm), memory, NEW.title)
    with pytest.raises(DocmemError, match="give the new one a title"):
        add(prefix, memory)
    with pytest.raises(DocmemError, match="2 documents are called"):
        add(prefix, memory, run.titles[0])
    untitled = DocumentMemory(memory.config)
    with pytest.raises(DocmemError, match="leave the title out"):
        add(prefix, untitled, NEW.title)
