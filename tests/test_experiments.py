"""The laboratory: runs shared and resumed, results stored, figures drawn from results alone."""

import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redraw
import torch

from docmem import experiments
from docmem.cli.main import main
from docmem.errors import DocmemError
from docmem.experiments import experiment
from docmem.experiments import pool as laboratory
from docmem.experiments import runner as bench
from docmem.experiments.pool import FAST, RunPool, spread, verdict
from docmem.experiments.studies import activation
from docmem.plots.style import new_figure
from docmem.training.setup import new_memory


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> RunPool:
    return RunPool(fast=True, seeds=2, folder=tmp_path_factory.mktemp("lab") / "runs")


@pytest.fixture(scope="module")
def folder(pool: RunPool) -> Path:
    bench.run_experiment("activation", pool, pool.folder.parent)
    assert bench.redraw(pool.folder.parent, pool.folder.parent) == ["activation"]
    return pool.folder.parent


def test_a_setting_is_trained_once_and_other_settings_apart(pool: RunPool) -> None:
    first = pool.runs(key_activation="relu")
    again = pool.runs(key_activation="relu")
    assert [run.path for run in first] == [run.path for run in again]
    assert [run.config.seed for run in first] == [1, 2]
    assert all(run.load_history()[0].seconds == twin.load_history()[0].seconds
               for run, twin in zip(first, again, strict=True))  # fmt: skip
    others = [pool.run(1, key_activation="relu", guidance=0.5), pool.run(1)]
    assert len({run.path for run in [*first, *others]}) == 4


def test_fast_is_small_whatever_an_experiment_asks_for(pool: RunPool) -> None:
    config = pool.config(num_epochs=500, max_segments=50, guidance=0.25)
    assert config.guidance == 0.25
    assert config.num_epochs == FAST["num_epochs"]
    assert config.max_segments == FAST["max_segments"]
    assert len(pool.documents(20)) == FAST["max_labels"]
    assert RunPool().config(num_epochs=500).num_epochs == 500


def test_results_are_the_numbers_of_the_runs(pool: RunPool, folder: Path) -> None:
    results = bench.load_results("activation", folder)
    assert results is not None
    assert results["lab"]["seeds"] == 2
    for name in activation.ACTIVATIONS:
        for run, seed in zip(
            pool.runs(key_activation=name), results["numbers"][name]["seeds"], strict=True
        ):
            with torch.no_grad():
                selection = run.load_memory().select(run.load_memory().doc_reps)
            count = int((selection.abs() > activation.OPEN).sum())
            assert seed["active"] == pytest.approx(count / selection.numel(), rel=1e-6)
            untrained = new_memory(run.config, pool.lm, run.documents)
            before = untrained.select(untrained.doc_reps)
            count = int((before.abs() > activation.OPEN).sum())
            assert seed["active_untrained"] == pytest.approx(count / before.numel(), rel=1e-6)
            pairs = [
                (selection[i] - selection[j]).norm().item()
                for i in range(len(selection))
                for j in range(i)
            ]
            assert seed["distance"] == pytest.approx(np.mean(pairs), rel=1e-5)
    first = pool.run(1, key_activation="tanh").load_memory()
    expected = first.select(first.doc_reps).detach()
    assert torch.equal(torch.tensor(results["numbers"]["tanh"]["selection"]), expected)


def test_a_figure_is_drawn_from_results_alone(folder: Path) -> None:
    picture = folder / "activation.png"
    before = picture.read_bytes()
    picture.unlink()
    assert bench.redraw(folder, folder) == ["activation"]
    assert picture.read_bytes() == before
    numbers = json.loads((folder / "activation.json").read_text(encoding="utf-8"))["numbers"]
    figure = activation.draw(new_figure(*activation.SIZE), numbers, "note")
    drawn = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(drawn, numbers["sigmoid"]["selection"])


def test_claims_follow_the_numbers(folder: Path) -> None:
    def made(sigmoid: float, relu: float, negative: float) -> dict[str, Any]:
        return {
            "sigmoid": {"seeds": [{"active": sigmoid}, {"active": sigmoid}]},
            "relu": {"seeds": [{"active": relu, "active_untrained": 0.5}] * 2},
            "tanh": {"seeds": [{"negative": negative}, {"negative": negative}]},
        }

    assert [c.verdict for c in activation.claims(made(1.0, 0.4, 0.5))] == ["holds"] * 3
    assert [c.verdict for c in activation.claims(made(0.5, 0.9, 0.0))] == ["not"] * 3
    page = (folder / "claims.md").read_text(encoding="utf-8")
    assert page.startswith("3 claims: ")
    assert page.endswith(bench.claims_table(folder=folder))
    assert page.count("| `activation` |") == 3
    assert "(n = 2)" in page
    verdicts = [claim.verdict for claim in bench.claims(folder=folder)["activation"]]
    assert bench.tally(folder=folder) == (
        f"3 claims: {verdicts.count('holds')} hold, {verdicts.count('partly')} hold partly, "
        f"{verdicts.count('not')} do not."
    )


