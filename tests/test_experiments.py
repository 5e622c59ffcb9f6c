"""Experiments: runs shared and resumed, results with a schema, figures drawn from them alone."""

import ast
import dataclasses
import functools
import inspect
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redraw
import torch
from drawn import ToyPool, marks, through_json
from PIL import Image
from scipy import stats as scipy_stats

from docmem import experiments
from docmem.cli.main import main
from docmem.errors import DocmemError
from docmem.experiments import NAMES, load_study, pool, provenance, runner
from docmem.experiments.claims import LEARNED, Claim, judge
from docmem.experiments.pool import FAST, RunPool
from docmem.experiments.provenance import PACKAGE, code_digest
from docmem.experiments.stats import Part, above, alike, below, decide, holm, more, spread, spreads
from docmem.experiments.studies.activation import OPEN, Activation, Results, Selections
from docmem.training.description import to_dict
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
    assert len(quick.documents(1, 20)) == FAST["max_labels"]
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
    axes = Activation().figure(numbers, "note").axes[0]
    selection = np.array(numbers.activations["sigmoid"].selection)
    np.testing.assert_allclose(axes.images[0].get_array(), selection / abs(selection).max())
    assert axes.get_title(loc="left") == f"sigmoid, ±{abs(selection).max():.2f}"


def made_up(sigmoid: float, relu: float, negative: float) -> Results:
    """Five seeds with about these shares of active entries, and of negative ones."""

    def selections(active: float) -> Selections:
        about = [active + change for change in (-0.01, -0.005, 0.0, 0.005, 0.01)]
        return Selections(about, [0.5] * 5, [negative] * 5, *([[0.0] * 5] * 3), [])

    return Results({"sigmoid": Selections([sigmoid] * 5, *([[0.0] * 5] * 5), []),
                    "relu": selections(relu), "tanh": selections(1.0)})  # fmt: skip


def test_claims_follow_the_numbers() -> None:
    def verdicts(*numbers: float) -> list[str]:
        return [judged.verdict for judged in Activation().claims(made_up(*numbers))]

    assert verdicts(1.0, 0.2, 0.5) == ["as it must be", "holds", "holds", "holds"]
    assert verdicts(0.5, 0.9, 0.0) == ["violated"] + ["does not hold"] * 3
    assert verdicts(1.0, 0.5, 0.5) == ["as it must be", "inconclusive", "does not hold", "holds"]


def test_a_claim_is_judged_by_its_parts() -> None:
    high, low, wide = [0.9, 1.0, 1.1], [-0.9, -1.0, -1.1], [-3.0, 0.1, 4.0]
    shown, refuted, undecided = above("a", high), above("b", low), above("c", wide)
    for parts, wanted in (
        ((shown,), "holds"), ((refuted,), "does not hold"), ((undecided,), "inconclusive"),
        ((shown, undecided), "partly"), ((shown, refuted), "partly"),
        ((undecided, refuted), "does not hold"),
    ):  # fmt: skip
        (judged,) = judge([Claim("It is so", parts)])
        assert judged.verdict == wanted
    (one_seed,) = judge([Claim("It is so", [above("a", [5.0])])])
    assert one_seed.verdict == "inconclusive"
    (young,) = judge([Claim("It is so", [shown], own=[LEARNED + 0.1] * 3)])
    assert young.verdict == "inconclusive"
    assert "not learned" in young.found
    assert young.brief == "**inconclusive** (not learned)<br>1.00 [0.75, 1.25]"
    (little,) = judge([Claim("It is so", [above("a", high, margin=2.0)])])
    assert little.brief == "**inconclusive** (small)<br>1.00 [0.75, 1.25]"
    (two,) = judge([Claim("It is so", [shown, undecided])])
    assert two.brief == (
        "**partly**<br>a 1.00 [0.75, 1.25]: shown<br>c 0.37 [−8.35, 9.08]: undecided"
    )
    for limit, wanted in ((1.05, "as it must be"), (0.95, "violated")):
        (checked,) = judge([Claim("It must be", [below("a", [0.5, 1.0], limit)], check=True)])
        assert checked.verdict == wanted


