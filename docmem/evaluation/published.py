"""The paper's own curves, to draw one's own run beside.

    published.RUNS[2].positive_ce          # tanh, ten documents, α 0.1

Means over an epoch, read from the run records in the history of the authors' repository,
fxnnxc/DocGuidanceLLM, not off a figure. All are of Pythia-1B with the memory after block 15 of
0 to 15, 32 entries, DocReps of length 2, τ 4.5, another document's DocRep as the negative, 16
segments a batch, seed 1. Their losses count pads and ours do not, so the first values differ.
"""

from typing import NamedTuple

EPOCHS = (1, 10, 25, 50, 100, 200, 300, 400, 500)
"""The epochs at which the curves are given."""


class PublishedRun(NamedTuple):
    """One run of the paper, at the epochs `EPOCHS`."""

    key_activation: str
    """What makes a selection of the key generator's output."""
    n_docs: int
    """Documents."""
    guidance: float
    """α: the weight of the guidance term."""
    positive_ce: tuple[float, ...]
    """Cross entropy under the own DocRep, nats per token."""
    guidance_term: tuple[float, ...]
    """The guidance term, α included."""

    @property
    def name(self) -> str:
        """What tells the runs apart."""
        return f"{self.key_activation}, {self.n_docs} documents, α {self.guidance:g}"


RUNS = (
    PublishedRun(
        "relu", 10, 0.5,
        (3.923, 3.138, 2.553, 1.671, 0.923, 0.464, 0.254, 0.243, 0.217),
        (0.217, 0.695, 0.362, 0.351, 0.253, 0.078, 0.077, 0.084, 0.070),
    ),
    PublishedRun(
        "relu", 20, 0.5,
        (4.066, 3.275, 2.959, 2.513, 1.715, 1.150, 0.982, 0.866, 0.711),
        (0.298, 0.691, 0.516, 0.348, 0.314, 0.207, 0.203, 0.144, 0.112),
    ),
    PublishedRun(
        "tanh", 10, 0.1,
        (3.946, 2.811, 1.789, 0.959, 0.510, 0.400, 0.122, 0.104, 0.081),
        (0.043, 0.126, 0.065, 0.068, 0.036, 0.029, 0.010, 0.008, 0.008),
    ),
    PublishedRun(
        "tanh", 10, 0.5,
        (3.959, 3.458, 2.454, 1.572, 0.737, 0.292, 0.150, 0.176, 0.078),
        (0.217, 0.472, 0.445, 0.307, 0.140, 0.125, 0.057, 0.057, 0.036),
    ),
    PublishedRun(
        "tanh", 20, 0.1,
        (3.934, 2.737, 2.043, 1.452, 0.998, 0.691, 0.562, 0.448, 0.476),
        (0.046, 0.156, 0.136, 0.087, 0.061, 0.048, 0.042, 0.038, 0.036),
    ),
    PublishedRun(
        "tanh", 20, 0.5,
        (3.988, 3.145, 2.976, 2.146, 1.509, 0.985, 0.778, 0.655, 0.572),
        (0.221, 0.470, 0.724, 0.273, 0.204, 0.267, 0.197, 0.134, 0.187),
    ),
)  # fmt: skip
"""All that the records hold."""
