"""What the explorers measure: plain data that explorers and pictures both import."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from docmem.evaluation.search import Search


class PlaneReading(NamedTuple):
    """What is measured at one point of the DocRep plane."""

    doc_rep: Float[Tensor, " key_dim"]
    """The DocRep at the point."""
    ce: Float[Tensor, " n_docs"]
    """Cross entropy of each document under it, nats per token."""
    selection: Float[Tensor, " entries"]
    """The memory selection k_doc, always exact."""
    measured: bool
    """Whether `ce` is measured at the point; else it is interpolated in the map."""

    @property
    def perplexity(self) -> Float[Tensor, " n_docs"]:
        """The exponential of the cross entropy."""
        return self.ce.exp()

    @property
    def nearest(self) -> int:
        """The document with the lowest cross entropy."""
        return int(self.ce.argmin())


class Explanation(NamedTuple):
    """How likely a text is under each document, by the base LM, and over the DocRep plane."""

    text: str
    """The text."""
    ce: list[float]
    """Cross entropy of the text under each document, nats per token."""
    base: float
    """The same by the base LM."""
    search: Search | None
    """The map of the plane and its lowest point; None where the DocReps span no plane."""

    @property
    def best(self) -> int:
        """The document under which the text is most likely."""
        return self.ce.index(min(self.ce))
