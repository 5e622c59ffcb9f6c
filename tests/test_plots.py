import base64
import io
import itertools
import math
import re

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image
from scipy.spatial.distance import pdist
from slow import slow

from docmem import plots
from docmem.documents import Document
from docmem.errors import DocmemError
from docmem.evaluation.continuity import Continuity
from docmem.evaluation.plane import KeyPlane, Line
from docmem.evaluation.published import EPOCHS, RUNS
from docmem.evaluation.recalled import MARK, Comparison, Recalled
from docmem.experiments.studies import activation
from docmem.plots import style, writing
from docmem.plots.plane import contour_levels, islands, number_spots, outlines, smooth
from docmem.plots.style import new_figure
from docmem.plots.wells import VIEW, in_powers, pole, rounded
from docmem.training.history import Epoch
from docmem.training.selection import Snapshots

HISTORY = [Epoch(i + 1, 4.0 / (i + 1), 4.2 + 0.01 * i, 0.1 / (i + 1), 0.5) for i in range(20)]


def plane(n_docs: int = 4, points: int = 7) -> KeyPlane:
    generator = torch.Generator().manual_seed(0)
    ce = 1 + 4 * torch.rand(n_docs, points, points, generator=generator)
    doc_reps = torch.rand(n_docs, 2, generator=generator) - 0.5
    return KeyPlane(torch.linspace(-1, 1, points), ce, doc_reps)


def test_losses_draws_the_history() -> None:
    figure = plots.losses(new_figure(8, 5), {"relu": HISTORY}, 4.5, "note")
    target, negative, own = figure.axes[0].lines
    assert list(own.get_ydata()) == [e.positive_ce for e in HISTORY]
    assert list(negative.get_ydata()) == [e.negative_ce for e in HISTORY]
    assert list(own.get_xdata()) == [e.epoch for e in HISTORY]
    assert set(target.get_ydata()) == {4.5}
    guidance = figure.axes[1].patches[0].get_data()
    assert list(guidance.values) == [e.guidance for e in HISTORY]
    assert (guidance.edges[0], guidance.edges[-1]) == (0.5, 20.5)


@pytest.mark.parametrize("epochs", [1, 4, 20])
def test_losses_states_the_last_epoch(epochs: int) -> None:
    history = [epoch._replace(guidance=0.0) for epoch in HISTORY[:epochs]]
    figure = plots.losses(new_figure(8, 5), {"relu": history}, 4.5, "note")
    style.png_bytes(figure)
    assert "numbers: the last one's" in "".join(text.get_text() for text in figure.texts)
    own = history[-1].positive_ce
    legend = figure.axes[0].get_legend()
    assert f"own DocRep: {own:.2f}" in [text.get_text() for text in legend.get_texts()]
    ticks = figure.axes[1].get_xticks()
    np.testing.assert_array_equal(ticks, np.round(ticks))
    top = max(line.get_ydata().max() for line in figure.axes[0].lines[1:])
    lowest = legend.get_window_extent().y0  # no curve reaches the legend
    assert figure.axes[0].transData.transform((1, max(top, 4.5)))[1] < lowest


def test_losses_says_where_no_guidance_was_felt() -> None:
    none = [epoch._replace(guidance=0.0) for epoch in HISTORY]
    figure = plots.losses(new_figure(8, 5), {"guided": HISTORY, "α = 0": none}, 4.5, "note")
    said = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert said == [[], [], [], ["zero in every epoch"]]


def test_long_titles_are_cut_at_a_space_or_where_there_is_none():
    assert writing.drawable("The Museum of Instruments", 17) == "The Museum of …"
    assert re.fullmatch("x{6,10}…", writing.drawable("x" * 50, 10))
    assert writing.drawable("short", 10) == "short"


