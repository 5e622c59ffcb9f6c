"""The guidance loss and its negatives: read a document under its own DocRep, not under others.

For one batch of document i, with L⁺ the cross entropy under its DocRep 𝒦ᵢ and L⁻ under a
negative 𝒦⁻ (section 3 of the paper),

    squared    L = L⁺ + α · min((L⁻ - τ)², L⁺)     as the authors' program computes it
    absolute   L = L⁺ + α · |τ - L⁻|               as the paper writes it
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from docmem.errors import DocmemError, check_at_least, check_type, checked

Negative = Literal["other", "random", "zero", "perturb"]
LossForm = Literal["squared", "absolute"]


def guidance_term(
    positive_ce: Float[Tensor, ""],
    negative_ce: Float[Tensor, ""],
    alpha: float = 0.1,
    tau: float = 4.5,
    form: LossForm = "squared",
) -> Float[Tensor, ""]:
    """What guidance adds to L⁺: α · min((L⁻ - τ)², L⁺), or α · |τ - L⁻|.

    Where the min clamps, the gradient is that of L⁺.

    Raises:
        DocmemError: if α or τ is negative or not a number, or the form is unknown.
    """
    check_at_least("alpha (guidance)", alpha, 0)
    check_at_least("tau (target_negative_ce)", tau, 0)
    check_type("form", form, LossForm)
    if form == "absolute":
        return alpha * (tau - negative_ce).abs()
    return alpha * torch.clamp_max((negative_ce - tau) ** 2, positive_ce)


@checked
def guidance_loss(
    positive_ce: Float[Tensor, ""],
    negative_ce: Float[Tensor, ""],
    alpha: float = 0.1,
    tau: float = 4.5,
    form: LossForm = "squared",
) -> Float[Tensor, ""]:
    """L = L⁺ + the guidance term, nats per token (equation of the module; errors: as there)."""
    return positive_ce + guidance_term(positive_ce, negative_ce, alpha, tau, form)


def negative_doc_rep(
    kind: Negative,
    doc_reps: Float[Tensor, "n_docs key_dim"],
    index: int,
    generator: torch.Generator,
    delta: float = 0.1,
) -> Float[Tensor, " key_dim"]:
    """A DocRep under which document `index` should not be known.

    Args:
        kind: `other` (another document's), `random` (standard normal), `zero`, or `perturb`
            (𝒦ᵢ + delta · max(𝒦ᵢ) · standard normal).
        doc_reps: all DocReps.
        index: the document that is read.
        generator: the CPU generator that draws; `zero` draws nothing.
        delta: the size of the perturbation.

    Raises:
        DocmemError: if the kind is unknown, or `other` is asked of a single document.
    """
    check_type("negative_key_type", kind, Negative)
    own = doc_reps[index]
    if kind == "zero":
        return torch.zeros_like(own)
    if kind == "other":
        if len(doc_reps) < 2:
            raise DocmemError(
                "The negative 'other' needs a second document; "
                "add one, or choose the negative 'random', 'zero' or 'perturb'."
            )
        step = int(torch.randint(1, len(doc_reps), (1,), generator=generator))
        return doc_reps[(index + step) % len(doc_reps)]
    noise = torch.randn(own.shape, generator=generator).to(own)
    return noise if kind == "random" else own + delta * own.max() * noise