def test_every_experiment_has_results_a_figure_and_rows_in_the_readme() -> None:
    """Whoever measures anew runs `make figures`, which writes all of them."""
    assert tuple(drawn["experiments"]) == experiments.NAMES
    for name in experiments.NAMES:
        results = bench.load_results(name)
        assert results is not None, f"`make figures FRESH=1` measures {name}"
        assert results["lab"]["preset"] == "tiny"
        assert results["lab"]["fast"] is False
        assert (redraw.FOLDER / "experiments" / f"{name}.png").is_file()
        assert bench.claims()[name]
    readme = redraw.README.read_text(encoding="utf-8")
    assert redraw.with_claims(readme) == readme
    page = (redraw.FOLDER / "experiments" / "claims.md").read_text(encoding="utf-8")
    assert page.endswith(bench.claims_table())
    assert "stale" not in redraw.with_claims(f"a {redraw.BEGIN}stale{redraw.END} z")


def test_a_spread_is_mean_and_sample_deviation() -> None:
    three = spread([1.0, 2.0, 6.0])
    assert three.mean == 3.0
    assert three.sd == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert str(three) == "3.00 ± 2.65 (n = 3)"
    assert str(spread([2.0])) == "2.00 (one seed)"
    assert [verdict(True, True), verdict(True, False), verdict(False)] == ["holds", "partly", "not"]


def test_an_unknown_experiment_and_a_bad_lab_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DocmemError, match=r"nothing.*choose one of activation"):
        experiment("nothing")
    with pytest.raises(DocmemError, match="no preset 'huge'"):
        RunPool(preset="huge")
    with pytest.raises(DocmemError, match="seeds"):
        RunPool(seeds=0)
    with pytest.raises(DocmemError, match="no results of activation"):
        bench.figure("activation", tmp_path)
    (tmp_path / "activation.json").write_text("{", encoding="utf-8")
    with pytest.raises(DocmemError, match="cannot be read"):
        bench.load_results("activation", tmp_path)


@pytest.mark.parametrize("name", experiments.NAMES)
def test_an_experiment_has_all_its_parts(name: str) -> None:
    module = experiment(name)
    assert module.QUESTION.endswith("?")
    assert len(module.ALT) > 40
    assert 6 <= module.SIZE[0] <= 14
    assert all(callable(getattr(module, part)) for part in ("measure", "draw", "claims"))


def test_the_command_performs_what_is_missing(
    pool: RunPool, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    performed: list[str] = []
    monkeypatch.setattr(
        bench, "run_experiment", lambda name, *_: performed.append(name) or {"seconds": 0.0}
    )
    monkeypatch.setattr(experiments, "NAMES", ("activation",))
    assert main(["experiment", "all", "--fast", "--out", str(folder)]) == 0
    assert performed == []
    assert main(["experiment", "all", "--fast", "--fresh", "--out", str(folder)]) == 0
    assert main(["experiment", "activation", "--fast", "--out", str(folder)]) == 0
    assert performed == ["activation", "activation"]
    assert f"are in {folder}" in capsys.readouterr().out


def test_ctrl_c_ends_an_experiment_without_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`on_epoch` answers False as Ctrl-C does: train then returns what is not finished."""
    monkeypatch.chdir(tmp_path)
    whole = laboratory.train
    stopped = functools.partial(whole, on_epoch=lambda _: False)
    monkeypatch.setattr(laboratory, "train", stopped)
    command = ["experiment", "recalling", "--fast", "--seeds", "1", "--out", "results"]
    assert main(command) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not Path("results").exists()
    monkeypatch.setattr(laboratory, "train", whole)
    assert main(command) == 0
    assert Path("results/recalling.json").is_file()


def test_settings_say_all_that_the_numbers_depend_on(folder: Path, pool: RunPool) -> None:
    results = bench.load_results("activation", folder)
    assert results is not None
    config = dataclasses.asdict(pool.config())
    assert results["lab"]["config"]["guidance"] == config["guidance"]
    assert results["lab"]["fast"] is True
    assert results["versions"]["torch"]
