"""The drawings: one function per figure; none trains or measures.

A figure's function takes an empty `figure` first and a `note`, the line under the title that says
what was trained, and returns the figure; `square`, `plane_map`, `territories` and `draw_wells` draw
parts. `titles` are the documents'. Cross entropies are in nats per token.
"""

from docmem.plots.line import along_line, continuity
from docmem.plots.plane import forgetting, key_plane, plane_map, square, territories
from docmem.plots.recalled import recalled
from docmem.plots.training import losses, open_entries, published_curves
from docmem.plots.wells import draw_wells, perplexity_wells

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
    "recalled",
    "square",
    "territories",
]
