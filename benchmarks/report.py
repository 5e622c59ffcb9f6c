"""The results as a page: every target beside what was measured, and the numbers behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmarks.epochs import ENOUGH, Comparison

Numbers = dict[str, Any]
Cells = dict[str, object]
HEAD = """\
# Benchmark results

Written by `make bench`; every number is in [results.json](results.json), and
[README.md](README.md) says how each is measured. A part that was not run is left empty."""


def p95(values: Sequence[float]) -> float:
    """The 95th percentile: the smallest value that 95 % of the values do not exceed."""
    return float(np.percentile(values, 95, method="inverted_cdf"))


def slowdown(n: Numbers) -> list[float]:
    """How much longer each generation under a document took than the base LM's next to it, in %."""
    pairs = zip(n["seconds"]["document"], n["seconds"]["base"], strict=True)
    return [100 * (document / base - 1) for document, base in pairs]


def per_point(n: Numbers) -> float:
    """Seconds of docmem for one point of the plane."""
    return n["seconds"] / n["points"] ** 2


# What, sign, bound, digits, unit, value. The value is found in all of a part's numbers, or in the
# comparison with this index; None where the original does not fit on the GPU.
INFERENCE_TARGETS = (
    ("losses against full hooked forwards, embedded LM", "≤", 10, 2, " · 10⁻⁶ nats",
     lambda n: 1e6 * n["plane"]["difference"]),
    ("DocRep plane, 41 × 41 points × 10 documents, 2 cores", "≤", 40, 1, " s",
     lambda n: n["plane"]["seconds"]),
    ("the same, speed against one full forward per point", "≥", 20, 1, "×",
     lambda n: np.median(n["plane"]["plain_seconds"]) / per_point(n["plane"])),
    ("dragging a point, 95th percentile", "≤", 100, 1, " ms",
     lambda n: 1e3 * p95(n["drag"]["move_seconds"])),
    ("letting it go, 95th percentile", "≤", 1, 2, " s", lambda n: p95(n["drag"]["rest_seconds"])),
    ("generation under a document, longer than by the base LM", "≤", 3, 1, " %",
     lambda n: np.median(slowdown(n["generate"]))),
    ("opening a run and drawing all its figures, the first time", "≤", 15, 1, " s",
     lambda n: n["figures"]["seconds"]),
    ("the same once more", "≤", 15, 1, " s", lambda n: n["figures"]["again_seconds"]),
    ("import docmem, beyond import torch", "≤", 0.3, 3, " s",
     lambda n: np.median(n["import"]["docmem"])),
)  # fmt: skip
TARGETS = {
    ("embedded", 0): (
        ("epoch, embedded LM, last layer, 2 cores: speed against the original", "≥", 12, 1, "×",
         lambda c: c.speedup),
        ("the same, least time over time", "≥", 0.75, 2, "", lambda c: c.roofline_share),
    ),
    ("memory", 0): (
        ("peak memory, 160m shape, against the original", "≤", 1 / 3, 2, "",
         lambda n: n["bytes"]["docmem"] / n["bytes"]["original"]),
    ),
    ("inference", 0): INFERENCE_TARGETS,
    ("gpu", 0): (
        ("500 epochs, Pythia-1B's shape on a GPU, 10 documents", "≤", 60, 1, " s",
         lambda c: 500 * np.mean(c.seconds["docmem"])),
        ("the same, speed against the original", "≥", 40, 1, "×", lambda c: c.speedup),
        ("the same, least time over time", "≥", 0.6, 2, "", lambda c: c.roofline_share),
    ),
    ("gpu", 1): (
        ("peak memory, Pythia-6.9B's shape on a GPU", "≤", 80, 2, " GB",
         lambda c: c.peak["docmem"] / 1e9),
    ),
}  # fmt: skip


def comparisons(results: Numbers, *parts: str) -> list[Comparison]:
    """The comparisons of training in some parts."""
    stored = [results[part]["numbers"].get("compared", []) for part in parts if part in results]
    return [Comparison(**numbers) for some in stored for numbers in some]


