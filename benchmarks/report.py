"""The results as a page: every target beside what was measured, and the numbers behind it."""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from tabulate import tabulate

import benchmarks.leaderboard as board
from benchmarks.epochs import Comparison
from benchmarks.growth import DISK, PER, WORKERS
from benchmarks.leaderboard import Outcome
from benchmarks.measure import Numbers

Cells = dict[str, object]
FIRST = "Seconds to ten documents"
BOARD = "leaderboard, AVX512"
"""The part whose numbers the targets are about: processors of this kind."""
HEAD = """\
# Benchmark results

Written by `make bench`; every number is in [results.json](results.json), and
[README.md](README.md) says how each is measured. A part that was not run is left empty."""
NOTE = f"""\
The goal: own cross entropy ≤ {board.OWN}, other ≥ {board.OTHER} nats per token, and all documents
recognised; for a LoRA, the own one alone. Medians over the seeds; of pairs and margins, the worst.
The original's seconds are those of an epoch, times the epochs that version 0.1's settings take.
The rows show one order of adding the parts, not the effect of each: for that, at equal epochs, see
the experiment `procedure` ([claims.md](../docs/claims.md)). One seed can also end otherwise than
others, or on another processor: compare the rows with those below. Where the original does not
reach the goal, it is compared by the time that it was given: a ratio after > is a lower bound.

Tried, did not help:

"""


def to_goal(outcomes: Sequence[Outcome], row: str, own: float | None = None) -> tuple[float, float]:
    """Median epochs and seconds of a row to the goal, or to an own cross entropy.

    Infinite if it was not reached, or the row not tried.
    """
    mine = [one for one in outcomes if one.row == row]
    found = [one.to_goal if own is None else one.to(own) for one in mine]
    epochs, seconds = np.median(found or [board.NEVER], axis=0)
    return float(epochs), float(seconds)


def off(c: Comparison) -> float:
    """By how much the first own loss of docmem and that of full hooked forwards differ."""
    return abs(c.positive_ce["frozen"][0] - c.positive_ce["docmem"][0])


TARGETS = (
    ("seconds to ten documents, tanh, two threads with AVX-512", "≤", 7, 1, " s",
     lambda p: to_goal(p[BOARD], board.NOW)[1]),
    ("the same, relu", "≤", 7, 1, " s", lambda p: to_goal(p[BOARD], board.RELU)[1]),
    ("the same in bfloat16, tanh", "≤", 5, 1, " s",
     lambda p: to_goal(p["bfloat16"], board.NOW)[1]),
    ("the same in bfloat16, relu", "≤", 5, 1, " s",
     lambda p: to_goal(p["bfloat16"], board.RELU)[1]),
    ("the same processor without AVX-512, tanh or relu: times as long", "≤", 1.6, 2, "×",
     lambda p: max(to_goal(p["avx2"], f"{row}, AVX2")[1]
                   / to_goal(p["avx2"], f"{row}, AVX-512")[1]
                   for row in ("docmem", board.RELU))),
    ("in float32, tanh, against the original", "≥", 60, 0, "×",
     lambda p: to_goal(p[BOARD], board.ORIGINAL)[1] / to_goal(p[BOARD], board.NOW)[1]),
    (f"own cross entropy ≤ {board.ENOUGH}, tanh, against one LoRA of the same size", "≥", 2, 1, "×",
     lambda p: to_goal(p[BOARD], board.ONE_LORA, board.ENOUGH)[1]
     / to_goal(p[BOARD], board.NOW, board.ENOUGH)[1]),
    ("lowest pair at the goal, tanh, the worst of five seeds", "≥", 0.8, 2, " nats",
     lambda p: np.min([one.lowest_pair if one.reached else math.nan
                       for one in p[BOARD] if one.row == board.NOW])),
    ("DocRep plane, 41 × 41 points: speed against one full forward per point", "≥", 20, 1, "×",
     lambda p: np.median((n := p["inference"]["plane"])["full_forward_seconds"])
     * n["points"] ** 2 / n["seconds"]),
    ("own loss of the first epoch against full hooked forwards, the worst of all LMs", "≤", 1, 2,
     " · 10⁻⁶ nats", lambda p: 1e6 * max(map(off, p["epochs"]))),
    ("cross entropies at 300 places of the plane against full hooked forwards, the worst", "≤", 1,
     2, " · 10⁻⁶ nats", lambda p: 1e6 * p["inference"]["plane"]["difference"]),
    ("generation under a document, longer than by the base LM", "≤", 3, 1, " %",
     lambda p: np.median(p["inference"]["generate"]["slowdown_percent"])),
    ("recognition and completion accuracy of a run", "≤", 2, 1, " s",
     lambda p: p["inference"]["figures"]["evaluation_seconds"]),
    ("the first figures of a run, map of 61 × 61 points included", "≤", 8, 1, " s",
     lambda p: p["inference"]["figures"]["seconds"]),
    ("an epoch of 100 documents with their states on disk, longer than in memory", "≤", 10, 1, " %",
     lambda p: 100 * p["growth"][DISK][PER] - 100),
    ("two workers, of the time that one takes", "≤", 65, 0, " %",
     lambda p: 100 * p["growth"][WORKERS][PER]),
    ("the page of two runs", "≤", 6, 2, " MB", lambda p: p["page"]["MB"]),
    ("the page of a run with the LM inside", "≤", 25, 1, " MB",
     lambda p: p["page"]["MB with the LM"]),
    ("the page's first picture", "≤", 1, 2, " s",
     lambda p: p["page"]["seconds to the first picture"]),
    ("dragging the ring, frames per second", "≥", 50, 0, "",
     lambda p: p["page"]["frames per second"]),
    ("the LM in the page, tokens per second", "≥", 40, 0, "",
     lambda p: p["page"]["tokens per second"]),
)  # fmt: skip
"""What, sign, bound, digits, unit, value."""


