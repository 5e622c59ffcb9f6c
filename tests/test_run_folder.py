"""What a run's folder survives, and what it refuses."""

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toys import DOCUMENTS, Killed, assert_same, at, files, raising, toy_lm

from docmem.documents import Document
from docmem.errors import DocmemError
from docmem.lm.hidden_states import cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.run import Run
from docmem.training.setup import new_memory
from docmem.training.train import train
from docmem.training.trainer import Trainer


def test_loss_that_is_not_a_number_stops_and_keeps_the_last_checkpoint(
    go, whole: Run, lm: LanguageModel, config: TrainConfig
):
    head = lm.model.lm_head.weight
    good = head.clone()

    def break_the_lm() -> None:
        head.fill_(float("nan"))

    with pytest.raises(
        DocmemError, match=r"epoch 5, document 'Cyclone Odalys': The loss is nan.*last good"
    ):
        go(at(4, break_the_lm))
    assert len(Run.open(config.save_dir).load_history()) == 3
    head.copy_(good)
    assert_same(go(), whole)


@pytest.mark.parametrize("method", ["exists", "iterdir"])
def test_folder_that_cannot_be_read_is_a_sentence(
    method: str, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    config.save_dir.mkdir()
    monkeypatch.setattr(Path, method, raising(PermissionError(errno.EACCES, "Permission denied")))
    with pytest.raises(DocmemError, match=r"run cannot be read: .*denied\. Choose"):
        Run.find(config.save_dir, {})


def test_document_that_spoils_a_group_of_batches_is_named(lm: LanguageModel, config: TrainConfig):
    cache = cache_hidden_states(lm, DOCUMENTS, config)
    bad = cache.doc_ids.index(1)
    whole = cache.states(bad)
    whole.fill_(float("nan"))
    assert cache.doc_ids[-1] == 2
    together = replace(config, num_accumulation_steps=len(cache.batches))
    trainer = Trainer(together, cache, new_memory(config, lm, DOCUMENTS))
    before = trainer.memory.values.weight.clone()
    with pytest.raises(DocmemError, match="document 'Thornwick Light': The loss is nan"):
        trainer.epoch()
    assert torch.equal(trainer.memory.values.weight, before)


def test_run_goes_on_whatever_the_origin_of_equal_weights_and_says_which_dtype_it_had(
    go, whole: Run, lm: LanguageModel, config: TrainConfig
):
    go(at(4, lambda: False))
    named = replace(lm, origin="another mirror")
    assert_same(train(replace(config, dtype="float32"), lm=named, documents=DOCUMENTS,
                      progress=False), whole)  # fmt: skip
    half = replace(lm, model=lm.model.half())
    with pytest.raises(DocmemError, match=r"now 'float16'. Give dtype float32"):
        train(config, lm=half, documents=DOCUMENTS, progress=False)


def test_all_settings_that_differ_are_named(go, config: TrainConfig):
    go(at(4, lambda: False))
    other = replace(config, lr=0.5, guidance=0.25)
    with pytest.raises(DocmemError, match=r"guidance was 1\.0, now 0\.25; lr was .*, now 0\.5\."):
        train(other, lm=toy_lm(), documents=DOCUMENTS, progress=False)


def test_truncated_checkpoint_is_rejected_by_name(go, config: TrainConfig):
    checkpoint = go(at(4, lambda: False)).checkpoint
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    with pytest.raises(DocmemError, match=r"checkpoint\.safetensors cannot be read"):
        go()


def test_full_disk_keeps_the_last_checkpoint_and_leaves_no_partial_file(
    go, whole: Run, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    assert config.save_dir
    go(at(4, lambda: False))
    before = files(config.save_dir)

    write = Path.write_bytes

    def full(path, data):
        write(path, b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(DocmemError, match=r"Could not write .*000006.*No space left"):
            go()
    assert files(config.save_dir) == before
    assert_same(go(), whole)


def test_train_opens_a_finished_run_without_writing(go, whole: Run, config: TrainConfig):
    run = go()
    before = files(run.path)
    assert_same(go(at(1, raising(Killed()))), run)
    assert files(run.path) == before


def test_moved_run_resumes(go, lm, whole: Run, config: TrainConfig, tmp_path: Path):
    shutil.move(go(at(4, lambda: False)).path, tmp_path / "moved")
    moved = replace(config, save_dir=tmp_path / "moved")
    assert_same(train(moved, lm=lm, documents=DOCUMENTS, progress=False), whole)


@pytest.mark.parametrize(
    ("settings", "lm_seed", "documents", "complaint"),
    [
        ({"lr": 0.02}, 0, DOCUMENTS, r"another config: lr was 0\.01, now 0\.02"),
        ({}, 1, DOCUMENTS, "another lm: fingerprint was"),
        ({}, 0, DOCUMENTS[::-1], "other documents: they were in another order"),
        (
            {},
            0,
            [Document("Cyclone Odalys", "New text ."), *DOCUMENTS[1:]],
            "other documents: the text of 'Cyclone Odalys' was another",
        ),
        (
            {},
            0,
            [*DOCUMENTS[:2], Document("New", "New text .")],
            "documents: 'Quillon Engine' was among them, 'New' was not",
        ),
    ],
)
def test_another_training_in_the_same_folder_is_rejected(
    go, config: TrainConfig, settings: dict, lm_seed: int, documents, complaint: str
):
    before = files(go(at(1, lambda: False)).path)
    with pytest.raises(DocmemError, match=rf"{complaint}(.|\n)*hoose another"):
        train(
            replace(config, **settings),
            lm=toy_lm(seed=lm_seed),
            documents=documents,
            progress=False,
        )
    assert files(config.save_dir) == before


def test_a_run_that_lost_its_run_json_is_not_taken_for_another_thing(go, config: TrainConfig):
    go()
    (config.save_dir / "run.json").unlink()
    with pytest.raises(DocmemError, match=r"lost its run\.json.*docmem check --repair"):
        go()
    shutil.rmtree(config.save_dir)
    config.save_dir.write_text("")
    with pytest.raises(DocmemError, match="is a file"):
        go()


def test_folder_with_other_files_is_rejected_and_left_alone(go, config: TrainConfig):
    config.save_dir.mkdir()
    (config.save_dir / "thesis.tex").write_text("precious")
    with pytest.raises(DocmemError, match="holds files that are no run of docmem"):
        go()
    assert files(config.save_dir) == {"thesis.tex": b"precious"}


def test_a_run_inside_a_run_is_refused(whole: Run, lm: LanguageModel, config: TrainConfig):
    inside = replace(config, save_dir=whole.path / "sub" / "run")
    with pytest.raises(DocmemError, match=r"lies in the run .*; choose a folder that is in no run"):
        train(inside, lm=lm, documents=DOCUMENTS, progress=False)


def test_a_run_is_opened_by_its_run_json_too(whole: Run):
    assert Run.open(whole.path / "run.json").path == whole.path
