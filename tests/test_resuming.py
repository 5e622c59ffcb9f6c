"""Whatever stops a training, the same call goes on to the same numbers."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from slow import slow
from toys import DOCUMENTS, Killed, assert_same, at, files, raising, toy_lm

import docmem.training.run
import docmem.training.train
from docmem.errors import DocmemError
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.history import Epoch
from docmem.training.run import Run, is_partial
from docmem.training.train import train

EPOCHS = 7
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def test_same_training_twice_gives_the_same_numbers(go, whole: Run):
    assert_same(go(), whole)
    assert [epoch.epoch for epoch in whole.load_history()] == list(range(1, EPOCHS + 1))


@pytest.mark.parametrize("epoch", [1, 3, 4, 7])  # the storm kills anywhere
def test_killed_run_resumes_to_the_same_numbers(go, whole: Run, config: TrainConfig, epoch: int):
    with pytest.raises(Killed):
        go(at(epoch, raising(Killed())))
    saved = (epoch - 1) // 3 * 3
    assert len(Run.open(config.save_dir).load_history()) == saved
    repeated: list[int] = []
    run = go(lambda done: repeated.append(done.epoch))
    assert repeated == list(range(saved + 1, EPOCHS + 1))
    assert_same(run, whole)


@pytest.mark.parametrize("snapshot", [2, 3])
def test_muon_run_killed_between_files_resumes_to_the_same_numbers(
    lm, config: TrainConfig, monkeypatch: pytest.MonkeyPatch, snapshot: int
):
    settings = {"optimizer": "muon", "negative_rows": 1, "snapshot_freq": 2, "num_epochs": 4}
    folders = [config.save_dir / name for name in ("killed", "whole")]
    configs = [replace(config, **settings, save_dir=folder) for folder in folders]
    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_snapshots", killed_at(snapshot, Run.save_snapshots))
        with pytest.raises(Killed):
            train(configs[0], lm=lm, documents=DOCUMENTS, progress=False)
    run, whole = (train(one, lm=lm, documents=DOCUMENTS, progress=False) for one in configs)
    assert_same(run, whole, [0, 0.4, 0.8, 1.2, 1.6, 2, 2.4, 2.8, 3, 3.2, 3.6, 4])


def killed_at(write: int, function: Callable) -> Callable:
    """The function, killed instead of called for the `write`th time."""
    calls = []

    def killed(*args):
        calls.append(args)
        if len(calls) == write:
            raise Killed
        return function(*args)

    return killed


@pytest.mark.parametrize("write", [slow(1), 2, slow(3)])
@pytest.mark.parametrize(
    "place", ["Run.save_snapshots", "Run.save_history", "Run.save_memory", "save_checkpoint"]
)
def test_run_killed_between_two_files_resumes_from_the_last_checkpoint(
    go, whole: Run, monkeypatch: pytest.MonkeyPatch, place: str, write: int
):
    doc_id, name = (Run, place[4:]) if place.startswith("Run.") else (docmem.training.train, place)
    with monkeypatch.context() as patch:
        patch.setattr(doc_id, name, killed_at(write, getattr(doc_id, name)))
        with pytest.raises(Killed):
            go()
    assert_same(go(), whole)


def test_snapshots_whose_checkpoint_was_not_written_are_taken_again(
    go, whole: Run, monkeypatch: pytest.MonkeyPatch
):
    def until_between_checkpoints(epoch: Epoch) -> bool:
        return epoch.epoch <= whole.config.save_freq

    with monkeypatch.context() as patch:
        saved = docmem.training.train.save_checkpoint
        patch.setattr(docmem.training.train, "save_checkpoint", killed_at(2, saved))
        with pytest.raises(Killed):
            go(on_epoch=until_between_checkpoints)
    again = go()
    assert_same(again, whole)
    assert again.snapshots() == whole.snapshots()
    assert again.load_snapshots().epochs == sorted(again.load_snapshots().epochs)


def test_run_is_not_finished_before_its_last_memory_is_saved(
    go, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Run, "save_memory", killed_at(3, Run.save_memory))
    with pytest.raises(Killed):
        go()
    assert config.save_dir
    assert not Run.open(config.save_dir).finished


def test_run_killed_while_it_begins_can_begin_again(
    go, whole: Run, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(
            docmem.training.run, "write_json", killed_at(1, docmem.training.run.write_json)
        )
        with pytest.raises(Killed):
            go()
    assert_same(go(), whole)


@pytest.mark.parametrize(("epoch", "false"), [(1, False), (3, np.False_), (4, False)])
def test_on_epoch_returning_false_stops_and_saves(go, whole: Run, epoch: int, false: object):
    run = go(at(epoch, lambda: false))
    assert not run.finished
    assert len(run.load_history()) == epoch
    assert [e[:4] for e in run.load_history()] == [e[:4] for e in whole.load_history()[:epoch]]
    assert run.load_memory().titles == whole.load_memory().titles
    repeated: list[int] = []
    assert_same(go(lambda done: repeated.append(done.epoch)), whole)
    assert repeated[0] == epoch + 1


def test_ctrl_c_ends_the_epoch_saves_and_returns_the_unfinished_run(go, whole: Run):
    usual = signal.getsignal(signal.SIGINT)
    run = go(at(2, lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert signal.getsignal(signal.SIGINT) is usual
    assert not run.finished
    assert len(run.load_history()) == 2
    assert_same(go(), whole)


def test_second_ctrl_c_interrupts_at_once_and_loses_nothing_saved(go, whole: Run, config):
    def twice() -> None:
        # In this very thread: two signals to the process could arrive as one.
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    # Whoever starts the tests in the background may have had Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            go(at(5, twice))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(Run.open(config.save_dir).load_history()) == 3
    assert_same(go(), whole)


@pytest.mark.parametrize("kept", [None, 0, 3, 6])
def test_lost_or_short_history_is_written_anew_from_the_checkpoint(go, kept: int | None):
    history = go().path / "history.jsonl"
    before = files(history.parent)
    if kept is None:
        history.unlink()
    else:
        history.write_text("".join(history.read_text().splitlines(keepends=True)[:kept]))
    run = go(raising(AssertionError("trained again")))
    assert run.finished
    assert files(run.path) == before


def test_lost_memory_is_written_anew_from_the_checkpoint(go):
    run = go()
    before = files(run.path)
    shutil.rmtree(run.path / "memory")
    assert files(go(raising(AssertionError("trained again"))).path) == before


@pytest.mark.parametrize("history", [True, False])
def test_memory_without_a_checkpoint_is_rejected(go, history: bool):
    run = go(at(4, lambda: False))
    run.checkpoint.unlink()
    if not history:
        (run.path / "history.jsonl").unlink()
    before = files(run.path)
    with pytest.raises(DocmemError, match=r"no checkpoint to go on from\. Restore checkpoint"):
        go()
    assert files(run.path) == before


def test_finished_run_can_be_extended(lm, config: TrainConfig, whole: Run):
    def extended(num_epochs: int) -> Run:
        changed = replace(config, num_epochs=num_epochs)
        return train(changed, lm=lm, documents=DOCUMENTS, progress=False)

    assert extended(3).finished
    run = extended(EPOCHS)
    assert_same(run, whole)
    assert Run.open(run.path).config.num_epochs == EPOCHS
    extra = extended(8).load_snapshots().epochs
    assert extra == [0, 3, 6, 7, 8]
    with pytest.raises(DocmemError, match="has 8 epochs already, and num_epochs is 7"):
        extended(EPOCHS)


def test_checkpoint_of_another_run_is_rejected(go, lm, config: TrainConfig, tmp_path: Path):
    run = go(at(3, lambda: False))
    other = replace(config, save_dir=tmp_path / "other", key_activation="relu", seed=2)
    stranger = train(other, lm=lm, documents=DOCUMENTS, on_epoch=lambda _: False, progress=False)
    own = run.checkpoint.read_bytes()
    shutil.copy(stranger.checkpoint, run.checkpoint)
    with pytest.raises(DocmemError, match=r"checkpoint.safetensors .* was 'relu', now 'tanh'"):
        go()
    run.checkpoint.write_bytes(own)
    moved = replace(config, save_dir=shutil.move(run.path, tmp_path / "moved"))
    elsewhere = LanguageModel(lm.model, lm.tokenizer, "elsewhere")
    assert train(moved, lm=elsewhere, documents=DOCUMENTS, progress=False).finished


def test_second_training_in_the_folder_is_rejected(go):
    def second() -> None:
        with pytest.raises(DocmemError, match="Another training, or a check, is at work in"):
            go()

    assert go(at(2, second)).finished


TRAINING_SLOWLY = """
import sys, time
from pathlib import Path
from toys import DOCUMENTS, quick_config, toy_lm
from docmem.training.train import train

