"""What a page holds of runs: each number from the functions that the figures use, as plain data."""

import base64
import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.colors import to_hex, to_rgb
from matplotlib.path import Path as Outline
from torch import Tensor
from tqdm.auto import tqdm

from docmem.core.hook import attach
from docmem.core.memory import DocumentMemory
from docmem.documents import Document, segments
from docmem.editing.doc_reps import keep_doc_reps
from docmem.errors import DocmemError
from docmem.evaluation.attribution import BASE_LM, attribute
from docmem.evaluation.cached import first_segments
from docmem.evaluation.continuations import continuations, opening, recall
from docmem.evaluation.plane import KeyPlane, plane_of
from docmem.evaluation.recalled import Source, marked_pieces
from docmem.evaluation.verbatim import letters
from docmem.explore._explorer import png_url
from docmem.explore._scene import plane_scene, selection_limit
from docmem.lm.cross_entropy import cross_entropies_at
from docmem.lm.generation import generate_texts
from docmem.lm.loading import LanguageModel
from docmem.plots import style
from docmem.plots.animation import color_limits, panels_at, spaced_snapshots
from docmem.plots.plane import farthest_points, outlines, smooth, square, territories
from docmem.training.run import Run
from docmem.training.setup import configured_documents
from docmem.training.texts import digest_of

FRAMES = 60  # snapshots of the training
NEW_TOKENS = 32
ROWS_AT_ONCE = 256  # places at which a prompt is continued together
PASSAGE_WORDS = 24
EVERYDAY = "On Tuesday I bought bread, forgot the milk, and walked home in the rain without a hat."
DARK_GROUND = "#16181d"
UNIT = 4000  # steps across the map in which outlines are drawn


@dataclass(frozen=True)
class Shown:
    """A run as a page shows it: all documents, or those that its map is of; indices count these."""

    run: Run
    numbers: list[int]
    """The index of each document in the run."""
    documents: list[Document]
    memory: DocumentMemory
    plane: KeyPlane
    origin: Tensor
    axes: Tensor

    @classmethod
    def of(cls, run: Run, plane: KeyPlane) -> "Shown":
        """Of a run and a map of it."""
        memory, numbers = run.load_memory(), plane.documents.tolist()
        documents = [run.documents[number] for number in numbers]
        kept = keep_doc_reps(memory, numbers)
        return cls(run, numbers, documents, kept, plane.alone, *plane_of(memory.doc_reps))

    def color(self, index: int) -> str:
        """The colour that a document has in the run's figures."""
        return style.document_color(self.numbers[index])


def dark_color(index: int) -> str:
    """A document's colour on a dark page: the same, lighter."""
    red, green, blue = (0.68 * part + 0.32 for part in to_rgb(style.document_color(index)))
    return to_hex((red, green, blue))


def color_variables(color_of: Callable[[int], str]) -> str:
    """The documents' colours and the inks on them as CSS."""
    colors = [color_of(index) for index in range(len(style.DOCUMENT_COLORS))]
    return "".join(
        f"--doc-{index}:{color};--on-doc-{index}:{style.ink_on(color)};"
        for index, color in enumerate(colors)
    )


def packed(values: Tensor | np.ndarray, kind: str) -> dict[str, Any]:
    """Numbers as JavaScript unpacks them: float32, int8 or uint32, little-endian."""
    array = np.ascontiguousarray(values, np.dtype(kind).newbyteorder("<"))
    return {"type": kind, "data": base64.b64encode(array.tobytes()).decode()}


def in_eight_bits(frames: list[dict[str, Tensor]], panel: str, limit: float) -> dict[str, Any]:
    """One heat map of all frames, as shares of its limit from -127 to 127, packed."""
    shares = torch.stack([frame[panel] for frame in frames]).div(limit or 1.0)
    return packed(shares.mul(127).round().clamp(-127, 127), "int8")


def generator(memory: DocumentMemory) -> dict[str, Any]:
    """The key generator, from DocReps to memory selections, as static/memory.js takes it."""
    weights = memory.document_key.named_parameters(prefix="document_key")
    return {
        "config": asdict(memory.config),
        "weights": {name: packed(one.detach().cpu(), "float32") for name, one in weights},
    }


