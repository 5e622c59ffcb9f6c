"""Sweeps: every combination once, wherever performed, with the results of single trainings."""

import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
import torch
from toys import DOCUMENTS, quick_config, toy_lm

from docmem.cli.commands import Sweep
from docmem.cli.main import main, parse
from docmem.errors import DocmemError
from docmem.training import executors
from docmem.training.config import preset
from docmem.training.executors import perform, share_machine
from docmem.training.run import Run
from docmem.training.sweep import failures
from docmem.training.train import train

ODD = "odd"


def half(number: int) -> int:
    """What the tests perform: odd numbers have no half."""
    if number % 2:
        raise DocmemError(f"{number} is {ODD}; give an even number.")
    return number // 2


def kill_itself(by: int) -> None:
    os.kill(os.getpid(), by)


def trained(folder: Path, seed: int) -> list[float]:
    """Losses of a toy training."""
    torch.set_num_threads(1)
    config = replace(quick_config(folder / f"seed-{seed}"), seed=seed)
    run = train(config, lm=toy_lm(), documents=DOCUMENTS, progress=False)
    return [epoch.positive_ce for epoch in run.load_history()]


def test_flags_with_several_values_are_combined() -> None:
    command = parse(
        ["sweep", "--executor", "local:3", "--key_activation", "relu", "tanh", "--seed=7",
         "--hook_memory_layer", "-1", "--num_epochs", "3", "4"]
    )  # fmt: skip
    assert isinstance(command, Sweep) and command.executor == "local:3"
    found = [(one.key_activation, one.num_epochs, one.seed) for one in command.trainings]
    assert found == [("relu", 3, 7), ("relu", 4, 7), ("tanh", 3, 7), ("tanh", 4, 7)]


def test_titles_are_one_value_and_presets_begin_each() -> None:
    command = parse(["sweep", "--preset", "pythia-1b", "--titles", "A", "B", "--seed", "1", "2"])
    assert isinstance(command, Sweep)
    assert [one.titles for one in command.trainings] == [("A", "B")] * 2
    assert {one.hook_memory_layer for one in command.trainings} == {15}


def test_a_value_given_twice_is_one_training() -> None:
    command = parse(["sweep", "--seed", "3", "3", "4", "--lr", "0.1", "1e-1"])
    assert isinstance(command, Sweep)
    assert [one.seed for one in command.trainings] == [3, 4]


