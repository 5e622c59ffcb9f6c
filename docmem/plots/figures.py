"""From runs to the files in `figures/`: measure once, draw, and keep every number drawn.

    draw_figures([relu_run, tanh_run], Path("figures"))

Evaluation results are cached in the run's folder (`docmem.evaluation.cached`), so that drawing
again is quick.
"""

import functools
import html
import math
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float
from matplotlib.figure import Figure
from tabulate import tabulate, tabulate_formats
from torch import Tensor

from docmem import plots
from docmem.core.files import replacing, write_json, write_text
from docmem.core.loss import Negative
from docmem.errors import DocmemError, OutFolder, Several, checked, counted, did_you_mean
from docmem.evaluation.cached import measure, measure_plane
from docmem.evaluation.plane import KeyPlane, why_no_plane
from docmem.evaluation.recall import Completion, Recognition
from docmem.lm.loading import LanguageModel
from docmem.plots.animation import memory_selection_gif
from docmem.plots.plane import farthest_points
from docmem.plots.style import NEGATIVES, check_some, new_figure, png_bytes
from docmem.plots.training import ACROSS
from docmem.training.run import Run, check_together
from docmem.training.texts import check_in_no_run


class Result(NamedTuple):
    """What is reported of a finished run."""

    name: str
    """The activation, or the folder's name where two runs share it."""
    recognition: Recognition
    """Cross entropies of each text read, under DocReps."""
    completion: Completion
    """Completion accuracy, 16 tokens after 16."""
    base_ce: Float[Tensor, " texts"]
    """Cross entropy of each text read by the base LM, nats per token."""
    seconds: float
    """Training time, all epochs."""
    n_docs: int
    """Documents in the memory; of many, a sample is measured."""


