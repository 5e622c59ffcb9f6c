"""`docmem check`: every file read, what is wrong named, what can be made again made again."""

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from toys import DOCUMENTS, at, files, toy_lm

from docmem.cli.main import main
from docmem.core.files import load_tensors, save_tensors
from docmem.errors import DocmemError
from docmem.evaluation.cached import measure
from docmem.explore.page import write_page
from docmem.lm.loading import LanguageModel
from docmem.plots.figures import draw_figures
from docmem.training.check import check
from docmem.training.config import TrainConfig
from docmem.training.description import describe
from docmem.training.run import Run
from docmem.training.train import train


@pytest.fixture(scope="module")
def measured(whole: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The finished run with an evaluation; read only."""
    copy = Run.open(shutil.copytree(whole.path, tmp_path_factory.mktemp("measured") / "run"))
    measure(copy, toy_lm)
    return copy


@pytest.fixture
def run(measured: Run, tmp_path: Path) -> Run:
    """A copy of it."""
    return Run.open(shutil.copytree(measured.path, tmp_path / "copy"))


def states(path: Path, repair: bool = False) -> dict[str, str]:
    """The files that are not whole."""
    return {one.file: one.state for one in check(path, repair) if one.state != "whole"}


def test_whole_run_is_whole_and_left_alone(run: Run, capsys: pytest.CaptureFixture[str]):
    before = files(run.path)
    found = check(run.path, repair=True)
    assert {one.state for one in found} == {"whole"}
    assert {one.file for one in found} == before.keys() - {".lock"}
    assert main(["check", str(run.path)]) == 0
    assert f"{len(found)} of {len(found)} files are whole" in capsys.readouterr().out
    assert files(run.path) == before


@pytest.mark.parametrize("stop", [0, 2, 3, 5])
def test_unfinished_run_is_whole(go: Callable[..., Run], config: TrainConfig, stop: int):
    if stop:
        go(at(stop, lambda: False))
    else:
        Run(config.save_dir, describe(config, toy_lm(), DOCUMENTS)).begin(DOCUMENTS)
    assert states(config.save_dir) == {}


AGAIN = ("run.json", "history.jsonl", "memory/config.json", "memory/model.safetensors",
         "memory/README.md")  # fmt: skip
DELETED = ("measured/recall.safetensors",)
LOST = ("snapshots/000003.safetensors", "checkpoint.safetensors", "documents.json.gz")


@pytest.mark.parametrize("damage", ["lost", "cut", "emptied"])
@pytest.mark.parametrize("name", [*AGAIN, *DELETED, *LOST])
def test_damage_is_named_and_what_can_be_made_again_is(run: Run, name: str, damage: str):
    path = run.path / name
    good, before = path.read_bytes(), files(run.path)
    harmless = name == "memory/README.md" and damage == "cut"
    if damage == "lost":
        path.unlink()
    else:
        path.write_bytes(good[: len(good) // 2] if damage == "cut" else b"")
    wrong = "missing" if damage == "lost" else "damaged"
    expected = {} if harmless or (name in DELETED and damage == "lost") else {name: wrong}
    assert states(run.path) == expected
    assert main(["check", str(run.path)]) == bool(expected)
    repaired = dict.fromkeys(expected, wrong if name in LOST else "repaired")
    assert states(run.path, repair=True) == repaired
    if name in AGAIN and not harmless:
        assert files(run.path) == before
        assert states(run.path) == {}
    if name in DELETED:
        assert not path.exists()
        assert states(run.path) == {}


def test_texts_are_made_again_from_their_source(
    lm, config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source = tmp_path / "texts"
    source.mkdir()
    for number, document in enumerate(DOCUMENTS):
        (source / f"{number}.txt").write_text(document.text)
    run = train(dataclasses.replace(config, documents=str(source)), lm=lm, progress=False)
    texts = run.path / "documents.json.gz"
    good = texts.read_bytes()
    texts.write_bytes(good[:-5])
    assert states(run.path, repair=True) == {"documents.json.gz": "repaired"}
    assert texts.read_bytes() == good
    texts.unlink()
    (source / "0.txt").write_text("Another text .")
    assert main(["check", str(run.path), "--repair"]) == 1
    assert "does not hold the texts that the run read" in capsys.readouterr().out


def test_pieces_of_another_run_are_named(run: Run, lm, config: TrainConfig, tmp_path: Path):
    other = train(
        dataclasses.replace(config, seed=2, save_dir=tmp_path / "other"),
        lm=lm, documents=DOCUMENTS, progress=False,
    )  # fmt: skip
    for name in ("history.jsonl", "memory/model.safetensors", "snapshots/000006.safetensors"):
        shutil.copy(other.path / name, run.path / name)
    found = states(run.path)
    assert {
        "history.jsonl": "damaged",
        "memory/model.safetensors": "damaged",
    }.items() <= found.items()
    assert states(run.path, repair=True)["history.jsonl"] == "repaired"


def test_a_training_that_is_refused_leaves_the_run_as_it_was(
    run: Run, lm: LanguageModel, config: TrainConfig
):
    (run.path / "checkpoint.safetensors").write_bytes(b"no checkpoint")
    before, more = files(run.path), dataclasses.replace(config, save_dir=run.path, num_epochs=50)
    with pytest.raises(DocmemError, match=r"checkpoint.safetensors cannot be read"):
        train(more, lm=lm, documents=DOCUMENTS, progress=False)
    assert files(run.path) == before


def test_figures_and_pages_do_not_go_into_a_run(run: Run, lm: LanguageModel):
    for write in (
        lambda: draw_figures([run], run.path, lm=lm),
        lambda: draw_figures([run], run.path / "figures", lm=lm),
        lambda: write_page([run], run.path / "page.html", lm=lm),
    ):
        with pytest.raises(
            DocmemError, match=r"lies in the run .*; choose a folder that is in no run"
        ):
            write()
    assert states(run.path) == {}


def test_another_runs_checkpoint_is_named_and_nothing_is_made_from_it(
    run: Run, config: TrainConfig, tmp_path: Path
):
    other = dataclasses.replace(config, seed=2, save_dir=tmp_path / "other")
    checkpoint = train(other, lm=toy_lm(), documents=DOCUMENTS, progress=False).checkpoint
    shutil.copy(checkpoint, run.checkpoint)
    before = files(run.path)
    for repair in (False, True):
        (found,) = (one for one in check(run.path, repair) if one.state != "whole")
        assert found.file == run.checkpoint.name
        assert "another config: seed was 2, now 1" in found.note
    assert files(run.path) == before


def test_foreign_files_are_named_and_left_and_what_a_killed_process_left_goes(run: Run):
    (run.path / "thesis.tex").write_text("precious")
    (run.path / "memory" / ".config.json.77.partial").write_text("{")
    expected = {"thesis.tex": "foreign", "memory/.config.json.77.partial": "foreign"}
    assert states(run.path) == expected
    assert states(run.path, repair=True)["memory/.config.json.77.partial"] == "repaired"
    assert states(run.path) == {"thesis.tex": "foreign"}


def test_run_without_its_run_json_is_described_again_from_the_checkpoint(run: Run):
    good = (run.path / "run.json").read_text()
    (run.path / "run.json").write_text(good.replace("tanh", "relu"))
    with pytest.raises(DocmemError, match=r"does not match its digest.*docmem check"):
        Run.open(run.path)
    assert states(run.path, repair=True) == {"run.json": "repaired"}
    assert (run.path / "run.json").read_text() == good


def test_not_a_number_with_a_right_digest_is_damage(run: Run):
    for name in ("snapshots/000003.safetensors", "checkpoint.safetensors"):
        tensors, metadata = load_tensors(run.path / name)
        some = next(iter(tensors))
        tensors[some] = tensors[some] * float("nan")
        save_tensors(run.path / name, tensors, metadata)
        assert states(run.path)[name] == "damaged"


def test_folder_that_is_no_run_is_not_whole(tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    assert states(tmp_path, repair=True) == {"run.json": "missing"}
    assert main(["check", str(tmp_path)]) == 1
    assert "--repair" not in check(tmp_path)[0].note  # from what?


@pytest.mark.parametrize("name", [".", "nowhere"])
def test_no_folder_and_an_empty_one_are_refused(name: str, tmp_path: Path):
    with pytest.raises(DocmemError, match="holds no file"):
        check(tmp_path / name, repair=True)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("repair", [False, True])
def test_nothing_is_checked_while_a_training_goes_on(
    go: Callable[..., Run], config: TrainConfig, repair: bool
):
    def look() -> None:
        with pytest.raises(DocmemError, match="Another training, or a check, is at work"):
            check(config.save_dir, repair)

    assert go(at(4, look)).finished


def test_a_folder_where_a_file_should_be_is_damage(run: Run):
    for name in ("snapshots/000003.safetensors", "measured/recall.safetensors"):
        (run.path / name).unlink()
        (run.path / name).mkdir()
        assert states(run.path)[name] == "damaged"


def test_a_log_of_tensorboard_belongs_to_a_run(run: Run):
    (run.path / "tensorboard").mkdir()
    (run.path / "tensorboard" / "events.out.tfevents.1").write_bytes(b"curves")
    assert states(run.path) == {}


@pytest.mark.parametrize(
    "name", ["memory/model.safetensors", "memory/config.json", "documents.json.gz", "history.jsonl"]
)
@pytest.mark.parametrize("damage", ["lost", "emptied"])
def test_a_finished_training_makes_again_what_it_lost(
    run: Run, lm: LanguageModel, config: TrainConfig, name: str, damage: str
):
    before, settings = files(run.path), dataclasses.replace(config, save_dir=run.path)
    (run.path / name).unlink() if damage == "lost" else (run.path / name).write_bytes(b"")
    train(settings, lm=lm, documents=DOCUMENTS, progress=False)
    assert files(run.path) == before


def test_notes_say_what_can_be_done(run: Run):
    for name, says in {
        "memory/config.json": "There is no file .*config.json. --repair makes it again",
        "checkpoint.safetensors": "There is no .* can be read, but not trained on",
        "snapshots/000003.safetensors": "Restore it from a copy; if it is deleted",
        "run.json": "it has no run.json. --repair makes it again",
    }.items():
        good = (run.path / name).read_bytes()
        (run.path / name).unlink()
        note = next(one.note for one in check(run.path) if one.file == name)
        assert re.search(says, note) and "docmem check" not in note
        (run.path / name).write_bytes(good)