def test_page_of_claims_links_the_figures_beside_it(folder: Path) -> None:
    assert "(activation.png)" in runner.claims_page({"toy": folder}, {"toy": ""})
    stored = redraw.CLAIMS.read_text(encoding="utf-8")
    assert "](../figures/experiments/tiny-paper/plane.png)" in stored


def test_page_of_claims_has_a_row_per_claim_and_a_tally(folder: Path) -> None:
    page = runner.claims_page({"toy": folder})
    judged = runner.claims("activation", folder)
    rows = [line for line in page.splitlines() if line.startswith("| ") and "**" in line]
    assert rows == [f"| {one.claim.brief} | {one.brief} |" for one in judged]
    for one in judged:
        assert f"**{one.verdict}**" in one.brief
        assert ("exploratory" in one.claim.brief) == one.claim.exploratory
        assert f"- {one.claim.claim}\n  - toy: {one.found}\n" in page
    assert "(n = 2)" in judged[0].found
    counted = [one.verdict for one in judged if not one.claim.check]
    assert f"{len(counted)} claims: {counted.count('holds')} hold" in runner.tally(folder)
    assert f"- toy: {runner.tally(folder)}" in page


DRAWN_AT_ONCE = ("activation", "plane", "guidance", "rivals")
STORED = [
    pytest.param(
        name,
        label,
        id=f"{label}-{name}",
        marks=[pytest.mark.slow] * (label != "tiny" or name not in DRAWN_AT_ONCE),
    )
    for label, folder in runner.FOLDERS.items()
    for name in experiments.NAMES
    if (folder / f"{name}.json").exists()
]


def test_stored_results_were_measured_by_this_code() -> None:
    for name, label in (case.values for case in STORED):
        found = runner.load_results(name, runner.FOLDERS[label])
        assert found.code == code_digest(name), (
            f"measured by other code: {label}, {name}; docs/adding.md says what to do"
        )


@pytest.mark.parametrize(("name", "label"), STORED)
def test_stored_results_have_a_figure_and_claims(name: str, label: str) -> None:
    """`make figures FRESH=tiny` measures and draws what is missing."""
    folder = runner.FOLDERS[label]
    figures = redraw.FIGURES if label == "tiny" else redraw.FIGURES / label
    results, study = runner.load_results(name, folder), load_study(name)
    assert results is not None
    pool, _ = redraw.MEASURED[label]
    assert (results.experiment, results.pool.fast) == (name, False)
    now = to_dict(pool.config())
    assert results.pool.config == {setting: now[setting] for setting in results.pool.config}
    numbers = results.numbers
    assert inspect.getdoc(type(study)).endswith("?")
    with Image.open(figures / f"{name}.png") as picture:
        assert picture.size == tuple(round(150 * inches) for inches in study.size)
    figure = runner.figure(name, folder)
    assert numbers == through_json(name, numbers)  # drawing changed nothing
    assert figure.get_suptitle().strip() == study.title(numbers)
    under = figure.texts[-1].get_text().replace("\n", " ")
    assert under == f"{study.caption.format(results=numbers)} {results.note}".strip()
    for axes in (axes for axes in figure.axes if not axes.images and axes.name == "rectilinear"):
        lowest, highest = sorted(axes.get_ylim())
        assert all(lowest <= height <= highest for height in marks(axes)), axes.get_ylabel()
    judged = study.claims(numbers)
    assert len({one.claim.claim for one in judged}) == len(judged) > 1
    for one in judged:
        assert not re.search(r"\bnan\b|\binf\b", one.found)
        assert "violated" not in one.verdict
        assert min(len(part.effect) for part in one.claim.parts) >= 5 or "n = " in one.found


def test_the_page_of_claims_is_of_the_stored_results() -> None:
    """`make figures` writes it."""
    same = redraw.CLAIMS.read_text(encoding="utf-8") == runner.claims_page()
    assert same, "docs/claims.md is of other results or experiments: make figures"


