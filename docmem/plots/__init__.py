"""The drawings: one function per figure takes data and an empty Figure; none trains or measures."""

from docmem.plots.line import along_line, continuity
from docmem.plots.plane import (
    draw_wells,
    forgetting,
    key_plane,
    perplexity_wells,
    plane_map,
    square,
    territories,
)
from docmem.plots.training import losses, open_entries, published_curves

__all__ = [
    "along_line",
    "continuity",
    "draw_wells",
    "forgetting",
    "key_plane",
    "losses",
    "open_entries",
    "perplexity_wells",
    "plane_map",
    "published_curves",
    "square",
    "territories",
]
