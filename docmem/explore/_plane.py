"""The live key plane: drag a point through the DocRep plane and read what is recalled there.

While the point moves, cross entropies are interpolated in the measured map; when it rests, they
are measured. The memory selection is always exact. The page (static/plane.js) and the kernel talk
in numbered messages, and an answer to an older question is dropped.
"""

import copy
import math
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anywidget
import torch
import traitlets
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from docmem.core.hook import attach
from docmem.editing.doc_reps import keep_doc_reps
from docmem.errors import DocmemError, Several, checked, counted
from docmem.evaluation.cached import first_segments
from docmem.evaluation.plane import KeyPlane, plane_of
from docmem.evaluation.plane import key_plane as measure
from docmem.evaluation.recall import TEXTS, sampled
from docmem.explore._explorer import Explorer, answer_during_cell, error_sentence, lm_of, png_url
from docmem.explore._pictures import PlaneReading, plane_reading
from docmem.explore._scene import plane_scene, selection_limit
from docmem.explore._static import joined, read
from docmem.lm.cross_entropy import check_same_documents, cross_entropies_at
from docmem.lm.generation import generate
from docmem.lm.hidden_states import HiddenStateCache
from docmem.lm.loading import LanguageModel
from docmem.plots import territories
from docmem.plots.style import INK, document_color, new_figure
from docmem.training.run import Run

NEW_TOKENS = 28

Point = tuple[float, float]


class _PlaneWidget(anywidget.AnyWidget):
    """The page's side: `scene` stays, `state` is what a new view shows first."""

    _esm = joined("draw.js", "plane.js")
    _css = read("plane.css")
    scene = traitlets.Dict().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)