def test_redraw_writes_figures_and_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(redraw, "FIGURES", tmp_path / "figures")
    monkeypatch.setattr(redraw, "CLAIMS", tmp_path / "docs" / "claims.md")
    drawn: list[tuple[Path, Path]] = []

    def draw(call: Callable[..., Any], places: list[tuple[Path, Path]], *_: object) -> list[Any]:
        assert call is runner.redraw
        drawn.extend(places)
        return [["plane"]] * len(places)

    monkeypatch.setattr(redraw, "perform", draw)
    monkeypatch.setattr(redraw, "claims_page", lambda: "the claims")
    assert redraw.measure_and_draw() == 0
    assert drawn[0] == (runner.STORED, tmp_path / "figures")
    assert [folder for folder, _ in drawn] == list(runner.FOLDERS.values())
    assert f"{tmp_path / 'figures' / 'plane.png'}\n" in capsys.readouterr().out
    assert (tmp_path / "docs" / "claims.md").read_text(encoding="utf-8") == "the claims"


def test_a_spread_is_mean_and_sample_deviation() -> None:
    three = spread([1.0, 2.0, 6.0])
    assert three.mean == 3.0
    assert three.sd == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert str(three) == "3.00 ± 2.65"
    assert str(spread([2.0])) == "2.00 (one seed)"
    assert spreads({"a": [2.0], "b": [3.0]}) == "a: 2.00 (one seed), b: 3.00 (one seed)"


def test_a_part_is_decided_by_students_test() -> None:
    near, far = [0.9, 1.0, 1.2, 0.8, 1.1], [4.9, 5.0, 5.2, 4.8, 5.1]
    assert decide([above("a", near, 0.5)]) == ["shown"]
    assert decide([below("a", near, 0.5)]) == ["refuted"]
    assert decide([above("a", near, 0.95)]) == ["undecided"]
    assert decide([above("a", near, 0.95, margin=0.5)]) == ["refuted"]  # no difference
    # Surely above, but on average by less than matters; more seeds of the same change nothing.
    assert decide([above("a", near, 0.5, margin=0.9)]) == ["small"]
    assert decide([above("a", near * 4, 0.5, margin=0.9)]) == ["small"]
    small = [0.010, 0.016, 0.026, 0.019, 0.013]  # no difference has the smaller p-value of the two
    assert above("a", small, margin=0.25).p_same() < above("a", small, margin=0.25).p_shown()
    assert decide([above("a", small, margin=0.25)]) == ["small"]
    assert decide([below("a", small, margin=0.25)]) == ["refuted"]  # surely on the other side
    assert decide([above("a", [-0.02, *small], margin=0.25)]) == ["refuted"]
    assert decide([above("a", near, 0.5, margin=0.5)]) == ["shown"]
    assert decide([more("a", far, near, 0.1)]) == ["shown"]
    assert decide([more("a", near, far, 0.1)]) == ["refuted"]
    assert decide([alike("a", near, near, 0.1)]) == ["shown"]
    assert decide([alike("a", near, far, 0.1)]) == ["refuted"]
    wide = [0.0, 1.0, -1.0, 2.0, -2.0]
    assert decide([alike("a", wide, [0.0] * 5, 0.5)]) == ["undecided"]
    part = above("a", near, 0.5)
    expected = scipy_stats.ttest_1samp(near, 0.5, alternative="greater")
    assert part.p_shown() == pytest.approx(expected.pvalue)
    interval = scipy_stats.ttest_1samp(near, 0).confidence_interval(0.95)
    assert part.interval == pytest.approx((interval.low, interval.high))
    # Seeds that only one has do not count.
    assert more("a", [1.0, 2.0, 3.0], [0.5, 1.5], 0.1).effect == (0.5, 0.5)


