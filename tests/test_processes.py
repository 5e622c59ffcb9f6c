"""A training on several processes is that of one with as many more accumulated batches."""

import errno
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import torch
from slow import slow
from torch import Tensor
from toys import DOCUMENTS, assert_same, at, quick_config, toy_lm

import docmem.training.train
from docmem.core.files import load_tensors
from docmem.documents import Document
from docmem.errors import DocmemError
from docmem.lm.store import HiddenStateStore
from docmem.training.config import TrainConfig
from docmem.training.processes import ALONE, join
from docmem.training.run import Run, locked
from docmem.training.train import train
from docmem.training.trainer import Trainer

TEN = [
    Document(f"{document.title} {part}", " ".join(document.text.split()[part : part + 12]))
    for document in DOCUMENTS
    for part in (0, 3, 6, 9)
][:10]
LAUNCHED = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
ENDED = "Another process of this training has ended"


class Done(NamedTuple):
    """What a process that trained says of it."""

    steps: list[bytes]
    """Some weights, after each step."""
    own: list[int]
    """The batches that it kept."""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def launched(count: int, job: Callable[[int], Any]) -> list[Any]:
    """What a job returns or raises on each of some processes; None of one that was killed.

    They are forked, and find what a launcher would tell them.
    """
    context, port = multiprocessing.get_context("fork"), free_port()

    def start(rank: int, answers: Any) -> None:
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port), GLOO_SOCKET_IFNAME=LOOPBACK,
        )  # fmt: skip
        try:
            answers.send(job(rank))
        except BaseException as error:
            answers.send(error)

    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    children = [
        context.Process(target=start, args=(rank, pipes[rank][1]), daemon=True)
        for rank in range(count)
    ]
    for child in children:
        child.start()
    for _, end in pipes:
        end.close()
    found = []
    for end, _ in pipes:
        try:
            found.append(end.recv() if end.poll(60) else "It waits for ever.")
        except EOFError:
            found.append(None)
    for child in children:
        child.kill() if "It waits for ever." in found else child.join(10)
    return found


def training(
    config: TrainConfig,
    documents: list[Document] = DOCUMENTS,
    *,
    begin: Callable[[int, Trainer], object] = lambda *_: None,
    **options: Any,
) -> Callable[[int], Done]:
    """A job that trains the toy LM; `begin` may spoil the trainer before."""

    def job(rank: int) -> Done:
        trainers, steps = [], []
        fit = docmem.training.train.fit

        def watched(trainer: Trainer, *arguments: Any) -> None:
            trainers.append(trainer)
            weight = trainer.memory.values.weight.detach().numpy()
            trainer.optimizer.register_step_post_hook(lambda *_: steps.append(weight.tobytes()))
            begin(rank, trainer)
            fit(trainer, *arguments)

        docmem.training.train.fit = watched
        train(config, lm=toy_lm(), documents=documents, progress=False, **options)
        return Done(steps, list(trainers[0].cache.own)) if trainers else Done([], [])

    return job


def complaints(answers: list[Any]) -> list[str]:
    assert all(isinstance(answer, DocmemError) for answer in answers), answers
    return [str(answer) for answer in answers]


