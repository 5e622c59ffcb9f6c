"""One guided step: what the trainer, `add`, the rivals and the benchmark all do.

    losses = guided_losses(cache, index, memory, positive, negative, alpha=0.1, tau=4.5)
    descend([losses.total], optimizer, grad_clip=5.0)

Two cross entropies of one batch, the guidance term (core/loss.py), backward, the gradient norm
clipped, one step of the optimizer.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from docmem.core.loss import LossForm, guidance_term
from docmem.core.memory import DocumentMemory
from docmem.errors import DocmemError
from docmem.lm.hidden_states import HiddenStateCache

SCALE = 1024.0
"""Losses are scaled up before the backward pass and gradients down after it: the LM's part of it
may be in float16, where small numbers vanish. A power of two changes no float32 result."""


class GuidedLosses(NamedTuple):
    """The losses of one batch, nats per token."""

    positive_ce: Float[Tensor, ""]
    """L⁺, under the document's own DocRep."""
    negative_ce: Float[Tensor, ""]
    """L⁻, under the negative DocRep, or the mean under several."""
    guidance: Float[Tensor, ""]
    """The guidance term, α included."""

    @property
    def total(self) -> Float[Tensor, ""]:
        """The guidance loss, L⁺ plus the guidance term."""
        return self.positive_ce + self.guidance


def guided_losses(
    cache: HiddenStateCache,
    index: int,
    memory: DocumentMemory,
    positive: Float[Tensor, " key_dim"],
    negative: Float[Tensor, "*rows key_dim"],
    rows: Int[Tensor, " rows"] | None = None,
    *,
    alpha: float,
    tau: float,
    form: LossForm = "squared",
) -> GuidedLosses:
    """Read batch `index` under a positive DocRep, and all or some of its rows under negatives.

    Args:
        cache: the documents.
        index: the batch.
        memory: what is trained.
        positive: the document's own DocRep.
        negative: one DocRep (key_dim,), or one for each of `rows`.
        rows: the rows that are read under a negative, each under one of its own, L⁻ being the mean
            over them; None: all rows, under one, as the authors' program reads them.
        alpha: α, the weight of the guidance term.
        tau: τ, the cross entropy wanted under a negative DocRep, nats per token.
        form: of the guidance term, as in `guidance_term`.

    Raises:
        DocmemError: as `guidance_term`.
    """
    under = torch.cat([positive[None], negative.reshape(-1, len(positive))])
    read = None
    if rows is not None:
        read = [torch.arange(len(cache.batches[index].input_ids)), *rows[:, None]]
    positive_ce, *negative_ces = cache.cross_entropies(index, memory, under, read)
    negative_ce = torch.stack(negative_ces).mean()
    term = guidance_term(positive_ce, negative_ce, alpha, tau, form)
    return GuidedLosses(positive_ce, negative_ce, term)


class NotFiniteError(DocmemError):
    """A loss or gradient that is not a number any more."""


def descend(
    losses: Iterable[Float[Tensor, ""]],
    optimizer: torch.optim.Optimizer,
    grad_clip: float,
    share: Callable[[Sequence[Tensor]], Iterable[Tensor]] | None = None,
) -> None:
    """One step of the optimizer down the mean of some losses, the gradient norm clipped.

    `losses` may be a generator: each loss is made, and its graph freed, before the next. `share`
    adds the gradients of other processes to the parameters', and returns the losses of all.

    Raises:
        NotFiniteError: if a loss or the gradient is not a number; nothing has been changed then.
    """
    optimizer.zero_grad()  # what a refused step may have left
    seen: list[Tensor] = []
    for loss in losses:
        (loss * SCALE).backward()
        seen.append(loss.detach())
    parameters = list(itertools.chain(*(group["params"] for group in optimizer.param_groups)))
    if share is not None:
        seen = list(share(parameters))
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad /= len(seen) * SCALE
    norm = torch.nn.utils.clip_grad_norm_(parameters, grad_clip)
    # Read once, after all is under way: each reading makes a GPU wait.
    *values, gradient = torch.stack([*(one.to(norm) for one in seen), norm]).tolist()
    for value in values:
        require_finite("loss", value)
    require_finite("gradient", gradient)
    optimizer.step()


def require_finite(what: str, value: float) -> None:
    """Raise if a loss or gradient is not a number any more."""
    if not math.isfinite(value):
        raise NotFiniteError(
            f"The {what} is {value}. Try a smaller lr or guidance; with an LM in float16, float32."
        )