def targets(parts: Numbers) -> list[Cells]:
    """A row per target, with its measurement if its part was run."""
    rows: list[Cells] = []
    for what, sign, bound, digits, unit, find in TARGETS:
        row: Cells = {"what": what, "target": f"{sign} {bound:.3g}{unit}"}
        try:
            value: Any = find(parts)
        except KeyError:
            rows.append(row | {"measured": "", "": "not measured"})
            continue
        measured = f"{value:.{digits}f}{unit}" if math.isfinite(value) else "goal not reached"
        met = math.isfinite(value) and (value >= bound if sign == "≥" else value <= bound)
        rows.append(row | {"measured": measured, "": "met" if met else "not met"})
    return rows


def leaderboard(outcomes: Sequence[Outcome]) -> list[Cells]:
    """A row per way of training: medians over its seeds, and the worst pair and margin of any."""
    rows = list[Cells]()
    original, sign = to_goal(outcomes, board.ORIGINAL), ""
    if not math.isfinite(original[1]):  # nor is there one where it was not tried
        had = [one.given for one in outcomes if one.row == board.ORIGINAL]
        original, sign = np.median(had or [board.NEVER], axis=0).tolist(), "> "
    for name in dict.fromkeys(one.row for one in outcomes):
        mine = [one for one in outcomes if one.row == name]
        totals, most = [one.given[1] for one in mine if one.reached], max(len(o.own) for o in mine)
        epochs, seconds = to_goal(outcomes, name)
        enough = to_goal(outcomes, name, board.ENOUGH)[1]
        others = [(o.other, o.lowest_pair, o.margin) for o in mine if o.other is not None]
        other, pair, margin = zip(*others, strict=True) if others else [[math.nan]] * 3
        rows.append({
            "way": name,
            "seconds": finite("{:.1f}", seconds) or f"not in {most} epochs",
            "least – most": f"{min(totals):.1f} – {max(totals):.1f}" if totals else "",
            "reached": f"{len(totals)} of {len(mine)} seeds",
            "epochs": finite("{:.0f}", epochs),
            "steps": finite("{:.0f}", epochs * mine[0].steps),
            "original / it, seconds": finite(sign + "{:.1f}×", original[1] / seconds),
            "original / it, steps": finite(sign + "{:.1f}×", original[0] / epochs),
            f"s to own ≤ {board.ENOUGH}": finite("{:.1f}", enough),
            "own": finite("{:.2f}", np.median([one.own[-1] for one in mine])),
            "other": finite("{:.2f}", np.median(other)),
            "lowest pair": finite("{:.2f}", min(pair)),
            "margin": finite("{:.2f}", min(margin)),
        })  # fmt: skip
    return rows


def finite(form: str, value: float) -> str:
    """A number in words, if it is one; a ratio of zero is none."""
    return form.format(value) if math.isfinite(value) and value else ""


