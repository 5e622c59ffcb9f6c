import dataclasses

import pytest
import torch

from docmem.core.config import MemoryConfig
from docmem.core.hook import attach
from docmem.core.memory import DocumentMemory
from docmem.errors import DocmemError
from docmem.evaluation.continuity import continuity, selection_bound
from docmem.evaluation.plane import KeyPlane, along_line, key_plane, plane_of
from docmem.lm.cross_entropy import cross_entropies_at, on_device_of
from docmem.lm.forward import forward_inputs
from docmem.lm.head import token_losses
from docmem.lm.hidden_states import cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.training.run import Run


def naive_ce(
    lm: LanguageModel, run: Run, document: int, doc_rep: torch.Tensor, layer: int = -1
) -> float:
    """One full hooked forward for each batch of the document."""
    cache, total, count = run.cache_hidden_states(lm), 0.0, 0
    with (
        attach(lm.model, run.load_memory(), layer, check=False) as hooked,
        hooked.document(doc_rep),
        torch.no_grad(),
    ):
        for doc_id, batch in zip(cache.doc_ids, cache.batches, strict=True):
            if doc_id == document:
                logits = hooked.model(**forward_inputs(lm.model, batch)).logits
                total += token_losses(logits, batch).sum().item()
                count += int(batch.predicted.sum())
    return total / count


def test_key_plane_equals_full_forwards(trained: tuple[LanguageModel, Run]) -> None:
    lm, run = trained
    plane = key_plane(run.cache_hidden_states(lm), run.load_memory(), points=5, extent=1.5)
    assert plane.axis.tolist() == pytest.approx([-1.5, -0.75, 0, 0.75, 1.5])
    for document, up, across in ((0, 0, 4), (1, 3, 1), (2, 2, 2)):
        doc_rep = torch.tensor([plane.axis[across], plane.axis[up]])
        expected = naive_ce(lm, run, document, doc_rep)
        assert plane.ce[document, up, across].item() == pytest.approx(expected, abs=1e-5)


