"""From runs to the files in `figures/`: measure once, draw, and keep every number drawn.

    draw_figures([Run.open("outputs/demo/relu"), Run.open("outputs/demo/tanh")], Path("figures"))

What was measured of a run is kept with it (`docmem.evaluation.cached`), so that drawing again is quick.
"""

import functools
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from docmem import plots
from docmem.core.files import replacing, write_json, write_text
from docmem.errors import DocmemError, check_count
from docmem.evaluation.cached import measure, measure_plane
from docmem.evaluation.plane import KeyPlane
from docmem.evaluation.recall import Completion, Recognition
from docmem.lm.loading import LanguageModel
from docmem.plots.animation import memory_selection_gif
from docmem.plots.style import new_figure, png_bytes
from docmem.training.run import Run


class Result(NamedTuple):
    """What is told of a finished run."""

    name: str
    """The activation, or the folder's name where two runs share it."""
    recognition: Recognition
    """Cross entropies of every document under every DocRep."""
    completion: Completion
    """Share of tokens continued correctly, 16 after 16."""
    seconds: float
    """Training time, all epochs."""


def names_of(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its activation, or its folder where that is ambiguous.

    Raises:
        DocmemError: if two runs still share a name.
    """
    for names in ([run.config.key_activation for run in runs], [run.path.name for run in runs]):
        if len(set(names)) == len(names):
            return names
    raise DocmemError("Two runs have the same folder name; draw them one at a time.")


def farthest_points(plane: KeyPlane, count: int) -> list[int]:
    """The `count` documents whose DocReps stand furthest apart, found greedily."""
    points = plane.doc_reps
    distance = (points[:, None] - points[None]).norm(dim=-1)
    chosen = [int(points.norm(dim=1).argmax())]
    while len(chosen) < min(count, len(points)):
        chosen.append(int(distance[:, chosen].min(1).values.argmax()))
    return sorted(chosen)


def describe(run: Run) -> str:
    """What was trained, in one line for under a title."""
    config = run.config
    layer = config.hook_memory_layer
    block = "the last block" if layer == -1 else f"block {layer}"
    return (
        f"{len(run.titles)} documents, LM {Path(run.description['lm']['name']).name}, "
        f"{config.hook_memory_dim} memory entries after {block}, "
        f"negatives {config.negative_key_type}, seed {config.seed}"
    )


def table(results: Sequence[Result], n_docs: int) -> str:
    """The results as a text table, a line a run."""
    head = (
        f"{'activation':<12}{'own CE':>9}{'other CE':>10}{'recognised':>13}"
        f"{'continued':>11}{'by other':>10}{'by none':>9}{'seconds':>9}"
    )
    lines = [
        f"{r.name:<12}{r.recognition.own:>9.2f}{r.recognition.other:>10.2f}"
        f"{f'{r.recognition.recognised} of {n_docs}':>13}{r.completion.own:>11.0%}"
        f"{r.completion.other:>10.0%}{r.completion.none:>9.0%}{r.seconds:>9.0f}"
        for r in results
    ]
    note = textwrap.dedent("""\
        CE: cross entropy of each document's text under its own DocRep, and under each of the
        others', nats per token. continued: tokens right of the 16 that greedy generation writes
        after the first 16 of a training segment, under the own DocRep, under another document's,
        and by the LM without memory.""")
    return "\n".join([head, "-" * len(head), *lines, "", note])


def report(results: Sequence[Result], runs: Sequence[Run]) -> str:
    """The results as a page: table, settings, versions."""
    rows = [
        f"| {r.name} | {r.recognition.own:.2f} | {r.recognition.other:.2f} "
        f"| {r.recognition.recognised} of {len(r.recognition.ce)} | {r.completion.own:.0%} "
        f"| {r.completion.other:.0%} | {r.completion.none:.0%} | {r.seconds:.0f} |"
        for r in results
    ]
    libraries = runs[-1].description["versions"].items()
    versions = ", ".join(f"{name} {version}" for name, version in libraries if version[0].isdigit())
    return "\n".join(
        [
            "# What these figures were drawn from\n",
            "| activation | own CE | other CE | recognised | continued | by other | by none "
            "| seconds |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            "CE: cross entropy of each document's text under its own DocRep, and under each of "
            "the others', nats per token. Continued: share of tokens right among the 16 that greedy "
            "generation writes after the first 16 of a training segment, under the own DocRep, "
            "under another document's, and by the LM without memory. One run each, one seed; "
            "every number drawn is in `results.json`.\n",
            f"{describe(runs[-1])}. {versions}. Written by `docmem figures` or `make demo`.\n",
        ]
    )


def draw_figures(
    runs: Sequence[Run], folder: Path, *, lm: LanguageModel | None = None, points: int = 21
) -> list[Result]:
    """Measure runs on one LM and the same documents, and write all figures into `folder`.

    Writes memory_selection_NAME.gif for each run; losses.png; key_plane.png and
    perplexity_wells.png of the last run; results.json with every number, results.md with the
    table.

    Raises:
        DocmemError: if the runs do not go together, or a file cannot be written.
    """
    if not runs:
        raise DocmemError("Name at least one run to draw.")
    check_count("points", points, 2)
    if runs[-1].config.key_dim < 2:
        raise DocmemError(
            "DocReps of length 1 have no plane to draw; train with key_dim 2 or more."
        )
    if any(run.titles != runs[0].titles for run in runs):
        raise DocmemError("These runs hold different documents; draw them one at a time.")
    names = names_of(runs)

    @functools.cache
    def load() -> LanguageModel:
        return lm or runs[0].load_lm()

    results = [
        Result(name, *measure(run, load), sum(epoch.seconds for epoch in run.load_history()))
        for name, run in zip(names, runs, strict=True)
    ]
    for name, run in zip(names, runs, strict=True):
        memory_selection_gif(run, folder / f"memory_selection_{name}.gif")
    last, note = runs[-1], describe(runs[-1])
    plane = measure_plane(last, load, points)
    histories = {name: run.load_history() for name, run in zip(names, runs, strict=True)}
    tau = last.config.target_negative_ce
    segment = f"{names[-1]} memory, first segments"
    figures = {
        "losses.png": plots.losses(
            new_figure(10, 5.6), histories, tau, f"Numbers: the last ten epochs. {note}"
        ),
        "key_plane.png": plots.key_plane(
            new_figure(9, 6.6),
            plane,
            last.titles,
            "Each point is a DocRep, its colour the document recalled best there, "
            f"deeper where better. {segment}",
        ),
        "perplexity_wells.png": plots.perplexity_wells(
            new_figure(11, 7.4),
            plane,
            last.titles,
            farthest_points(plane, 3),
            f"Perplexity of three documents over the plane of DocReps. {segment}",
        ),
    }
    for name, figure in figures.items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(png_bytes(figure))
    write_text(folder / "results.md", report(results, runs))
    write_json(folder / "results.json", _numbers(runs, results, plane))
    return results


def _numbers(runs: Sequence[Run], results: Sequence[Result], plane: KeyPlane) -> dict[str, Any]:
    """Every number drawn, with the settings and library versions behind it."""
    return {
        "runs": {
            result.name: {
                "own_ce": result.recognition.own,
                "other_ce": result.recognition.other,
                "recognised": result.recognition.recognised,
                "documents": len(result.recognition.ce),
                "continued": result.completion._asdict(),
                "seconds": result.seconds,
                "ce": result.recognition.ce.tolist(),
                "history": [epoch._asdict() for epoch in run.load_history()],
                **{part: run.description[part] for part in ("config", "lm", "versions")},
            }
            for run, result in zip(runs, results, strict=True)
        },
        "titles": runs[-1].titles,
        "key_plane": {
            "axis": plane.axis.tolist(),
            "ce": plane.ce.tolist(),
            "doc_reps": plane.doc_reps.tolist(),
        },
    }
