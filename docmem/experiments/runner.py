"""Running experiments: results to disk, figures from results, claims to a table.

    run_experiment("activation", RunPool(), Path("outputs/activation"))
    figure("activation")                # drawn from the results that come with docmem
    redraw(STORED, Path("figures/experiments"))

`NAME.json` holds every number drawn, settings, versions and seconds; the figure and the claims
are made from it alone.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from docmem.core.files import replacing, write_json, write_text
from docmem.errors import DocmemError
from docmem.experiments import NAMES, experiment
from docmem.experiments.pool import Claim, RunPool, settings
from docmem.plots.style import new_figure, png_bytes
from docmem.training.run import LIBRARIES, version_of

STORED = Path(__file__).parents[1] / "assets" / "experiments"
"""Results that come with docmem, all of the preset `tiny`."""


def run_experiment(name: str, pool: RunPool, folder: Path) -> dict[str, Any]:
    """Measure an experiment and write its results to `folder`; returns them.

    Raises:
        DocmemError: if there is no such experiment, or a run or file fails.
    """
    started = time.perf_counter()
    numbers = experiment(name).measure(pool)
    results = {
        "experiment": name,
        "lab": settings(pool),
        "versions": {library: version_of(library) for library in LIBRARIES},
        "seconds": time.perf_counter() - started,
        "numbers": numbers,
    }
    write_json(folder / f"{name}.json", results)
    return results


def load_results(name: str, folder: Path = STORED) -> dict[str, Any] | None:
    """The results of an experiment in `folder`; None if it has not been performed.

    Raises:
        DocmemError: if its file cannot be read.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DocmemError(f"{path} cannot be read: {error}. Perform it again.") from error


def figure(name: str, folder: Path = STORED) -> Figure:
    """An experiment's figure, drawn from its stored results.

    Raises:
        DocmemError: if there are none.
    """
    results = load_results(name, folder)
    if results is None:
        raise DocmemError(f"{folder} has no results of {name}; `docmem experiment {name}` first.")
    module = experiment(name)
    return module.draw(new_figure(*module.SIZE), results["numbers"], note_of(results))


def note_of(results: dict[str, Any]) -> str:
    """What was trained, for the line under a title."""
    config, lab = results["lab"]["config"], results["lab"]
    fast = "a test of the program: numbers mean nothing. " if lab["fast"] else ""
    return (
        f"{fast}Preset {lab['preset']}: {config['max_labels']} documents of at most "
        f"{config['max_segments']} segments, {config['hook_memory_dim']} entries, "
        f"{config['num_epochs']} epochs, unless said otherwise; one dot per seed, "
        f"{lab['seeds']} at most."
    )


def claims(names: Iterable[str] = NAMES, folder: Path = STORED) -> dict[str, list[Claim]]:
    """What the stored results say of each experiment's claims; none without results."""
    found = {name: load_results(name, folder) for name in names}
    return {
        name: experiment(name).claims(results["numbers"])
        for name, results in found.items()
        if results is not None
    }


def claims_table(names: Iterable[str] = NAMES, folder: Path = STORED) -> str:
    """The claims of some experiments as a Markdown table."""
    rows = [
        "| claim | published | here: mean ± sd over seeds | | on Pythia-1B: "
        "`docmem experiment … --preset pythia-1b` |",
        "|---|---|---|---|---|",
    ]
    for name, found in claims(names, folder).items():
        for claim in found:
            ours = f"{claim.ours}. {claim.why}" if claim.why else claim.ours
            said = f"{claim.verdict} (exploratory)" if claim.exploratory else claim.verdict
            rows.append(f"| {claim.claim} | {claim.published} | {ours} | {said} | `{name}` |")
    return "\n".join(rows) + "\n"


def tally(names: Iterable[str] = NAMES, folder: Path = STORED) -> str:
    """How many claims hold, in a sentence."""
    verdicts = [claim.verdict for found in claims(names, folder).values() for claim in found]
    counts = Counter(verdicts)
    return (
        f"{len(verdicts)} claims: {counts['holds']} hold, {counts['partly']} hold partly, "
        f"{counts['not']} do not."
    )


def redraw(folder: Path, out: Path) -> list[str]:
    """Draw into `out` every figure that `folder` has results of, and the table of claims.

    Returns the names of the experiments that were drawn.
    """
    drawn = [name for name in NAMES if load_results(name, folder) is not None]
    for name in drawn:
        with replacing(out / f"{name}.png") as temporary:
            temporary.write_bytes(png_bytes(figure(name, folder)))
    write_text(out / "claims.md", f"{tally(NAMES, folder)}\n\n{claims_table(NAMES, folder)}")
    return drawn