def outline(path: Outline, reach: float) -> str:
    """A line of a map as an SVG path: from 0 to UNIT, down and across."""
    across, up = np.asarray(path.vertices, float).T
    places = UNIT / (2 * reach) * np.stack([across + reach, reach - up], 1)
    if path.codes is None or not len(places):
        return ""
    words: list[str] = []
    before = (-1, -1)
    codes = np.asarray(path.codes).tolist()
    for (x, y), code in zip(np.round(places).astype(int).tolist(), codes, strict=True):
        if code == Outline.MOVETO:
            words.append(f"M{x} {y}")
        elif code == Outline.CLOSEPOLY:
            words.append("Z")
        elif (x, y) != before:
            words.append(f"L{x} {y}")
        before = (x, y)
    return "".join(words)


def map_picture(shown: Shown) -> dict[str, Any]:
    """The map as the figures draw it, light and dark, with its borders and contours as lines."""
    drawn, n_docs = smooth(shown.plane), len(shown.numbers)
    extent = drawn.axis[-1].item()
    reach = extent + (drawn.axis[1] - drawn.axis[0]).item() / 2
    axes = style.new_figure(4.4, 4.4, 100).subplots()
    square(axes, reach)
    outlines(axes, drawn)
    light = territories(drawn, n_docs, True, shown.color)
    dark = territories(
        drawn, n_docs, True, lambda index: dark_color(shown.numbers[index]), DARK_GROUND
    )
    return {
        "axis": drawn.axis.tolist(),
        "map": png_url(light[::-1], small=True),
        "dark": png_url(dark[::-1], small=True),
        "lines": [
            {"kind": "border" if np.asarray(lines.get_edgecolor()).min() == 1 else "level", "d": d}
            for lines in axes.collections
            for path in lines.get_paths()
            if (d := outline(path, reach))
        ],
        "labels": [
            {
                "x": (text.get_position()[0] + reach) / (2 * reach),
                "y": (reach - text.get_position()[1]) / (2 * reach),
                "angle": text.get_rotation(),
                "text": text.get_text(),
            }
            for text in axes.texts
        ],
    }


def sources_of(shown: Shown, indices: Sequence[int]) -> list[Source]:
    """Documents as sources whose words are marked; their labels are their indices."""
    return [Source(str(index), "", shown.documents[index].text) for index in indices]


def pieces_of(text: str, prompt: str, sources: Sequence[Source]) -> list[tuple[str, int]]:
    """A text in pieces, each with the index of the document that it is word for word in, or -1."""
    return [
        (piece, -1 if source is None else int(source.label))
        for piece, source in marked_pieces(text, prompt, sources)
    ]


def verbatim_letters(pieces: Sequence[tuple[str, int]], own: int | None = None) -> float:
    """The share of a text's letters that stand word for word in a document, or in the own one."""
    total = sum(letters(piece) for piece, _ in pieces)
    copied = (piece for piece, source in pieces if source >= 0 and own in (None, source))
    return sum(map(letters, copied)) / max(1, total)


def prompts_for(shown: Shown, lm: LanguageModel) -> list[str]:
    """How all documents begin, if they begin alike, and the openings of three of them.

    Some LMs make nothing of a single token: the beginning is left out where none of the three is
    gone on with from there.
    """
    length, chosen = shown.run.config.segment_length, farthest_points(shown.plane, 3)
    firsts = {segments(one.text, length)[0].split()[0] for one in shown.run.documents}
    openings = [
        lm.prompt(opening(shown.documents[index], words=5, segment_length=length), NEW_TOKENS)
        for index in chosen
    ]
    begun = len(firsts) == 1 and any(
        recall(shown.run, shown.numbers[index], *firsts, lm=lm, max_new_tokens=12).verbatim
        for index in chosen
    )
    return [*(firsts if begun else ()), *filter(None, openings)]


