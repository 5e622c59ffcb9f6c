"""Running experiments: results to disk, figures from results, claims to a table.

    perform("activation", Lab(), Path("figures/experiments"))
    redraw(Path("figures/experiments"))

`NAME.json` holds every number drawn, settings, versions and seconds; `NAME.png` is drawn from it
alone; `claims.md` is written from all of them.
"""

import json
import time
from pathlib import Path
from typing import Any

from docmem.experiments import NAMES, experiment
from docmem.experiments.lab import Claim, Lab, settings
from docmem.files import DocmemError, replacing, write_json, write_text
from docmem.runs import LIBRARIES, version_of
from docmem.style import new_figure, png_bytes


def perform(name: str, lab: Lab, folder: Path) -> dict[str, Any]:
    """Measure an experiment, write its results and draw them; returns the results.

    Raises:
        DocmemError: if there is no such experiment, or a run or file fails.
    """
    started = time.perf_counter()
    numbers = experiment(name).measure(lab)
    results = {
        "experiment": name,
        "lab": settings(lab),
        "versions": {library: version_of(library) for library in LIBRARIES},
        "seconds": time.perf_counter() - started,
        "numbers": numbers,
    }
    write_json(folder / f"{name}.json", results)
    draw(name, folder)
    return results


def stored(name: str, folder: Path) -> dict[str, Any] | None:
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


def draw(name: str, folder: Path) -> None:
    """Draw an experiment's figure from its stored results."""
    results = stored(name, folder)
    if results is None:
        raise DocmemError(f"{folder} has no results of {name}; `docmem experiment {name}` first.")
    module = experiment(name)
    figure = module.draw(new_figure(*module.SIZE), results["numbers"], note_of(results))
    with replacing(folder / f"{name}.png") as temporary:
        temporary.write_bytes(png_bytes(figure))


def note_of(results: dict[str, Any]) -> str:
    """What was trained, for the line under a title."""
    config, lab = results["lab"]["config"], results["lab"]
    fast = "a test of the program: numbers mean nothing. " if lab["fast"] else ""
    return (
        f"{fast}Preset {lab['preset']}: {config['max_labels']} documents of at most "
        f"{config['max_segments']} segments, {config['hook_memory_dim']} entries, "
        f"{config['num_epochs']} epochs, unless said otherwise; a dot a seed, "
        f"{lab['seeds']} seeds."
    )


def claims_table(folder: Path) -> str:
    """The table of claims, from every experiment whose results are in `folder`."""
    rows = [
        "| claim | published | here: mean ± sd over seeds | | on Pythia-1B |",
        "|---|---|---|---|---|",
    ]
    for name in NAMES:
        results = stored(name, folder)
        if results is None:
            continue
        command = f"`docmem experiment {name} --preset pythia-1b`"
        found: list[Claim] = experiment(name).claims(results["numbers"])
        for claim in found:
            ours = f"{claim.ours}. {claim.why}" if claim.why else claim.ours
            rows.append(
                f"| {claim.claim} | {claim.published} | {ours} | {claim.verdict} | {command} |"
            )
    return "\n".join(rows) + "\n"


def redraw(folder: Path) -> list[str]:
    """Draw every figure in `folder` from its stored results, and the table of claims.

    Returns the names of the experiments that were drawn.
    """
    drawn = [name for name in NAMES if stored(name, folder) is not None]
    for name in drawn:
        draw(name, folder)
    write_text(folder / "claims.md", claims_table(folder))
    return drawn