def test_titles_that_begin_alike_keep_their_ends():
    volumes = [f"Proceedings of the society for lamps, volume {n}" for n in (1, 2)]
    titles = dict(enumerate([*volumes, "The Museum of Instruments", "short"]))
    shown = writing.shortened(titles, 22)
    assert writing.shortened(dict(enumerate(volumes[:1] * 2)), 22) == ["Proceedings of the …"] * 2
    assert shown == ["Proceedi … volume 1", "Proceedi … volume 2", "The Museum of …", "short"]
    for title, lines in zip(titles.values(), writing.shortened(titles, 24, lines=2), strict=True):
        assert lines.endswith(title[-8:])
        assert max(map(writing.letters, lines.split("\n"))) <= 24


@pytest.mark.parametrize("bold", [False, True])
@pytest.mark.parametrize(
    "title", ["W" * 90, "PROCEEDINGS OF WOMEN " * 9, "lamp " * 40, "ab京都" * 20]
)
def test_no_line_is_wider_than_asked(title: str, bold: bool):
    for width in (8, 24):
        lines = writing.drawable(title, width, 3, bold).split("\n")
        assert len(lines) == 3
        assert max(writing.letters(line, bold) for line in lines) <= width


def test_headlines_of_wide_letters_stay_in_the_figure():
    figure = new_figure(9, 5)
    style.headline(figure, "From WWWWWWWW WWWWW to MMMMMMM MMMMMM, " * 2, "WMWM " * 60)
    style.png_bytes(figure)
    for text in (figure._suptitle, *figure.texts):
        assert text.get_window_extent().x1 <= figure.bbox.x1


def test_a_word_longer_than_a_line_goes_on_in_the_next():
    (shown,) = writing.shortened({0: "n" * 60 + " and lamps"}, 24, lines=2)
    assert re.fullmatch("(n+)\n(n+)…", shown)