def training(c: Comparison) -> list[Cells]:
    """A row per way of training."""
    rows: list[Cells] = []
    for way, took in c.seconds.items():
        low, middle, high = np.percentile(took, (25, 50, 75))
        rows.append(c.place | {
            "way": way,
            "s per epoch": f"{middle:.3f}",
            "quartiles": f"{low:.3f} – {high:.3f}",
            "original / it": f"{np.median(c.seconds['original']) / middle:.1f}×",
            "least time / it": f"{c.least_seconds / middle:.2f}" if way == "docmem" else "",
            "first own loss, off docmem's by": f"{off(c):.1e}" if way == "frozen" else "",
            "GPU peak, GB": f"{c.peak[way] / 1e9:.2f}" if way in c.peak else "",
        })  # fmt: skip
    return rows


def roofline(c: Comparison) -> Cells:
    """The lower bound on the FLOPs per epoch, and its least time."""
    (rate, product), work = c.best_rate, {**c.work, "in all": sum(c.work.values())}
    gflop = {f"{part}, GFLOP": f"{flops / 1e9:.2f}" for part, flops in work.items()}
    best = {"GFLOP/s": f"{rate / 1e9:.0f}", "by the product": product}
    return {**c.place, **gflop, **best, "least time, s": f"{c.least_seconds:.4f}"}


def inference(n: Numbers) -> list[Cells]:
    """Every number of the part; medians and quartiles of what was timed more than once."""
    rows: list[Cells] = []
    for name, group in n.items():
        for what, found in group.items():
            values = found if isinstance(found, list) else [found]
            low, middle, high = (f"{q:.3g}" for q in np.percentile(values, (25, 50, 75)))
            row: Cells = {"what": f"{name}: {what.replace('_', ' ')}", "times": len(values)}
            quartiles = f"{low} – {high}" if len(values) > 1 else ""
            rows.append(row | {"median": middle, "quartiles": quartiles})
    return rows


def render(results: Numbers) -> str:
    """The page of what results.json holds, by part."""
    parts: Numbers = {}
    for name, stored in results.items():
        n = stored["numbers"]
        if isinstance(n, list):
            n = [Outcome(**one) if "row" in one else Comparison(**one) for one in n]
        parts[name] = n
    compared = [c for part in ("epochs", "gpu") for c in parts.get(part, [])]
    profile, memory = parts.get("profile"), parts.get("memory", {"bytes": {}})
    took = {**profile["seconds"], "in all": profile["wall"]} if profile else {}
    sections: dict[str, list[Cells]] = {
        "Targets": targets(parts),
        FIRST: leaderboard(parts.get(BOARD, [])),
        **{
            f"The same on {name.partition(', ')[2]}": leaderboard(outcomes)
            for name, outcomes in parts.items()
            if name.startswith("leaderboard, ") and name != BOARD
        },
        "The same with five seeds for every row": leaderboard(parts.get("seeds", [])),
        "The same in bfloat16": leaderboard(parts.get("bfloat16", [])),
        "The same processor with AVX-512 and without it, beside other work": leaderboard(
            parts.get("avx2", [])
        ),
        "Rates of AdamW and Muon for LoRA, on a seed of its own": leaderboard(
            parts.get("rates", [])
        ),
        "Epochs": [row for c in compared for row in training(c)],
        "Lower bound on the FLOPs per epoch": [roofline(c) for c in compared],
        "Where the time goes": [
            {"kind": kind, "s per epoch": f"{s:.3f}", "share": f"{s / took['in all']:.0%}"}
            for kind, s in took.items()
        ],
        "Peak memory": [
            {"LM": memory["lm"], "way": way, "GB": f"{peak / 1e9:.2f}"}
            for way, peak in memory["bytes"].items()
        ],
        "Inference": inference(parts["inference"]) if "inference" in parts else [],
        "The page, in headless Chromium": [
            {"what": what, "measured": f"{value:.3g}"}
            for what, value in parts.get("page", {}).items()
        ],
        "Growth with the documents": [
            {"embedded LM": name, **{what: f"{value:.3g}" for what, value in row.items()}}
            for name, row in parts.get("growth", {}).items()
        ],
        "Machine": [
            {"part": name, "date": stored["date"], **stored["machine"]}
            for name, stored in results.items()
        ],
    }
    page = [HEAD]
    for title, rows in sections.items():
        if rows:
            last = {key: cell for row in rows for key, cell in row.items()}
            numeric = [re.match(r"[\d+-]", str(cell)) for cell in last.values()]
            align = ["right" if one else "left" for one in numeric]
            table = tabulate(rows, "keys", "pipe", disable_numparse=True, colalign=align)
            page += [f"## {title}", table]
            if title == FIRST:
                page.append(NOTE + "\n".join(f"- {sentence}" for sentence in board.TRIED))
    return "\n\n".join(page) + "\n"
