"""Running experiments: results to disk, figures from results, claims to a page.

    run_experiment("activation", RunPool(), Path("outputs/activation"))
    figure("activation")                # drawn from the results that come with docmem
    redraw(STORED, Path("figures/experiments"))

`NAME.json` holds every number drawn, settings, versions and seconds; the figure and the claims
are made from it alone.
"""

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dacite
from matplotlib.figure import Figure
from tabulate import tabulate

from docmem.core.files import replacing, write_json
from docmem.errors import DocmemError
from docmem.experiments import NAMES, load_study
from docmem.experiments.pool import RunPool
from docmem.experiments.study import Claim
from docmem.plots.style import png_bytes, show
from docmem.training.description import LIBRARIES, to_dict, version_of

STORED = Path(__file__).parents[1] / "assets" / "experiments"
"""Results that come with docmem, all of the preset `tiny`."""


@dataclass(frozen=True)
class PoolSettings:
    """What an experiment's numbers depend on besides its own changes."""

    preset: str
    seeds: int
    fast: bool
    config: dict[str, Any]
    """The training settings that experiments change, by name."""


@dataclass(frozen=True)
class Results:
    """A results file."""

    experiment: str
    pool: PoolSettings
    versions: dict[str, str]
    """Versions of the libraries it was measured with."""
    seconds: float
    """Time it took, runs that were there already not counted."""
    numbers: Any
    """What was measured: an instance of the experiment's `results`."""

    @property
    def note(self) -> str:
        """What was trained, for the line under a figure's title."""
        pool, config = self.pool, self.pool.config
        # Results of version 0.1 do not name it.
        optimizer = {"adamw": "AdamW", "muon": "Muon"}[config.get("optimizer", "adamw")]
        fast = "a test of the program: numbers mean nothing. " if pool.fast else ""
        return (
            f"{fast}Preset {pool.preset}: {config['max_labels']} documents of at most "
            f"{config['max_segments']} segments, {config['hook_memory_dim']} entries, "
            f"{config['num_epochs']} epochs of {optimizer}, unless said otherwise; one dot "
            f"per seed, {pool.seeds} at most."
        )


def run_experiment(name: str, pool: RunPool, folder: Path) -> Results:
    """Measure an experiment and write its results to `folder`; returns them.

    Raises:
        DocmemError: if there is no such experiment, or a run or file fails.
    """
    started = time.perf_counter()
    numbers = load_study(name).measure(pool)
    results = Results(
        name,
        PoolSettings(pool.preset, pool.seeds, pool.fast, to_dict(pool.config())),
        {library: version_of(library) for library in LIBRARIES},
        time.perf_counter() - started,
        numbers,
    )
    write_json(folder / f"{name}.json", dataclasses.asdict(results))
    return results


def load_results(name: str, folder: Path = STORED) -> Results | None:
    """The results of an experiment in `folder`; None if it has not been performed.

    Raises:
        DocmemError: if its file cannot be read, or does not fit the experiment's schema.
    """
    path, strict = folder / f"{name}.json", dacite.Config(strict=True)
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        numbers = dacite.from_dict(load_study(name).results, content["numbers"], strict)
        return dacite.from_dict(Results, {**content, "numbers": numbers}, strict)
    except (OSError, ValueError, KeyError, TypeError, dacite.DaciteError) as error:
        raise DocmemError(
            f"{path} cannot be read: {error}. It is damaged, or of another version of docmem; "
            f"`docmem experiment {name}` measures it again."
        ) from error


def figure(name: str, folder: Path = STORED) -> Figure:
    """An experiment's figure, drawn from its stored results.

    Raises:
        DocmemError: if there are none.
    """
    results = load_results(name, folder)
    if results is None:
        raise DocmemError(f"{folder} has no results of {name}; `docmem experiment {name}` first.")
    return load_study(name).figure(results.numbers, results.note)


def show_results(name: str, folder: Path = STORED) -> None:
    """Show an experiment's figure and, under it, its claims; for notebooks.

    Raises:
        DocmemError: if there are no results.
    """
    from IPython.display import Markdown, display

    show(figure(name, folder), load_study(name).alt)
    display(Markdown(claims_table([name], folder)))


def claims(names: Iterable[str] = NAMES, folder: Path = STORED) -> dict[str, list[Claim]]:
    """What the stored results say of each experiment's claims; none without results."""
    found = {name: load_results(name, folder) for name in names}
    return {
        name: load_study(name).claims(results.numbers)
        for name, results in found.items()
        if results is not None
    }


def claims_table(names: Iterable[str] = NAMES, folder: Path = STORED) -> str:
    """The claims of some experiments as a Markdown table."""
    headers = (
        "claim", "published", "here: mean ± sd over seeds", "verdict",
        "on Pythia-1B: `docmem experiment … --preset pythia-1b`",
    )  # fmt: skip
    rows = [
        (
            claim.claim,
            claim.published,
            claim.found,
            f"{claim.verdict} (exploratory)" if claim.exploratory else claim.verdict,
            f"`{name}`",
        )
        for name, found in claims(names, folder).items()
        for claim in found
    ]
    # Not aligned: cells are long, and spaces would triple the file.
    return tabulate(rows, headers, tablefmt="github", stralign=None, disable_numparse=True) + "\n"


def tally(names: Iterable[str] = NAMES, folder: Path = STORED) -> str:
    """How many claims hold, in a sentence."""
    verdicts = [claim.verdict for found in claims(names, folder).values() for claim in found]
    counts = Counter(verdicts)
    return (
        f"{len(verdicts)} claims: {counts['holds']} hold, {counts['partly']} hold partly, "
        f"{counts['not']} do not."
    )


def claims_page(folder: Path = STORED) -> str:
    """A Markdown page of all claims that `folder` has results of."""
    return (
        "# What holds, and what does not\n\n"
        "Experiments with several seeds test the paper's claims, and our own. `make figures` "
        "writes this page\nfrom their stored results. A difference counts if it is larger than "
        "chance over the seeds (Student's\npaired test, one-sided, at 5 %). *Exploratory*: the "
        "rule, or the number of seeds, was settled after\nresults had been seen.\n\n"
        f"{tally(NAMES, folder)}\n\n{claims_table(NAMES, folder)}"
    )


def redraw(folder: Path, out: Path) -> list[str]:
    """Draw into `out` every figure that `folder` has results of; returns their names."""
    drawn = [name for name in NAMES if load_results(name, folder) is not None]
    for name in drawn:
        with replacing(out / f"{name}.png") as temporary:
            temporary.write_bytes(png_bytes(figure(name, folder)))
    return drawn
