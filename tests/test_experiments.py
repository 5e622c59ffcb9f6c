"""Experiments: runs shared and resumed, results with a schema, figures drawn from them alone."""

import dataclasses
import functools
import inspect
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import redraw
import torch
from drawn import ToyPool, marks, through_json
from PIL import Image

from docmem import experiments
from docmem.cli.main import main
from docmem.errors import DocmemError
from docmem.experiments import load_study, pool, runner
from docmem.experiments.pool import FAST, RunPool
from docmem.experiments.stats import clearly_above, spread, spreads, verdict
from docmem.experiments.studies.activation import OPEN, Activation, Results, Selections
from docmem.training.setup import new_memory


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> ToyPool:
    return ToyPool(seeds=2, folder=tmp_path_factory.mktemp("pool") / "runs")


@pytest.fixture(scope="module")
def folder(toys: ToyPool) -> Path:
    runner.run_experiment("activation", toys, toys.folder.parent)
    assert runner.redraw(toys.folder.parent, toys.folder.parent) == ["activation"]
    return toys.folder.parent


def stored(folder: Path) -> runner.Results:
    """The results of activation in a folder."""
    results = runner.load_results("activation", folder)
    assert results is not None
    return results


def test_a_setting_is_trained_once(toys: ToyPool) -> None:
    first = toys.runs(key_activation="relu")
    again = toys.runs(key_activation="relu")
    assert [run.path for run in first] == [run.path for run in again]
    assert [run.config.seed for run in first] == [1, 2]
    assert [run.load_history() for run in first] == [run.load_history() for run in again]
    others = [toys.run(1, key_activation="relu", guidance=0.5), toys.run(1)]
    assert len({run.path for run in [*first, *others]}) == 4