def test_key_plane_in_small_batches_is_the_same(
    trained: tuple[LanguageModel, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, run = trained
    doc_reps = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    at_once = cross_entropies_at(run.cache_hidden_states(lm), run.load_memory(), doc_reps)
    monkeypatch.setattr("docmem.lm.cross_entropy.chunk_bytes", lambda _: 1)
    one_by_one = cross_entropies_at(run.cache_hidden_states(lm), run.load_memory(), doc_reps)
    torch.testing.assert_close(at_once, one_by_one, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layer", [-1, 0])
def test_interpolated_key_plane_equals_full_forwards_where_it_is_measured(
    trained: tuple[LanguageModel, Run], layer: int
) -> None:
    lm, run = trained
    memory = run.load_memory()
    memory.origin = {}  # so that it may be read at another layer
    config = dataclasses.replace(run.config, hook_memory_layer=layer)
    cache = cache_hidden_states(lm, run.documents, config)
    plane = key_plane(cache, memory, points=29, tolerance=0.02)
    assert plane.measured is not None
    assert plane.readings < plane.ce.numel()
    points = [0, len(plane.measured.nonzero()) // 2, -1]
    for document, up, across in plane.measured.nonzero()[points].tolist():
        doc_rep = torch.tensor([plane.axis[across], plane.axis[up]])
        expected = naive_ce(lm, run, document, doc_rep, layer)
        assert plane.ce[document, up, across].item() == pytest.approx(expected, abs=1e-5)
    whole = key_plane(cache, memory, points=29, tolerance=0)
    assert whole.readings == whole.ce.numel() and whole.error == 0
    difference = (plane.ce - whole.ce).abs()
    assert difference[plane.measured].max() < 1e-5
    assert difference.max() < 3 * 0.02
    assert 0 < plane.error <= 3 * 0.02


def test_nearest_is_the_document_with_the_lowest_cross_entropy(
    trained: tuple[LanguageModel, Run],
) -> None:
    lm, run = trained
    plane = key_plane(run.cache_hidden_states(lm), run.load_memory(), points=4, extent=1.0)
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


def test_the_plane_of_many_doc_reps_is_the_same_every_time() -> None:
    doc_reps = torch.randn(600, 100, generator=torch.Generator().manual_seed(0))
    assert all(map(torch.equal, plane_of(doc_reps), plane_of(doc_reps)))


def test_key_plane_with_key_dim_4(trained: tuple[LanguageModel, Run]) -> None:
    lm, run = trained
    torch.manual_seed(0)
    memory = DocumentMemory(MemoryConfig(d_model=32, n_docs=3, memory_dim=8, key_dim=4))
    assert key_plane(run.cache_hidden_states(lm), memory, points=3).ce.shape == (3, 3, 3)


def test_doc_reps_of_length_one_span_no_plane() -> None:
    with pytest.raises(DocmemError, match="cannot span a plane"):
        plane_of(torch.randn(4, 1))


def test_line_equals_full_forwards(trained: tuple[LanguageModel, Run]) -> None:
    lm, run = trained
    start, end = run.load_memory().doc_reps[0], run.load_memory().doc_reps[2]
    line = along_line(run.cache_hidden_states(lm), run.load_memory(), start, end, points=5)
    assert line.share.tolist() == [0, 0.25, 0.5, 0.75, 1]
    for document, place in ((0, 0), (1, 1), (2, 3), (2, 4)):
        doc_rep = start + line.share[place] * (end - start)
        expected = naive_ce(lm, run, document, doc_rep)
        assert line.ce[document, place].item() == pytest.approx(expected, abs=1e-5)
    assert line.nearest[0] == 0 and line.nearest[-1] == 2
    torch.testing.assert_close(line.perplexity, torch.exp(line.ce))


def test_continuity_compares_both_ends_of_a_step(
    trained: tuple[LanguageModel, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, run = trained
    asked = []

    def keep(cache: object, memory: object, doc_reps: torch.Tensor) -> torch.Tensor:
        asked.append(doc_reps)
        return cross_entropies_at(run.cache_hidden_states(lm), run.load_memory(), doc_reps)

    monkeypatch.setattr("docmem.evaluation.continuity.cross_entropies_at", keep)
    measured = continuity(run.cache_hidden_states(lm), run.load_memory(), pairs=4, extent=0.5)
    first, second = asked[0].chunk(2)
    assert first.abs().max() <= 0.5
    torch.testing.assert_close((second - first).norm(dim=1), measured.distance)
    assert measured.distance[[0, -1]].tolist() == pytest.approx([0.001, 1])
    with torch.no_grad():
        moved = run.load_memory().select(second) - run.load_memory().select(first)
    torch.testing.assert_close(measured.selection, moved.norm(dim=1))
    for document in range(3):
        change = naive_ce(lm, run, document, second[3]) - naive_ce(lm, run, document, first[3])
        assert measured.ce[document, 3].item() == pytest.approx(abs(change), abs=1e-5)


@pytest.mark.parametrize("key_activation", ["tanh", "relu", "sigmoid"])
@pytest.mark.parametrize("layers", [1, 3])
def test_no_selection_changes_faster_than_its_bound(key_activation: str, layers: int) -> None:
    torch.manual_seed(0)
    memory = DocumentMemory(
        MemoryConfig(
            d_model=8,
            n_docs=3,
            memory_dim=16,
            key_activation=key_activation,
            document_key_module_type="nonlinear",
            key_internal_layers=layers,
        )
    )
    bound = selection_bound(memory)
    points = torch.randn(200, 2)
    with torch.no_grad():
        steps = memory.select(points + 1e-3) - memory.select(points)
    steepest = (steps.norm(dim=1) / (1e-3 * 2**0.5)).max().item()
    assert bound is not None
    assert 0 < steepest <= bound * (1 + 1e-3)


def test_bound_of_a_linear_tanh_memory_is_its_largest_singular_value() -> None:
    memory = DocumentMemory(MemoryConfig(d_model=8, n_docs=2, memory_dim=2))
    with torch.no_grad():
        memory.document_key.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 2.0]]))
    assert selection_bound(memory) == pytest.approx(3)
    origin, step = torch.zeros(2), torch.tensor([1e-3, 0.0])
    with torch.no_grad():  # reached where tanh is steepest
        change = memory.select(step) - memory.select(origin)
    assert (change.norm() / 1e-3).item() == pytest.approx(3, rel=1e-4)


def test_selection_bound_is_none_where_unknown() -> None:
    memory = DocumentMemory(MemoryConfig(d_model=8, n_docs=2, key_activation="swiglu"))
    assert selection_bound(memory) is None


def test_memory_on_another_device_is_copied_and_stays(trained: tuple[LanguageModel, Run]) -> None:
    lm, run = trained
    cache, memory = run.cache_hidden_states(lm), run.load_memory()
    assert on_device_of(cache, memory) is memory
    cache.device = torch.device("meta")
    copied = on_device_of(cache, memory)
    assert {tensor.device.type for tensor in copied.state_dict().values()} == {"meta"}
    assert {tensor.device.type for tensor in memory.state_dict().values()} == {"cpu"}


def test_shares_of_the_plane_by_best_document_and_below_a_limit() -> None:
    perplexity = torch.tensor([[[1.0, 2], [9, 9]], [[3.0, 3], [3, 3]], [[9.0, 9], [9, 9]]])
    plane = KeyPlane(torch.tensor([-1.0, 1]), perplexity.log(), torch.zeros(3, 2))
    assert plane.shares.tolist() == [0.5, 0.5, 0]
    assert plane.share_below(torch.tensor([1.5, 4, 8])).tolist() == [0.25, 1, 0]
