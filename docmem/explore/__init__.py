"""Live widgets: drag a point, scrub through a training, recall documents, attribute texts.

    from docmem import explore
    explore.key_plane(run)                    # what every point of the DocRep plane recalls
    explore.scrubber({"relu": a, "tanh": b})  # runs played through their snapshots on one clock
    explore.recall(run)                       # one prompt under several DocReps, and the base LM
    explore.attribution(run)                  # which document is this text from?
    explore.training(config).wait()           # trains, with a live curve and a stop button

Each returns an explorer: the last line of a cell shows it. Its state and results are plain
attributes and methods, so it can be used, and is tested, without a browser. Where no widget runs
(GitHub, print, no kernel), a plain picture or table of the same state is shown. Running a cell
again closes the explorers that it made before.
"""

try:
    import anywidget  # noqa: F401
    import ipywidgets  # noqa: F401
except ImportError as error:
    raise ImportError(
        "docmem.explore needs ipywidgets and anywidget: pip install 'docmem[notebooks]'."
    ) from error

from docmem.explore._attribution import AttributionExplorer, attribution
from docmem.explore._pictures import Explanation, PlaneReading
from docmem.explore._plane import KeyPlaneExplorer, key_plane
from docmem.explore._recall import RecallExplorer, recall
from docmem.explore._scrubber import ScrubberExplorer, scrubber
from docmem.explore._training import TrainingExplorer, training

__all__ = [
    "AttributionExplorer",
    "Explanation",
    "KeyPlaneExplorer",
    "PlaneReading",
    "RecallExplorer",
    "ScrubberExplorer",
    "TrainingExplorer",
    "attribution",
    "key_plane",
    "recall",
    "scrubber",
    "training",
]