class KeyPlaneExplorer(Explorer):
    """A point to drag through the DocRep plane of a run, and what is recalled there.

    Args:
        run: a trained run with DocReps of length 2 or more; of more than 60 documents 60 are shown.
        points: the map has points × points DocReps, if `plane` is not given.
        lm: the run's LM; None: loaded.
        cache: the texts that are measured; None: each document's first segment, as in the figures.
        plane: a map already measured on the same texts; None: measured now, which takes some
            ten seconds on two quiet cores for ten documents and 41 points.
        prompt: what the LM is given; None: the first document's title, as far as it fits the LM.

    Raises:
        DocmemError: if the run has no memory, `lm` is another LM, the DocReps span no plane, or
            `plane` or `cache` is of other documents.
    """

    @checked
    def __init__(
        self,
        run: Run,
        points: Several = 41,
        *,
        lm: LanguageModel | None = None,
        cache: HiddenStateCache | None = None,
        plane: KeyPlane | None = None,
        prompt: str | None = None,
    ) -> None:
        texts = sampled(len(run.titles), TEXTS)
        if plane is not None and plane.documents.tolist() != texts.tolist():
            raise DocmemError(
                f"The map is of {len(plane.ce)} documents, this run holds {len(run.titles)}, of "
                f"which {len(texts)} are shown; measure it again on this run."
            )
        # Of many documents the plane shows those that its figure is of, and knows no others.
        whole = run.load_memory()
        self.origin, self.axes = plane_of(whole.doc_reps)
        places = (whole.doc_reps - self.origin) @ self.axes.T
        if plane is not None and not torch.allclose(places, plane.doc_reps, atol=1e-4):
            raise DocmemError(
                "The map has other DocReps than this run's memory, so it is of another run; "
                "measure it again on this one."
            )
        self.documents = texts.tolist()
        memory = keep_doc_reps(whole, self.documents)
        self.titles = [run.titles[index] for index in self.documents]
        self.unread = {*run.titles} - {*self.titles}
        if lm is not None and cache is not None and lm.model is not cache.lm.model:
            raise DocmemError(
                "The hidden-state cache is of another LM than `lm`; leave one of the two out."
            )
        self.lm = lm_of(run, lm if cache is None else cache.lm)
        self.cache = (
            first_segments(run, self.lm, texts=texts) if cache is None else copy.copy(cache)
        )
        self.cache.lm, self.cache.blocks = self.lm, self.lm.blocks
        check_same_documents(self.cache, memory)
        self.memory = memory.to(self.cache.device)
        if plane is None:
            here = whole.to(self.cache.device)
            plane = measure(self.cache, here, points=points, texts=texts, progress=True)
        self.plane = plane = plane.alone
        self.selection_limit = selection_limit(plane, memory, self.origin, self.axes)
        self._newest = 0  # the number of the page's last question
        self._worker = ThreadPoolExecutor(1)
        self._lm_in_use, self._state_in_use = threading.Lock(), threading.RLock()
        self.point = self._text_at = self._within(*plane.doc_reps[0].tolist())
        self.reading = self._measured(self.point)
        self.prompt = self.lm.prompt(self.titles[0], NEW_TOKENS) if prompt is None else prompt
        self.text = self._written(self.point, self.prompt)
        super().__init__(_PlaneWidget(scene=self._scene(), state=self._state()))
        answer_during_cell(self.widget)
        self.widget.on_msg(self._receive)

    # What is read at a point

    @checked
    def move(self, x: float, y: float) -> PlaneReading:
        """Read (x, y) while the point moves: interpolated in the map, at once."""
        point = self._within(x, y)
        return self._show(point, self._read(point, self._interpolated(point), False))

    @checked
    def rest(self, x: float, y: float) -> PlaneReading:
        """Measure (x, y): every document is read under the DocRep there."""
        point = self._within(x, y)
        return self._show(point, self._measured(point))

    @checked
    def snap(self, document: str | int) -> PlaneReading:
        """Measure at a document's own DocRep.

        Raises:
            DocmemError: if there is no such document, or its DocRep lies beyond the map.
        """
        if document in self.unread:
            raise DocmemError(
                f"{document!r} is not shown: of {len(self.titles) + len(self.unread)} documents "
                f"the plane shows {len(self.titles)}, drawn at random."
            )
        point = tuple(self.plane.doc_reps[self.memory.index_of(document)].tolist())
        if self._within(*point) != point:
            raise DocmemError(
                f"The DocRep of {document!r} lies beyond the map, which ends at "
                f"{float(self.plane.axis[-1]):g}; give a map of a larger extent."
            )
        return self.rest(*point)

    @checked
    def write(self, x: float, y: float, prompt: str) -> str:
        """What the LM writes after `prompt` under the DocRep at (x, y), greedily.

        Raises:
            DocmemError: if the prompt is empty or too long.
        """
        point = self._within(x, y)
        return self._show_text(point, prompt, self._written(point, prompt))

    @property
    def written(self) -> bool:
        """Whether `text` was written at the point where it is now."""
        return self._text_at == self.point

    def _within(self, x: float, y: float) -> Point:
        """(x, y), or the nearest point of the map's edge."""
        if not (math.isfinite(x) and math.isfinite(y)):
            raise DocmemError(f"({x}, {y}) is no point of the plane; give two finite numbers.")
        low, high = float(self.plane.axis[0]), float(self.plane.axis[-1])
        return float(min(max(x, low), high)), float(min(max(y, low), high))

    def _doc_rep(self, point: Point) -> Float[Tensor, " key_dim"]:
        """The DocRep at a point of the plane, on the memory's device.

        At a document's point it is the document's own, which may lie off the plane.
        """
        own = self.plane.document_at(point)
        if own is not None:
            return self.memory.doc_reps[own]
        return (self.origin + torch.tensor(point) @ self.axes).to(self.memory.doc_reps)

    @torch.no_grad()
    def _read(self, point: Point, ce: Float[Tensor, " n_docs"], measured: bool) -> PlaneReading:
        """A reading with given cross entropies."""
        doc_rep = self._doc_rep(point)
        return PlaneReading(doc_rep.cpu(), ce, self.memory.select(doc_rep).cpu(), measured)

    def _measured(self, point: Point) -> PlaneReading:
        """A reading whose cross entropies are measured at the point."""
        doc_rep = self._doc_rep(point)
        with self._lm_in_use:
            ce = cross_entropies_at(self.cache, self.memory, doc_rep[None])[:, 0]
        return self._read(point, ce, True)

    def _written(self, point: Point, prompt: str) -> str:
        """What the LM writes at a point."""
        doc_rep = self._doc_rep(point)
        with self._lm_in_use, attach(self.lm.model, self.memory, self.cache.layer) as hooked:
            return generate(hooked, self.lm.tokenizer, prompt, doc_rep, max_new_tokens=NEW_TOKENS)

    def _interpolated(self, point: Point) -> Float[Tensor, " n_docs"]:
        """The map's cross entropies at a point, bilinear between its four grid points."""
        place = torch.tensor([[[point]]]) / self.plane.axis[-1]  # from -1 to 1
        grid_sample = torch.nn.functional.grid_sample
        return grid_sample(self.plane.ce[None], place, align_corners=True)[0, :, 0, 0]

    # What the page is told

    def _scene(self) -> dict[str, Any]:
        """What stays: the map, its documents, the scales, the colours."""
        shown = self.documents
        colors = territories(
            self.plane, len(shown), color_of=lambda row: document_color(shown[row])
        )
        return {
            **plane_scene(self.plane, self.titles, self.selection_limit, self.documents),
            "ink": INK,
            "map": png_url(colors[::-1]),  # one pixel per cell, the top row first
        }

    def _state(self) -> dict[str, Any]:
        """The point and its reading, as the page draws them."""
        return {
            "x": self.point[0],
            "y": self.point[1],
            "doc_rep": self.reading.doc_rep.tolist(),
            "perplexity": self.reading.perplexity.tolist(),
            "nearest": self.reading.nearest,
            "selection": self.reading.selection.tolist(),
            "measured": self.reading.measured,
            "prompt": self.prompt,
            "text": self.text,
            "written": self.written,
        }

    def _receive(self, _: Any, message: dict[str, Any], __: Any) -> None:
        """Answer a `move` of the page at once; leave a `rest` to the worker."""
        with self._state_in_use:
            if message["number"] <= self._newest:
                return  # a newer question came first
            self._newest = message["number"]
            if message["kind"] == "move":
                self.move(message["x"], message["y"])
                return
        self._worker.submit(self._rest, message)

    def _rest(self, message: dict[str, Any]) -> None:
        """Measure and answer; then write and answer, if asked to. Stop at a newer question."""
        number, prompt = message["number"], message["prompt"]
        if number < self._newest:
            return
        try:
            point = self._within(message["x"], message["y"])
            reading = self._measured(point)
            with self._state_in_use:
                if number < self._newest:
                    return
                self._show(point, reading)
            if not message["write"]:
                return
            text = self._written(point, prompt)
            with self._state_in_use:
                if number == self._newest:
                    self._show_text(point, prompt, text)
        except Exception as error:
            self.widget.send({"kind": "error", "number": number, "sentence": error_sentence(error)})
            if not isinstance(error, DocmemError):
                traceback.print_exc()  # the page shows its message only

    def _show(self, point: Point, reading: PlaneReading) -> PlaneReading:
        """Make this the state, and tell the page."""
        with self._state_in_use:
            self.point, self.reading = point, reading
            self._send()
        return reading

    def _show_text(self, point: Point, prompt: str, text: str) -> str:
        """Make this the text, and tell the page."""
        with self._state_in_use:
            self._text_at, self.prompt, self.text = point, prompt, text
            self._send()
        return text

    def _send(self) -> None:
        """Tell the page the state, as the answer to its last question."""
        state = self._state()
        self.widget.send({"kind": "reading", "number": self._newest, **state})
        if self.reading.measured:
            self.widget.state = state  # for a view that opens later

    # What stands in the widget's place

    @property
    def alt(self) -> str:
        """What the picture shows, in words."""
        best, (x, y) = self.reading.nearest, self.point
        how = "measured" if self.reading.measured else "interpolated"
        of = f"{len(self.titles)} of " if self.unread else ""
        documents = of + counted(len(self.titles) + len(self.unread), "document")
        return (
            f"The DocRep plane of {documents} with a point at ({x:.2f}, {y:.2f}). "
            f"Recalled best there: {self.titles[best]}, perplexity "
            f"{float(self.reading.perplexity[best]):.2f} ({how}). {self._writes()}"
        ).strip()

    def _writes(self) -> str:
        """The text in a sentence; empty if it was written elsewhere."""
        words = f"After “{self.prompt}” the LM writes: “{self.text.strip()}”"
        return words if self.written else ""

    def figure(self) -> Figure:
        """The map with the point, every document's perplexity there, the selection, the text."""
        return plane_reading(
            new_figure(11, 6.6),
            self.plane,
            self.titles,
            self.reading,
            self.point,
            self.selection_limit,
            self._writes(),
            self.documents,
        )


key_plane = KeyPlaneExplorer