def plane_of_run(
    shown: Shown,
    lm: LanguageModel,
    prompts: Sequence[str],
    text_points: int,
    tokens: int | None = None,
) -> dict[str, Any]:
    """The plane with what the LM writes at text_points × text_points places and every DocRep.

    `tokens` of each text are read, as for the map; None: its first segment.
    """
    memory, plane, n_docs = shown.memory, shown.plane, len(shown.numbers)
    layer = shown.run.config.hook_memory_layer
    ticks = torch.linspace(plane.axis[0].item(), plane.axis[-1].item(), text_points)
    places = torch.cat([torch.cartesian_prod(ticks, ticks), plane.doc_reps])
    sources = sources_of(shown, range(n_docs))
    known: dict[tuple[str, str], int] = {}  # prompt and text
    found = list[list[int]]()  # of each prompt, at each place: which text
    with attach(lm.model, copy.deepcopy(memory), layer) as hooked:
        on_plane = shown.origin + places[:-n_docs] @ shown.axes
        doc_reps = torch.cat([on_plane, memory.doc_reps])
        bar = tqdm(desc="texts", total=len(prompts) * len(doc_reps), unit="text", leave=False)
        for prompt in prompts:
            which: list[int] = []
            for rows in doc_reps.split(ROWS_AT_ONCE):
                with hooked.document(rows):
                    texts = generate_texts(
                        lm.model, lm.tokenizer, prompt, len(rows), max_new_tokens=NEW_TOKENS
                    )
                which += [known.setdefault((prompt, text), len(known)) for text in texts]
                bar.update(len(rows))
            found.append(which)
        bar.close()
    at_own = {}
    if plane.away is not None:  # a document's DocRep is no point of the plane
        read = first_segments(shown.run, lm, tokens, torch.tensor(shown.numbers))
        ce = cross_entropies_at(read, memory, memory.doc_reps)  # (texts, n_docs)
        at_own = {"doc_reps": memory.doc_reps.tolist(), "own_ce": packed(ce.T, "float32")}
    pieces = [pieces_of(text, prompt, sources) for prompt, text in known]
    shares = [verbatim_letters(pieces[index]) for index in found[0][:-n_docs]]
    at_home = [verbatim_letters(pieces[text], own) for own, text in enumerate(found[0][-n_docs:])]
    limit = selection_limit(plane, memory, shown.origin, shown.axes)
    scene = plane_scene(plane, [one.title for one in shown.documents], limit, shown.numbers)
    colors = [number % len(style.DOCUMENT_COLORS) for number in shown.numbers]
    return {
        "scene": scene
        | map_picture(shown)
        | {
            "ink": "var(--ink)",
            "colors": [f"var(--doc-{color})" for color in colors],
            "inks": [f"var(--on-doc-{color})" for color in colors],
            "hint": "Drag the point, or use the arrow keys, with Shift in fine steps. Click a "
            f"number to go to a document. The LM wrote at {len(places):,} places; the nearest is "
            "shown.",
        },
        "axis": plane.axis.tolist(),
        "ce": packed(plane.ce, "float32"),
        **at_own,
        "origin": shown.origin.tolist(),
        "axes": shown.axes.tolist(),
        "generator": generator(memory),
        "prompts": list(prompts),
        "places": packed(places, "float32"),
        "texts": pieces,
        "written": [packed(np.array(which), "uint32") for which in found],
        "verbatim": sum(shares) / len(shares),  # after the first prompt, over the grid
        "begin": at_home.index(max(at_home)),  # where the ring is at first: what is recalled best
        "newTokens": NEW_TOKENS,
    }


def recall_of_run(shown: Shown, lm: LanguageModel, n_prompts: int) -> list[list[dict[str, Any]]]:
    """For each document, and for each of its prompts, four continuations and the true one."""
    memory, config = shown.memory, shown.run.config
    distance = torch.cdist(memory.doc_reps, memory.doc_reps).fill_diagonal_(torch.inf)
    found = []
    bar = tqdm(shown.documents, desc="recall", unit="document", leave=False, delay=5)
    for index, document in enumerate(bar):
        other = int(distance[index].argmin()) if len(shown.documents) > 1 else index
        own, others = memory.doc_reps[[index, other]]
        under = {
            "its own DocRep": own,
            "the nearest other DocRep": others,
            "halfway between the two": torch.lerp(own, others, 0.5),
            "no memory: the base LM": BASE_LM,
        }
        marked = [[index], [other], [index, other], []]
        if other == index:  # there is no other
            under = {"its own DocRep": own, "no memory: the base LM": BASE_LM}
            marked = [[index], []]
        learned = segments(document.text, config.segment_length, config.max_segments)
        prompts = []
        for segment in reversed(range(max(0, len(learned) - n_prompts), len(learned))):
            prompt = opening(document, segment, segment_length=config.segment_length)
            prompt = lm.prompt(prompt, NEW_TOKENS)
            rows = continuations(
                lm, memory, config.hook_memory_layer, document, prompt, under,
                max_new_tokens=NEW_TOKENS,
            )  # fmt: skip
            asked = sources_of(shown, [index])
            sources = sources_of(shown, sorted({index, other}))
            prompts.append(
                {
                    "prompt": rows[0].prompt,
                    "truth": rows[0].pieces,
                    "rows": [
                        {
                            "label": row.under,
                            "documents": documents,
                            "pieces": pieces_of(row.text, row.prompt, sources),
                            "verbatim": verbatim_letters(pieces_of(row.text, row.prompt, asked)),
                            "ce": row.ce if row.pieces else None,
                            "losses": [round(loss, 2) for loss in row.losses.tolist()],
                        }
                        for row, documents in zip(rows, marked, strict=True)
                    ],
                }
            )
        found.append(prompts)
    return found


