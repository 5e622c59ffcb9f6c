"""Draw the experiments' figures from the results that come with docmem, and README's claims.

With `--fresh` every experiment is measured anew first; runs that are finished are not repeated.
"""

import sys
from pathlib import Path

from docmem.cli.main import exit_status
from docmem.core.files import write_text
from docmem.experiments import NAMES
from docmem.experiments.pool import RunPool
from docmem.experiments.runner import (
    STORED,
    claims_table,
    load_results,
    redraw,
    run_experiment,
    tally,
)

FOLDER = Path(__file__).parent
README = FOLDER.parent / "README.md"
BEGIN, END = "<!-- claims: written by make figures -->\n", "<!-- end of claims -->"


def with_claims(readme: str) -> str:
    """A page whose claims, between the two marks, are those of the stored results."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    summary = f"<details><summary>{tally()} Show them</summary>"
    return f"{before}{BEGIN}{summary}\n\n{claims_table()}\n</details>\n{END}{after}"


def measure_and_draw() -> int:
    """Measure every experiment, if asked to; draw them, and write numbers and claims; 0."""
    if "--fresh" in sys.argv[1:]:
        for name in NAMES:
            print(f"{name}: {run_experiment(name, RunPool(), STORED)['seconds']:.0f} s")
    drawn = redraw(STORED, FOLDER / "experiments")
    for name in drawn:
        print(FOLDER / "experiments" / f"{name}.png")
    update_json(
        FOLDER / "results.json", {"experiments": {name: load_results(name) for name in drawn}}
    )
    write_text(README, with_claims(README.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(measure_and_draw))