def test_a_part_without_sense_is_refused_and_rounding_is_no_effect() -> None:
    for effect, low, high, margin in (
        ((), 0.0, 1.0, None), ((1.0, math.nan), 0.0, 1.0, None), ((1.0, math.inf), 0.0, 1.0, None),
        ((1.0, 2.0), 1.0, 1.0, None), ((1.0, 2.0), 0.0, math.inf, 0.0),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"^a (has|is not)"):
            Part("a", effect, low, high, margin)
    assert decide([more("a", [0.1 + 0.2] * 5, [0.3] * 5, 0.05)]) != ["shown"]
    assert decide([below("a", [1.05 - 1.0] * 5, 0.05)]) == decide([below("a", [0.05] * 5, 0.05)])


def test_a_claim_that_cannot_be_decided_is_no_test_beside_others() -> None:
    just = above("a", [0.5, 1.0, 1.7, 0.7])
    undecided = [Claim(f"{n}", [above("b", [-1.0, 1.1, -1.2, 1.0])], own=[2.0]) for n in range(3)]
    assert judge([Claim("It is so", [just]), *undecided])[0].verdict == "holds"
    learned = [dataclasses.replace(claim, own=[0.1]) for claim in undecided]
    assert judge([Claim("It is so", [just]), *learned])[0].verdict == "inconclusive"
    assert judge([Claim("It is so", [just], own=[math.nan])])[0].verdict == "inconclusive"


def test_claims_that_hold_in_other_parts_do_not_agree() -> None:
    high, low = above("a", [0.9, 1.0, 1.1]), above("a", [-0.9, -1.0, -1.1])
    pairs = ((high, low), (low, high), (high, high))
    first, second, third = (judge([Claim("It is so", pair)]) for pair in pairs)
    assert "1 with the same verdict, 0 with the opposite one, 0" in runner._agreement(first, first)
    assert "0 with the same verdict, 0 with the opposite one, 1" in runner._agreement(first, second)
    assert "0 with the same verdict, 0 with the opposite one, 1" in runner._agreement(first, third)


def test_many_parts_need_stronger_evidence() -> None:
    # As worked by hand: the smallest times 4, the next times 3, never falling.
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    just = above("a", [0.5, 1.0, 1.7, 0.7])
    assert 0.05 / 8 < just.p_shown() < 0.05 / 2
    assert decide([just]) == ["shown"]
    assert decide([just] + [above("b", [-1.0, 1.1, -1.2, 1.0])] * 3)[0] == "undecided"


def test_the_digest_is_alike_in_all_versions_of_python() -> None:
    """Python 3.12 gave functions a field more, and `ast.dump` leaves out others since 3.13."""
    tree = ast.parse("def f():\n    return [None, '', 0]")
    values = "List(elts=[Constant(), Constant(value=''), Constant(value=0)], ctx=Load())"
    function = f"FunctionDef(name='f', args=arguments(), body=[Return(value={values})])"
    assert provenance._dump(tree) == f"Module(body=[{function}])"


def test_the_digest_is_of_code_that_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "docmem"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", copy)
    before = code_digest("activation")
    study = copy / "experiments" / "studies" / "activation.py"
    text = study.read_text(encoding="utf-8")
    for same in (
        text.replace("The document selections of", "What documents select in"),
        text.replace('ylabel("document")', 'ylabel("documents")'),
        text.replace("Tanh selects with both signs", "Tanh has both signs"),
    ):
        assert same != text
        study.write_text(same, encoding="utf-8")
        assert code_digest("activation") == before
    study.write_text(text, encoding="utf-8")
    memory = copy / "core" / "memory.py"
    method = memory.read_text(encoding="utf-8")
    memory.write_text(
        method.replace("def save_pretrained(self", "def save_pretrained(me"), encoding="utf-8"
    )
    assert code_digest("activation") == before
    memory.write_text(method.replace("def select(self", "def select(me"), encoding="utf-8")
    assert code_digest("activation") != before
    memory.write_text(method, encoding="utf-8")
    study.write_text(text.replace("OPEN = 0.01", "OPEN = 0.02"), encoding="utf-8")
    changed = code_digest("activation")
    assert changed != before
    study.write_text(text, encoding="utf-8")
    for deeper in ("core/loss.py", "experiments/pool.py"):
        whole = (copy / deeper).read_text(encoding="utf-8")
        (copy / deeper).write_text(f"{whole}\nMORE = 1\n", encoding="utf-8")
        assert code_digest("activation") != before
        (copy / deeper).write_text(whole, encoding="utf-8")
    nonlinear = code_digest("nonlinear")  # it counts with activation's OPEN
    study.write_text(text.replace("OPEN = 0.01", "OPEN = 0.02"), encoding="utf-8")
    assert code_digest("nonlinear") != nonlinear


