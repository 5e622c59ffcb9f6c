"""A page of one's runs in a single file: it needs no network, no kernel and no installation.

    write_page([Run.open("outputs/tiny/…")], Path("page.html"))

What is shown is measured here and baked into the file (`docmem.explore._baked`); the page draws it
with the modules that also draw the widgets (static/).
"""

import html
import json
import math
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

from docmem.core.files import write_text
from docmem.errors import DocmemError, OutFile, Several, check_file, check_text, checked
from docmem.evaluation.cached import first_segments, measure, measure_plane
from docmem.evaluation.plane import KeyPlane
from docmem.evaluation.recall import TEXTS, sampled
from docmem.explore import _baked
from docmem.explore._static import joined, read
from docmem.explore.lm_bundle import MAX_BYTES, lm_bundle, worker_source
from docmem.lm.loading import LanguageModel
from docmem.plots.figures import names_of, negative_of
from docmem.plots.style import NEGATIVE_LABELS, after_own, document_color
from docmem.training.run import Run, check_together
from docmem.training.texts import check_in_no_run

MODULES = (
    "draw.js", "activations.js", "tensors.js", "memory.js", "baked.js", "plane.js", "training.js",
    "recall.js", "lm_worker.js", "page.js",
)  # fmt: skip
MANY = 12  # with more documents the map is measured at fewer points
SMALL = 50_000_000  # an LM of no more parameters writes at many places in a minute
LIVE = (
    "The model itself is inside this file, which is why it has {:.0f} MB. Type a prompt of your "
    "own: it writes at the ring when you let go, and then measures every perplexity there."
)
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@checked
def write_page(
    runs: Sequence[Run],
    out: OutFile,
    *,
    lm: LanguageModel | None = None,
    points: Several | None = None,
    map_tokens: Several | None = None,
    text_points: Several | None = None,
    prompts: Sequence[str] = (),
    with_lm: bool = False,
) -> Path:
    """Write one HTML file that shows runs on the same documents, and return its path.

    Args:
        runs: finished runs; the first is shown first.
        out: the file.
        lm: their LM; None: loaded.
        points: grid points per side of the measured map; None: 61, or 31 with a large LM
            or more than twelve documents.
        map_tokens: tokens of each document that the map reads; None: its first segment, or 32
            tokens with a large LM.
        text_points: the LM writes at text_points × text_points places; None: 25, or 7.
        prompts: what it is given there; none: how the documents begin, if they
            begin alike and are gone on with from there, and the openings of three.
        with_lm: also write a second file, `…_lm.html`, with the LM and the first run's memory
            inside: there it writes live after any prompt.

    Raises:
        DocmemError: if there is no run, one has no memory or no snapshots, their documents differ,
            or their DocReps span no plane; if the LM cannot run in a page or is too large for one;
            if an argument cannot be, or the file cannot be written.
    """
    check_together(runs)
    for prompt in prompts:
        check_text("A prompt", prompt)
    names, out = names_of(runs), Path(out)
    check_in_no_run(out)
    for file in (out, live_page(out)) if with_lm else (out,):
        check_file("out", file)
        if file.exists() and file.read_bytes()[:15].lower() != b"<!doctype html>":
            raise DocmemError(f"{file} is there already, and no page; choose another name.")
    lm = lm or runs[0].load_lm()
    small = lm.model.num_parameters() <= SMALL
    many = len(runs[0].titles) > MANY
    if points is None:
        points = 61 if small and not many else 31
    if text_points is None:
        text_points = 25 if small else 7
    tokens = 32 if map_tokens is None and not small else map_tokens
    bundle = None
    if with_lm:  # first: what cannot be packed is said before anything is measured
        read = first_segments(runs[0], lm, tokens, sampled(len(runs[0].titles), TEXTS)).batches
        texts = [batch.input_ids[0].tolist() for batch in read]
        bundle = lm_bundle(lm, runs[0].load_memory(), runs[0].config.hook_memory_layer, texts)
    planes = [measure_plane(run, lm, points, tokens) for run in runs]
    shown = [_baked.Shown.of(run, plane) for run, plane in zip(runs, planes, strict=True)]
    given = list(prompts) or _baked.prompts_for(shown[0], lm)
    memories: list[dict[str, Any]] = [
        {
            "name": name,
            "plane": _baked.plane_of_run(one, lm, given, text_points, tokens),
            "recall": _baked.recall_of_run(one, lm, 2 if small and not many else 1),
            "passages": _baked.passages_of_run(one, lm),
        }
        for one, name in zip(shown, names, strict=True)
    ]
    trainings = [_baked.training_of_run(run, name) for run, name in zip(runs, names, strict=True)]
    scene = {
        name: memories[0]["plane"]["scene"][name]
        for name in ("titles", "numbers", "colors", "inks", "signed")
    }
    baked = {"memories": memories, "training": {"runs": trainings, "scene": scene}}
    words = words_of(runs[0], names, lm, planes[0], text_points, given)
    unread = any(one["kind"].endswith("never memorised") for one in memories[0]["passages"])
    words["verbatim"] = share(memories[0]["plane"]["verbatim"])
    words["tried"] = ", as you can try above" if unread else ""
    negative = negative_of(runs)
    words["negative"] = after_own(NEGATIVE_LABELS[negative]).replace("'", "’")
    words["away"] = "the address of another" if negative == "other" else words["negative"]
    write_text(out, page(baked, words))
    if bundle is not None:
        baked = {"memories": memories[:1], "training": {"runs": trainings[:1], "scene": scene}}
        inside = script("lm", {"bundle": bundle, "source": worker_source()})
        words |= {"several": "", "memories": names[0]}
        words["live"] = LIVE.format(len(page(baked, words, inside).encode()) / 1e6)
        text = page(baked, words, inside)
        if len(text.encode()) > MAX_BYTES:
            raise DocmemError(
                f"With the LM the page would have {len(text.encode()) / 1e6:.1f} MB, at most "
                f"{MAX_BYTES / 1e6:.0f} are allowed. Fewer text_points or prompts make it smaller."
            )
        write_text(live_page(out), text)
    return out


