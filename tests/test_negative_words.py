"""What the drawings of a training say that its negative cross entropy is under."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from slow import slow
from toys import DOCUMENTS, quick_config, toy_lm

from docmem import explore, plots
from docmem.core.loss import Negative
from docmem.explore import _baked
from docmem.explore._static import read
from docmem.explore.page import write_page
from docmem.plots import figures
from docmem.plots.animation import selection_figure
from docmem.plots.style import NEGATIVE_LABELS, NEGATIVES, new_figure
from docmem.training.run import Run
from docmem.training.train import train

SHORT = {
    "other": "another's",
    "random": "a random one",
    "zero": "the origin",
    "perturb": "a perturbed one",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A short run of each negative."""
    config = dataclasses.replace(quick_config(tmp_path_factory.mktemp("runs")), num_epochs=2)
    return {
        kind: train(
            dataclasses.replace(config, negative_key_type=kind, save_dir=config.save_dir / kind),
            lm=toy_lm(),
            documents=DOCUMENTS,
            progress=False,
        )
        for kind in SHORT
    }


def words(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def test_every_negative_has_its_words() -> None:
    assert {*NEGATIVES} == {*NEGATIVE_LABELS} == {*get_args(Negative), None}


@pytest.mark.parametrize(
    ("negative", "title", "label"),
    [
        ("other", "another document's", "another's DocRep"),
        ("random", "a random one", "a random DocRep"),
        ("zero", "the origin", "the origin"),
        ("perturb", "the own one, perturbed", "a perturbed DocRep"),
        (None, "the negative one", "the negative DocRep"),
    ],
)
def test_losses_say_what_they_are_under(
    runs: dict[str, Run], negative: Negative | None, title: str, label: str
) -> None:
    history = runs["other"].load_history()
    figure = plots.losses(new_figure(9, 5), {"tanh": history}, 4.5, "note", negative)
    said = words(figure)
    ends = f"{history[-1].positive_ce:.2f} under the own DocRep, {history[-1].negative_ce:.2f}"
    assert figure.get_suptitle().strip() == f"Losses end at {ends} under {title}"
    assert f"{label}: {history[-1].negative_ce:.2f}" in said
    if negative == "other":  # as without the argument
        same = plots.losses(new_figure(9, 5), {"tanh": history}, 4.5, "note")
        assert words(same) == said


@pytest.mark.parametrize(
    ("kinds", "negative"),
    [slow(["zero"], "zero"), slow(["other"], "other"), (["zero", "random"], None)],
)
def test_figures_draw_the_losses_under_the_runs_negative(
    runs: dict[str, Run],
    kinds: list[str],
    negative: Negative | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[Any] = []
    draw = plots.losses
    monkeypatch.setattr(plots, "losses", lambda *them: given.append(them[3:]) or draw(*them))
    figures.draw_figures([runs[kind] for kind in kinds], tmp_path, lm=toy_lm(), points=3)
    [(note, said)] = given
    assert said == negative
    assert "3 documents, LM toy-gpt_neox" in note
    assert ("negative: " in note) is (negative is not None)  # what the runs share, and no more
    assert note.rstrip(".") in (tmp_path / "results.md").read_text()


@pytest.mark.parametrize("kind", SHORT)
def test_selections_and_live_curve_say_what_the_losses_are_under(
    runs: dict[str, Run], kind: str
) -> None:
    run, last = runs[kind], runs[kind].load_history()[-1]
    said = words(selection_figure(run))
    assert NEGATIVE_LABELS[run.config.negative_key_type] in said
    own = f"epoch {last.epoch}: own {last.positive_ce:.2f}"
    assert f"{own}   {SHORT[kind]} {last.negative_ce:.2f}" in said
    scrubber = explore.scrubber({"one": run, "two": runs["other"]})
    assert f"one: own {last.positive_ce:.2f}, {SHORT[kind]} {last.negative_ce:.2f}" in scrubber.alt
    training = explore.training(run.config, lm=toy_lm(), documents=DOCUMENTS)
    training.wait()
    assert f"{last.negative_ce:.2f} under {SHORT[kind]}." in training.alt
    curve = training.figure()
    assert f"{SHORT[kind]} {last.negative_ce:.2f}" in words(curve)
    assert f"and under {SHORT[kind]}. Dashed" in " ".join(words(curve)).replace("\n", " ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kinds", "guided", "curve"),
    [
        (["other"], "the address of another", "another’s"),
        (["zero"], "the origin", "the origin"),
        (["perturb"], "a perturbed one", "a perturbed one"),
        (["random", "zero"], "the negative one", "the negative one"),
    ],
)
def test_page_says_what_the_losses_are_under(
    runs: dict[str, Run],
    kinds: list[str],
    guided: str,
    curve: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_baked, "NEW_TOKENS", 8)
    monkeypatch.setattr(_baked, "EVERYDAY", "I bought bread.")
    chosen = [runs[kind] for kind in kinds]
    out = write_page(chosen, tmp_path / "page.html", lm=toy_lm(), points=3, text_points=2)
    page = out.read_text(encoding="utf-8")
    text = re.sub(r"\s+", " ", page)
    assert f"became likelier. Under {guided}, it was changed" in text
    assert f"the orange one that under {curve}, and the dashed" in text
    assert f"<i>L</i><sup>−</sup>, that under {curve}, near" in text
    found = re.search(r'<script type="application/json" id="baked">(.*?)</script>', page, re.S)
    assert found is not None
    baked = json.loads(found[1])["training"]["runs"]
    assert [run["negative"] for run in baked] == [SHORT[kind] for kind in kinds]
    assert "another" not in read("training.js")  # it takes the word from there