def wait(epoch):
    if epoch.epoch == 5:
        print("training", flush=True)
        time.sleep(600)

train(quick_config(Path(sys.argv[1])), lm=toy_lm(), documents=DOCUMENTS, on_epoch=wait,
      progress=False)
"""


@pytest.mark.slow
def test_lock_of_another_process_holds_until_it_is_killed(go, whole: Run, config: TrainConfig):
    with subprocess.Popen(
        [sys.executable, "-c", TRAINING_SLOWLY, str(config.save_dir)],
        env=ENVIRONMENT, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout
        assert child.stdout.readline() == "training\n"
        with pytest.raises(DocmemError, match="Another training, or a check, is at work in"):
            go()
        child.kill()
    assert_same(go(), whole)


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
import torch
from toys import DOCUMENTS, quick_config, toy_lm
from docmem.training.train import train

torch.set_num_threads(1)
write = Path.write_bytes

def write_bytes(path, data):
    checkpoint = path.parent / "checkpoint.safetensors"
    if checkpoint.name in path.name and checkpoint.exists():
        write(path, data[:1000])
        os.kill(os.getpid(), signal.SIGKILL)
    return write(path, data)

Path.write_bytes = write_bytes
train(quick_config(Path(sys.argv[1])), lm=toy_lm(), documents=DOCUMENTS, progress=False)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no largest file")
def test_what_a_kill_leaves_of_a_write_is_known_as_a_partial_file(tmp_path: Path):
    killed = """
