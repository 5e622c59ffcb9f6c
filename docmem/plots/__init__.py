"""The drawings: one function a figure, data and an empty Figure in, nothing trained or measured."""

from docmem.plots.line import along_line, continuity
from docmem.plots.plane import draw_wells, forgetting, key_plane, perplexity_wells, territories
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
    "published_curves",
    "territories",
]