def test_a_flag_given_twice_has_the_values_of_both() -> None:
    command = parse(["sweep", "--seed", "3", "--key_dim", "2", "--seed", "4"])
    assert isinstance(command, Sweep)
    assert [one.seed for one in command.trainings] == [3, 4]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sweep", "--seed", "1", "2", "--quiet"], "leave out --quiet"),
        (["sweep", "--log=wandb", "--seed", "1"], "leave out --log"),
        (["sweep", "relu", "--seed", "1"], "'relu' stands without a flag"),
        (["sweep", "--seed", "1", "--executor", "ray"], "There is no executor 'ray'"),
        (["sweep", "--seed", "1", "--executor", "local:0"], "There is no executor 'local:0'"),
        (["sweep", "--lr", "0", "--seed", "1"], "lr is 0"),
        (["sweep", "--key_activation", "tanh", "nosuch"], "nosuch"),
        (["sweep", "--seed", "1", "--num_epochs", "2", "3"], "trainings are the same run"),
    ],
)
def test_wrong_sweeps_are_sentences(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert says in capsys.readouterr().err


@pytest.mark.slow
def test_local_pool_keeps_the_order_and_returns_errors() -> None:
    results = perform(half, [(4,), (3,), (8,)], "local:1", Path("unused"))
    assert results[0] == 2 and results[2] == 4
    assert isinstance(results[1], DocmemError) and "3 is odd" in str(results[1])


def test_a_slurm_job_that_is_ended_leaves_the_results_of_the_others() -> None:
    utils = pytest.importorskip("submitit").core.utils
    errors = utils.FailedJobError, utils.UncompletedJobError

    @dataclass
    class Job:
        error: Exception

        def result(self) -> int:
            raise self.error

    found = executors._result(Job(utils.UncompletedJobError("OUT_OF_MEMORY")), *errors)
    assert isinstance(found, DocmemError) and "OUT_OF_MEMORY" in str(found)
    with pytest.raises(utils.FailedJobError):
        executors._result(Job(utils.FailedJobError("a bug")), *errors)


def test_failures_are_named_by_what_differs() -> None:
    error, config = DocmemError("boom"), quick_config(Path("run"))
    other = replace(config, seed=7)
    assert failures([], []) == []
    assert failures([config], [error]) == ["boom"]
    assert failures([config, other], [config, error]) == ["seed=7: boom"]


@pytest.mark.slow
def test_a_killed_worker_is_a_sentence() -> None:
    with pytest.raises(DocmemError, match="One of the processes was killed"):
        perform(kill_itself, [(signal.SIGKILL,)], "local:1", Path("unused"))


INTERRUPTED = """
import signal, sys, threading, time
from pathlib import Path
from docmem.training.executors import perform
from test_sweep import endless

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are deaf
    try:
        perform(endless, [(Path(sys.argv[1]) / str(n),) for n in range(3)], "local:1", Path())
    except KeyboardInterrupt:
        print("stopped")
"""


def endless(begun: Path) -> None:
    """What the tests interrupt: the first interrupt asks it to end, as in a training."""
    stop: list[int] = []
    signal.signal(signal.SIGINT, lambda *_: stop.append(1))
    begun.touch()
    while not stop:
        time.sleep(0.02)
    begun.with_suffix(".ended").touch()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "whom"),
    [
        (signal.SIGINT, "group"), (signal.SIGTERM, "group"),
        (signal.SIGINT, "one"), (signal.SIGTERM, "one"), (signal.SIGKILL, "one"),
    ],
)  # fmt: skip
def test_a_pool_that_is_stopped_begins_nothing_more_and_leaves_nobody_behind(
    tmp_path: Path, how: signal.Signals, whom: str
) -> None:
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen(
        [sys.executable, script, tmp_path], env=environment, start_new_session=True,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (tmp_path / "0").exists():
        assert process.poll() is None
        time.sleep(0.05)
    workers = psutil.Process(process.pid).children(recursive=True)
    (os.killpg if whom == "group" else os.kill)(process.pid, how)
    said = process.communicate(timeout=60)[0]
    assert psutil.wait_procs(workers, timeout=20)[1] == []
    assert not (tmp_path / "1").exists()
    assert (tmp_path / "0.ended").exists() == ("stopped" in said) == (how is signal.SIGINT)


def test_workers_share_threads_and_take_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, before = multiprocessing.Value("i", 0), torch.get_num_threads()
    try:
        for threads, gpu in ((4, "3"), (2, "5")):
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
            torch.set_num_threads(2 * threads)
            share_machine(2, begun)
            assert torch.get_num_threads() == threads
            assert os.environ["CUDA_VISIBLE_DEVICES"] == gpu
        torch.set_num_threads(1)
        share_machine(8, begun)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_results_do_not_depend_on_the_executor(tmp_path: Path) -> None:
    alone = [trained(tmp_path / "alone", seed) for seed in (1, 2)]
    jobs = [(tmp_path / "pool", seed) for seed in (1, 2)]
    assert perform(trained, jobs, "local:2", tmp_path / "logs") == alone
    for seed in (1, 2):
        runs = [Run.open(tmp_path / where / f"seed-{seed}") for where in ("alone", "pool")]
        first, second = (run.load_memory().state_dict() for run in runs)
        assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("name", "says"),
    [("slurm", "srun"), ("slurm:partition", "'partition' is no option of sbatch with a value")],
)
def test_slurm_where_there_is_none_is_a_sentence(name: str, says: str, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    with pytest.raises(DocmemError, match=says):
        perform(half, [(2,)], name, tmp_path)


SBATCH = """#!/bin/sh
# A queue of one machine: every job of the array begins at once.
for file; do :; done
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$file")
grep '^#SBATCH' "$file" > "$STUB/options"
export SLURM_ARRAY_JOB_ID=77 SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_JOB_NODELIST=here
export SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_PROCID=0
for task in $(seq 0 "${last:-0}"); do
    SLURM_ARRAY_TASK_ID=$task SLURM_JOB_ID=77_$task sh "$file" >/dev/null 2>&1 &
done
echo "Submitted batch job 77"
"""
SRUN = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do
    case $1 in --output|--error) shift ;; esac
    shift
done
exec "$@"
"""
SACCT = """#!/bin/sh
echo "JobID|State|NodeList"
"""


@pytest.mark.slow
def test_slurm_gets_one_array_with_the_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT)):
        path = tmp_path / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STUB", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    results = perform(half, [(4,), (3,), (8,)], "slurm:partition=gpu,time=7", tmp_path / "logs")
    assert results[0] == 2 and results[2] == 4
    assert "3 is odd" in str(results[1])
    options = (tmp_path / "options").read_text()
    assert "--partition=gpu" in options and "--time=7" in options


def test_a_training_that_failed_is_named_by_what_differs() -> None:
    configs = [preset("tiny", seed=seed, max_labels=labels) for seed in (1, 2) for labels in (3, 1)]
    results = [Path("a"), DocmemError("too few"), Path("b"), DocmemError("too few")]
    assert failures(configs, results) == [
        "max_labels=1, seed=1: too few", "max_labels=1, seed=2: too few",
    ]  # fmt: skip
