"""Running experiments: results to disk, figures from results, claims to a page.

    run_experiment("activation", RunPool(), Path("outputs/activation"))
    figure("activation")                # drawn from the results that come with docmem
    redraw(STORED, Path("figures/experiments"))

`NAME.json` holds every number drawn, settings, versions and seconds; the figure and the claims
are made from it alone.
"""

import dataclasses
import inspect
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import dacite
from matplotlib.figure import Figure

from docmem.core.files import replacing, write_json
from docmem.errors import DocmemError, check_folder, check_type, checked, counted
from docmem.experiments import NAMES, Name, load_study
from docmem.experiments.claims import LEARNED, Claim, Judged
from docmem.experiments.pool import FIRST_TUNING_SEED, SMALL, Procedure, RunPool
from docmem.experiments.provenance import Made, code_digest, made_now
from docmem.plots.style import png_bytes, show
from docmem.training.description import LIBRARIES, description_digest, to_dict, version_of
from docmem.training.texts import check_in_no_run

ASSETS = Path(__file__).parents[1] / "assets"
HEAD = ASSETS / "claims.md"
"""What the page of claims says of them all, with numbers to be filled in."""
SETS = {
    "tiny": "embedded LM",
    "tiny-paper": "embedded LM, trained as the paper does",
    "smollm2-135m": "SmolLM2-135M",
    "smollm2-135m-paper": "SmolLM2-135M, trained as the paper does",
}
"""Sets of results that come with docmem, by the label of their pool."""
FOLDERS = {label: ASSETS / "experiments" / label for label in SETS}
PAIRS = {
    "Between the LMs": ("tiny", "smollm2-135m"),
    "Between the LMs, trained as the paper does": ("tiny-paper", "smollm2-135m-paper"),
    "Between the procedures, embedded LM": ("tiny", "tiny-paper"),
    "Between the procedures, SmolLM2-135M": ("smollm2-135m", "smollm2-135m-paper"),
}
"""Sets that differ in the LM alone, or in the procedure alone."""
FIGURES = dict.fromkeys(SETS, "../figures/experiments/")
FIGURES |= {label: f"{FIGURES[label]}{label}/" for label in SETS if label != "tiny"}
"""Where docs/claims.md finds the figures of each set, as figures/redraw.py writes them."""
METHODS = {"adamw": "AdamW", "muon": "Muon"}
"""The optimizers in words."""
STORED = FOLDERS["tiny"]
"""The results that figures are drawn from unless another folder is named."""


@dataclass(frozen=True)
class PoolSettings:
    """What an experiment's numbers depend on besides its own changes."""

    preset: str
    procedure: Procedure
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
    code: str
    """Digest of the code that measured them."""
    made: Made
    seconds: float
    """Time it took; trainings that were there already took no more."""
    numbers: Any
    """What was measured: an instance of the experiment's `results`."""

    @property
    def note(self) -> str:
        """What was trained, for the line under a figure's title."""
        pool, config = self.pool, self.pool.config
        trained = load_study(self.experiment).trains.format(
            **config, method=METHODS[config["optimizer"]], seeds=pool.seeds
        )
        way = ", trained as the paper does" if pool.procedure == "paper" else ""
        fast = "a test of the program: numbers mean nothing. " if pool.fast else ""
        device, threads = self.made.device.split(",")[0], self.made.threads
        where = counted(threads, "CPU thread") if device == "cpu" else device
        return f"{fast}Preset {pool.preset}{way}: {trained} Run on {where}."


def check_out(folder: Path) -> None:
    """Raise unless results can be written in a folder: it is not that of a run."""
    check_folder("out", folder)
    check_in_no_run(folder)


@checked
def run_experiment(name: str, pool: RunPool, folder: Path) -> Results:
    """Measure an experiment and write its results to `folder`; returns them.

    Raises:
        DocmemError: if there is no such experiment, a run or file fails, or `folder` cannot be
            written in, or is that of a run.
    """
    check_type("procedure", pool.procedure, Procedure)
    check_out(Path(folder))
    started = time.perf_counter()
    numbers = load_study(name).measure(pool)
    results = Results(
        name,
        PoolSettings(pool.preset, pool.procedure, pool.seeds, pool.fast, to_dict(pool.config())),
        {library: version_of(library) for library in LIBRARIES},
        code_digest(name),
        made_now(pool.lm),
        time.perf_counter() - started,
        numbers,
    )
    content = dataclasses.asdict(results)
    write_json(Path(folder) / f"{name}.json", {**content, "sha256": description_digest(content)})
    return results


