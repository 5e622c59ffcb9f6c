"""The results as a page: every target beside what was measured, and the numbers behind it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks.measure import median, quartiles
from benchmarks.roofline import Work

Numbers = dict[str, Any]
EMPTY = ""


class Row(NamedTuple):
    """One target."""

    what: str
    target: str
    measured: str
    met: bool | None
    """None: not measured."""


def start(compared: Numbers) -> list[float]:
    """Epochs of docmem while training starts, those that the other baselines alternate with.

    The first epoch is the warm-up; then one for each round until the others pause.
    """
    rounds = 0
    while rounds + 1 in compared["after"]:
        rounds += 1
    return compared["seconds"]["docmem"][1 : rounds + 1]


def speedup(compared: Numbers, name: str = "original") -> float | None:
    """How much longer another's epoch takes than docmem's first ones; None if it did not fit."""
    if name not in compared["seconds"]:
        return None
    return median(compared["seconds"][name]) / median(start(compared))


def limit_seconds(compared: Numbers) -> float:
    """The least time of an epoch: unavoidable work over the measured matmul rate."""
    return Work(**compared["work"]).total / compared["rate"]


def fraction(compared: Numbers, seconds: Sequence[float]) -> float:
    """The limit over what was measured."""
    return limit_seconds(compared) / median(seconds)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(1000 * share) * len(ordered) // 1000) - 1)]


def slower(numbers: Numbers) -> list[float]:
    """How much longer each generation took than its bare twin, as a share."""
    both = zip(numbers["seconds"]["document"], numbers["seconds"]["bare"], strict=True)
    return [document / bare - 1 for document, bare in both]


def plane_ratio(numbers: Numbers) -> float:
    """Seconds of a point the plain way over docmem's."""
    return median(numbers["plain_seconds"]) * numbers["points"] ** 2 / numbers["seconds"]


def gigabytes(count: float) -> str:
    """Bytes as GB."""
    return f"{count / 1e9:.2f} GB"


Judge = Callable[[Numbers], tuple[str, bool]]


def _speed(compared: Numbers, least: float) -> tuple[str, bool]:
    ratio = speedup(compared)
    if ratio is None:
        return "the original does not fit on the GPU", False
    own, theirs = median(start(compared)), median(compared["seconds"]["original"])
    return f"{ratio:.1f}× ({own:.3f} s against {theirs:.2f} s)", ratio >= least


def _fraction(compared: Numbers, least: float) -> tuple[str, bool]:
    share = fraction(compared, start(compared))
    return f"{share:.2f}", share >= least


def _peak(numbers: Numbers) -> tuple[str, bool]:
    own, original = numbers["bytes"]["docmem"], numbers["bytes"]["original"]
    text = f"{own / original:.2f} ({gigabytes(own)} against {gigabytes(original)})"
    return text, own <= original / 3


def _losses(numbers: Numbers) -> tuple[str, bool]:
    readings = len(numbers["plain_seconds"]) * numbers["documents"]
    text = f"{numbers['difference']:.1e} at most in {readings} readings"
    return text, numbers["difference"] <= 1e-5


def _plane_seconds(numbers: Numbers) -> tuple[str, bool]:
    return f"{numbers['seconds']:.1f} s", numbers["seconds"] <= 40


def _plane_ratio(numbers: Numbers) -> tuple[str, bool]:
    ratio = plane_ratio(numbers)
    own = numbers["seconds"] / numbers["points"] ** 2
    plain = median(numbers["plain_seconds"])
    return f"{ratio:.1f}× ({own * 1e3:.1f} ms against {plain * 1e3:.0f} ms)", ratio >= 20


def _move(numbers: Numbers) -> tuple[str, bool]:
    value = percentile(numbers["move_seconds"], 0.95)
    return f"{value * 1e3:.1f} ms", value <= 0.1


def _rest(numbers: Numbers) -> tuple[str, bool]:
    value = percentile(numbers["rest_seconds"], 0.95)
    return f"{value:.2f} s", value <= 1


def _generate(numbers: Numbers) -> tuple[str, bool]:
    low, middle, high = quartiles(slower(numbers))
    text = f"{middle:+.1%} (quartiles {low:+.1%} and {high:+.1%})"
    return text, middle <= 0.03


