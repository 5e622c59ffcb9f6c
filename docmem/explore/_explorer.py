"""What all explorers share: a widget, a plain picture of the same state, an end, their own LM."""

import base64
import copy
import dataclasses
import html
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ipywidgets
import numpy as np
import torch
from IPython import get_ipython
from IPython.display import DisplayHandle, display
from matplotlib.figure import Figure
from PIL import Image

from docmem.errors import DocmemError
from docmem.evaluation.recalled import html_text
from docmem.lm.loading import LanguageModel
from docmem.plots.style import GREY, INK, png_bytes
from docmem.training.run import Run

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
RED = "#a11212"

# Cell id to the request that last ran the cell, and the explorers it made.
_made_in: dict[str, tuple[str, list["Explorer"]]] = {}


class Explorer:
    """A widget with a plain picture of the same state, for where no widget runs.

    Args:
        widget: the outermost widget.
    """

    def __init__(self, widget: ipywidgets.Widget) -> None:
        self.widget = widget
        self._shown: DisplayHandle | None = None
        _close_earlier_explorers_of_cell(self)

    @property
    def alt(self) -> str:
        """What the picture shows, in words."""
        raise NotImplementedError

    def figure(self) -> Figure:
        """The plain picture of the current state."""
        raise NotImplementedError

    def html(self) -> str:
        """The plain picture as HTML with its alt text."""
        source = data_url(png_bytes(self.figure()))
        return f'<img alt="{html.escape(self.alt)}" style="max-width:100%" src="{source}">'

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """The widget and, for where it cannot run, its plain picture and its alt text."""
        bundle: dict[str, Any] = {"text/html": self.html(), "text/plain": self.alt}
        if self.widget.comm is not None:
            view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
            bundle[WIDGET_VIEW] = view
        return bundle

    def _ipython_display_(self) -> None:
        """Publish as `display` does: only then does Colab load the widget's manager."""
        self._shown = display(self._repr_mimebundle_(), raw=True, display_id=True)

    def refresh(self) -> None:
        """Renew the plain picture where it was last shown; the widget shows every change anyway."""
        if self._shown is not None:
            self._shown.update(self._repr_mimebundle_(), raw=True)

    def close(self) -> None:
        """Close the widget with all its parts and leave the plain picture."""
        _close(self.widget)


def answer_during_cell(widget: ipywidgets.Widget) -> None:
    """Let a widget answer the page's messages while a cell runs, where the host allows it.

    JupyterLab sends them to a subshell, a thread of its own, but ipykernel 7.4 takes them back
    to the shell that made the widget, where they wait for the cell. Elsewhere this does nothing.
    """
    if widget.comm is not None:
        widget.comm._reply_subshell_for = lambda _, subshell: subshell


def _close(widget: ipywidgets.Widget) -> None:
    """Close a widget and the widgets in it, and remove their observers."""
    for child in getattr(widget, "children", ()):
        _close(child)
    for part in ("layout", "style"):
        if widget.has_trait(part) and isinstance(getattr(widget, part), ipywidgets.Widget):
            getattr(widget, part).close()
    widget.unobserve_all()
    widget.close()


def _close_earlier_explorers_of_cell(explorer: Explorer) -> None:
    """Remember which cell made the explorer; close those of the cell's previous run."""
    shell = get_ipython()
    if not hasattr(shell, "get_parent"):
        return  # no notebook
    parent = shell.get_parent()
    metadata = parent.get("metadata", {})
    cell = metadata.get("cellId") or metadata.get("colab", {}).get("cell_id")
    if cell is None:
        return  # the host does not tell
    request = parent["header"]["msg_id"]
    before, explorers = _made_in.get(cell, (request, []))
    if before != request:
        for old in explorers:
            old.close()
        explorers = []
    _made_in[cell] = (request, [*explorers, explorer])


def with_own_modules(lm: LanguageModel) -> LanguageModel:
    """The same weights in modules of their own.

    Widgets answer in a thread of their own while a cell runs. Hooks that they put on the LM,
    blocks that they skip, or gradients that they turn off, must not meet those of the cell.
    """
    shared: dict[int, Any] = {id(buffer): buffer for buffer in lm.model.buffers()}
    for weight in lm.model.parameters():
        plain = type(weight) is torch.nn.Parameter  # others, as quantised ones, know more
        own = torch.nn.Parameter(weight.detach(), requires_grad=False) if plain else weight
        shared[id(weight)] = own
    return dataclasses.replace(
        lm, model=copy.deepcopy(lm.model, shared), tokenizer=copy.deepcopy(lm.tokenizer)
    )


def lm_of(run: Run, lm: LanguageModel | None) -> LanguageModel:
    """The run's LM, loaded unless given, in modules of its own.

    Raises:
        DocmemError: if `lm` is not the LM that this run was trained on.
    """
    if lm is None:
        return run.load_lm()
    run.check_lm(lm)
    return with_own_modules(lm)


def error_sentence(error: Exception) -> str:
    """The text that shows an error to the reader."""
    return str(error) if isinstance(error, DocmemError) else f"{type(error).__name__}: {error}"


def note(text: str, color: str = INK) -> str:
    """A line of text as HTML, readable on a light and on a dark page."""
    return (
        f'<div style="background:#ffffff;color:{color};padding:4px 8px;border-radius:4px;'
        f'line-height:1.5">{html_text(text)}</div>'
    )


@contextmanager
def reporting(status: ipywidgets.HTML, words: str) -> Iterator[None]:
    """Within: `status` shows `words`; after: nothing, or the error that ended the work.

    A DocmemError is only shown; any other error is shown and raised.
    """
    status.value = note(words, GREY)
    try:
        yield
        status.value = ""
    except Exception as error:
        status.value = note(error_sentence(error), RED)
        if not isinstance(error, DocmemError):
            raise


def data_url(png: bytes) -> str:
    """A PNG as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def png_of(pixels: np.ndarray, small: bool = False) -> bytes:
    """Pixels (height, width, 3), bytes, as a PNG that is made fast, or made small."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1, optimize=small)
    return buffer.getvalue()


def png_url(colors: np.ndarray, small: bool = False) -> str:
    """Colours (height, width, 3) from 0 to 1 as a PNG in an address, as `png_of`."""
    return data_url(png_of(np.round(255 * colors).astype(np.uint8), small))