def live_page(out: Path) -> Path:
    """Where the page with the LM in it lies, beside `out`."""
    return out.with_stem(f"{out.stem}_lm")


def script(name: str, content: Any) -> str:
    """JSON as an element of the page; no text in it can end the element."""
    data = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    data = data.replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{data}</script>'


def page(baked: dict[str, Any], words: dict[str, str], lm: str = "") -> str:
    """The file's text: the essay with its words and numbers, the styles, the data, the modules.

    `lm` is the element that holds the LM, if any.
    """
    light, dark = map(_baked.color_variables, (document_color, _baked.dark_color))
    colors = f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    return Template(read("page.html")).substitute(
        {name: html.escape(text) for name, text in words.items()},
        styles=colors + read("plane.css") + read("page.css"),
        baked=script("baked", baked),
        lm_inside=lm,
        modules=joined(*MODULES),
    )


def words_of(
    run: Run,
    names: Sequence[str],
    lm: LanguageModel,
    plane: KeyPlane,
    text_points: int,
    prompts: Sequence[str],
) -> dict[str, str]:
    """The words and numbers in the essay, all of the first run."""
    known, shares, base = measure(run, lm)
    n_docs, config = len(run.titles), run.config
    worst, measured = known.lowest_pair, plane.readings / plane.ce.numel()
    leak = "With a single document there is no other address to be read under."
    if n_docs > 1:
        leak = (
            f"Neighbours leak into each other: of all pairs, “{run.titles[worst.document]}” is "
            f"read most easily under the address of “{run.titles[worst.doc_rep]}”, with a "
            f"perplexity of {perplexity(worst.ce)}."
        )
    return {
        "documents": in_words(n_docs, "document"),
        "lm": Path(run.description["lm"]["name"]).name,
        "parameters": f"{lm.model.num_parameters() / 1e6:,.1f}",
        "entries": str(config.hook_memory_dim),
        "address": "a pair of numbers" if config.key_dim == 2 else f"{config.key_dim} numbers",
        "plane": (
            "Two numbers are a point in a plane, so every address can be looked at"
            if config.key_dim == 2
            else "The plane below goes through these addresses along their two widest directions"
        ),
        "disc": (
            "its own address"
            if plane.away is None
            else "the place nearest its own address, which lies off this plane"
        ),
        "memories": " and ".join(names),
        "beginning": (
            f"All documents begin with “{prompts[0]}”: this prompt does not say which one is meant."
            if all(one.text.split()[0] == prompts[0] for one in run.documents)
            else ""
        ),
        "live": f"The texts were written beforehand: at {text_points} × {text_points} places and "
        "at every document.",
        "first": prompts[0],
        "tau": f"{config.target_negative_ce:g}",
        "target": perplexity(config.target_negative_ce),
        "several": (
            f" The buttons choose between memories that learned the same: {' and '.join(names)}. "
            f"The numbers in this text are those of the first, {names[0]}."
            if len(names) > 1
            else ""
        ),
        "epochs": in_words(len(run.load_history()), "epoch"),
        "base": perplexity(base.mean().item()),
        "own": perplexity(known.own),
        "others": (
            f", and at the addresses of the others {perplexity(known.other)}" if n_docs > 1 else ""
        ),
        "walk": " Press “Walk” to go from one document to another." if n_docs > 1 else "",
        "lead": " and walk from one to the next" if n_docs > 1 else "",
        "recognised": f"{known.recognised} of {len(known.texts)}",
        "right": share(shares.own),
        "right_other": share(shares.other),
        "right_none": share(shares.none),
        "leak": leak,
        "points": f"{len(plane.axis)} × {len(plane.axis)}",
        "exact": (
            "All its values were measured."
            if measured == 1
            else f"Of its values {share(measured)} were measured, and the others estimated, at "
            f"most {plane.error.item():.2f} nats per token off where that was tried."
        ),
        "seed": str(config.seed),
    }


def in_words(count: int, what: str) -> str:
    """A number with its noun, in words up to ten."""
    number = NUMBERS[count] if count < len(NUMBERS) else str(count)
    return f"{number} {what}{'' if count == 1 else 's'}"


def perplexity(ce: float) -> str:
    """The perplexity of a cross entropy as text."""
    if math.isnan(ce):
        return "(not measured)"
    value = math.exp(ce)
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def share(value: float) -> str:
    """A share as text."""
    if math.isnan(value):
        return "(not measured)"
    return f"{value:.0%}".replace("%", "\N{NO-BREAK SPACE}%")
