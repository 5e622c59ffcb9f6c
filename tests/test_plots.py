import base64
import io

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from docmem import plots
from docmem.evaluation.continuity import Continuity
from docmem.evaluation.plane import KeyPlane, Line
from docmem.evaluation.published import EPOCHS, RUNS
from docmem.plots import style
from docmem.plots.style import new_figure
from docmem.training.history import Epoch
from docmem.training.selection import Snapshots

HISTORY = [Epoch(i + 1, 4.0 / (i + 1), 4.2 + 0.01 * i, 0.1 / (i + 1), 0.5) for i in range(20)]


def plane(n_docs: int = 4, points: int = 7) -> KeyPlane:
    generator = torch.Generator().manual_seed(0)
    ce = 1 + 4 * torch.rand(n_docs, points, points, generator=generator)
    doc_reps = torch.rand(n_docs, 2, generator=generator) - 0.5
    return KeyPlane(torch.linspace(-1, 1, points), ce, doc_reps)


def test_the_curves_of_the_losses_are_the_history() -> None:
    figure = plots.losses(new_figure(8, 5), {"relu": HISTORY}, 4.5, "note")
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines["own DocRep"].get_ydata()) == [e.positive_ce for e in HISTORY]
    assert list(lines["another's DocRep"].get_ydata()) == [e.negative_ce for e in HISTORY]
    assert list(lines["own DocRep"].get_xdata()) == [e.epoch for e in HISTORY]
    assert any(set(line.get_ydata()) == {4.5} for line in figure.axes[0].lines)


def test_a_point_of_the_key_plane_has_the_hue_of_the_document_it_recalls_best() -> None:
    measured = plane()
    figure = plots.key_plane(new_figure(6, 5), measured, list("abcd"), "note")
    picture = np.asarray(figure.axes[0].images[0].get_array())
    for up in range(7):
        for across in range(7):
            best = int(measured.ce[:, up, across].argmin())
            ink = 1 - np.array(to_rgb(style.document_color(best)))
            missing = 1 - picture[up, across]
            np.testing.assert_allclose(missing, ink * (missing.max() / ink.max()), atol=1e-6)


def test_the_wells_are_the_measured_perplexities() -> None:
    measured = plane()
    figure = plots.perplexity_wells(new_figure(8, 6), measured, list("abcd"), [0, 2, 3], "n")
    maps = [axes.collections[0] for axes in figure.axes if axes.get_title(loc="left")]
    for mesh, index in zip(maps, (0, 2, 3), strict=True):
        np.testing.assert_allclose(
            mesh.get_array().reshape(7, 7), measured.ce[index].exp().numpy(), rtol=1e-6
        )
    assert len({(mesh.norm.vmin, mesh.norm.vmax) for mesh in maps}) == 1


def test_drawing_leaves_the_global_style_alone() -> None:
    before = dict(mpl.rcParams)
    style.png_bytes(plots.losses(new_figure(8, 5), {"tanh": HISTORY}, 4.5, "note"))
    assert dict(mpl.rcParams) == before


def test_the_animation_palette_holds_every_document_colour_and_white() -> None:
    palette = {tuple(color) for color in style.frame_palette().tolist()}
    assert style.frame_palette().shape == (255, 3)
    assert (255, 255, 255) in palette
    for color in style.DOCUMENT_COLORS:
        assert tuple(round(255 * part) for part in to_rgb(color)) in palette


def test_a_shown_picture_carries_its_alt_text(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **more: shown.append((data, more)))
    style.show(new_figure(1, 1, dpi=20), "what one sees")
    style.show(b"GIF89a", 'red & "blue"')
    (figure, more), (film, _) = shown
    assert figure["text/plain"] == more["metadata"]["image/png"]["alt"] == "what one sees"
    assert base64.b64decode(figure["image/png"]).startswith(b"\x89PNG")
    encoded = base64.b64encode(b"GIF89a").decode()
    assert f'src="data:image/gif;base64,{encoded}"' in film["text/html"]
    assert 'alt="red &amp; &quot;blue&quot;"' in film["text/html"]
    assert film["text/plain"] == 'red & "blue"'


