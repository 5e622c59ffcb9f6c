"""What all explorers share: their plain pictures, how they close, an LM of their own."""

import copy
import dataclasses
import json
from collections.abc import Callable
from types import SimpleNamespace

import ipywidgets
import pytest
import torch
from slow import slow
from toys import toy_lm

from docmem import explore
from docmem.core.blocks import lm_fingerprint
from docmem.core.hook import attach
from docmem.documents import Document
from docmem.errors import DocmemError
from docmem.evaluation.plane import KeyPlane
from docmem.explore import _explorer
from docmem.explore._explorer import WIDGET_VIEW, Explorer, note, with_own_modules
from docmem.explore._pictures import (
    MOST_BARS,
    Explanation,
    PlaneReading,
    explanation,
    plane_reading,
)
from docmem.lm.forward import forward_inputs
from docmem.lm.loading import LanguageModel
from docmem.plots import writing
from docmem.plots.style import new_figure, png_bytes
from docmem.training.run import Run

Trained = tuple[LanguageModel, Run]
NAMES = ("key_plane", "scrubber", "recall", "attribution", "training")


@pytest.fixture
def make(trained: Trained) -> Callable[[str], Explorer]:
    """Make an explorer by its name."""
    lm, run = trained
    doc_reps = run.load_memory().doc_reps
    finished = dataclasses.replace(run.config, save_dir=run.path)
    plane = KeyPlane(torch.linspace(-1, 1, 2), torch.rand(3, 2, 2), doc_reps)
    makers = {
        "key_plane": lambda: explore.key_plane(run, lm=lm, plane=plane),
        "scrubber": lambda: explore.scrubber(run),
        "recall": lambda: explore.recall(run, lm=lm),
        "attribution": lambda: explore.attribution(run, lm=lm),
        "training": lambda: explore.training(finished, lm=lm, documents=run.documents),
    }
    return lambda name: makers[name]()


@pytest.mark.parametrize("name", [*NAMES[:2], *map(slow, NAMES[2:])])
def test_explorer_shows_widget_picture_and_alt_text_and_closes_all_parts(
    make: Callable[[str], Explorer], name: str
) -> None:
    explorer = make(name)
    if name == "training":
        explorer.wait()
    bundle = explorer._repr_mimebundle_()
    json.dumps(bundle)
    assert bundle[WIDGET_VIEW]["model_id"] == explorer.widget.model_id
    assert bundle["text/plain"] == explorer.alt
    start = "<div" if name == "recall" else f'<img alt="{explorer.alt[:20]}'
    assert bundle["text/html"].startswith(start)
    assert ("<table" if name == "recall" else "data:image/png;base64,iVBOR") in bundle["text/html"]

    parts = [explorer.widget]
    for widget in parts:
        parts += getattr(widget, "children", ())
    assert all(widget.comm is not None for widget in parts)
    explorer.close()
    assert all(widget.comm is None for widget in parts)
    assert explorer._repr_mimebundle_().keys() == {"text/html", "text/plain"}


def test_cell_run_again_closes_only_its_own_explorers(monkeypatch: pytest.MonkeyPatch) -> None:
    def made_in(cell: str, request: str) -> Explorer:
        parent = {"metadata": {"cellId": cell}, "header": {"msg_id": request}}
        shell = SimpleNamespace(get_parent=lambda: parent)
        monkeypatch.setattr(_explorer, "get_ipython", lambda: shell)
        return Explorer(ipywidgets.HTML())

    monkeypatch.setattr(_explorer, "_made_in", {})
    one, two = made_in("a", "first"), made_in("a", "first")
    other = made_in("b", "second")
    assert all(made.widget.comm is not None for made in (one, two, other))
    again = made_in("a", "third")
    assert one.widget.comm is two.widget.comm is None
    assert other.widget.comm is not None
    assert again.widget.comm is not None


def test_outside_a_notebook_no_explorer_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_explorer, "_made_in", {})
    Explorer(ipywidgets.HTML())
    assert _explorer._made_in == {}


def test_lm_with_own_modules_shares_weights_but_no_hooks(trained: Trained) -> None:
    lm, run = trained
    own = with_own_modules(dataclasses.replace(lm, origin="a package"))
    assert (own.name, own.origin) == (lm.name, "a package")
    assert lm_fingerprint(own.model) == lm_fingerprint(lm.model)
    for mine, theirs in zip(own.model.parameters(), lm.model.parameters(), strict=True):
        assert mine.data_ptr() == theirs.data_ptr()
        assert not mine.requires_grad
        theirs.requires_grad_(True)  # as the cell may want it
        assert not mine.requires_grad
        theirs.requires_grad_(False)
    batch = lm.tokenize(["Cyclone Odalys crossed the Brannic Sea"])
    with torch.no_grad():
        base = own.model(**forward_inputs(own.model, batch)).logits
        with attach(lm.model, run.load_memory(), -1) as hooked, hooked.document(0):
            beside = own.model(**forward_inputs(own.model, batch)).logits
            within = lm.model(**forward_inputs(lm.model, batch)).logits
    assert torch.equal(base, beside)
    assert not torch.allclose(base, within)