def _figures(numbers: Numbers, which: str) -> tuple[str, bool]:
    return f"{numbers[which]:.1f} s", numbers[which] <= 15


def _import(numbers: Numbers) -> tuple[str, bool]:
    own, torch_alone = median(numbers["docmem"]), median(numbers["torch"])
    return f"{own:.3f} s (import torch: {torch_alone:.2f} s)", own <= 0.3


def _gpu_seconds(compared: Numbers) -> tuple[str, bool]:
    seconds = compared["seconds"]["docmem"]
    return f"{sum(seconds):.1f} s for {len(seconds)}", len(seconds) >= 500 and sum(seconds) <= 60


def _gpu_memory(compared: Numbers) -> tuple[str, bool]:
    own = compared["peak"]["docmem"]
    fits = "original" not in compared["too_large"]
    theirs = gigabytes(compared["peak"]["original"]) if fits else "more than the GPU has"
    return f"{gigabytes(own)} (original: {theirs})", own <= 80e9


def rows(results: Numbers) -> list[Row]:
    """Every target with its measurement, as far as its part was run."""

    def row(what: str, target: str, part: str, judge: Judge, index: int | None = None) -> Row:
        if part not in results:
            return Row(what, target, EMPTY, None)
        numbers = results[part]["numbers"]
        return Row(what, target, *judge(numbers if index is None else numbers["compared"][index]))

    cpu = "2 cores"
    epoch = f"epoch, embedded LM, last layer, {cpu}, against the original"
    large = "Pythia-1B's shape on a GPU, 10 documents"
    return [
        row(epoch, "≥ 12×", "embedded", lambda n: _speed(n, 12), 0),
        row("the same, fraction of limit", "≥ 0.75", "embedded", lambda n: _fraction(n, 0.75), 0),
        row("peak memory, 160m shape, against the original", "≤ 1/3", "memory", _peak),
        row("losses against the plain hooked forward, embedded LM", "≤ 1e-5", "plane", _losses),
        row(f"key plane 41 × 41 × 10 documents, {cpu}", "≤ 40 s", "plane", _plane_seconds),
        row("the same, against one full forward a point", "≥ 20×", "plane", _plane_ratio),
        row("dragging a point, 95th percentile", "≤ 100 ms", "drag", _move),
        row("letting it go, 95th percentile", "≤ 1 s", "drag", _rest),
        row("generate under a document, against the base LM", "≤ +3 %", "generate", _generate),
        row(
            "opening a run and drawing all its figures, the first time",
            "≤ 15 s",
            "figures",
            lambda n: _figures(n, "seconds"),
        ),
        row("the same once more", "≤ 15 s", "figures", lambda n: _figures(n, "again_seconds")),
        row("import docmem, beyond import torch", "≤ 0.3 s", "import", _import),
        row(f"{large}, 500 epochs", "≤ 60 s", "gpu", _gpu_seconds, 0),
        row("the same, epoch against the original", "≥ 40×", "gpu", lambda n: _speed(n, 40), 0),
        row("the same, fraction of limit", "≥ 0.6", "gpu", lambda n: _fraction(n, 0.6), 0),
        row("Pythia-6.9B's shape, peak memory", "≤ 80 GB", "gpu", _gpu_memory, 1),
    ]


def table(head: Sequence[str], lines: Sequence[Sequence[str]], right: str = "") -> str:
    """A Markdown table whose columns are padded, so that it reads as plain text too.

    Args:
        head: the columns' names.
        lines: the cells, row by row.
        right: `r` for each column to align on the right, any other letter for the left.
    """
    right = right.ljust(len(head), "l")
    widths = [max(3, *(len(line[i]) for line in (head, *lines))) for i in range(len(head))]

    def padded(cells: Sequence[str]) -> str:
        aligned = (
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(cells, widths, right, strict=True)
        )
        return f"| {' | '.join(aligned)} |"

    rule = (
        "-" * (width + 1) + ":" if side == "r" else "-" * (width + 2)
        for width, side in zip(widths, right, strict=True)
    )
    return "\n".join([padded(head), f"|{'|'.join(rule)}|", *map(padded, lines)])


def targets_table(results: Numbers) -> str:
    """The targets."""
    words = {True: "met", False: "not met", None: "not measured"}
    lines = [(row.what, row.target, row.measured, words[row.met]) for row in rows(results)]
    return table(("what", "target", "measured", ""), lines)