import resource, signal, sys, torch
from pathlib import Path
from docmem.core.files import save_tensors

signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # the system kills at the first byte too many
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
save_tensors(Path(sys.argv[1]), {"x": torch.zeros(10_000)}, {})
"""
    child = subprocess.run([sys.executable, "-c", killed, str(tmp_path / "t.safetensors")])
    assert child.returncode == -signal.SIGXFSZ
    assert [is_partial(path) for path in tmp_path.iterdir()] == [True]


@pytest.mark.slow
def test_process_killed_in_the_middle_of_a_write_resumes_to_the_same_numbers(
    go, whole: Run, config: TrainConfig
):
    assert config.save_dir
    child = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_WRITING, str(config.save_dir)], env=ENVIRONMENT
    )
    assert child.returncode == -signal.SIGKILL
    assert (config.save_dir / "snapshots" / "000006.safetensors").exists()
    repeated: list[int] = []
    assert_same(go(lambda done: repeated.append(done.epoch)), whole)
    assert repeated == [4, 5, 6, 7]


def test_a_run_with_fewer_epochs_than_planned_is_finished_on_disk_too(config: TrainConfig) -> None:
    train(config, lm=toy_lm(), documents=DOCUMENTS, on_epoch=at(3, lambda: False), progress=False)
    assert not Run.open(config.save_dir).finished
    fewer = train(replace(config, num_epochs=3), lm=toy_lm(), documents=DOCUMENTS, progress=False)
    assert fewer.finished
    assert Run.open(config.save_dir).finished


def test_a_finished_run_is_opened_and_nothing_is_written(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(config, lm=toy_lm(), documents=DOCUMENTS, progress=False)
    before = files(config.save_dir)
    monkeypatch.setattr(docmem.training.run, "write_json", raising(AssertionError("written")))
    assert train(config, lm=toy_lm(), documents=DOCUMENTS, progress=False).finished
    assert files(config.save_dir) == before