def test_seeds_draw_documents(tmp_path: Path) -> None:
    drawing = RunPool(folder=tmp_path)
    titles = {seed: [one.title for one in drawing.documents(seed)] for seed in (1, 2)}
    assert len(set(titles[1])) == len(titles[1]) == drawing.config().max_labels
    assert titles[1] != titles[2]
    assert [one.title for one in drawing.documents(1)] == titles[1]
    assert [one.title for one in drawing.documents(1, 20)][: len(titles[1])] == titles[1]


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
    altered = json.dumps({**whole, "seconds": whole["seconds"] + 1})
    del whole["sha256"]  # what is wrong in results without a digest is found all the same
    numbers, relu = whole["numbers"], whole["numbers"]["activations"]["relu"]
    without = {key: value for key, value in relu.items() if key != "l2"}
    for broken in (
        altered,
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
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    performed: list[str] = []
    known = stored(folder)
    now = to_dict(RunPool(fast=True).config())  # the toys were trained with other settings
    pool = dataclasses.replace(known.pool, config=now)
    content = dataclasses.asdict(dataclasses.replace(known, pool=pool))
    assert not runner.is_current("activation", RunPool(fast=True), folder)
    folder = tmp_path
    (folder / "activation.json").write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setattr(runner, "run_experiment", lambda name, *_: performed.append(name) or known)
    monkeypatch.setattr(experiments, "NAMES", ("activation",))
    drawn: list[Path] = []
    monkeypatch.setattr(runner, "redraw", lambda _, out: drawn.append(out))
    assert main(["experiment", "all", "--fast", "--seeds", "2", "--out", str(folder)]) == 0
    assert performed == []
    assert not runner.is_current("activation", RunPool(fast=True, seeds=3), folder)
    assert main(["experiment", "all", "--fast", "--fresh", "--out", str(folder)]) == 0
    assert main(["experiment", "activation", "--fast", "--out", str(folder)]) == 0
    assert performed == ["activation", "activation"]
    assert drawn == [folder] * 3
    assert f"are in {folder}" in capsys.readouterr().out
    page = runner.claims_page({"tiny": folder}, {"tiny": ""})
    assert (folder / "claims.md").read_text(encoding="utf-8") == page


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
    assert "these numbers mean nothing" in runner.claims_page({"toy": folder})
    assert "mean nothing" not in redraw.CLAIMS.read_text(encoding="utf-8")
    assert "3 documents of at most 1 segments, 16 entries, 2 epochs" in results.note


def test_page_counts_the_verdicts_that_two_lms_share():
    tiny, real = (
        {
            one.claim.claim: (one.verdict, one.verdict == "partly" and one.decisions)
            for name in NAMES
            for one in runner.claims(name, runner.FOLDERS[label])
            if not one.claim.check
        }
        for label in ("tiny", "smollm2-135m")
    )
    both = tiny.keys() & real.keys()
    decided = [c for c in both if "inconclusive" not in (tiny[c][0], real[c][0])]
    same = [claim for claim in decided if tiny[claim] == real[claim]]
    said = (
        f"- Between the LMs: {len(both)} claims, {len(decided)} decided by both: {len(same)} with "
        "the same verdict, "
    )
    opposite = [c for c in decided if {tiny[c][0], real[c][0]} == {"holds", "does not hold"}]
    rest = len(decided) - len(same) - len(opposite)
    assert 0 < len(decided) < len(both)
    said += f"{len(opposite)} with the opposite one, {rest} partly so, or of other parts."
    assert said in redraw.CLAIMS.read_text(encoding="utf-8")