def test_runs_of_fewer_epochs_have_a_folder_of_their_own(
    toys: ToyPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = toys.run(1)
    monkeypatch.setitem(pool.FAST, "num_epochs", 1)
    one = toys.run(1)
    assert one.path != two.path
    assert [len(run.load_history()) for run in (one, two)] == [1, 2]


def test_fast_is_small_whatever_an_experiment_asks_for() -> None:
    quick = RunPool(fast=True)
    config = quick.config(num_epochs=500, max_segments=50, guidance=0.25)
    assert config.guidance == 0.25
    assert config.num_epochs == FAST["num_epochs"]
    assert config.max_segments == FAST["max_segments"]
    assert len(quick.documents(20)) == FAST["max_labels"]
    assert RunPool().config(num_epochs=500).num_epochs == 500


def test_results_are_the_numbers_of_the_runs(toys: ToyPool, folder: Path) -> None:
    results = stored(folder)
    assert results.pool.seeds == 2
    for name, found in results.numbers.activations.items():
        for seed, run in enumerate(toys.runs(key_activation=name)):
            with torch.no_grad():
                selection = run.load_memory().select(run.load_memory().doc_reps)
            count = int((selection.abs() > OPEN).sum())
            assert found.active[seed] == pytest.approx(count / selection.numel(), rel=1e-6)
            untrained = new_memory(run.config, toys.lm, run.documents)
            before = untrained.select(untrained.doc_reps)
            count = int((before.abs() > OPEN).sum())
            assert found.active_untrained[seed] == pytest.approx(count / before.numel(), rel=1e-6)
            pairs = [
                (selection[i] - selection[j]).norm().item()
                for i in range(len(selection))
                for j in range(i)
            ]
            assert found.distance[seed] == pytest.approx(np.mean(pairs), rel=1e-5)
            if seed == 0:
                assert torch.equal(torch.tensor(found.selection), selection)


def test_a_figure_is_drawn_from_results_alone(folder: Path) -> None:
    picture = folder / "activation.png"
    before = picture.read_bytes()
    picture.unlink()
    assert runner.redraw(folder, folder) == ["activation"]
    assert picture.read_bytes() == before
    numbers = stored(folder).numbers
    drawn = Activation().figure(numbers, "note").axes[0].images[0].get_array()
    np.testing.assert_allclose(drawn, numbers.activations["sigmoid"].selection)


def made_up(sigmoid: float, relu: float, negative: float) -> Results:
    """Two seeds with these shares of active entries, and of negative ones."""

    def selections(active: float) -> Selections:
        return Selections([active] * 2, [0.5] * 2, [negative] * 2, *([[0.0] * 2] * 3), [])

    return Results({"sigmoid": selections(sigmoid), "relu": selections(relu),
                    "tanh": selections(1.0)})  # fmt: skip


def test_claims_follow_the_numbers() -> None:
    claims = Activation().claims
    assert [claim.verdict for claim in claims(made_up(1.0, 0.4, 0.5))] == ["holds"] * 3
    assert [claim.verdict for claim in claims(made_up(0.5, 0.9, 0.0))] == ["not"] * 3
    assert "about half are positive" in claims(made_up(0.5, 0.9, 0.0))[1].found
    held = claims(made_up(1.0, 0.4, 0.5))[1]
    assert held.found == held.ours


def test_page_of_claims_has_a_row_per_claim_and_a_tally(folder: Path) -> None:
    page = runner.claims_page(folder)
    claims = runner.claims(folder=folder)["activation"]
    rows = [line for line in page.splitlines() if line.endswith("| `activation` |")]
    assert [row.split(" | ")[0] for row in rows] == [f"| {claim.claim}" for claim in claims]
    assert [row.split(" | ")[3] for row in rows] == [claim.verdict for claim in claims]
    assert "(n = 2)" in rows[0]
    assert page.endswith(runner.claims_table(folder=folder))
    verdicts = [claim.verdict for claim in claims]
    tally = (
        f"3 claims: {verdicts.count('holds')} hold, {verdicts.count('partly')} hold partly, "
        f"{verdicts.count('not')} do not."
    )
    assert tally == runner.tally(folder=folder)
    assert tally in page


@pytest.mark.parametrize("name", experiments.NAMES)
def test_stored_results_have_a_figure_and_claims(name: str) -> None:
    """`make figures FRESH=1` measures and draws what is missing."""
    results, study = runner.load_results(name), load_study(name)
    assert results is not None
    assert (results.experiment, results.pool.preset, results.pool.fast) == (name, "tiny", False)
    numbers = results.numbers
    assert inspect.getdoc(type(study)).endswith("?")
    with Image.open(redraw.FIGURES / f"{name}.png") as picture:
        assert picture.size == tuple(round(150 * inches) for inches in study.size)
    figure = runner.figure(name)
    assert numbers == through_json(name, numbers)  # drawing changed nothing
    assert figure.get_suptitle().strip() == study.title(numbers)
    under = figure.texts[-1].get_text().replace("\n", " ")
    assert under == f"{study.caption.format(results=numbers)} {results.note}".strip()
    for axes in (axes for axes in figure.axes if not axes.images and axes.name == "rectilinear"):
        lowest, highest = sorted(axes.get_ylim())
        assert all(lowest <= height <= highest for height in marks(axes)), axes.get_ylabel()
    claims = study.claims(numbers)
    assert len({claim.claim for claim in claims}) == len(claims) > 1
    for claim in claims:
        assert re.search(r"\d", claim.ours)
        assert not re.search(r"\bnan\b|\binf\b", claim.found)


def test_the_page_of_claims_is_of_the_stored_results() -> None:
    """`make figures` writes it."""
    assert redraw.CLAIMS.read_text(encoding="utf-8") == runner.claims_page()


def test_redraw_writes_figures_and_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(redraw, "FIGURES", tmp_path / "figures")
    monkeypatch.setattr(redraw, "CLAIMS", tmp_path / "docs" / "claims.md")
    drawn: list[tuple[Path, Path]] = []
    monkeypatch.setattr(redraw, "redraw", lambda *folders: drawn.append(folders) or ["plane"])
    monkeypatch.setattr(redraw, "claims_page", lambda: "the claims")
    assert redraw.measure_and_draw() == 0
    assert drawn == [(runner.STORED, tmp_path / "figures")]
    assert capsys.readouterr().out == f"{tmp_path / 'figures' / 'plane.png'}\n"
    assert (tmp_path / "docs" / "claims.md").read_text(encoding="utf-8") == "the claims"


def test_a_spread_is_mean_and_sample_deviation() -> None:
    three = spread([1.0, 2.0, 6.0])
    assert three.mean == 3.0
    assert three.sd == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert str(three) == "3.00 ± 2.65 (n = 3)"
    assert str(spread([2.0])) == "2.00 (one seed)"
    assert spreads({"a": [2.0], "b": [3.0]}) == "a: 2.00 (one seed), b: 3.00 (one seed)"
    assert [verdict(True, True), verdict(True, False), verdict(False)] == ["holds", "partly", "not"]


def test_clearly_above_is_students_paired_test() -> None:
    assert not clearly_above([5.0], [1.0])
    assert clearly_above([2.0, 3.0, 4.0], [1.0, 2.1, 2.9])
    assert not clearly_above([1.0, 2.1, 2.9], [2.0, 3.0, 4.0])
    assert not clearly_above([2.0, 3.0, 4.0], [1.0, 5.0, 2.0])
    # Near the edge: mean 1, t = 2.5 is not enough for three seeds, but for five.
    three = [1 - 1 / 2.5 * 3**0.5, 1.0, 1 + 1 / 2.5 * 3**0.5]
    assert not clearly_above(three)
    five = [1 + (n - 2) / 2.5 * 2**0.5 for n in range(5)]
    assert clearly_above(five)
    assert clearly_above(five, [0.0] * 5)
    # No spread at all, where scipy's own test gives nan or warns.
    assert clearly_above([2.0, 3.0], [1.0, 2.0])
    assert not clearly_above([1.0, 2.0], [1.0, 2.0])


def test_unknown_names_and_bad_pools_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DocmemError, match=r"nothing.*choose one of activation"):
        load_study("nothing")
    with pytest.raises(DocmemError, match="no preset 'huge'"):
        RunPool(preset="huge")
    with pytest.raises(DocmemError, match="seeds"):
        RunPool(seeds=0)
    with pytest.raises(DocmemError, match="no results of activation"):
        runner.figure("activation", tmp_path)


