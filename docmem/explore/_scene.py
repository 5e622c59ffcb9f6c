"""What every drawing of the DocRep plane on a page is made of: places, colours, scales."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor

from docmem.core.memory import DocumentMemory
from docmem.evaluation.plane import KeyPlane
from docmem.lm.forward import plain_arithmetic
from docmem.plots.style import SIGNED, document_color, ink_on


@plain_arithmetic()
@torch.no_grad()
def selection_limit(plane: KeyPlane, memory: DocumentMemory, origin: Tensor, axes: Tensor) -> float:
    """The selection drawn darkest: as in the animations the 99.5th percentile, over the map.

    Its plane is `origin` (key_dim,) and two `axes` (2, key_dim).
    """
    grid = torch.cartesian_prod(plane.axis, plane.axis)
    everywhere = memory.select((origin + grid @ axes).to(memory.doc_reps))
    return float(np.quantile(everywhere.abs().cpu().numpy(), 0.995))


def plane_scene(
    plane: KeyPlane, titles: Sequence[str], limit: float, documents: Sequence[int]
) -> dict[str, Any]:
    """The documents with their colours and places, and the scales of what is read at a point.

    `documents` are their indices in the run, which numbers and colours go by.
    """
    colors = [document_color(index) for index in documents]
    signed = mpl.colormaps[SIGNED](np.linspace(0, 1, 129))[:, :3]  # white in the middle
    return {
        "titles": list(titles),
        "numbers": [index + 1 for index in documents],
        "colors": colors,
        "inks": [ink_on(color) for color in colors],
        "axis": plane.axis.tolist(),
        "points": plane.doc_reps.tolist(),
        "highest": float(np.quantile(plane.perplexity.numpy(), 0.995)),
        "limit": limit,
        "signed": np.round(255 * signed).astype(int).tolist(),
    }