@checked
def load_results(name: str, folder: Path = STORED) -> Results | None:
    """The results of an experiment in `folder`; None if it has not been performed.

    Raises:
        DocmemError: if there is no such experiment, its file cannot be read, or does not fit the
            experiment's schema.
    """
    check_type("experiment", name, Name)
    path, strict = Path(folder) / f"{name}.json", dacite.Config(strict=True)
    if not path.exists():
        return None
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
        # Earlier files have no digest.
        if content.pop("sha256", None) not in (None, description_digest(content)):
            raise ValueError("its content does not match its digest")
        numbers = dacite.from_dict(load_study(name).results, content["numbers"], strict)
        return dacite.from_dict(Results, {**content, "numbers": numbers}, strict)
    except (OSError, ValueError, KeyError, TypeError, dacite.DaciteError) as error:
        raise DocmemError(
            f"{path} cannot be read: {error}. It is damaged, or of another version of docmem; "
            f"`docmem experiment {name}` measures it again."
        ) from error


def is_current(name: str, pool: RunPool, folder: Path) -> bool:
    """Whether an experiment has results in `folder`, of the code and the pool's settings as now.

    Raises:
        DocmemError: as `load_results`.
    """
    results = load_results(name, folder)
    if results is None or results.code != code_digest(name) or results.pool.seeds < pool.seeds:
        return False
    now = to_dict(pool.config())
    return results.pool.config == {setting: now.get(setting) for setting in results.pool.config}


def figure(name: str, folder: Path = STORED) -> Figure:
    """An experiment's figure, drawn from its stored results; DocmemError if there are none."""
    results = load_results(name, folder)
    if results is None:
        raise DocmemError(f"{folder} has no results of {name}; `docmem experiment {name}` first.")
    return load_study(name).figure(results.numbers, results.note)


def show_results(name: str) -> None:
    """Show an experiment's figure and, under it, what becomes of its claims; for notebooks."""
    from IPython.display import Markdown, display

    show(figure(name), load_study(name).alt)
    judged = {label: claims(name, folder) for label, folder in FOLDERS.items()}
    display(Markdown(_table(judged)))


def claims(name: str, folder: Path = STORED) -> list[Judged]:
    """What an experiment's stored results say of its claims; none without results."""
    return _judged(load_results(name, folder))


def _judged(results: Results | None) -> list[Judged]:
    """What results say of the claims of their experiment."""
    return [] if results is None else load_study(results.experiment).claims(results.numbers)


def _by_claim(judged: Mapping[str, Sequence[Judged]]) -> list[tuple[Claim, dict[str, Judged]]]:
    """Each claim, as the results of each label judge it."""
    rows: dict[str, tuple[Claim, dict[str, Judged]]] = {}
    for label, listed in judged.items():
        for one in listed:
            rows.setdefault(one.claim.claim, (one.claim, {}))[1][label] = one
    return list(rows.values())


