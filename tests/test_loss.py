"""The guidance loss by hand, and its negatives."""

import math

import pytest
import torch
from torch import Tensor
from toys import toy_batch

from docmem.core.loss import guidance_loss, guidance_term
from docmem.errors import DocmemError
from docmem.lm.forward import TokenBatch
from docmem.lm.head import cross_entropy, token_losses
from docmem.training.negatives import negative_doc_rep

ALPHA, TAU = 0.3, 4.5
DOC_REPS = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))


def scalar(value: float) -> Tensor:
    return torch.tensor(value, requires_grad=True)


@pytest.mark.parametrize(
    ("form", "positive", "negative", "term", "gradients"),
    [
        ("squared", 3.0, 3.0, ALPHA * 2.25, (1.0, ALPHA * -3.0)),
        ("squared", 3.0, 5.5, ALPHA * 1.0, (1.0, ALPHA * 2.0)),
        ("squared", 3.0, 6.5, ALPHA * 3.0, (1 + ALPHA, 0.0)),
        ("squared", 2.0, 2.0, ALPHA * 2.0, (1 + ALPHA, 0.0)),
        ("absolute", 3.0, 3.0, ALPHA * 1.5, (1.0, -ALPHA)),
        ("absolute", 3.0, 6.5, ALPHA * 2.0, (1.0, ALPHA)),
    ],
)
def test_loss_and_gradients_are_those_of_the_formula(
    form, positive: float, negative: float, term: float, gradients: tuple[float, float]
):
    own, other = scalar(positive), scalar(negative)
    assert guidance_term(own, other, ALPHA, TAU, form).item() == pytest.approx(term)
    loss = guidance_loss(own, other, ALPHA, TAU, form)
    assert loss.item() == pytest.approx(positive + term)
    loss.backward()
    given = [0.0 if x.grad is None else x.grad.item() for x in (own, other)]
    assert given == pytest.approx(gradients)


def test_defaults_are_the_published_ones():
    assert guidance_loss(scalar(3.0), scalar(5.0)).item() == pytest.approx(3.0 + 0.1 * 0.25)


def test_without_guidance_the_loss_is_the_own_cross_entropy():
    assert guidance_loss(scalar(3.0), scalar(9.0), alpha=0.0).item() == 3.0


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize("name", ["alpha", "tau"])
def test_guidance_loss_rejects_invalid_alpha_or_tau(name: str, value: float):
    with pytest.raises(DocmemError, match=f"^{name} .* is {value}; it must be"):
        guidance_loss(scalar(3.0), scalar(3.0), **{name: value})


@pytest.mark.usefixtures("unchecked")
def test_unknown_form_is_rejected():
    with pytest.raises(DocmemError, match="form is 'cubed'; choose one of squared, absolute"):
        guidance_loss(scalar(3.0), scalar(3.0), form="cubed")  # type: ignore[arg-type]


def test_pads_never_count():
    batch = toy_batch((5, 3, 1))
    logits = torch.randn(3, 5, 400, generator=torch.Generator().manual_seed(0))
    by_hand, total, count = torch.zeros(3, 4), 0.0, 0
    for row, length in enumerate((5, 3, 1)):
        for place in range(5 - length + 1, 5):
            probabilities = torch.softmax(logits[row, place - 1].double(), 0)
            loss = -math.log(probabilities[batch.input_ids[row, place]])
            by_hand[row, place - 1] = loss
            total, count = total + loss, count + 1
    assert count == 4 + 2 + 0
    torch.testing.assert_close(token_losses(logits, batch), by_hand)
    assert cross_entropy(logits, batch).item() == pytest.approx(total / count)


def test_tokens_at_pads_change_neither_loss_nor_gradient():
    batch = toy_batch((5, 3))
    logits = torch.randn(2, 5, 400, requires_grad=True)
    cross_entropy(logits, batch).backward()
    assert logits.grad is not None
    assert not logits.grad[1, :2].any()
    assert logits.grad[1, 2:4].any()
    assert logits.grad[0, :4].any(-1).all()
    ids, changed = batch.input_ids.clone(), logits.detach().clone()
    ids[1, :2], changed[1, :2] = 7, 1000.0
    again = cross_entropy(changed, TokenBatch(ids, batch.attention_mask))
    assert again.item() == cross_entropy(logits, batch).item()


def test_bfloat16_logits_are_scored_in_float32():
    batch = toy_batch((5, 3))
    logits = torch.randn(2, 5, 400).bfloat16()
    assert torch.equal(cross_entropy(logits, batch), cross_entropy(logits.float(), batch))


@pytest.mark.parametrize("index", [0, 2, 4])
def test_negative_other_draws_every_other_document_and_never_the_own(index: int):
    generator = torch.Generator().manual_seed(0)
    drawn = [negative_doc_rep("other", DOC_REPS, index, generator) for _ in range(400)]
    counts = [sum(torch.equal(one, doc_rep) for one in drawn) for doc_rep in DOC_REPS]
    assert sum(counts) == 400
    assert counts.pop(index) == 0
    assert min(counts) > 70


def test_negative_other_needs_a_second_document():
    with pytest.raises(
        DocmemError, match=r"needs a second document.*'random', 'zero' or 'perturb'"
    ):
        negative_doc_rep("other", DOC_REPS[:1], 0, torch.Generator())


def test_negative_zero_is_the_origin_and_draws_nothing():
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(negative_doc_rep("zero", DOC_REPS, 1, generator), torch.zeros(2))
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(3).get_state())


def test_negative_random_is_standard_normal_noise():
    expected = torch.randn(2, generator=torch.Generator().manual_seed(5))
    torch.manual_seed(99)
    generator = torch.Generator().manual_seed(5)
    assert torch.equal(negative_doc_rep("random", DOC_REPS, 0, generator), expected)


@pytest.mark.parametrize("delta", [0.0, 0.1, 2.0])
def test_negative_perturb_scales_noise_by_the_largest_coordinate(delta: float):
    noise = torch.randn(2, generator=torch.Generator().manual_seed(5))
    doc_reps = torch.tensor([[9.0, 9.0], [0.5, -2.0]])
    negative = negative_doc_rep("perturb", doc_reps, 1, torch.Generator().manual_seed(5), delta)
    torch.testing.assert_close(negative, doc_reps[1] + delta * 0.5 * noise)


@pytest.mark.usefixtures("unchecked")
def test_unknown_negative_is_rejected():
    with pytest.raises(DocmemError, match="negative_key_type is 'near'; choose one of other"):
        negative_doc_rep("near", DOC_REPS, 0, torch.Generator())  # type: ignore[arg-type]
