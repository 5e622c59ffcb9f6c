"""Draw the experiments' figures, and write docs/claims.md, from the results that come with docmem.

With `--fresh` every experiment is measured anew first; runs that are finished are not repeated.
"""

import sys
from pathlib import Path

from docmem.cli.main import exit_status
from docmem.core.files import write_text
from docmem.experiments import NAMES
from docmem.experiments.pool import RunPool
from docmem.experiments.runner import STORED, claims_page, redraw, run_experiment

FIGURES = Path(__file__).parent / "experiments"
CLAIMS = Path(__file__).parents[1] / "docs" / "claims.md"


def measure_and_draw() -> int:
    """Measure every experiment, if asked to; draw them and write the page of claims; 0."""
    if "--fresh" in sys.argv[1:]:
        for name in NAMES:
            print(f"{name}: {run_experiment(name, RunPool(), STORED).seconds:.0f} s")
    for name in redraw(STORED, FIGURES):
        print(FIGURES / f"{name}.png")
    write_text(CLAIMS, claims_page())
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(measure_and_draw))
