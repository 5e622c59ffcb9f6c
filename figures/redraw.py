"""Draw the experiments' figures, and write docs/claims.md, from the results that come with docmem.

With `--fresh LABEL` the experiments of one set of results are measured first, where they are
missing or the code that measures them has changed; trainings that are finished are not repeated.
"""

import sys
from pathlib import Path

from docmem.cli.main import exit_status
from docmem.core.files import write_text
from docmem.errors import DocmemError
from docmem.experiments import NAMES
from docmem.experiments.pool import RunPool
from docmem.experiments.runner import (
    FOLDERS,
    STORED,
    claims_page,
    is_current,
    redraw,
    run_experiment,
)
from docmem.training.executors import perform

FIGURES = Path(__file__).parent / "experiments"
CLAIMS = Path(__file__).parents[1] / "docs" / "claims.md"
PAPER = ("activation", "plane", "length", "nonlinear", "recalling", "continuity", "guidance")
"""What the paper claims something of."""
OTHERS = (
    "attribution", "routing", "together", "forgetting", "adding", "seeds", "placing", "procedure",
    "capacity", "layers", "knowledge", "rivals",
)  # fmt: skip
"""What else is measured on a real LM."""
MEASURED = {
    "tiny": (RunPool(), NAMES),
    "tiny-paper": (RunPool(procedure="paper"), PAPER),
    "smollm2-135m": (RunPool("smollm2-135m"), (*PAPER, *OTHERS)),
    "smollm2-135m-paper": (RunPool("smollm2-135m", procedure="paper"), PAPER),
}
"""Of each set of results that comes with docmem: its pool, and the experiments."""


def measure(label: str) -> None:
    """Measure what a set of results lacks."""
    pool, names = MEASURED[label]
    for name in names:
        if not is_current(name, pool, FOLDERS[label]):
            print(f"{name}: {run_experiment(name, pool, FOLDERS[label]).seconds:.0f} s", flush=True)


def measure_and_draw() -> int:
    """Measure, if asked to; draw what there is and write the page of claims; 0."""
    if "--fresh" in sys.argv[1:]:
        measure(sys.argv[sys.argv.index("--fresh") + 1])
    places = [
        (folder, FIGURES if folder == STORED else FIGURES / label)
        for label, folder in FOLDERS.items()
    ]
    drawn = perform(redraw, places, "local:2", FIGURES)
    for (_, out), names in zip(places, drawn, strict=True):
        if isinstance(names, DocmemError):
            raise names
        for name in names:
            print(out / f"{name}.png")
    write_text(CLAIMS, claims_page())
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(measure_and_draw))