def assert_close(run: Run, other: Run) -> None:
    """The same training, but for the order of sums."""
    mine, theirs = run.load_memory().state_dict(), other.load_memory().state_dict()
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)
    history, expected = (torch.tensor(r.load_history())[:, :4] for r in (run, other))
    torch.testing.assert_close(history, expected, atol=1e-5, rtol=0)
    snapshots, others = run.load_snapshots(), other.load_snapshots()
    assert snapshots.epochs == others.epochs
    torch.testing.assert_close(snapshots.token, others.token, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(snapshots.document, others.document, atol=1e-5, rtol=0)
    assert run.description == {**other.description, "config": run.description["config"]}
    assert [p.relative_to(run.path) for p in sorted(run.path.rglob("*"))] == [
        p.relative_to(other.path) for p in sorted(other.path.rglob("*"))
    ]


MUON = {"optimizer": "muon", "negative_rows": 1, "doc_rep_init": "spread", "loss_form": "absolute"}


@pytest.mark.parametrize(
    ("count", "documents", "changes", "own"),
    [
        (2, DOCUMENTS, {"batch_size": 4}, [[0, 2], [1]]),
        (2, DOCUMENTS, {**MUON, "snapshot_freq": 1, "negative_key_type": "random"},
         [[0, 2, 4], [1, 3]]),
        slow(2, DOCUMENTS, {"num_accumulation_steps": 2}, [[0, 2, 4], [1, 3]]),
        slow(3, TEN, MUON, [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]),
    ],
    ids=["a batch per document", "several batches per document", "accumulated", "ten on three"],
)  # fmt: skip
def test_processes_train_as_one_that_accumulates_as_many_batches(
    count: int, documents: list[Document], changes: dict, own: list, config: TrainConfig
):
    config = replace(config, num_epochs=4, **changes)
    alone = replace(
        config,
        save_dir=config.save_dir.parent / "alone",
        num_accumulation_steps=count * config.num_accumulation_steps,
    )
    answers = launched(count, training(config, documents))
    assert [answer.own for answer in answers] == own
    for answer in answers[1:]:
        assert answer.steps == answers[0].steps
        assert len(set(answer.steps)) >= 8
    expected = train(alone, lm=toy_lm(), documents=documents, progress=False)
    run = Run.open(config.save_dir)
    assert run.finished
    assert run.config.num_accumulation_steps == alone.num_accumulation_steps
    assert_close(run, expected)


@pytest.fixture(scope="module")
def whole_on_two(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run of two processes that nothing interrupted; read only."""
    config = quick_config(tmp_path_factory.mktemp("whole") / "run")
    assert launched(2, training(config))[0].steps
    return Run.open(config.save_dir)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_killed_process_ends_all_and_the_same_call_goes_on_to_the_same_numbers(
    victim: int, config: TrainConfig, whole_on_two: Run
):
    def doom(rank: int, trainer: Trainer) -> None:
        def kill(*_: Any) -> None:
            if rank == victim and len(trainer.history) == 4:
                os.kill(os.getpid(), signal.SIGKILL)

        trainer.optimizer.register_step_pre_hook(kill)

    answers = launched(2, training(config, begin=doom))
    assert answers.pop(victim) is None
    assert ENDED in complaints(answers)[0]
    assert "The same command goes on" in str(answers[0])
    assert len(Run.open(config.save_dir).load_history()) == 3
    answers = launched(2, training(config))
    assert len(answers[0].steps) == 4 * 3
    assert_same(Run.open(config.save_dir), whole_on_two)


def interrupt(rank: int, trainer: Trainer) -> None:
    """Ctrl-C reaches the second process alone, in epoch 2."""

    def press(*_: Any) -> None:
        if rank == 1 and len(trainer.history) == 1:
            signal.raise_signal(signal.SIGINT)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # three steps an epoch, one Ctrl-C

    trainer.optimizer.register_step_pre_hook(press)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"begin": interrupt}, {"on_epoch": at(2, lambda: False)}],
    ids=["Ctrl-C", "on_epoch"],
)
def test_what_stops_one_process_stops_all_after_the_epoch_and_saves(
    options: dict, config: TrainConfig, whole_on_two: Run
):
    answers = launched(2, training(config, **options))
    assert [len(answer.steps) for answer in answers] == [6, 6]
    assert not Run.open(config.save_dir).finished
    assert len(Run.open(config.save_dir).load_history()) == 2
    launched(2, training(config))
    assert_same(Run.open(config.save_dir), whole_on_two)


def test_run_of_two_goes_on_as_one_that_accumulates_and_as_no_other(
    go, config: TrainConfig, whole_on_two: Run
):
    launched(2, training(config, on_epoch=at(3, lambda: False)))
    with pytest.raises(DocmemError, match="num_accumulation_steps was 2, now 1"):
        go()
    accumulated = replace(config, num_accumulation_steps=2)
    run = train(accumulated, lm=toy_lm(), documents=DOCUMENTS, progress=False)
    assert run.finished
    assert_close(run, whole_on_two)


def test_loss_that_is_not_a_number_on_one_process_is_the_error_of_all(config: TrainConfig):
    def spoil(rank: int, trainer: Trainer) -> None:
        if rank == 1:
            trainer.cache.states(3).fill_(float("nan"))

    told = complaints(launched(2, training(config, begin=spoil)))
    assert told[0] == told[1]
    assert told[0].startswith("In epoch 1, document 'Thornwick Light': The loss is nan")


def test_error_of_one_process_in_an_epoch_is_its_own_and_ends_the_others(config: TrainConfig):
    class Lost(HiddenStateStore):
        def __getitem__(self, index: int) -> Tensor:
            raise DocmemError("There is no file lost.")

    def lose(rank: int, trainer: Trainer) -> None:
        if rank == 1:
            trainer.cache.store = Lost()

    told = complaints(launched(2, training(config, begin=lose)))
    assert told[0].startswith(ENDED)
    assert told[1].startswith("There is no file lost")


@pytest.mark.slow
def test_full_disk_is_the_error_of_all_and_the_same_call_goes_on(
    config: TrainConfig, whole_on_two: Run, monkeypatch: pytest.MonkeyPatch
):
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if "checkpoint" in path.name and (config.save_dir / "history.jsonl").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        told = complaints(launched(2, training(config)))
    assert told[0] == told[1]
    assert "No space left on device" in told[0]
    launched(2, training(config))
    assert_same(Run.open(config.save_dir), whole_on_two)


def test_held_lock_is_the_error_of_all(config: TrainConfig):
    with locked(config.save_dir):
        told = complaints(launched(2, training(config)))
    assert told[0] == told[1]
    assert "Another training, or a check, is at work in" in told[0]


def test_error_of_one_process_before_training_is_the_error_of_all(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: Any) -> None:
        if os.environ["RANK"] == "1":
            raise DocmemError("The second disk is full.")

    monkeypatch.setattr(HiddenStateStore, "add", full)
    assert complaints(launched(2, training(config))) == ["The second disk is full."] * 2
    assert not config.save_dir.exists()


def test_processes_that_read_other_documents_are_refused(config: TrainConfig):
    def job(rank: int) -> Done:
        return training(config, DOCUMENTS[rank:])(rank)

    for told in complaints(launched(2, job)):
        assert "do not see the same training" in told
    assert not config.save_dir.exists()


def test_more_processes_than_batches_are_refused(config: TrainConfig):
    config = replace(config, batch_size=4)
    for told in complaints(launched(4, training(config))):
        assert told.startswith("There are 4 processes and 3 batches to read")


def test_finished_run_is_opened_by_all(config: TrainConfig, whole_on_two: Run):
    config = replace(config, save_dir=whole_on_two.path)
    assert launched(2, training(config)) == [Done([], [])] * 2


def test_first_process_chooses_the_number_format(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    def job(rank: int) -> TrainConfig:
        choice = ("float32", "bfloat16")[rank]
        monkeypatch.setattr("docmem.training.processes.chosen_dtype", lambda *_: choice)
        return join(config).placed(config)

    placed = replace(config, dtype="float32", device="cpu")
    assert launched(2, job) == [placed, placed]


@pytest.mark.parametrize("changes", [{"num_gpus": 2}, {"device": "cuda:1"}])
def test_several_processes_and_a_device_for_all_are_refused(
    changes: dict, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DocmemError, match="each of the 2 processes has one device of its own"):
        join(replace(config, **changes))


def test_more_processes_than_gpus_are_refused(config: TrainConfig, monkeypatch: pytest.MonkeyPatch):
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DocmemError, match="2 processes were started on a machine with 1 GPU"):
        join(config)


def test_process_that_a_launcher_left_alone_is_refused(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    assert join(config) is ALONE
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert join(config) is ALONE
    monkeypatch.setenv("MASTER_PORT", "29500")
    with pytest.raises(DocmemError, match=r"started this one alone.*torchrun"):
        join(config)


@pytest.mark.parametrize(
    ("name", "value"),
    [("WORLD_SIZE", "many"), ("RANK", None), ("RANK", "x"), ("MASTER_ADDR", None),
     ("MASTER_PORT", None), ("MASTER_PORT", "")],
)  # fmt: skip
def test_variables_that_no_launcher_leaves_so_are_a_sentence(
    name: str, value: str | None, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    for one, right in LAUNCHED.items():
        monkeypatch.setenv(one, right)
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    with pytest.raises(DocmemError, match=r"torchrun.*or unset WORLD_SIZE"):
        join(config)


@pytest.mark.parametrize("alone", [{"RANK": "1"}, {"RANK": "3", "WORLD_SIZE": "1"}])
def test_rank_without_other_processes_counts_for_nothing(
    alone: dict[str, str], config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    for name, value in alone.items():
        monkeypatch.setenv(name, value)
    run = train(config, lm=toy_lm(), documents=TEN, progress=False)
    assert run.finished
    assert Run.open(run.path).load_history() == run.load_history()


ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
               "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": LOOPBACK}  # fmt: skip
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes=2"]
SMALL = ["-m", "docmem", "train", "--max_labels=5", "--max_segments=2", "--num_epochs=2"]
TOYS = """
import sys
from dataclasses import replace
from pathlib import Path
from accelerate import notebook_launcher
from toys import DOCUMENTS, quick_config, toy_lm
from docmem.training.train import train

config = replace(quick_config(Path(sys.argv[1])), num_epochs=int(sys.argv[2]))

def job():
    train(config, lm=toy_lm(), documents=DOCUMENTS)

notebook_launcher(job, num_processes=2) if "notebook" in sys.argv else job()
"""


def ran(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.slow
def test_accelerate_launch_ends_with_the_weights_of_accumulated_batches(tmp_path: Path):
    two = ran(*ACCELERATE, *SMALL, "--save_dir=two")
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("two: 2 epochs, own DocRep") == 1
    assert [two.stderr.count(bar) for bar in ("Loading weights:   0%", "tanh:   0%")] == [1, 1]
    one = ran(sys.executable, *SMALL, "--num_accumulation_steps=2", "--save_dir=one")
    assert one.returncode == 0, one.stderr
    assert_close(Run.open("two"), Run.open("one"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--max_labels=1"], "docmem: The negative 'other' needs a second document"),
        (["--max_lables=3"], "Perhaps you meant"),
    ],
)
def test_an_error_of_all_processes_is_printed_once(flags: list[str], complaint: str):
    done = ran(*TORCHRUN, *SMALL, "--save_dir=run", *flags)
    assert done.returncode == 1
    assert (done.stdout + done.stderr).count(complaint) == 1
    assert not Path("run").exists()


@pytest.fixture
def toys(tmp_path: Path) -> str:
    """A script that trains the toy LM: folder, epochs."""
    path = tmp_path / "toys_on_two.py"
    path.write_text(TOYS)
    return str(path)


@pytest.mark.slow
def test_notebook_launcher_trains_as_torchrun(toys: str):
    for command in ([sys.executable, toys, "one", "3", "notebook"], [*TORCHRUN, toys, "two", "3"]):
        done = ran(*command)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("tanh:   0%") == 1
    assert_same(Run.open("one"), Run.open("two"), [0, 3])


def saved(folder: str) -> int:
    """Epochs in a run's history; 0 before there is a run."""
    return len(Run.open(folder).load_history()) if Path(folder, "run.json").exists() else 0


def started(toys: str, folder: str, epochs: int, enough: int) -> subprocess.Popen[bytes]:
    """A training on two processes that has saved `enough` epochs."""
    launcher = subprocess.Popen(
        [*TORCHRUN, toys, folder, str(epochs)], env=ENVIRONMENT, stderr=subprocess.DEVNULL
    )
    while saved(folder) < enough:
        assert launcher.poll() is None
        time.sleep(0.05)
    return launcher


@pytest.mark.slow
def test_any_process_killed_at_any_moment_ends_all_and_the_same_command_goes_on(toys: str):
    epochs, chance = 42, random.Random(1)
    assert ran(*TORCHRUN, toys, "whole", str(epochs)).returncode == 0
    for victim in (0, 1):
        launcher = started(toys, "run", epochs, saved("run") + chance.randint(3, 12))
        workers = psutil.Process(launcher.pid).children()
        time.sleep(chance.random() / 10)
        workers[victim].kill()
        assert launcher.wait(60) == 1
        assert not any(worker.is_running() for worker in workers)
    assert 0 < saved("run") < epochs
    assert ran(*TORCHRUN, toys, "run", str(epochs)).returncode == 0
    assert_same(Run.open("run"), Run.open("whole"), range(0, epochs + 1, 3))


@pytest.mark.slow
def test_ctrl_c_on_the_launcher_ends_the_epoch_and_saves(toys: str):
    launcher = started(toys, "run", 3000, 3)
    launcher.send_signal(signal.SIGINT)
    launcher.wait(60)
    assert 3 < saved("run") < 3000
    assert saved("run") == load_tensors(Path("run/checkpoint.safetensors"))[1]["epoch"]


@pytest.mark.parametrize("told", ["no", "true"])
def test_a_gpu_that_was_asked_for_by_name_is_not_replaced_by_the_cpu(
    told: str, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    for name, value in (LAUNCHED | {"ACCELERATE_USE_CPU": told}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: told == "true")
    why = "accelerate was told to use the CPU" if told == "true" else "torch can use none"
    with pytest.raises(DocmemError, match=f"device is 'cuda', and {why}"):
        join(replace(config, device="cuda"))
