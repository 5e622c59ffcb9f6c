"""Memory selections: means over a document's own real tokens."""

import math

import torch
from toys import toy_batch

from docmem.core.memory import DocumentMemory
from docmem.lm.forward import forward_inputs
from docmem.lm.hidden_states import HiddenStateCache
from docmem.lm.loading import LanguageModel
from docmem.training.selection import Selection, Snapshots, memory_selection


def test_token_selection_is_the_mean_over_each_documents_real_tokens(
    lm: LanguageModel, memory: DocumentMemory
):
    batches = [toy_batch(lengths, seed) for seed, lengths in enumerate([(9, 5), (7,), (4, 8, 6)])]
    doc_ids = [2, 0, 2]
    selection = memory_selection(memory, HiddenStateCache(lm, batches, doc_ids, layer=1))
    for document in range(3):
        keys = []
        for doc_id, batch in zip(doc_ids, batches, strict=True):
            states = lm.model(
                **forward_inputs(lm.model, batch), output_hidden_states=True
            ).hidden_states[2]
            for row, row_mask in zip(states, batch.attention_mask, strict=True):
                keys += [memory.token_keys(h) for h, real in zip(row, row_mask, strict=True)
                         if real and doc_id == document]  # fmt: skip
        assert len(keys) == [7, 0, 32][document]
        expected = torch.stack(keys).mean(0) if keys else torch.zeros(24)
        torch.testing.assert_close(selection.token[document], expected, atol=1e-5, rtol=1e-5)


def test_document_selection_is_the_key_of_each_doc_rep(lm: LanguageModel, memory: DocumentMemory):
    selection = memory_selection(memory, HiddenStateCache(lm, [toy_batch()], [0], layer=-1))
    for document, doc_rep in enumerate(memory.doc_reps):
        key = torch.tanh(memory.document_key.weight @ doc_rep + memory.document_key.bias)
        torch.testing.assert_close(selection.document[document], key)
    assert not selection.document.requires_grad
    assert not selection.token.requires_grad


def test_the_product_is_entry_by_entry():
    selection = Selection(torch.tensor([[2.0, 3.0]]), torch.tensor([[-1.0, 0.5]]))
    assert selection.product.tolist() == [[-2.0, 1.5]]


def test_strongest_entries_and_the_share_they_carry() -> None:
    token, document = torch.ones(2, 4), torch.tensor([[1.0, -4, 3, 0], [0, 0, 0, 2]])
    nothing = Selection(token, torch.zeros(2, 4)).strongest(2)[1]
    assert nothing.tolist() == [0, 0]
    entries, share = Selection(token, document).strongest(2)
    assert entries[0].tolist() == [1, 2]
    assert entries[1, 0] == 3
    torch.testing.assert_close(share, torch.tensor([7 / 8, 1.0]))


def test_distance_correlation_of_selections_that_turn_with_the_doc_rep() -> None:
    angles = torch.tensor([0.0, 0.5, 1.1, 2.0])
    doc_reps = torch.stack([angles.cos(), angles.sin()], dim=1)[None]
    snapshots = Snapshots([0], torch.ones(1, 4, 2), doc_reps, doc_reps)
    assert snapshots.distance_correlation() < -0.95
    alike = Snapshots([0], torch.ones(1, 4, 2), torch.ones(1, 4, 2), doc_reps)
    assert math.isnan(alike.distance_correlation())
    two = Snapshots([0], torch.ones(1, 2, 2), doc_reps[:, :2], doc_reps[:, :2])
    assert math.isnan(two.distance_correlation())  # of one pair, and no warning of torch