def compared_of(results: Numbers) -> list[Numbers]:
    """Every comparison of training, in the order of the page."""
    parts = [results[name]["numbers"] for name in ("embedded", "pythia", "gpu") if name in results]
    return [compared for numbers in parts for compared in numbers["compared"]]


def place(compared: Numbers) -> tuple[str, str]:
    """The LM, and the hooked block counted from 1 of how many."""
    lm = "embedded" if compared["lm"] == "tiny" else compared["lm"]
    return lm, f"{compared['layer'] + 1} of {compared['blocks']}"


def training_table(results: Numbers) -> str:
    """Epochs of every baseline at every shape and layer."""
    lines = []
    for compared in compared_of(results):
        took = {name: compared["seconds"][name] for name in compared["seconds"] if name != "docmem"}
        own = compared["seconds"]["docmem"]
        took["docmem"] = start(compared)
        if len(own) > len(took["docmem"]) + 1:
            took[f"docmem, all {len(own)} epochs"] = own
        for name, seconds in took.items():
            low, middle, high = quartiles(seconds)
            who = name.split(",")[0]
            original = compared["seconds"].get("original")
            used = compared["joules"].get(who)
            lines.append(
                (
                    *place(compared),
                    {"lora": "LoRA"}.get(name, name),
                    f"{middle:.3f}",
                    f"{low:.3f} – {high:.3f}",
                    f"{compared['tokens'] / middle:.0f}",
                    f"{median(original) / middle:.1f}×" if original else EMPTY,
                    f"{fraction(compared, seconds):.2f}" if who == "docmem" else EMPTY,
                    f"{median(used):.0f}" if used else EMPTY,
                    gigabytes(compared["peak"][who]) if who in compared["peak"] else EMPTY,
                )
            )
    head = (
        "LM", "after block", "baseline", "s an epoch", "quartiles", "tokens/s", "original / it",
        "of limit", "J an epoch", "GPU peak",
    )  # fmt: skip
    return table(head, lines, "lllrrrrrrr")


def limit_table(results: Numbers) -> str:
    """The work that cannot be avoided in an epoch, and its least time."""
    lines = []
    for compared in compared_of(results):
        parts = [f"{value / 1e9:.2f}" for value in Work(**compared["work"])]
        best = max(compared["rates"], key=lambda name: median(compared["rates"][name]))
        total = Work(**compared["work"]).total
        rate, least = f"{compared['rate'] / 1e9:.0f}", f"{limit_seconds(compared):.4f}"
        lines.append((*place(compared), *parts, f"{total / 1e9:.2f}", rate, best, least))
    head = (
        "LM", "after block", "head", "blocks", "attention", "memory", "in all", "GFLOP/s",
        "best product", "limit, s",
    )  # fmt: skip
    return table(head, lines, "llrrrrrrlr")


def profile_table(numbers: Numbers) -> str:
    """Seconds and share of an epoch by kind of operation."""
    lines = [
        (kind, f"{seconds:.3f}", f"{seconds / numbers['wall']:.0%}")
        for kind, seconds in numbers["seconds"].items()
    ]
    return table(("kind", "s an epoch", "share"), lines, "lrr")


def setting_lines(results: Numbers) -> list[str]:
    """What was trained in every comparison, and how far its losses and clamps went."""
    lines = []
    for compared in compared_of(results):
        lm, block = place(compared)
        clamp = [
            guidance / (compared["alpha"] * positive)
            for guidance, positive in zip(
                compared["guidance"], compared["positive_ce"]["docmem"], strict=True
            )
        ]
        first = clamp[1 : len(start(compared)) + 1]
        differs = compared.get("loss_difference")
        losses = (
            "" if differs is None
            else f" After the first epoch its mean losses differ from frozen's by {differs:.1e}."
        )  # fmt: skip
        lines.append(
            f"- {lm}, after block {block}, {compared['dtype']}: {compared['documents']} documents, "
            f"{compared['steps']} steps an epoch of up to {compared['rows']} segments × "
            f"{compared['longest']} tokens, {compared['tokens']} predicted tokens; "
            f"{compared['memory_dim']} memory entries, α {compared['alpha']:g}, τ "
            f"{compared['tau']:g}. Guidance term over its clamp: {median(first):.2f} in the first "
            f"epochs, {median(clamp):.2f} in all {len(clamp)}.{losses}"
            + "".join(f" Did not fit on the GPU: {name}." for name in compared["too_large"])
        )
    return lines


