import pytest
import torch

from docmem.config import MemoryConfig
from docmem.files import DocmemError
from docmem.hook import attach
from docmem.keyspace import cross_entropies_at, key_plane, plane_of
from docmem.loss import token_losses
from docmem.memory import DocumentMemory
from docmem.models import LanguageModel, forward_inputs
from docmem.runs import Run


def naive_ce(lm: LanguageModel, run: Run, document: int, doc_rep: torch.Tensor) -> float:
    """One full hooked forward for each batch of the document."""
    prefix, total, count = run.read(lm), 0.0, 0
    with attach(lm.model, run.memory, -1) as hooked, hooked.document(doc_rep), torch.no_grad():
        for owner, batch in zip(prefix.owners, prefix.batches, strict=True):
            if owner == document:
                logits = hooked.model(**forward_inputs(lm.model, batch)).logits
                total += token_losses(logits, batch).sum().item()
                count += int(batch.predicted.sum())
    return total / count


def test_the_map_holds_what_full_forwards_measure(trained: tuple[LanguageModel, Run]) -> None:
    lm, run = trained
    plane = key_plane(run.read(lm), run.memory, points=5, extent=1.5)
    assert plane.axis.tolist() == pytest.approx([-1.5, -0.75, 0, 0.75, 1.5])
    for document, up, across in ((0, 0, 4), (1, 3, 1), (2, 2, 2)):
        doc_rep = torch.tensor([plane.axis[across], plane.axis[up]])
        expected = naive_ce(lm, run, document, doc_rep)
        assert plane.ce[document, up, across].item() == pytest.approx(expected, abs=1e-5)


def test_points_in_small_portions_give_the_same_map(
    trained: tuple[LanguageModel, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, run = trained
    doc_reps = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    at_once = cross_entropies_at(run.read(lm), run.memory, doc_reps)
    monkeypatch.setattr("docmem.keyspace.LOGITS_AT_ONCE", 1)
    one_by_one = cross_entropies_at(run.read(lm), run.memory, doc_reps)
    torch.testing.assert_close(at_once, one_by_one, atol=1e-5, rtol=0)


def test_each_point_belongs_to_the_document_it_recalls_best(
    trained: tuple[LanguageModel, Run],
) -> None:
    lm, run = trained
    plane = key_plane(run.read(lm), run.memory, points=4)
    for up in range(4):
        for across in range(4):
            column = plane.ce[:, up, across].tolist()
            assert plane.nearest[up, across].item() == column.index(min(column))
    torch.testing.assert_close(plane.perplexity, torch.exp(plane.ce))


def test_in_two_dimensions_the_plane_is_the_doc_rep_space() -> None:
    origin, axes = plane_of(torch.randn(4, 2))
    assert origin.tolist() == [0, 0]
    assert axes.tolist() == [[1, 0], [0, 1]]


def test_in_more_dimensions_the_plane_keeps_the_most_variance() -> None:
    torch.manual_seed(0)
    flat = torch.randn(20, 2) @ torch.randn(2, 5) + torch.randn(5)  # lies in one plane exactly
    origin, axes = plane_of(flat)
    rebuilt = origin + (flat - origin) @ axes.T @ axes
    torch.testing.assert_close(rebuilt, flat, atol=1e-5, rtol=0)


def test_a_map_with_longer_doc_reps_can_be_measured(trained: tuple[LanguageModel, Run]) -> None:
    lm, run = trained
    torch.manual_seed(0)
    memory = DocumentMemory(MemoryConfig(d_model=32, n_docs=3, memory_dim=8, key_dim=4))
    assert key_plane(run.read(lm), memory, points=3).ce.shape == (3, 3, 3)


def test_doc_reps_of_length_one_span_no_plane() -> None:
    with pytest.raises(DocmemError, match="span no plane"):
        plane_of(torch.randn(4, 1))
