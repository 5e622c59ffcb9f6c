"""Whatever a file of a run becomes, what reads it gives a sentence. The whole: make test-storm."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toys import DOCUMENTS, at, files

from docmem.cli.main import main
from docmem.core.files import load_tensors, save_tensors
from docmem.errors import DocmemError
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.description import describe, description_digest
from docmem.training.run import Run

pytestmark = pytest.mark.usefixtures("unchecked")
READERS: dict[str, Callable[[Run], Any]] = {
    "run.json": lambda run: Run.open(run.path),
    "documents.json.gz": lambda run: Run.open(run.path).documents,
    "history.jsonl": Run.load_history,
    "memory/config.json": Run.load_memory,
    "memory/model.safetensors": Run.load_memory,
    "snapshots/000003.safetensors": Run.load_snapshots,
}


@pytest.fixture
def run(whole: Run, tmp_path: Path) -> Run:
    return Run.open(shutil.copytree(whole.path, tmp_path / "copy"))


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def become_deep(path: Path) -> None:
    path.write_bytes(b"[" * 100_000)


def become_null(path: Path) -> None:
    path.write_bytes(b"null")


@pytest.mark.parametrize("become", [become_folder, become_loop, become_deep, become_null])
def test_file_that_became_something_else_is_said(run: Run, become: Callable[[Path], None]):
    for name, read in READERS.items():
        good = (run.path / name).read_bytes()
        become(run.path / name)
        if become is become_loop and name == "history.jsonl":
            assert read(run) == []  # a link to nothing is no file; training writes it anew
        else:
            with pytest.raises(DocmemError):
                read(run)
        assert main(["check", str(run.path)]) == 1
        shutil.rmtree(run.path / name) if become is become_folder else (run.path / name).unlink()
        (run.path / name).write_bytes(good)
    assert main(["check", str(run.path)]) == 0


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("config", "hook_memory_layer"), "last"), (("config", "lr"), "fast"),
        (("config", "titles"), 5), (("config", "seed"), 1.5), (("config",), []),
        (("lm", "name"), 5), (("lm",), None), (("versions",), 3), (("documents",), {}),
        (("documents", 0), "x"), (("documents", 0, "title"), None), (("texts",), 1),
    ],
)  # fmt: skip
def test_wrong_type_inside_run_json_with_a_right_digest_is_said(
    run: Run, place: tuple[Any, ...], value: Any
):
    description = json.loads(json.dumps(run.description))
    inside = description
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    description["sha256"] = description_digest(description)
    (run.path / "run.json").write_text(json.dumps(description))
    with pytest.raises(DocmemError, match=r"run\.json cannot be read"):
        Run.open(run.path)


@pytest.mark.parametrize("name", ["memory/model.safetensors", "snapshots/000003.safetensors"])
@pytest.mark.parametrize("what", ["nan", "shape"])
def test_wrong_tensors_with_a_right_digest_are_said(run: Run, name: str, what: str):
    tensors, metadata = load_tensors(run.path / name)
    first = min(tensors)
    tensors[first] = tensors[first] * float("nan") if what == "nan" else tensors[first][..., :1]
    save_tensors(run.path / name, tensors, metadata)
    with pytest.raises(DocmemError, match=r"safetensors cannot be read"):
        READERS[name](run)


@pytest.mark.parametrize("what", ["nan", "shape", "dtype", "lost"])
def test_wrong_optimizer_state_with_a_right_digest_is_said(go, whole: Run, what: str):
    run = go(at(4, lambda: False))
    tensors, metadata = load_tensors(run.checkpoint)
    name = next(name for name in tensors if name.endswith("values.weight/exp_avg"))
    good = tensors.pop(name)
    wrong = {"nan": good * float("nan"), "shape": good[:1], "dtype": good.long()}
    if what in wrong:
        tensors[name] = wrong[what]
    save_tensors(run.checkpoint, tensors, metadata)
    with pytest.raises(DocmemError, match=r"checkpoint\.safetensors cannot be read.*exp_avg"):
        go()


def test_training_that_began_in_a_folder_is_not_overwritten_by_another(
    lm: LanguageModel, config: TrainConfig
):
    first, second = (
        Run(config.save_dir, describe(replace(config, seed=seed), lm, DOCUMENTS)) for seed in (1, 2)
    )
    assert Run.find(first.path, first.description) is Run.find(second.path, second.description)
    first.begin(DOCUMENTS)  # both had found the folder free
    before = files(first.path)
    with pytest.raises(DocmemError, match="another config: seed was 1, now 2"):
        second.begin(DOCUMENTS)
    assert files(first.path) == before


def test_leftovers_that_cannot_be_deleted_are_said(go, config: TrainConfig):
    go(at(4, lambda: False))
    (config.save_dir / ".memory.7.partial").mkdir()
    assert go().finished
