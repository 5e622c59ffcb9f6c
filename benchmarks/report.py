"""The results as a page: every target beside what was measured, and the numbers behind it."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmarks.epochs import ENOUGH, Comparison
from benchmarks.measure import Numbers

Cells = dict[str, object]
HEAD = """\
# Benchmark results

Written by `make bench`; every number is in [results.json](results.json), and
[README.md](README.md) says how each is measured. A part that was not run is left empty."""


def p95(values: Sequence[float]) -> float:
    """The 95th percentile: the smallest value that 95 % of the values do not exceed."""
    return float(np.percentile(values, 95, method="inverted_cdf"))


def plane_speedup(n: Numbers) -> float:
    """Seconds of a full forward per point over docmem's."""
    return float(np.median(n["full_forward_seconds"])) * n["points"] ** 2 / n["seconds"]


TARGETS = (
    ("epoch, embedded LM, last layer, 2 cores: speed against the original", "≥", 12, 1, "×",
     lambda p: p["embedded"][0].speedup),
    ("the same, least time over time", "≥", 0.75, 2, "", lambda p: p["embedded"][0].roofline_share),
    ("peak memory, 160m shape, against the original", "≤", 1 / 3, 2, "",
     lambda p: p["memory"]["bytes"]["docmem"] / p["memory"]["bytes"]["original"]),
    ("losses against full hooked forwards, embedded LM", "≤", 10, 2, " · 10⁻⁶ nats",
     lambda p: 1e6 * p["inference"]["plane"]["difference"]),
    ("DocRep plane, 41 × 41 points × 10 documents, 2 cores", "≤", 40, 1, " s",
     lambda p: p["inference"]["plane"]["seconds"]),
    ("the same, speed against one full forward per point", "≥", 20, 1, "×",
     lambda p: plane_speedup(p["inference"]["plane"])),
    ("dragging a point, 95th percentile", "≤", 100, 1, " ms",
     lambda p: 1e3 * p95(p["inference"]["drag"]["move_seconds"])),
    ("letting it go, 95th percentile", "≤", 1, 2, " s",
     lambda p: p95(p["inference"]["drag"]["rest_seconds"])),
    ("generation under a document, longer than by the base LM", "≤", 3, 1, " %",
     lambda p: np.median(p["inference"]["generate"]["slowdown_percent"])),
    ("opening a run and drawing all its figures, the first time", "≤", 15, 1, " s",
     lambda p: p["inference"]["figures"]["seconds"]),
    ("the same once more", "≤", 15, 1, " s", lambda p: p["inference"]["figures"]["again_seconds"]),
    ("import docmem, beyond import torch", "≤", 0.3, 3, " s",
     lambda p: np.median(p["inference"]["import"]["docmem_seconds"])),
    ("500 epochs, Pythia-1B's shape on a GPU, 10 documents", "≤", 60, 1, " s",
     lambda p: 500 * np.mean(p["gpu"][0].seconds["docmem"])),
    ("the same, speed against the original", "≥", 40, 1, "×", lambda p: p["gpu"][0].speedup),
    ("the same, least time over time", "≥", 0.6, 2, "", lambda p: p["gpu"][0].roofline_share),
    ("peak memory, Pythia-6.9B's shape on a GPU", "≤", 80, 2, " GB",
     lambda p: p["gpu"][1].peak["docmem"] / 1e9),
)  # fmt: skip
"""What, sign, bound, digits, unit, value: None where the original does not fit on the GPU."""


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
        measured = f"{value:.{digits}f}{unit}" if value is not None else "does not fit"
        met = value is not None and (value >= bound if sign == "≥" else value <= bound)
        rows.append(row | {"measured": measured, "": "met" if met else "not met"})
    return rows


def training(c: Comparison) -> list[Cells]:
    """A row per way of training; of docmem one for the start and one for a longer training."""
    seconds = {way: took for way, took in c.seconds.items() if way != "docmem"}
    seconds["docmem"] = c.start
    if len(c.seconds["docmem"]) > len(c.start) + 1:
        seconds[f"docmem, all {len(c.seconds['docmem'])} epochs"] = c.seconds["docmem"]
    rows: list[Cells] = []
    for name, took in seconds.items():
        low, middle, high = np.percentile(took, (25, 50, 75))
        way, original = name.split(",")[0], c.seconds.get("original")
        rows.append(c.place | {
            "way": name,
            "s per epoch": f"{middle:.3f}",
            "quartiles": f"{low:.3f} – {high:.3f}",
            "tokens/s": f"{c.settings['predicted tokens'] / middle:.0f}",
            "original / it": f"{np.median(original) / middle:.1f}×" if original else "",
            "least time / it": f"{c.least_seconds / middle:.2f}" if way == "docmem" else "",
            "J per epoch": f"{np.median(c.joules[way]):.0f}" if way in c.joules else "",
            "GPU peak, GB": f"{c.peak[way] / 1e9:.2f}" if way in c.peak else "",
        })  # fmt: skip
    return rows