def test_results_that_do_not_fit_their_schema_are_refused(folder: Path, tmp_path: Path) -> None:
    whole = json.loads((folder / "activation.json").read_text(encoding="utf-8"))
    numbers, relu = whole["numbers"], whole["numbers"]["activations"]["relu"]
    without = {key: value for key, value in relu.items() if key != "l2"}
    for broken in (
        "{",
        "[]",
        json.dumps({**whole, "numbers": {}}),
        json.dumps({**whole, "numbers": {**numbers, "more": 1}}),
        json.dumps({**whole, "numbers": {"activations": {"relu": without}}}),
        json.dumps({**whole, "numbers": {"activations": {"relu": {**relu, "l2": ["one"]}}}}),
        json.dumps({key: value for key, value in whole.items() if key != "seconds"}),
        json.dumps({**whole, "lab": whole["pool"]}),  # as version 0.1 wrote it
    ):
        (tmp_path / "activation.json").write_text(broken, encoding="utf-8")
        with pytest.raises(DocmemError, match=r"cannot be read: .*`docmem experiment activation`"):
            runner.load_results("activation", tmp_path)


def test_the_command_runs_what_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    performed: list[str] = []
    known = stored(folder)
    monkeypatch.setattr(runner, "run_experiment", lambda name, *_: performed.append(name) or known)
    monkeypatch.setattr(experiments, "NAMES", ("activation",))
    drawn: list[Path] = []
    monkeypatch.setattr(runner, "redraw", lambda _, out: drawn.append(out))
    assert main(["experiment", "all", "--fast", "--out", str(folder)]) == 0
    assert performed == []
    assert main(["experiment", "all", "--fast", "--fresh", "--out", str(folder)]) == 0
    assert main(["experiment", "activation", "--fast", "--out", str(folder)]) == 0
    assert performed == ["activation", "activation"]
    assert drawn == [folder] * 3
    assert f"are in {folder}" in capsys.readouterr().out
    assert (folder / "claims.md").read_text(encoding="utf-8") == runner.claims_page(folder)


def test_ctrl_c_ends_an_experiment_without_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`on_epoch` answers False as Ctrl-C does: train then returns what is not finished."""
    monkeypatch.setattr(pool, "RunPool", lambda *_: ToyPool(folder=tmp_path / "runs"))
    whole = pool.train
    stopped = functools.partial(whole, on_epoch=lambda _: False)
    monkeypatch.setattr(pool, "train", stopped)
    command = ["experiment", "recalling", "--fast", "--seeds", "1", "--out", "results"]
    assert main(command) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not Path("results").exists()
    monkeypatch.setattr(pool, "train", whole)
    monkeypatch.setattr(runner, "redraw", lambda *_: [])
    assert main(command) == 0
    assert Path("results/recalling.json").is_file()


def test_results_say_what_the_numbers_depend_on(folder: Path, toys: ToyPool) -> None:
    results = stored(folder)
    config = dataclasses.asdict(toys.config())
    assert results.pool.config["guidance"] == config["guidance"]
    assert results.pool.fast is True
    assert results.versions["torch"] == torch.__version__
    assert "numbers mean nothing" in results.note
    assert "3 documents of at most 1 segments, 16 entries, 2 epochs" in results.note