def names_of(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its activation, or its folder where that is ambiguous.

    Raises:
        DocmemError: if two runs still share a name, or one has trained for no epoch.
    """
    for run in runs:
        if not run.load_history():
            raise DocmemError(
                f"{run.path} has no epoch in its history. Train it, or see what `docmem check` "
                "says of it."
            )
    for names in ([run.config.key_activation for run in runs], [run.path.name for run in runs]):
        if len(set(names)) == len(names):
            return names
    raise DocmemError("Two runs have the same folder name; draw them one at a time.")


def negative_of(runs: Sequence[Run]) -> Negative | None:
    """The negative of the runs' trainings; None if they differ in it."""
    kinds = {run.config.negative_key_type for run in runs}
    return kinds.pop() if len(kinds) == 1 else None


def describe(*runs: Run) -> str:
    """What was trained, as far as the runs share it, in one line for under a title."""
    shared, *others = map(_traits, runs)
    return ", ".join(trait for trait in shared if all(trait in one for one in others))


def _traits(run: Run) -> list[str]:
    """What was trained, in words."""
    config = run.config
    layer = config.hook_memory_layer
    where = "from 0" if layer >= 0 else "from the end"
    block = "the last block" if layer == -1 else f"block {layer} ({where})"
    epochs = len(run.load_history())
    return [
        counted(len(run.titles), "document"),
        f"LM {Path(run.description['lm']['name']).name}",
        f"{counted(config.hook_memory_dim, 'memory entry', 'memory entries')} after {block}",
        f"negative: {NEGATIVES[config.negative_key_type]}",
        f"seed {config.seed}",
        *([] if run.finished else [f"after epoch {epochs} of {config.num_epochs}"]),
    ]


@checked
def table(results: Sequence[Result], style: str = "simple") -> str:
    """The results as a table, one line per run, with a note on what its columns mean.

    Args:
        results: one per run.
        style: tabulate's name of the format; "github" for Markdown.

    Raises:
        DocmemError: if there is no result, or no such style.
    """
    check_some("results", results)
    if style not in tabulate_formats:  # for which tabulate would take another
        raise DocmemError(f"style is {style!r}.{did_you_mean(style, tabulate_formats)}")
    rows = [
        {
            "memory": name,
            "base CE": number(base.mean().item()),
            "own CE": number(known.own),
            "other CE": number(known.other),
            "lowest": number(known.lowest_pair.ce),
            "margin": number(known.margin),
            "recognised": f"{known.recognised} of {len(known.texts)}",
            "completion": number(accuracy.own, ".0%"),
            "by other": number(accuracy.other, ".0%"),
            "by none": number(accuracy.none, ".0%"),
            "seconds": f"{seconds:.0f}",
        }
        for name, known, accuracy, base, seconds, _ in results
    ]
    align = ("left", *["right"] * (len(rows[0]) - 1))
    cells = tabulate(rows, "keys", style, colalign=align, disable_numparse=True)
    (read, under), n_docs = results[-1].recognition.ce.shape, results[-1].n_docs
    note = NOTE + (SAMPLE.format(read=read) if read < n_docs else "")
    note += NEAREST.format(others=under - 1) if under < n_docs else ""
    note += ABSENT if "–" in cells else ""
    return f"{cells}\n\n{textwrap.fill(note, 96)}"


def number(value: float, style: str = ".2f") -> str:
    """A number in a table; a dash where there is none."""
    return format(value, style) if math.isfinite(value) else "–"


NOTE = (
    "CE: cross entropy of each document's text by the LM without memory (base), under its own "
    "DocRep, and under each of the others', nats per token. Lowest: the lowest of any document "
    "under any other's. Margin: from "
    "a document's own to its lowest under another's, for the document where that is least. "
    "Completion: completion accuracy, the share of tokens that are right among the 16 that greedy "
    "generation writes after the first 16 of a training segment: under the own DocRep, under "
    "another document's, and by the LM without memory."
)
SAMPLE = " A sample: the texts of {read} documents, drawn at random."
NEAREST = " Each text is read under its own DocRep and the {others} nearest, whose mean `other` is."
ABSENT = (
    " –: there is none: a single document has no other, and a text of fewer than 32 tokens is not "
    "completed."
)


def report(results: Sequence[Result], runs: Sequence[Run]) -> str:
    """The results as a Markdown page: table, settings, versions."""
    libraries = runs[-1].description["versions"].items()
    versions = ", ".join(f"{name} {version}" for name, version in libraries if version[0].isdigit())
    why = f"{no_map(runs[-1])}\n\n".lstrip()
    return (
        f"# What these figures were drawn from\n\n{table(results, 'github')}\n\n"
        "One run each, one seed. Every number drawn is in `results.json`.\n\n"
        f"{by_document(results[-1], runs[-1].titles)}\n\n{why}"
        f"{describe(*runs)}. {versions}. Written by `docmem figures` or `make demo`.\n"
    )


def markdown_cell(text: str) -> str:
    """A text as a cell of a Markdown table, whatever characters it has."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")


def by_document(result: Result, titles: Sequence[str]) -> str:
    """A table of one run, one line per document; all cross entropies in nats per token."""
    known = result.recognition
    lowest, where = known.others().min(1)
    rows = [
        (
            markdown_cell(titles[text]),
            *map(number, (base, own, low)),
            markdown_cell(titles[whose]) if math.isfinite(low) else "–",
        )
        for text, base, own, low, whose in zip(
            known.texts.tolist(),
            result.base_ce.tolist(),
            known.own_ce.tolist(),
            lowest.tolist(),
            known.doc_reps.gather(1, where[:, None])[:, 0].tolist(),
            strict=True,
        )
    ]
    columns = [f"document ({result.name})", "base CE", "own CE", "lowest other CE", "under"]
    align = ("left", "right", "right", "right", "left")
    return str(tabulate(rows, columns, "github", colalign=align, disable_numparse=True))


@checked
def draw_figures(
    runs: Sequence[Run],
    folder: OutFolder,
    *,
    lm: LanguageModel | None = None,
    points: Several = 61,
    map_tokens: Several | None = None,
) -> list[Result]:
    """Measure runs on one LM and the same documents, and write all figures into `folder`.

    Writes memory_selection_NAME.gif for each run that has its snapshots, and the .mp4 where
    imageio-ffmpeg is installed;
    losses.png; key_plane.png and perplexity_wells.png of the last run, if its DocReps span a plane
    (`no_map` says why not); results.json with every number, results.md with the table.

    Args:
        runs: on the same documents.
        folder: for the figures.
        lm: the runs' LM; None: loaded, if it is needed.
        points: grid points per side of the map of the DocRep plane.
        map_tokens: tokens of each document's first segment that the map reads; None: all.

    Raises:
        DocmemError: if the runs do not go together, or a file cannot be written.
    """
    check_together(runs)
    named, folder = dict(zip(names_of(runs), runs, strict=True)), Path(folder)
    check_in_no_run(folder)

    @functools.cache
    def load() -> LanguageModel:
        return lm or runs[0].load_lm()

    results = [
        Result(
            name,
            *measure(run, load),
            sum(epoch.seconds for epoch in run.load_history()),
            len(run.titles),
        )
        for name, run in named.items()
    ]
    for name, run in named.items():
        if run.snapshots():
            memory_selection_gif(run, folder / f"memory_selection_{name}.gif")
        else:
            warnings.warn(f"{run.path} has lost its snapshots, so there is no GIF.", stacklevel=3)
    last, note = runs[-1], describe(*runs)
    plane = None if no_map(last) else measure_plane(last, load, points, map_tokens)
    histories = {name: run.load_history() for name, run in named.items()}
    tau = {name: run.config.target_negative_ce for name, run in named.items()}
    figure = new_figure(10, 1 + 4.6 * -(-len(runs) // ACROSS))
    losses = plots.losses(figure, histories, tau, note, negative_of(runs))
    figures = {"losses.png": losses}
    if plane is None:
        for name in MAPS:  # of another run, drawn here before
            (folder / name).unlink(missing_ok=True)
    else:
        read = "first segments" if map_tokens is None else f"first {map_tokens} tokens"
        what = f"{results[-1].name} memory, {read}; {describe(last)}"
        figures |= draw_maps(plane, last.titles, what)
    for name, figure in figures.items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(png_bytes(figure))
    write_text(folder / "results.md", report(results, runs))
    write_json(folder / "results.json", _finite(_numbers(runs, results, plane)))
    return results


MAPS = ("key_plane.png", "perplexity_wells.png")


def draw_maps(plane: KeyPlane, titles: Sequence[str], segment: str) -> dict[str, Figure]:
    """The two figures of the DocRep plane; `segment` says what was read of which memory."""
    key_plane = plots.key_plane(new_figure(9, 6.6), plane, titles, segment)
    chosen, figure = farthest_points(plane, 3), new_figure(11, 7.4)
    lowest = f"Surface: the lowest of {len(chosen)} perplexities. " if len(chosen) > 1 else ""
    wells = plots.perplexity_wells(figure, plane, titles, chosen, f"{lowest}{segment}")
    return dict(zip(MAPS, (key_plane, wells), strict=True))


def no_map(run: Run) -> str:
    """Why a run has no map of its DocRep plane, in a sentence; empty if it has one."""
    why = why_no_plane(len(run.titles), run.config.key_dim)
    return why and f"No map is drawn: {why}"


def _rounded(values: Tensor) -> Any:
    """A tensor as nested lists of numbers with four decimals."""
    return values.double().numpy().round(4).tolist()


def _finite(content: Any) -> Any:
    """The same with None in place of what is no number, as JSON has it."""
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list):
        return [*map(_finite, content)]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _numbers(
    runs: Sequence[Run], results: Sequence[Result], plane: KeyPlane | None
) -> dict[str, Any]:
    """Every number drawn, with the settings and library versions behind it."""
    return {
        "runs": {
            result.name: {
                "own_ce": result.recognition.own,
                "other_ce": result.recognition.other,
                "lowest_pair": result.recognition.lowest_pair._asdict(),
                "margin": result.recognition.margin,
                "recognised": result.recognition.recognised,
                "documents": len(run.titles),
                "base_ce": result.base_ce.tolist(),
                "completion": result.completion._asdict(),
                "seconds": result.seconds,
                "ce": result.recognition.ce.tolist(),
                "texts": result.recognition.texts.tolist(),
                "doc_reps": result.recognition.doc_reps.tolist(),
                "history": [epoch._asdict() for epoch in run.load_history()],
                **{part: run.description[part] for part in ("config", "lm", "versions")},
            }
            for run, result in zip(runs, results, strict=True)
        },
        "titles": runs[-1].titles,
        "key_plane": plane
        and {
            "axis": _rounded(plane.axis),
            "ce": _rounded(plane.ce),
            "texts": plane.documents.tolist(),
            "doc_reps": plane.doc_reps.tolist(),
            "measured": plane.readings,
            "interpolation_error": plane.error.item(),
        },
    }