def roofline(c: Comparison) -> Cells:
    """The lower bound on the FLOPs per epoch, and its least time."""
    (rate, product), work = c.best_rate, {**c.work, "in all": sum(c.work.values())}
    gflop = {f"{part}, GFLOP": f"{flops / 1e9:.2f}" for part, flops in work.items()}
    best = {"GFLOP/s": f"{rate / 1e9:.0f}", "by the product": product}
    return {**c.place, **gflop, **best, "least time, s": f"{c.least_seconds:.4f}"}


def settings(c: Comparison) -> Cells:
    """What was trained, how often its clamp was on, and whether its losses are frozen's."""
    own, alpha = c.positive_ce["docmem"], c.settings["α"]
    clamp = np.array(c.guidance) / (alpha * np.array(own))
    first = np.median(clamp[1 : len(c.start) + 1])
    return {**c.place, **c.settings} | {
        "term / clamp, first epochs": f"{first:.2f}",
        "in all": f"{np.median(clamp):.2f}",
        "loss difference": "" if c.loss_difference is None else f"{c.loss_difference:.1e}",
        "did not fit": ", ".join(c.too_large),
    }


def lora(c: Comparison) -> list[Cells]:
    """A row for docmem and one for LoRA, on the way to the same cross entropy."""
    rows: list[Cells] = []
    for way, parameters in (c.lora or {}).items():
        ces, seconds = c.positive_ce[way], c.seconds[way]
        reached = next((n for n, ce in enumerate(ces, start=1) if ce <= ENOUGH), None)
        rows.append({
            "way": way, "parameters": parameters, f"epochs until ≤ {ENOUGH}": reached or "",
            "seconds": f"{sum(seconds[:reached]):.1f}" if reached else "",
            "cross entropy": f"{ces[reached - 1]:.2f}" if reached else "",
            "epochs in all": len(ces), "seconds in all": f"{sum(seconds):.1f}",
            "last cross entropy": f"{ces[-1]:.2f}",
        })  # fmt: skip
    return rows


def inference(n: Numbers) -> list[Cells]:
    """Medians and quartiles of what was timed more than once."""
    rows: list[Cells] = []
    for name, group in n.items():
        for what, values in group.items():
            if isinstance(values, list):
                low, middle, high = (f"{q:.3g}" for q in np.percentile(values, (25, 50, 75)))
                row: Cells = {"what": f"{name}: {what.replace('_', ' ')}", "times": len(values)}
                rows.append(row | {"median": middle, "quartiles": f"{low} – {high}"})
    return rows


def render(results: Numbers) -> str:
    """The page of what results.json holds, by part."""
    parts: Numbers = {}
    for name, stored in results.items():
        n = stored["numbers"]
        parts[name] = [Comparison(**c) for c in n] if isinstance(n, list) else n
    compared = [c for part in ("embedded", "start", "gpu") for c in parts.get(part, [])]
    profile, memory = parts.get("profile"), parts.get("memory", {"bytes": {}})
    took = {**profile["seconds"], "in all": profile["wall"]} if profile else {}
    sections: dict[str, list[Cells]] = {
        "Targets": targets(parts),
        "Training": [row for c in compared for row in training(c)],
        "Lower bound on the FLOPs per epoch": [roofline(c) for c in compared],
        "Where the time goes": [
            {"kind": kind, "s per epoch": f"{s:.3f}", "share": f"{s / took['in all']:.0%}"}
            for kind, s in took.items()
        ],
        "LoRA": [row for c in compared for row in lora(c)],
        "Peak memory": [
            {"LM": memory["lm"], "way": way, "GB": f"{peak / 1e9:.2f}"}
            for way, peak in memory["bytes"].items()
        ],
        "Inference": inference(parts["inference"]) if "inference" in parts else [],
        "Settings": [settings(c) for c in compared],
        "Machine": [
            {"part": name, "date": stored["date"], **stored["machine"]}
            for name, stored in results.items()
        ],
    }
    page = [HEAD]
    for title, rows in sections.items():
        if rows:
            numeric = [re.match(r"[\d+-]", str(cell)) for cell in rows[-1].values()]
            align = ["right" if one else "left" for one in numeric]
            table = tabulate(rows, "keys", "pipe", disable_numparse=True, colalign=align)
            page += [f"## {title}", table]
    return "\n\n".join(page) + "\n"
