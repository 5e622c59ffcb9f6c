"""The runs in a folder, as one table: `docmem runs`."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from docmem.errors import DocmemError, checked
from docmem.training.config import PRESETS, preset_for
from docmem.training.description import RESUME_IGNORES, to_dict
from docmem.training.run import Run

WIDTH = 90
"""Characters of a line in the column of settings."""
SHOWN = {"lm_name", "lm_size", "max_labels", *RESUME_IGNORES}
"""Settings with a column of their own, or of no effect on what is computed."""
FIRST = ("key_activation", "seed")
"""Settings that stand first."""


def varied(settings: Sequence[dict[str, Any]]) -> list[str]:
    """The names of the settings that these do not all share, in their order."""
    return [name for name in settings[0] if len({str(one[name]) for one in settings}) > 1]


def differing(runs: list[Run]) -> list[str]:
    """What each run's settings have that not all of these runs share, as flags and values.

    Beside activation and seed, only what is not as in the preset of its LM.
    """
    settings = [to_dict(run.config) for run in runs]
    names = [name for name in varied(settings) if name not in SHOWN]
    names.sort(key=lambda name: name not in FIRST)
    presets, found = {preset.lm_name: preset for preset in PRESETS.values()}, []
    for run, one in zip(runs, settings, strict=True):
        usual = to_dict(presets.get(run.config.lm_name) or preset_for(run.config.lm_name))
        told = [
            f"{name}={'none' if one[name] in (None, []) else one[name]}"
            for name in names
            if name in FIRST or one[name] != usual[name]
        ]
        found.append(textwrap.fill(" ".join(told), WIDTH))
    return found


@checked
def overview(folder: Path) -> tuple[str, list[str]]:
    """A table of the runs below a folder, and what is wrong with others, one sentence each.

    Raises:
        DocmemError: if there is no such folder, or no run in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DocmemError(f"There is no folder {folder}. Name one in which `docmem train` wrote.")
    runs, unopened = [], []
    for path in sorted(folder.rglob("run.json")):
        try:
            runs.append(Run.open(path.parent))
        except DocmemError as error:
            unopened.append(str(error))
    if not runs and not unopened:
        raise DocmemError(f"{folder} holds no run. `docmem train` writes one.")
    table, faults = table_of(runs, folder)
    return table, [*unopened, *faults]


def table_of(runs: list[Run], folder: Path = Path()) -> tuple[str, list[str]]:
    """A table of runs, with their paths below `folder`, and what is wrong with those left out."""
    rows: list[dict[str, Any]] = []
    faults = []
    for run, settings in zip(runs, differing(runs) if runs else [], strict=True):
        try:
            history = run.load_history()
        except DocmemError as error:
            faults.append(str(error))
            continue
        last, path = history[-1] if history else None, run.path
        rows.append(
            {
                "run": path.relative_to(folder) if path.is_relative_to(folder) else path,
                "LM": Path(run.description["lm"]["name"]).name,
                "documents": len(run.titles),
                "epochs": f"{len(history)} of {run.config.num_epochs}",
                "own": f"{last.positive_ce:.2f}" if last else "",
                "negative": f"{last.negative_ce:.2f}" if last else "",
                "state": "finished" if run.finished else "unfinished",
                "settings that differ": settings,
            }
        )
    table = tabulate(rows, "keys", disable_numparse=True)
    note = "own, negative: cross entropy in the last epoch, nats per token"
    return f"{table}\n\n{note}" if rows else "", faults