def train_for_equal_time(results: Numbers) -> str:
    """The race of docmem and LoRA to the same cross entropy."""
    compared = results["embedded"]["numbers"]["compared"][0]
    lora = compared["lora"]
    sentences = [
        f"LoRA of rank {lora['rank']} has {lora['parameters']} trainable parameters, the memory "
        f"{lora['memory_parameters']}. Own cross entropy 2.0 or less, mean over an epoch:"
    ]
    for name, title in (("docmem", "docmem"), ("lora", "LoRA")):
        ces, seconds = compared["positive_ce"][name], compared["seconds"][name]
        reached = next((i for i, ce in enumerate(ces) if ce <= 2.0), None)
        sentences.append(
            f"{title} not reached in {len(ces)} epochs ({sum(seconds):.1f} s, {ces[-1]:.2f})."
            if reached is None
            else f"{title} after {sum(seconds[: reached + 1]):.1f} s ({reached + 1} epochs, "
            f"{ces[reached]:.2f})."
        )
    sentences.append(
        f"docmem's {len(compared['seconds']['docmem'])} epochs took "
        f"{sum(compared['seconds']['docmem']):.1f} s and ended at "
        f"{compared['positive_ce']['docmem'][-1]:.2f}."
    )
    return " ".join(sentences)


def machines(results: Numbers) -> list[str]:
    """On what, with what and when each part was measured; parts alike share a line."""
    parts: dict[str, list[str]] = {}
    for name, part in results.items():
        key = json.dumps([part["date"], part["machine"]])
        parts.setdefault(key, []).append(name)
    lines = []
    for key, names in parts.items():
        date, told = json.loads(key)
        gpu = f", {told['gpu']} with {told['gpu_memory_gb']} GB" if told["gpu"] else ""
        versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
        lines.append(
            f"- {', '.join(names)}: {date}; {told['processor']}, {told['cores']} cores, "
            f"{told['threads']} threads, {told['memory_gb']} GB{gpu}; {told['system']}; {versions}."
        )
    return lines


def render(results: Numbers) -> str:
    """The page."""

    def text(words: str) -> str:
        indent = "  " if words.startswith("- ") else ""
        return textwrap.fill(
            words, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )

    page = [
        "# What was measured",
        text(
            "Written by `make bench`; every number is in [results.json](results.json). "
            "[README.md](README.md) says how each is measured and what the words mean. A part "
            "that was not run is left empty."
        ),
        "## Targets",
        targets_table(results),
    ]
    if compared_of(results):
        page += [
            "## Training",
            text(
                "Medians, baselines in turn in one process. docmem's first row is the start of "
                "training, when nothing is clamped or little; a second row, where there is one, "
                "is a whole training. The clamp's share stands under the settings below."
            ),
            training_table(results),
            "## The limit",
            text(
                "Work of an epoch that cannot be avoided, in GFLOP, both passes forward and "
                "backward whether a clamp is on or not; the best matmul rate measured between "
                "the epochs, and by which product; what the two make as the least time."
            ),
            limit_table(results),
        ]
    if "profile" in results:
        numbers = results["profile"]["numbers"]
        page += [
            "## Where the time goes",
            text(
                "docmem after the embedded LM's last block, by torch's profiler; mean of "
                f"{numbers['epochs']} epochs at the start of training, {numbers['wall']:.3f} s "
                "each while profiled."
            ),
            profile_table(numbers),
        ]
    if "embedded" in results:
        page += ["## LoRA", text(train_for_equal_time(results))]
    if "memory" in results:
        numbers = results["memory"]["numbers"]
        told = ", ".join(f"{name} {gigabytes(n)}" for name, n in numbers["bytes"].items())
        page += ["## Peak memory", text(f"{numbers['lm']}'s shape on the CPU: {told}.")]
    page += [
        "## Settings",
        *(["\n".join(map(text, setting_lines(results)))] if compared_of(results) else []),
        "## Machine and versions",
        "\n".join(map(text, machines(results))),
    ]
    return "\n\n".join(page) + "\n"
