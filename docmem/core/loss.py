"""The guidance loss: read a document under its own DocRep, not under others.

For one batch of document i, with L⁺ the cross entropy under its DocRep 𝒦ᵢ and L⁻ under a
negative 𝒦⁻ (section 3 of the paper),

    squared    L = L⁺ + α · min((L⁻ - τ)², L⁺)     as the authors' program computes it
    absolute   L = L⁺ + α · |τ - L⁻|               as the paper writes it
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from docmem.errors import check_at_least, check_type, checked

Negative = Literal["other", "random", "zero", "perturb"]  # training/negatives.py draws them
LossForm = Literal["squared", "absolute"]


def guidance_term(
    positive_ce: Float[Tensor, ""],
    negative_ce: Float[Tensor, ""],
    alpha: float = 0.1,
    tau: float = 4.5,
    form: LossForm = "squared",
) -> Float[Tensor, ""]:
    """What guidance adds to L⁺: α · min((L⁻ - τ)², L⁺), or α · |τ - L⁻|.

    Where the min clamps, the term is α · L⁺: no gradient comes from L⁻.

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
