"""The head's cross entropies: fast equals plain, and rows that are not used cost nothing."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from toys import FAMILIES, WIDTH, toy_batch, toy_lm

from docmem.lm import head
from docmem.lm.bfloat16 import half_cost
from docmem.lm.forward import forward_inputs
from docmem.lm.head import before_head, head_losses, plain_head

VOCABULARY, ROWS = 50, 23
CAPPED = ("gemma2",)  # these do more to their logits than the head does


def made(bias: bool) -> tuple[Tensor, nn.Linear, Tensor]:
    torch.manual_seed(0)
    linear = nn.Linear(WIDTH, VOCABULARY, bias=bias).requires_grad_(False)
    x = 2 * torch.randn(ROWS, WIDTH)
    return x.requires_grad_(), linear, torch.randint(VOCABULARY, (ROWS,))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows_at_once", [1, 7, ROWS])
def test_losses_and_gradient_equal_those_of_full_logits(
    bias: bool, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(head, "CHUNK_BYTES", 4 * VOCABULARY * rows_at_once)
    x, linear, target = made(bias)
    weights = torch.linspace(-1, 1, ROWS)
    expected = functional.cross_entropy(linear(x), target, reduction="none")
    (by_x,) = torch.autograd.grad(expected @ weights, x)
    actual = head_losses(x, linear, target)
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-6)
    (actual @ weights).backward()
    torch.testing.assert_close(x.grad, by_x, atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        assert torch.equal(head_losses(x, linear, target), actual)


def test_backward_multiplies_only_rows_whose_loss_is_used():
    x, linear, target = made(False)
    weights = torch.zeros(ROWS)
    weights[4:9] = 0.5
    with FlopCounterMode(display=False) as counted:
        losses = head_losses(x, linear, target)
        forward = counted.get_total_flops()
        (losses * weights).sum().backward()
    assert forward == 2 * ROWS * WIDTH * VOCABULARY
    assert counted.get_total_flops() - forward == 2 * 5 * WIDTH * VOCABULARY
    plain = functional.cross_entropy(linear(x), target, reduction="none")
    (expected,) = torch.autograd.grad(plain @ weights, x)
    torch.testing.assert_close(x.grad, expected, atol=1e-6, rtol=1e-5)
    assert not x.grad[:4].any()


@pytest.mark.slow
def test_head_of_bfloat16_gives_losses_in_float32():
    if half_cost("bfloat16") is None:
        pytest.skip("this processor cannot multiply in bfloat16")
    x, linear, target = made(True)
    losses = head_losses(x.detach().bfloat16(), linear.bfloat16(), target)
    expected = functional.cross_entropy(linear(x.bfloat16()).float(), target, reduction="none")
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_head_is_found_where_its_output_is_the_logits(family: str):
    lm, batch = toy_lm(family), toy_batch()
    found = plain_head(lm.model, batch)
    if family in CAPPED:
        assert found is None
        return
    assert found is lm.model.get_output_embeddings()
    inputs = forward_inputs(lm.model, batch)
    logits = found(before_head(lm.model, batch))
    assert torch.equal(logits, lm.model(**inputs).logits)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in lm.model.modules())


def test_head_that_is_no_linear_is_run_by_the_lm():
    lm = toy_lm()
    lm.model.set_output_embeddings(nn.Sequential(lm.model.get_output_embeddings()))
    assert plain_head(lm.model, toy_batch()) is None