def test_explorers_reject_another_lm(trained: Trained) -> None:
    with pytest.raises(DocmemError, match="has other weights"):
        explore.recall(trained[1], lm=toy_lm(seed=1))


@pytest.mark.parametrize("name", ("key_plane", "training"))
def test_messages_go_to_the_subshell_that_the_page_names(
    make: Callable[[str], Explorer], name: str
) -> None:
    explorer = make(name)
    widget = explorer.button if name == "training" else explorer.widget
    assert widget.comm._reply_subshell_for({"method": "custom"}, "beside") == "beside"
    explorer.close()


# Titles and texts from data are shown as they are

ODD = "a_b $x^2$ <i>c</i> ^{d}"


def test_notes_show_markup_as_text() -> None:
    assert "a_b <span>$</span>x^2<span>$</span> &lt;i&gt;c&lt;/i&gt;" in note(ODD)


def test_recall_table_shows_markup_as_text(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explore._recall, "NEW_TOKENS", 4)
    lm, run = trained
    texts = ["<b>Cyclone & co</b> <script>", "Quill", "Quill"]
    run = copy.copy(run)
    run.documents = [Document(ODD, text) for text in texts]
    explorer = explore.recall(run, lm=lm)
    explorer.recall(0, '<img src="x"> $y$', 1)
    shown = explorer.html()
    assert "&lt;img src=&quot;x&quot;&gt;" in shown
    assert "&lt;i&gt;c" in shown
    for markup in ("<img", "<b>", "<script", "<i>", "$x", "$y"):
        assert markup not in shown


def many(n_docs: int) -> tuple[KeyPlane, PlaneReading]:
    """A map of many documents, and a reading at a point of it."""
    torch.manual_seed(0)
    axis = torch.linspace(-1, 1, 5)
    plane = KeyPlane(axis, 1 + 4 * torch.rand(n_docs, 5, 5), 2 * torch.rand(n_docs, 2) - 1)
    return plane, PlaneReading(torch.zeros(2), plane.ce[:, 2, 2], torch.randn(24), True)


@pytest.mark.slow
def test_pictures_of_sixty_documents_say_how_many_bars_they_leave_out() -> None:
    titles = [f"{ODD} {index}" for index in range(60)]
    plane, reading = many(60)
    figures = [
        plane_reading(
            new_figure(11, 6.6), plane, titles, reading, (0, 0), 1.0, ODD, range(len(titles))
        ),
        explanation(new_figure(11, 5.6), Explanation(ODD, reading.ce.tolist(), 6, None), titles),
    ]
    kept = reading.ce.argsort()[:MOST_BARS].sort().values.tolist()
    for bars, figure in zip((figures[0].axes[1], figures[1].axes[0]), figures, strict=True):
        figure.set_dpi(60)
        assert len(bars.patches) == MOST_BARS
        shown = [text.get_text() for text in bars.texts]
        assert [text for text in shown if text.isdigit()] == [str(index + 1) for index in kept]
        subtitle = " ".join(figure.texts[-1].get_text().split())
        assert "48 documents with higher values are not shown" in subtitle
        png_bytes(figure)  # draws; warnings about glyphs or formulas are errors
    few, reading = many(3)
    figure = plane_reading(new_figure(11, 6.6), few, titles[:3], reading, (0, 0), 1.0, "", range(3))
    assert len(figure.axes[1].patches) == 3
    assert "not shown" not in figure.texts[-1].get_text()


def test_pictures_number_a_document_whose_letters_no_font_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writing, "FONTS", ["DejaVu Sans"])
    monkeypatch.setattr(writing, "SAID", {"Noto Sans CJK SC"})
    plane, reading = many(3)
    reading = reading._replace(ce=torch.tensor([3.0, 2.0, 4.0]).log())
    titles, place = ["one", "雨中的花园", "three"], (0, 0)
    figures = [
        plane_reading(new_figure(11, 6.6), plane, titles, reading, place, 1.0, "", range(3)),
        explanation(new_figure(11, 5.6), Explanation("a text", [3.0, 2.0, 4.0], 6, None), titles),
    ]
    for bars, figure in zip((figures[0].axes[1], figures[1].axes[0]), figures, strict=True):
        assert "2.00  document 2" in [text.get_text() for text in bars.texts]
        assert figure.get_suptitle().strip().endswith("document 2")