def test_few_colours_look_as_all_do() -> None:
    figure = new_figure(3, 2, dpi=60)
    figure.subplots().imshow(np.linspace(0, 1, 4000).reshape(40, 100), cmap="magma")
    whole = io.BytesIO()
    figure.savefig(whole, format="png")
    small = style.png_bytes(figure)
    assert len(small) < 0.6 * len(whole.getvalue())
    pixels = [
        np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
        for png in (whole.getvalue(), small)
    ]
    assert np.abs(pixels[0] - pixels[1]).max() <= 24


def test_the_line_shows_every_document_and_who_is_best_where() -> None:
    share = torch.linspace(0, 1, 5)
    ce = torch.tensor([[1, 1, 2, 4, 4], [4, 3, 1, 3, 4], [4, 4, 4, 2, 1.0]])
    figure = plots.along_line(new_figure(8, 5), Line(share, ce), list("abc"), (0, 2), "note")
    curves, strip = figure.axes
    for index in range(3):
        np.testing.assert_allclose(curves.lines[index].get_ydata(), ce[index].exp().numpy())
    pixels = np.asarray(strip.images[0].get_array())[0]
    best = [0, 0, 1, 2, 2]
    np.testing.assert_allclose(pixels, [to_rgb(style.document_color(index)) for index in best])
    assert [text.get_text() for text in strip.texts] == ["1", "2", "3"]
    flips = [line.get_xdata()[0] for line in curves.lines[3:]]
    assert flips == pytest.approx([0.375, 0.625])


def test_the_bound_is_drawn_only_where_one_is_known() -> None:
    distance = torch.tensor([0.01, 0.1, 1.0])
    ce = torch.tensor([[0.02, 0.3, 1.0], [0.01, 0.1, 2.5]])
    for bound, lines in ((2.0, 2), (None, 1)):
        measured = Continuity(distance, 1.5 * distance, ce, bound)
        left, right = plots.continuity(new_figure(8, 4), measured, "note").axes
        assert len(left.lines) == lines
        np.testing.assert_allclose(left.lines[0].get_ydata(), (1.5 * distance).numpy())
        assert "3.0 × distance" in right.texts[0].get_text()  # 0.3 nats over 0.1
    assert "bound" not in "".join(text.get_text() for text in left.texts)


def test_an_entry_is_open_above_a_share_of_the_documents_largest() -> None:
    start = torch.tensor([[1.0, 0.05, -0.2, 0], [0.01, 0.01, -0.01, 0.01]])
    snapshots = Snapshots(
        [0, 5],
        token=torch.ones(2, 2, 4),
        document=torch.stack([start, torch.eye(4)[:2]]),
        doc_reps=torch.zeros(2, 2, 2),
    )
    figure = plots.open_entries(new_figure(8, 6), {"tanh": snapshots}, 0.1, "note")
    counts, alike = figure.axes[:2]
    assert counts.lines[0].get_ydata().tolist() == [3, 1]  # two and four open, then one each
    np.testing.assert_allclose(alike.images[0].get_array(), np.eye(2), atol=1e-6)


def test_the_maps_of_forgetting_share_a_scale_and_say_the_lowest() -> None:
    maps = {"kept": plane(1), "gone": KeyPlane(*plane(1)[:1], plane(1).ce + 1, plane(1).doc_reps)}
    figure = plots.forgetting(new_figure(8, 5), maps, 0, "note")
    first, second = figure.axes[:2]
    norms = [axes.collections[0].norm for axes in (first, second)]
    assert (norms[0].vmin, norms[0].vmax) == (norms[1].vmin, norms[1].vmax)
    assert f"lowest perplexity {maps['gone'].perplexity.min():,.1f}" in second.get_title(loc="left")


def test_the_published_curves_are_drawn_as_the_records_give_them() -> None:
    figure = plots.published_curves(new_figure(8, 6), RUNS[:2], {"mine": HISTORY}, "note")
    top, bottom = figure.axes
    for line, guidance, run in zip(top.lines[:2], bottom.lines[:2], RUNS[:2], strict=True):
        assert tuple(line.get_xdata()) == tuple(guidance.get_xdata()) == EPOCHS
        assert tuple(line.get_ydata()) == run.positive_ce
        assert tuple(guidance.get_ydata()) == run.guidance_term
    assert list(top.lines[2].get_ydata()) == [epoch.positive_ce for epoch in HISTORY]
    names = [text.get_text() for text in top.get_legend().get_texts()]
    assert names == [*(f"paper: {run.name}" for run in RUNS[:2]), "here: mine"]
