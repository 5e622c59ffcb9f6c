"""What the explorers share: a widget, a plain picture beside it, an end, an LM of their own."""

import base64
import copy
import html
import itertools
import threading
from collections.abc import Callable
from typing import Any

import ipywidgets
from IPython import get_ipython
from IPython.display import DisplayHandle, display
from matplotlib.figure import Figure

from docmem.errors import DocmemError
from docmem.lm.loading import LanguageModel
from docmem.plots.style import INK, png_bytes
from docmem.training.run import Run

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

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
        _close_what_this_cell_made_before(self)

    @property
    def alt(self) -> str:
        """What the picture shows, in words."""
        raise NotImplementedError

    def figure(self) -> Figure:
        """The plain picture of the current state."""
        raise NotImplementedError

    def html(self) -> str:
        """The plain picture as HTML with its alt text."""
        picture = base64.b64encode(png_bytes(self.figure())).decode()
        return (
            f'<img alt="{html.escape(self.alt)}" style="max-width:100%" '
            f'src="data:image/png;base64,{picture}">'
        )

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


def answer_beside_the_cell(widget: ipywidgets.Widget) -> None:
    """Have the page's messages to a widget answered while a cell runs, where a host can.

    JupyterLab sends them to a subshell, a thread of their own, but ipykernel 7.4 takes them back
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


def _close_what_this_cell_made_before(explorer: Explorer) -> None:
    """Remember which cell made the explorer; close those of the cell's previous run."""
    shell = get_ipython()
    if not hasattr(shell, "get_parent"):
        return  # no notebook
    parent = shell.get_parent()
    metadata = parent.get("metadata", {})
    cell = metadata.get("cellId") or metadata.get("colab", {}).get("cell_id")
    if cell is None:
        return  # a host that does not tell
    request = parent["header"]["msg_id"]
    before, explorers = _made_in.get(cell, (request, []))
    if before != request:
        for old in explorers:
            old.close()
        explorers = []
    _made_in[cell] = (request, [*explorers, explorer])


def with_own_modules(lm: LanguageModel) -> LanguageModel:
    """The same weights in modules of their own.

    Widgets are answered beside the running cell, in a thread of their own. What they attach to
    the LM, or pass over in it, must not meet what the cell attaches to it.
    """
    weights = itertools.chain(lm.model.parameters(), lm.model.buffers())
    shared = {id(weight): weight for weight in weights}
    return LanguageModel(copy.deepcopy(lm.model, shared), copy.deepcopy(lm.tokenizer), lm.name)


def lm_of(run: Run, lm: LanguageModel | None) -> LanguageModel:
    """The run's LM, loaded unless given, in modules of its own.

    Raises:
        DocmemError: if `lm` is not the LM this run was trained on.
    """
    if lm is None:
        return run.load_lm()
    run.check_lm(lm)
    return with_own_modules(lm)


def sentence(error: Exception) -> str:
    """An error as a reader should meet it."""
    return str(error) if isinstance(error, DocmemError) else f"{type(error).__name__}: {error}"


def note(text: str, color: str = INK) -> str:
    """A line of text as HTML, readable on a light and on a dark page."""
    return (
        f'<div style="background:#ffffff;color:{color};padding:4px 8px;border-radius:4px;'
        f'line-height:1.5">{html.escape(text)}</div>'
    )


class Latest:
    """A thread that does the newest job asked of it; jobs overtaken before they begin are left.

    It lives while there is something to do.
    """

    def __init__(self) -> None:
        self._job: Callable[[], None] | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def ask(self, job: Callable[[], None]) -> None:
        """Have `job` done next, in place of any that still waits."""
        with self._lock:
            self._job = job
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()

    def settle(self) -> None:
        """Wait until nothing is left to do."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        try:
            while True:
                with self._lock:
                    job, self._job = self._job, None
                    if job is None:
                        self._thread = None
                        return
                job()
        except BaseException:
            with self._lock:
                self._thread = None
            raise