def _table(
    judged: Mapping[str, Sequence[Judged]], told: Callable[[Judged], str] = attrgetter("brief")
) -> str:
    """A Markdown table of claims, with a column for each label that has results."""
    found = [label for label, listed in judged.items() if listed]
    lines = [["claim", *(SETS.get(label, label) for label in found)], ["---"] * (1 + len(found))]
    for claim, row in _by_claim(judged):
        lines.append([claim.brief, *(told(row[one]) if one in row else "" for one in found)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _details(judged: Mapping[str, Sequence[Judged]]) -> str:
    """How each claim was decided, to be opened with a click."""
    told = [
        f"- {claim.claim}\n"
        + "".join(f"  - {SETS.get(label, label)}: {one.found}\n" for label, one in row.items())
        for claim, row in _by_claim(judged)
    ]
    summary = "<summary>The rules, and more numbers</summary>"
    return f"<details>{summary}\n\n{''.join(told)}\n</details>\n"


def tally(folder: Path = STORED) -> str:
    """How many claims hold by the results of a folder, in a sentence; DocmemError without any."""
    if not any((folder / f"{name}.json").exists() for name in NAMES):
        raise DocmemError(f"{folder} has no results of experiments.")
    return _count([one for name in NAMES for one in claims(name, folder)])


def _count(judged: Sequence[Judged]) -> str:
    counts = Counter(one.verdict for one in judged)
    checks = sum(one.claim.check for one in judged)
    return (
        f"{len(judged) - checks} claims: {counts['holds']} hold, {counts['partly']} hold partly, "
        f"{counts['does not hold']} do not, {counts['inconclusive']} are inconclusive."
    )


def _agreement(some: Sequence[Judged], others: Sequence[Judged]) -> str:
    """Of the claims that two sets of results both decide, how many they decide alike."""
    its = {one.claim.claim: one for one in others if not one.claim.check}
    pairs = [(one, its[one.claim.claim]) for one in some if one.claim.claim in its]
    decided = [pair for pair in pairs if "inconclusive" not in {one.verdict for one in pair}]
    verdicts = [{one.verdict for one in pair} for pair in decided]
    same = sum(
        len(found) == 1 and (found != {"partly"} or mine.decisions == other.decisions)
        for found, (mine, other) in zip(verdicts, decided, strict=True)
    )
    opposite = verdicts.count({"holds", "does not hold"})
    return (
        f"{len(pairs)} claims, {len(decided)} decided by both: {same} with the same verdict, "
        f"{opposite} with the opposite one, {len(decided) - same - opposite} partly so, or of "
        "other parts."
    )


def claims_page(folders: Mapping[str, Path] = FOLDERS, figures: Mapping[str, str] = FIGURES) -> str:
    """A Markdown page of all claims that there are results of, by experiment.

    Args:
        folders: of the results, by label.
        figures: where the page finds the figures of each.
    """
    results = {
        name: {label: load_results(name, folder) for label, folder in folders.items()}
        for name in NAMES
    }
    judged = {
        name: {label: _judged(one) for label, one in found.items()}
        for name, found in results.items()
    }
    of_set = {label: [one for name in NAMES for one in judged[name][label]] for label in folders}
    tallies = []
    for label in folders:
        missing = [name for name in NAMES if not judged[name][label]]
        if len(missing) < len(NAMES):
            rest = f" Not measured: {', '.join(missing)}." if missing else ""
            tallies.append(f"- {SETS.get(label, label)}: {_count(of_set[label])}{rest}")
    for between, (first, second) in PAIRS.items():
        if first in of_set and second in of_set:
            tallies.append(f"- {between}: {_agreement(of_set[first], of_set[second])}")
    sections = [
        f"## {name}\n\n{inspect.getdoc(type(load_study(name)))} "
        f"{_pictures(name, judged[name], figures)}\n\n"
        f"{_table(judged[name])}\n{_details(judged[name])}"
        for name in NAMES
        if any(judged[name].values())
    ]
    papers = {
        label: [one for one in listed if one.claim.papers] for label, listed in of_set.items()
    }
    counts = [
        f"- {SETS.get(label, label)}: {_count(some)}" for label, some in papers.items() if some
    ]
    listed = "\n".join(counts)
    told = f"## What the paper says\n\n{listed}\n\n{_table(papers, attrgetter('verdict'))}"
    if any(one and one.pool.fast for found in results.values() for one in found.values()):
        tallies.insert(0, "**A test of the program: these numbers mean nothing.**\n")
    head = HEAD.read_text(encoding="utf-8").format(
        learned=LEARNED,
        first_tuning_seed=FIRST_TUNING_SEED,
        paper=SMALL["tiny", "paper"],
        real_paper=SMALL["smollm2-135m", "paper"],
    )
    return "\n".join([head, *tallies, "", told, *sections])


def _pictures(name: str, judged: Mapping[str, Any], figures: Mapping[str, str]) -> str:
    """Links to an experiment's figures."""
    links = [
        f"[{SETS.get(label, label)}]({figures[label]}{name}.png)"
        for label, listed in judged.items()
        if listed and label in figures
    ]
    return f"Figures: {', '.join(links)}." if links else ""


@checked
def redraw(folder: Path, out: Path) -> list[str]:
    """Draw into `out` every figure that `folder` has results of; returns their names.

    Raises:
        DocmemError: if there is no such folder, or as `load_results`.
    """
    if not Path(folder).is_dir():
        raise DocmemError(f"There is no folder {folder}; give one with results of experiments.")
    drawn = [name for name in NAMES if load_results(name, folder) is not None]
    for name in drawn:
        with replacing(Path(out) / f"{name}.png") as temporary:
            temporary.write_bytes(png_bytes(figure(name, folder)))
    return drawn
