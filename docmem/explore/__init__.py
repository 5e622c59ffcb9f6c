"""Live widgets: a point to drag, training to scrub, texts to recall and to attribute.

    from docmem import explore
    explore.key_plane(run)                    # what every point of the DocRep plane recalls
    explore.scrubber({"relu": a, "tanh": b})  # runs played through their snapshots on one clock
    explore.recall(run)                       # what the LM writes under a memory, another's, none
    explore.attribution(run)                  # whose text is this?
    explore.training(config).wait()           # trains, with a live curve and a stop button

Each returns an explorer: the last line of a cell shows it. Its state and results are plain
attributes and methods, so that all of it can be used, and is tested, without a browser. Where no
widget runs (GitHub, print, no kernel) a plain picture or table of the same state stands in its
place. Running a cell again closes the explorers that it made before.
"""

try:
    import anywidget  # noqa: F401
    import ipywidgets  # noqa: F401
except ImportError as error:
    raise ImportError(
        "docmem.explore needs ipywidgets and anywidget: pip install 'docmem[notebooks]'."
    ) from error

from docmem.evaluation.verbatim import Span, verbatim
from docmem.explore._attribution import AttributionExplorer, attribution
from docmem.explore._plane import KeyPlaneExplorer, PlaneReading, key_plane
from docmem.explore._recall import Recalled, RecallExplorer, recall
from docmem.explore._scrubber import ScrubberExplorer, scrubber
from docmem.explore._training import TrainingExplorer, training

__all__ = [
    "AttributionExplorer",
    "KeyPlaneExplorer",
    "PlaneReading",
    "RecallExplorer",
    "Recalled",
    "ScrubberExplorer",
    "Span",
    "TrainingExplorer",
    "attribution",
    "key_plane",
    "recall",
    "scrubber",
    "training",
    "verbatim",
]