def targets(results: Numbers) -> list[Cells]:
    """A row per target, with its measurement if its part was run."""
    rows: list[Cells] = []
    for (part, index), some in TARGETS.items():
        source: Any = results[part]["numbers"] if part in results else None
        if found := comparisons(results, part):
            source = found[index]
        for what, sign, bound, digits, unit, find in some:
            value = find(source) if source else None
            met = value is not None and (value >= bound if sign == "≥" else value <= bound)
            measured = f"{value:.{digits}f}{unit}" if value is not None else "does not fit"
            verdict = "met" if met else "not met"
            if not source:
                measured, verdict = "", "not measured"
            target = f"{sign} {bound:.3g}{unit}"
            rows.append({"what": what, "target": target, "measured": measured, "": verdict})
    return rows


def training(c: Comparison) -> list[Cells]:
    """A row per way of training; of docmem one for the start and one for a longer training."""
    seconds = {way: took for way, took in c.seconds.items() if way != "docmem"}
    seconds["docmem"] = c.start
    if len(c.seconds["docmem"]) > len(c.start) + 1:
        seconds[f"docmem, all {len(c.seconds['docmem'])} epochs"] = c.seconds["docmem"]
    rows: list[Cells] = []
    for name, took in seconds.items():
        (low, middle, high), way = np.percentile(took, (25, 50, 75)), name.split(",")[0]
        original = c.seconds.get("original")
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


def profile(n: Numbers) -> list[Cells]:
    """Seconds and share of an epoch by kind of operation."""
    kinds = {**n["seconds"], "in all": n["wall"]}.items()
    return [
        {"kind": kind, "s per epoch": f"{took:.3f}", "share": f"{took / n['wall']:.0%}"}
        for kind, took in kinds
    ]


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


def peak_memory(n: Numbers) -> list[Cells]:
    """A row per way of training on the CPU."""
    return [{"LM": n["lm"], "way": w, "GB": f"{b / 1e9:.2f}"} for w, b in n["bytes"].items()]


def inference(n: Numbers) -> list[Cells]:
    """Medians and quartiles of what was timed more than once."""
    timed = {
        "one point of the plane by docmem, s": [per_point(n["plane"])],
        "one point of the plane by full forwards, s": n["plane"]["plain_seconds"],
        "dragging a point, s": n["drag"]["move_seconds"],
        "letting it go, s": n["drag"]["rest_seconds"],
        "generation by the base LM, s": n["generate"]["seconds"]["base"],
        "generation under a document, s": n["generate"]["seconds"]["document"],
        "the same, longer by, %": slowdown(n["generate"]),
        "import torch, s": n["import"]["torch"],
        "import docmem, s": n["import"]["docmem"],
    }
    rows: list[Cells] = []
    for what, values in timed.items():
        low, middle, high = np.percentile(values, (25, 50, 75))
        spread = f"{low:.3g} – {high:.3g}" if len(values) > 1 else ""
        rows.append(
            {"times": len(values), "what": what, "median": f"{middle:.3g}"} | {"quartiles": spread}
        )
    return rows


def machines(results: Numbers) -> list[Cells]:
    """When, on what and with what each part was measured; parts alike share a row."""
    parts: dict[str, list[str]] = {}
    for name, part in results.items():
        parts.setdefault(json.dumps([part["date"], part["machine"]]), []).append(name)
    rows: list[Cells] = []
    for key, names in parts.items():
        date, machine = json.loads(key)
        versions = ", ".join(f"{name} {n}" for name, n in machine.pop("versions").items())
        rows.append({"parts": ", ".join(names), "date": date, **machine, "versions": versions})
    return rows


def render(results: Numbers) -> str:
    """The page."""
    compared = comparisons(results, "embedded", "start", "gpu")
    page = [HEAD]

    def section(title: str, rows: Sequence[Cells]) -> None:
        if rows:
            numeric = [re.match(r"[\d+-]", str(cell)) for cell in rows[-1].values()]
            align = ["right" if one else "left" for one in numeric]
            table = tabulate(rows, "keys", "pipe", disable_numparse=True, colalign=align)
            page.extend([f"## {title}", table])

    section("Targets", targets(results))
    section("Training", [row for c in compared for row in training(c)])
    section("Lower bound on the FLOPs per epoch", [roofline(c) for c in compared])
    for part, title, rows_of in (
        ("profile", "Where the time goes", profile),
        ("memory", "Peak memory", peak_memory),
        ("inference", "Inference", inference),
    ):
        if part in results:
            section(title, rows_of(results[part]["numbers"]))
    section("LoRA", [row for c in compared for row in lora(c)])
    section("Settings", [settings(c) for c in compared])
    section("Machine and versions", machines(results))
    return "\n\n".join(page) + "\n"
