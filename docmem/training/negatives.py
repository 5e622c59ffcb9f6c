"""The negatives of the guidance loss: DocReps under which a document should not be known."""

import torch
from jaxtyping import Float
from torch import Tensor

from docmem.core.loss import Negative
from docmem.errors import DocmemError, check_type


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