def whole_documents(run: Run) -> list[Document]:
    """The documents with all their text, where it is still found as it was; else what was read."""
    try:
        found = configured_documents(run.config)
    except DocmemError:  # they have moved, or cannot be downloaded: the run has what it read
        return run.documents
    known = {one["sha256"] for one in run.description["documents"]}
    whole = {one.title: one for one in found if digest_of(one.text) in known}
    return [whole.get(one.title, one) for one in run.documents]


def repeats(text: str, read: Sequence[str]) -> bool:
    """Whether eight words in a row of a text, from a place that divides by eight, were read."""
    words, known = text.split(), " ".join(" ".join(read).split())
    return any(" ".join(words[at : at + 8]) in known for at in range(0, len(words) - 7, 8))


def passages_of_run(shown: Shown, lm: LanguageModel) -> list[dict[str, Any]]:
    """Passages that were memorised, later ones of the same documents, and an everyday sentence."""
    config, documents = shown.run.config, whole_documents(shown.run)
    passages = list[tuple[str, int, str]]()
    for index in farthest_points(shown.plane, 3):
        every = segments(documents[shown.numbers[index]].text, config.segment_length)
        read, rest = every[: config.max_segments], every[config.max_segments + 1 :]
        chosen = {"memorised": read[len(read) // 2]}
        # The rest begins after what was read, but a text may repeat itself; headings tell too much.
        if unread := [text for text in rest if "=" not in text and not repeats(text, read)]:
            chosen["same document, never memorised"] = unread[0]
        for kind, text in chosen.items():
            passage = " ".join(text.split()[:PASSAGE_WORDS])
            passages.append((kind, index, lm.beginning(passage, config.max_length)))
    passages.append(("everyday", -1, EVERYDAY))
    found = []
    for kind, index, text in tqdm(passages, "passages", unit="passage", leave=False, delay=5):
        ranked = attribute(lm, shown.memory, config.hook_memory_layer, text)
        ce = {one.title: one.ce for one in ranked}
        found.append(
            {
                "kind": kind,
                "from": index,
                "text": text,
                "ce": [ce[one.title] for one in shown.documents],
                "base": ce[BASE_LM],
            }
        )
    return sorted(found, key=lambda one: one["kind"] != "memorised")


def training_of_run(run: Run, name: str) -> dict[str, Any]:
    """Heat maps of the snapshots in eight bits, on one scale each, and the losses."""
    snapshots = run.load_snapshots()
    frames = spaced_snapshots(len(snapshots.epochs), FRAMES)
    limits = color_limits(snapshots, frames)
    panels = [panels_at(snapshots, frame) for frame in frames]
    return {
        "name": name,
        "entries": snapshots.token.shape[-1],
        "epochs": [snapshots.epochs[frame] for frame in frames],
        "tau": run.config.target_negative_ce,
        "negative": style.after_own(style.NEGATIVE_LABELS[run.config.negative_key_type]),
        "history": [
            (round(epoch.positive_ce, 3), round(epoch.negative_ce, 3))
            for epoch in run.load_history()
        ],
        "panels": [
            {"name": panel, "limit": limit, "values": in_eight_bits(panels, panel, limit)}
            for panel, limit in limits.items()
        ],
    }
