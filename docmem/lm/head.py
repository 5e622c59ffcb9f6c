"""Cross entropies of a frozen head, computed chunk by chunk, so that its logits need little memory.

The head is the most expensive part of training: a product with the whole vocabulary, forward and
backward. `head_losses` computes these two products and little else. The gradient of each loss by
its logits, softmax - one-hot, overwrites the logits. If all rows fit in one chunk, it is kept, and
rows whose loss is not used (as where the guidance loss is clamped) cost no backward product. With
more chunks, each is multiplied by the weights at once and then freed.

`token_losses` on the LM's own logits is the plain way, and the reference of the tests.
"""

from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from docmem.lm.forward import TokenBatch, forward_inputs, forward_until

# Logits of about this many bytes at once on the CPU; of a GPU's memory this share.
CHUNK_BYTES, CHUNK_SHARE = 64_000_000, 1 / 16


def chunk_bytes(device: torch.device) -> int:
    """Bytes of logits in float32 that are made at once."""
    if device.type != "cuda":
        return CHUNK_BYTES
    return int(torch.cuda.get_device_properties(device).total_memory * CHUNK_SHARE)


def _log_softmax(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The log softmax of W x + b in float32, written over the logits."""
    logits = functional.linear(x, weight, bias).float()
    return torch.log_softmax(logits, 1, out=logits)


class _HeadLosses(torch.autograd.Function):
    """-log softmax(W x + b)[target] of each row, with its gradient by x; none by W and b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> Tensor:
        chunk = max(1, chunk_bytes(x.device) // (4 * len(weight)))
        wanted = ctx.needs_input_grad[0]
        ctx.in_one = len(x) <= chunk
        losses = torch.empty(len(x), device=x.device)
        gradient = torch.empty_like(x) if wanted else x.new_empty(0)
        for start in range(0, len(x), chunk):
            rows = slice(start, start + chunk)
            hit = target[rows, None]
            log_p = _log_softmax(x[rows], weight, bias)
            losses[rows] = -log_p.gather(1, hit)[:, 0]
            if wanted:
                minus = -torch.ones_like(hit, dtype=log_p.dtype)
                log_p.exp_().scatter_add_(1, hit, minus)  # softmax - one-hot, in its place
                if ctx.in_one:
                    gradient = log_p.to(x.dtype)
                else:
                    gradient[rows] = log_p.to(x.dtype) @ weight
            del log_p  # before the next chunk is made
        ctx.save_for_backward(gradient, weight)
        return losses

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradient, weight = ctx.saved_tensors
        if not ctx.in_one:
            return gradient * grad[:, None].to(gradient.dtype), None, None, None
        # To look which rows are used would make a GPU wait for longer than the product takes.
        used = None if grad.is_cuda else grad.nonzero()[:, 0]
        if used is None or len(used) == len(grad):
            by_x = gradient @ weight
        else:
            by_x = gradient.new_zeros(len(grad), weight.shape[1])
            by_x[used] = gradient[used] @ weight
        return by_x * grad[:, None].to(by_x.dtype), None, None, None


def head_losses(
    x: Float[Tensor, "rows d_model"], head: nn.Linear, target: Int[Tensor, " rows"]
) -> Float[Tensor, " rows"]:
    """Cross entropy of each row's target under the head, nats; gradients flow to x alone."""
    x = x.to(head.weight.device)
    loss = cast(Any, _HeadLosses.apply)
    return loss(x, head.weight, head.bias, target.to(x.device))


def before_head(model: nn.Module, batch: TokenBatch) -> Float[Tensor, "batch seq d_model"]:
    """The input of a causal LM's head; the head is not run."""
    head = cast(Any, model).get_output_embeddings()
    return forward_until(model, batch, head.register_forward_pre_hook)[0]


@torch.no_grad()
def plain_head(model: nn.Module, batch: TokenBatch) -> nn.Linear | None:
    """The LM's head, if it is a Linear whose output is the logits, as seen in a short forward.

    None where the LM does more to its logits, as the soft cap of Gemma-2 does, or a hook may.
    """
    head = cast(Any, model).get_output_embeddings()
    if type(head) is not nn.Linear or head._forward_hooks:
        return None
    few = TokenBatch(*(tensor[:1, -2:] for tensor in batch))
    seen: list[Tensor] = []
    handle = head.register_forward_hook(lambda _, __, output: seen.append(output))
    try:
        logits = model(**forward_inputs(model, few)).logits
    finally:
        handle.remove()
    alone = len(seen) == 1 and torch.equal(seen[0].to(logits.device), logits)
    return head if alone else None


def token_losses(
    logits: Float[Tensor, "batch seq vocab"], batch: TokenBatch
) -> Float[Tensor, "batch seq-1"]:
    """Cross entropy of each token given those before it, in nats; zero at pads.

    On the logits' device, which may be another than the batch's.
    """
    targets = batch.input_ids[:, 1:].masked_fill(~batch.predicted, -100)  # torch ignores -100
    # The targets grow by one ignored position, so that the large logits need no copy.
    padded = functional.pad(targets, (0, 1), value=-100).to(logits.device)
    flat = functional.cross_entropy(
        logits.float().flatten(0, 1), padded.flatten(), reduction="none"
    )
    return flat.view_as(padded)[:, :-1]


def cross_entropy(logits: Float[Tensor, "batch seq vocab"], batch: TokenBatch) -> Float[Tensor, ""]:
    """Mean cross entropy of a batch, nats per token; pads do not count."""
    losses = token_losses(logits, batch)
    return losses.sum() / batch.predicted.sum().to(losses.device)
