"""What runs on real LMs gave: measured once, kept in real_lm.json, written to docs/real_lm.md.

    python figures/real.py RUN…              # measure these runs and renew the page
    python figures/real.py --texts "WikiText-2, validation part" RUN…
    python figures/real.py --wells RUN…      # and how wide their wells are, which takes minutes

A run on the embedded encyclopedia needs no --texts. What a run's folder has is not
measured again. The machine is taken to be the one that trained.
"""

import dataclasses
import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

import torch
import tyro
from tabulate import tabulate

from docmem.core.files import write_json, write_text
from docmem.evaluation.cached import measure, measure_plane
from docmem.evaluation.recall import Recognition
from docmem.lm.loading import best_device
from docmem.plots.figures import markdown_cell
from docmem.training.run import Run

FOLDER = Path(__file__).parent
STORED, PAGE = FOLDER / "real_lm.json", FOLDER.parent / "docs" / "real_lm.md"
INTRODUCTION = """\
# Ten documents in a real LM

Written by `figures/real.py`; every number is in [real_lm.json](../figures/real_lm.json). One line
is one training. CE: cross entropy in nats per token, the mean over ten documents: by the LM without
memory (base), under a document's own DocRep, and under the others'. Lowest: the lowest of any
document under any other's. Margin: from a document's own to its lowest under another's, for the
document where that is least. Right: the share of tokens that greedy generation gets right, 16 after
16: under the own DocRep, under another's, and by the LM without memory. Well: the share of the
DocRep plane on which a document's perplexity is below twice its lowest, the mean over documents, of
their first 32 tokens. Seconds: training alone, on what the last column names.

On another machine the same seed can end as far off as another seed does: in training, differences
of rounding grow. Compare the first line with
[the figures' run](../figures/smollm2-135m/results.md).

[Notebook 05](../notebooks/05_a_real_lm.ipynb) steps through the first of these runs."""


@dataclass(frozen=True)
class Row:
    """One run."""

    lm: str
    origin: str
    texts: str
    key_activation: str
    entries: int
    epochs: int
    seed: int
    base: list[float]
    ce: list[list[float]]
    completion: tuple[float, float, float]
    seconds: float
    device: str
    dtype: str
    titles: list[str]
    measured: str
    docmem: str
    well: float | None = None

    @property
    def key(self) -> tuple[str | int, ...]:
        """What tells this run from the others of the table."""
        return (self.lm, self.texts, self.key_activation, self.entries, self.epochs, self.seed)

    @property
    def known(self) -> Recognition:
        """The cross entropies as they are judged."""
        return Recognition.of_all(torch.tensor(self.ce))


def measured(run: Run, texts: str, wells: bool) -> Row:
    """What is told of a run."""
    found, config, well = measure(run), run.config, None
    if wells:
        plane = measure_plane(run, points=31, tokens=32)
        lowest = plane.perplexity.flatten(1).min(1).values
        well = plane.share_below(2 * lowest).mean().item()
    return Row(
        lm=run.description["lm"]["name"],
        origin=run.description["lm"].get("origin", ""),
        texts=texts,
        key_activation=config.key_activation,
        entries=config.hook_memory_dim,
        epochs=config.num_epochs,
        seed=config.seed,
        base=found.base_ce.tolist(),
        ce=found.recognition.ce.tolist(),
        completion=tuple(found.completion),
        seconds=sum(epoch.seconds for epoch in run.load_history()),
        device=f"{torch.get_num_threads()} CPU threads" if best_device() == "cpu" else "a GPU",
        dtype=run.description["lm"]["dtype"],
        titles=run.titles,
        measured=date.today().isoformat(),
        docmem=run.description["versions"]["docmem"],
        well=well,
    )


def page(rows: list[Row]) -> str:
    """All runs as a Markdown page: a table of runs, and for each collection one of documents."""
    table = [
        {
            "LM": row.lm,
            "texts": markdown_cell(row.texts),
            "act": row.key_activation,
            "entries": row.entries,
            "epochs": row.epochs,
            "seed": row.seed,
            "base CE": f"{torch.tensor(row.base).mean():.2f}",
            "own CE": f"{row.known.own:.2f}",
            "other CE": f"{row.known.other:.2f}",
            "lowest": f"{row.known.lowest_pair.ce:.2f}",
            "margin": f"{row.known.margin:.2f}",
            "recognised": f"{row.known.recognised} of {len(row.titles)}",
            "right": " / ".join(f"{share:.0%}" for share in row.completion),
            "well": "" if row.well is None else f"{row.well:.0%}",
            "seconds": f"{row.seconds:.0f}",
            "on": f"{row.device}, {row.dtype}",
        }
        for row in rows
    ]
    parts = [INTRODUCTION, tabulate(table, "keys", "github", disable_numparse=True)]
    origins = sorted({f"{row.lm}: {row.origin}" for row in rows})
    parts.append("Weights: " + "; ".join(origins) + ".")
    firsts: dict[str, Row] = {}
    for row in rows:
        firsts.setdefault(row.texts, row)
    for first in firsts.values():
        others = first.known.others().min(1).values.tolist()
        own = first.known.ce.diagonal().tolist()
        columns = zip(map(markdown_cell, first.titles), first.base, own, others, strict=True)
        heads = ["document", "base CE", "own CE", "lowest other CE"]
        parts.append(
            f"## {first.texts}\n\nEach document, in the run with {first.key_activation}, "
            f"{first.entries} entries, seed {first.seed}.\n\n"
            + tabulate(columns, heads, "github", floatfmt=".2f")
        )
    return "\n\n".join(parts) + "\n"


def load() -> list[Row]:
    """The rows measured so far."""
    if not STORED.exists():
        return []
    return [
        Row(**{**row, "completion": tuple(row["completion"])})
        for row in json.loads(STORED.read_text(encoding="utf-8"))
    ]


def main(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = (),
    /,
    texts: str = "encyclopedia",
    wells: bool = False,
) -> None:
    """Measure runs, keep the numbers, write the page.

    Args:
        runs: folders that `docmem train` wrote; none: the page is written from what is kept.
        texts: what the documents are.
        wells: measure how wide wells are, too.
    """
    rows = {row.key: row for row in load()}
    for path in runs:
        row = measured(Run.open(path), texts, wells)
        old = rows.get(row.key)
        if old is not None and not wells:
            row = dataclasses.replace(row, well=old.well)
        rows[row.key] = row
    write_json(STORED, [dataclasses.asdict(row) for row in rows.values()])
    write_text(PAGE, page(list(rows.values())))


if __name__ == "__main__":
    tyro.cli(main)