def test_a_title_without_a_font_is_its_number_and_a_warning_says_so_once(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(writing, "FONTS", ["DejaVu Sans"])
    monkeypatch.setattr(writing, "SAID", set())
    titles = {1: "京都の歴史", 6: "京都 and its history", 7: "हिन्दी"}
    with pytest.warns(UserWarning) as said:
        shown = writing.shortened(titles, 40)
        assert writing.shortened(titles, 40) == shown
    assert shown == ["document 2", "□□ and its history", "document 8"]
    first, second = (str(one.message) for one in said)
    assert "letters such as 京 都 の 歴 史; " in first
    assert "Install Noto Sans CJK SC, " in first
    assert "Install Noto Sans Devanagari, " in second


def test_documents_are_told_apart_by_colour_blind_readers():
    """Two colours differ by 15 and more, as CIELAB counts, whatever cones are missing (Machado)."""
    blindness = {
        "none": np.eye(3),
        "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
        "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
        "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
    }
    xyz = np.array([[0.412, 0.358, 0.180], [0.213, 0.715, 0.072], [0.019, 0.119, 0.950]])
    rgb = np.array([to_rgb(color) for color in style.DOCUMENT_COLORS])
    light = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    for missing, matrix in blindness.items():
        white = xyz.sum(1)
        seen = np.cbrt((light @ np.transpose(matrix)).clip(0.009, 1) @ xyz.T / white)
        lab = np.stack(
            [116 * seen[:, 1], 500 * (seen[:, 0] - seen[:, 1]), 200 * (seen[:, 1] - seen[:, 2])], 1
        )
        assert pdist(lab).min() > 15, missing


def test_losses_of_many_runs_are_three_in_a_row_under_names_that_differ() -> None:
    names = [f"a run whose folder has a long name, number {n}" for n in range(5)]
    figure = plots.losses(new_figure(10, 10.2), dict.fromkeys(names, HISTORY), 4.5, "note")
    style.png_bytes(figure)
    tops = [axes for axes in figure.axes if axes.get_legend()]
    assert len(figure.axes) == 10
    assert [axes.get_title("left")[-8:] for axes in tops] == [f"number {n}" for n in range(5)]
    for axes in tops:
        title = axes._left_title.get_window_extent()
        assert title.x1 <= axes.bbox.x1 + 2
    assert len({round(axes.bbox.y0) for axes in tops}) == 2


def test_losses_have_the_target_of_each_run() -> None:
    histories = {"one": HISTORY, "two": HISTORY}
    figure = plots.losses(new_figure(8, 5), histories, {"one": 4.5, "two": 5.0}, "note")
    labels = [axes.lines[0].get_label() for axes in figure.axes[:2]]
    assert labels == ["target τ = 4.5", "target τ = 5"]
    assert [axes.lines[0].get_ydata()[0] for axes in figure.axes[:2]] == [4.5, 5.0]
    with pytest.raises(DocmemError, match="no target for 'two'"):
        plots.losses(new_figure(8, 5), histories, {"one": 4.5}, "note")


def test_a_letter_is_drawn_by_the_first_font_that_has_it(monkeypatch: pytest.MonkeyPatch):
    assert writing.installed(["No Such Font", "DejaVu Sans Mono"]) == ["DejaVu Sans Mono"]
    monkeypatch.setattr(writing, "SAID", {"Noto Sans Cyrillic"})
    monkeypatch.setattr(writing, "FONTS", ["STIXSizeOneSym"])
    assert writing.drawable("я") == "□"
    monkeypatch.setattr(writing, "FONTS", ["STIXSizeOneSym", "DejaVu Sans"])
    assert writing.drawable("я") == "я"


def test_recalled_marks_the_words_of_its_sources() -> None:
    document = Document("A title", "one two three four five six seven")
    texts = ["so one two three four, and on", "not at all " * 20, "", "京都" * 60]
    rows = Comparison(
        Recalled(document, "the prompt", f"under {n}", text, ["one"] * n, torch.full((n,), 2.0))
        for n, text in enumerate(texts)
    )
    figure = plots.recalled(new_figure(1, 1), rows, "note")
    style.png_bytes(figure)
    drawn = [text.get_text() for text in figure.axes[0].texts]
    assert drawn[:2] == ["under 0", "so"]
    assert drawn.count("not") == 20
    places = {text.get_text(): text.get_position()[0] for text in figure.axes[0].texts}
    assert places[","] == places["four"] + 4
    assert max(figure.axes[0].texts, key=lambda text: len(text.get_text())).get_text() == "□" * 42
    assert "2.00 nats per token" in drawn
    (marked,) = {tint.get_facecolor()[:3] for tint in figure.axes[0].patches}
    assert marked == to_rgb(MARK)
    ends = [(tint.get_x(), tint.get_x() + tint.get_width()) for tint in figure.axes[0].patches]
    assert ends == [(3, 6), (6, 10), (10, 16), (16, 21)]  # one two three four, without a gap
    assert figure.get_suptitle().startswith("What the LM writes after “the prompt”")
    with pytest.raises(DocmemError, match="rows is empty"):
        plots.recalled(new_figure(1, 1), Comparison(), "note")


@pytest.mark.parametrize("count", [1, slow(2), slow(3), 4])
def test_wells_of_few_documents_leave_the_surface_its_room(count: int) -> None:
    titles, chosen = list("abcd")[:count], list(range(count))
    figure = plots.perplexity_wells(new_figure(11, 7.4), plane(count), titles, chosen, "n")
    style.png_bytes(figure)
    maps = [axes for axes in figure.axes if axes.get_title(loc="left")]
    (surface,) = (axes for axes in figure.axes if hasattr(axes, "get_zlim"))
    label = surface.zaxis.label.get_window_extent()
    for axes in maps:
        box = axes.get_tightbbox()
        assert not (box.x0 < label.x1 and box.y0 < label.y1 and label.y0 < box.y1)
    documents = "Documents 1, 2" if count > 1 else "Document 1:"
    title = figure.get_suptitle()
    assert title.startswith(documents)
    rings = [re.search("at the ring ([0-9.,]+),", axes.get_title(loc="left")) for axes in maps]
    values = sorted(float(ring[1]) for ring in rings if ring)
    assert len(values) == count
    assert f"perplexity {style.span(values, rounded)} at the own DocRep" in title


def test_titles_with_markup_are_drawn_as_written() -> None:
    title = "$x_1$ <b> _ 100% あ\t\\n"
    shown = writing.drawable(title)
    assert writing.drawable(shown) == shown
    images = []
    for text, options in ((shown, {}), ("$x_1$ <b> _ 100% □ \\n", {"parse_math": False})):
        figure = new_figure(4, 1, dpi=60)
        figure.text(0.1, 0.5, text, **options)
        images.append(style.png_bytes(figure))
    assert images[0] == images[1]


@pytest.mark.slow
def test_every_figure_draws_titles_with_markup() -> None:
    titles = ["$x_1$ <b> _", "$", r"$\bad{$ あ", "^{}"]
    snapshots = Snapshots([0], torch.ones(1, 2, 4), torch.ones(1, 2, 4), torch.zeros(1, 2, 2))
    line = Line(torch.linspace(0, 1, 3), torch.rand(4, 3) + 1)
    bad = titles[2]
    row = Recalled(Document(bad, "some words"), bad, bad, bad, [], torch.zeros(0))
    for figure in (
        plots.recalled(new_figure(8, 6), Comparison([row]), bad),
        plots.key_plane(new_figure(6, 5), plane(), titles, bad),
        plots.perplexity_wells(new_figure(8, 6), plane(), titles, [0, 2], bad),
        plots.losses(new_figure(8, 5), {bad: HISTORY}, 4.5, bad),
        plots.open_entries(new_figure(8, 6), {bad: snapshots}, 0.1, bad),
        plots.forgetting(new_figure(8, 5), {bad: plane()}, 0, bad),
        plots.along_line(new_figure(8, 5), line, titles, (0, 2), bad),
        plots.published_curves(new_figure(8, 6), RUNS[:1], {bad: HISTORY}, bad),
    ):
        style.png_bytes(figure)  # a formula or a missing glyph would raise


@pytest.mark.slow
def test_key_plane_of_sixty_documents_names_twenty_and_shows_all() -> None:
    figure = plots.key_plane(
        new_figure(9, 6.6), plane(60), [f"document {n}" for n in range(60)], "note"
    )
    style.png_bytes(figure)
    texts = {text.get_text(): text for text in figure.axes[0].texts}
    assert sum(name.startswith("document") for name in texts) == 20
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [60, 60]
    legend = [text.get_window_extent() for name, text in texts.items() if " " in name]
    for above, below in itertools.pairwise(legend):
        assert below.y1 <= above.y0 + 1
    assert "Points: documents." in figure.texts[-1].get_text()


def test_a_document_has_its_colour_on_every_map() -> None:
    figure = plots.key_plane(new_figure(9, 6.6), plane(14), [f"t{n}" for n in range(14)], "note")
    discs = [to_rgb(disc.get_facecolor()[0, :3]) for disc in figure.axes[0].collections]
    assert discs == [to_rgb(style.document_color(n)) for n in range(14) for _ in "12"]


def test_a_region_apart_from_its_doc_rep_has_a_small_number() -> None:
    ce = torch.full((2, 21, 21), 2.0)
    ce[0, :, :8] = ce[0, :, 14:] = 1  # left and right; the other's is the middle
    doc_reps = torch.tensor([[-0.8, 0.0], [0.0, 0.0]])
    measured = KeyPlane(torch.linspace(-1, 1, 21), ce, doc_reps)
    measured.ce[1, :, 8:14] = 1
    ((index, (across, _)),) = islands(measured)
    assert (index, across > 0.4) == (0, True)
    figure = plots.key_plane(new_figure(9, 6.6), measured, ["a", "b"], "note")
    assert "Small numbers: regions apart" in figure.texts[-1].get_text().replace("\n", " ")
    assert [text.get_text() for text in figure.axes[0].texts].count("1") == 3


def test_key_plane_speaks_of_contours_only_where_there_are_and_in_plain_numbers() -> None:
    measured = plane()
    for ce, says, lines in (
        (torch.full((4, 7, 7), math.log(169)), "from perplexity 170 to 170.", False),
        (torch.linspace(0.5, 7.2, 49).reshape(7, 7).expand(4, 7, 7), "1,300 to 1.6.", True),
    ):
        figure = plots.key_plane(new_figure(9, 6.6), measured._replace(ce=ce), list("abcd"), "note")
        note = " ".join(figure.texts[-1].get_text().split())
        assert says in note
        assert ("Lines join points" in note) == lines


def test_key_plane_title_counts_documents_recalled_best_at_their_doc_rep() -> None:
    measured = plane()
    ce = torch.full((4, 7, 7), 3.0)
    ce[3] = 2.0  # document 4 everywhere,
    doc_reps = torch.tensor([[-1.0, -1.0], [0, 0], [1, 1], [0.4, 0.4]])
    ce[1, 3, 3] = 1.0  # but for the DocRep of document 2
    figure = plots.key_plane(
        new_figure(6, 5), measured._replace(ce=ce, doc_reps=doc_reps), list("abcd"), "note"
    )
    assert figure.get_suptitle().startswith("At 2 of 4 DocReps")


def test_plane_map_centres_cells_on_the_grid_points() -> None:
    axes = new_figure(3, 3).subplots()
    values = np.arange(9).reshape(3, 3)
    image = plots.plane_map(axes, values, 2.0, cmap="magma")
    assert image.get_extent() == [-3, 3, -3, 3]
    assert axes.get_xlim() == axes.get_ylim() == (-3, 3)
    assert image.origin == "lower"
    np.testing.assert_array_equal(image.get_array(), values)


def test_key_plane_colours_each_point_by_the_document_recalled_best() -> None:
    measured = plane()
    figure = plots.key_plane(new_figure(6, 5), measured, list("abcd"), "note")
    picture = np.asarray(figure.axes[0].images[0].get_array())
    every = (len(picture) - 1) // 6
    for up in range(7):
        for across in range(7):
            best = int(measured.ce[:, up, across].argmin())
            ink = 1 - np.array(to_rgb(style.document_color(best)))
            missing = 1 - picture[up * every, across * every]
            np.testing.assert_allclose(missing, ink * (missing.max() / ink.max()), atol=1e-6)


def test_smooth_map_keeps_the_measured_values_and_has_no_steps() -> None:
    for points in (2, 3, 7, 61):
        measured = plane(points=points)
        drawn = smooth(measured)
        every = (len(drawn.axis) - 1) // (points - 1)
        assert len(drawn.axis) >= 240
        assert torch.equal(drawn.ce[:, ::every, ::every], measured.ce)
        torch.testing.assert_close(drawn.axis[::every], measured.axis)


def test_key_plane_contours_stand_where_the_depth_of_colour_changes() -> None:
    axis = torch.linspace(-1, 1, 31)
    up, across = torch.meshgrid(axis, axis, indexing="ij")
    ce = torch.stack([0.1 + 3 * (up**2 + (across - x) ** 2).sqrt() for x in (-0.5, 0.5)])
    measured = KeyPlane(axis, ce, torch.tensor([[-0.5, 0.0], [0.5, 0]]))
    drawn = smooth(measured)
    levels = contour_levels(drawn)
    np.testing.assert_allclose(np.exp(levels)[-6:], [1.5, 2, 3, 5, 10, 20])
    figure = plots.key_plane(new_figure(6, 5), measured, list("ab"), "note")
    style.png_bytes(figure)
    picture = np.asarray(figure.axes[0].images[0].get_array())
    bands = np.digitize(drawn.ce.min(0).values.numpy(), levels)
    for index in range(2):
        for band in range(len(levels) + 1):
            there = picture[(bands == band) & (drawn.nearest.numpy() == index)]
            assert len(np.unique(there, axis=0)) == 1
    names = {text.get_text() for text in figure.axes[0].texts}
    assert {"2", "5", "10"} <= names
    numbers = [text.get_position() for text in figure.axes[0].texts if text.get_fontsize() == 7.5]
    assert numbers and np.abs(numbers).max() < 0.9  # not where they would be cut


def test_wells_of_millions_are_labelled_in_powers_of_ten() -> None:
    assert [*map(in_powers, (1, 1e3, 2e6, 1.25e7))] == ["10⁰", "10³", "2 · 10⁶", "1.25 · 10⁷"]
    for highest, label in ((1e5, "100,000"), (1e7, "10⁶")):
        measured = plane()
        grown = measured.ce * math.log(2 * highest) / measured.ce.max()
        figure = plots.perplexity_wells(
            new_figure(11, 7.4), measured._replace(ce=grown), list("abcd"), [0, 3], "n"
        )
        (surface,) = (axes for axes in figure.axes if axes.name == "3d")
        assert label in [one.get_text() for one in surface.get_zticklabels()]
        assert surface.get_zlabel() == "perplexity"


def test_perplexity_wells_draws_the_measured_perplexities() -> None:
    measured = plane()
    figure = plots.perplexity_wells(new_figure(8, 6), measured, list("abcd"), [0, 2, 3], "n")
    maps = [axes for axes in figure.axes if axes.get_title(loc="left")]
    for axes, index in zip(maps, (0, 2, 3), strict=True):
        drawn = axes.images[0].get_array()
        np.testing.assert_allclose(drawn, measured.ce[index].exp().numpy(), rtol=1e-6)
        assert f"lowest {drawn.min():,.1f}" in axes.get_title(loc="left")
    assert len({(axes.images[0].norm.vmin, axes.images[0].norm.vmax) for axes in maps}) == 1


def test_pole_is_hidden_up_to_the_line_of_sight_over_what_stands_before_it() -> None:
    axis = np.linspace(-1, 1, 41)
    hill = np.zeros((41, 41))
    assert pole(axis, hill, (0.2, 0.2), 1.0) == (0, 0)
    hill[:16] = 1  # a plateau up to y = -0.25, before the pole
    foot, seen = pole(axis, hill, (0.0, 0.0), 1.0)
    elevation, azimuth = np.radians(VIEW)
    away = 0.25 / -np.sin(azimuth)
    assert foot == 0
    assert seen == pytest.approx(1 - away * np.tan(elevation) * 1.9 / 2, abs=0.05)


def test_an_activation_has_one_colour_that_is_no_other_meaning() -> None:
    colors = style.ACTIVATION_COLORS
    assert set(activation.ACTIVATIONS) <= set(colors)
    assert not {*colors.values()} & {style.OWN, style.NEGATIVE, *style.DOCUMENT_COLORS}
    for place, (name, color) in enumerate(colors.items()):
        assert style.activation_color(name, place + 1) == color
        assert style.activation_color("mine", place) not in colors.values()


def test_drawing_leaves_global_style_unchanged() -> None:
    before = dict(mpl.rcParams)
    style.png_bytes(plots.losses(new_figure(8, 5), {"tanh": HISTORY}, 4.5, "note"))
    assert dict(mpl.rcParams) == before


def test_frame_palette_holds_document_colours_and_white() -> None:
    palette = {tuple(color) for color in style.frame_palette().tolist()}
    assert style.frame_palette().shape == (255, 3)
    assert (255, 255, 255) in palette
    for color in style.DOCUMENT_COLORS:
        assert tuple(round(255 * part) for part in to_rgb(color)) in palette


def test_show_attaches_alt_text(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_number_of_a_contour_stands_in_each_region_away_from_borders_edges_and_badges() -> None:
    axis = torch.linspace(-1, 1, 41)
    plane = KeyPlane(axis, torch.zeros(2, 41, 41), torch.tensor([[-0.5, 0.0], [0.5, 0.0]]))
    nearest = (axis > 0).int().expand(41, 41).numpy()  # the left half, and the right one
    across = np.stack((axis, torch.full((41,), 0.5)), 1)
    along = np.stack((torch.zeros(41), axis), 1)  # the border itself
    spots = number_spots(plane, nearest, [across, along])
    assert len(spots) == 2
    for (x, y), middle in zip(spots, (-0.5, 0.5), strict=True):
        assert abs(x - middle) <= 0.1
        assert y == 0.5
    at_badge = np.array([[-0.5, 0.0], [-0.45, 0.0]])
    assert number_spots(plane, nearest, [at_badge]) == []


def test_png_of_256_colours_is_smaller_and_keeps_the_colour_of_areas() -> None:
    figure = new_figure(3, 2, dpi=60)
    left, right = figure.subplots(1, 2)
    left.imshow(np.random.default_rng(0).random((40, 40, 3)))  # 1,600 colours
    right.imshow(np.array([[[168, 168, 83]], [[171, 167, 90]]], np.uint8), aspect="auto")
    right.axhline(0.5, color=style.GUIDANCE, lw=4)  # less of it than of some noise
    whole = io.BytesIO()
    with mpl.rc_context(style.STYLE):
        figure.savefig(whole, format="png")
    small = style.png_bytes(figure)
    assert len(small) < 0.6 * len(whole.getvalue())
    before, after = (
        np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
        for png in (whole.getvalue(), small)
    )
    guidance = tuple(round(255 * part) for part in to_rgb(style.GUIDANCE))
    for color, least in (
        ((168, 168, 83), 500), ((171, 167, 90), 500), ((255, 255, 255), 500), (guidance, 20),
    ):  # fmt: skip
        area = (before == color).all(-1)
        assert area.sum() > least
        assert (after[area] == color).all()
    assert np.abs(before - after).max() <= 90  # of noise, as far as 64 colours reach


def test_256_colours_give_no_area_the_hue_of_another() -> None:
    inks = np.array([to_rgb(color) for color in style.DOCUMENT_COLORS])
    faded = (0.4 + 0.45 * np.linspace(0, 1, 60) ** 0.5)[:, None, None]
    areas = (1 - faded * (1 - inks)).repeat(20, 0).repeat(20, 1)  # 20 × 20 pixels of each shade
    shares = np.random.default_rng(0).random((30, 200, 1))
    whose = np.random.default_rng(1).integers(0, 30, (30, 200))
    edges = 1 - shares * (1 - np.concatenate((inks, inks[::-1], 0 * inks + 0.13))[whose])
    picture = np.round(255 * np.concatenate((areas, edges))).astype(np.uint8)
    off = np.asarray(style.few_colors(picture).convert("RGB")).astype(int) - picture
    assert np.abs(off[:1200]).max() <= 12


def test_along_line_shows_every_document_and_the_best_at_each_point() -> None:
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
    assert "Dashed" in figure.texts[-1].get_text()


def test_along_line_speaks_of_no_dashed_line_where_there_is_none() -> None:
    line = Line(torch.linspace(0, 1, 3), torch.tensor([[2, 2, 2], [1, 1, 1], [3, 3, 2.5]]))
    figure = plots.along_line(new_figure(8, 5), line, list("abc"), (0, 2), "note")
    assert figure.texts[-1].get_text() == "note"


def test_continuity_draws_the_bound_only_if_known() -> None:
    distance = torch.tensor([0.01, 0.1, 1.0])
    ce = torch.tensor([[0.02, 0.3, 1.0], [0.01, 0.1, 2.5]])
    for bound, lines in ((2.0, 2), (None, 1)):
        measured = Continuity(distance, 1.5 * distance, ce, bound)
        left, right = plots.continuity(new_figure(8, 4), measured, "note").axes
        assert len(left.lines) == lines
        np.testing.assert_allclose(left.lines[0].get_ydata(), (1.5 * distance).numpy())
        assert "3.0 × distance" in right.texts[0].get_text()  # 0.3 nats over 0.1
    assert "bound" not in "".join(text.get_text() for text in left.texts)


def test_open_entries_counts_entries_above_a_share_of_the_largest() -> None:
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
    assert figure.get_suptitle().strip() == "At the end a document opens 1 of 4 entries"
    wide = Snapshots([0, 5], torch.ones(2, 2, 8), torch.ones(2, 2, 8), torch.zeros(2, 2, 2))
    of_two = plots.open_entries(new_figure(8, 6), {"a": wide, "b": snapshots}, 0.1, "note")
    assert of_two.get_suptitle().strip() == "At the end a document opens 1 to 8 entries"
    assert of_two.axes[0].get_ylim()[1] > 8


def test_forgetting_maps_share_a_scale_and_state_the_lowest_perplexity() -> None:
    maps = {"kept": plane(1), "gone": KeyPlane(*plane(1)[:1], plane(1).ce + 1, plane(1).doc_reps)}
    figure = plots.forgetting(new_figure(8, 5), maps, 0, "note")
    first, second = figure.axes[:2]
    norms = [axes.images[0].norm for axes in (first, second)]
    assert (norms[0].vmin, norms[0].vmax) == (norms[1].vmin, norms[1].vmax)
    assert f"lowest perplexity {maps['gone'].perplexity.min():,.1f}" in second.get_title(loc="left")


def test_published_curves_match_the_records() -> None:
    figure = plots.published_curves(new_figure(8, 6), RUNS[:2], {"mine": HISTORY}, "note")
    top, bottom = figure.axes
    for line, guidance, run in zip(top.lines[:2], bottom.lines[:2], RUNS[:2], strict=True):
        assert tuple(line.get_xdata()) == tuple(guidance.get_xdata()) == EPOCHS
        assert tuple(line.get_ydata()) == run.positive_ce
        assert tuple(guidance.get_ydata()) == run.guidance_term
    assert list(top.lines[2].get_ydata()) == [epoch.positive_ce for epoch in HISTORY]
    names = [text.get_text() for text in top.get_legend().get_texts()]
    assert names == [*(f"paper: {run.name}" for run in RUNS[:2]), "here: mine"]


@pytest.mark.slow
def test_documents_off_the_plane_are_said_to_be() -> None:
    flat = plane()
    for measured, label in (
        (flat, "DocRep, first coordinate"),
        (flat._replace(away=torch.full((4,), 0.5)), "widest direction of the DocReps"),
    ):
        for figure in (
            plots.key_plane(new_figure(9, 6.6), measured, list("abcd"), "note"),
            plots.perplexity_wells(new_figure(11, 7.4), measured, list("abcd"), [0, 3], "note"),
        ):
            assert label in {axes.get_xlabel() for axes in figure.axes}
            said = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
            assert ("0.50 from its DocRep on average" in said) is (measured is not flat)
        forgotten = plots.forgetting(new_figure(6, 5), {"gone": measured}, 0, "note")
        assert label in {axes.get_xlabel() for axes in forgotten.axes}


def test_borders_are_those_of_the_texts_that_were_read() -> None:
    places = plane().doc_reps[[0, 0, 1, 1, 1, 2, 2, 2, 3, 3]]
    measured = plane()._replace(texts=torch.tensor([1, 4, 7, 9]), doc_reps=places)
    all_read, axes = plane(), new_figure(4, 4).subplots(1, 2)
    for one, on in zip((measured, all_read), axes, strict=True):
        outlines(on, smooth(one))
    paths = [
        [path.vertices for lines in on.collections for path in lines.get_paths()] for on in axes
    ]
    assert len(paths[0]) == len(paths[1]) > 0
    for one, other in zip(*paths, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)


def test_legend_of_four_memories_stays_in_the_figure() -> None:
    taken = Snapshots([0, 5], *(torch.ones(2, 2, 4) for _ in range(2)), torch.zeros(2, 2, 2))
    names = ("sigmoid", "relu", "tanh", "swiglu")
    figure = plots.open_entries(new_figure(10, 6.6), dict.fromkeys(names, taken), 0.1, "note")
    style.png_bytes(figure)
    box = figure.axes[0].get_legend().get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
