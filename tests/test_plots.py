import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from docmem import plots, style
from docmem.keyspace import KeyPlane
from docmem.runs import Epoch
from docmem.style import new_figure

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


@pytest.mark.parametrize(("content", "kind"), [(b"GIF89a", "image/gif"), (None, "image/png")])
def test_a_shown_picture_carries_its_alt_text(
    content: bytes | None, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **more: shown.append((data, more)))
    style.show(content or new_figure(1, 1, dpi=20), "what one sees")
    data, more = shown[0]
    assert data["text/plain"] == "what one sees"
    assert more["metadata"][kind]["alt"] == "what one sees"
    assert kind in data
