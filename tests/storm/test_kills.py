"""Processes killed at random moments; each goes on, and all end with the same bits.

Trainings are single processes here; those of several (`accelerate launch`) take their place beside
`start`, in a test of their own.
"""

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from storm import chance, child, command, go, named_lm, result_of, size

from docmem.training.run import Run

PARTS = 10
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ENDS = {0, 1, 130, -signal.SIGKILL, -signal.SIGTERM}


@pytest.fixture(scope="session")
def processes() -> Any:
    """Children of a process that has imported all there is: they start in milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["storm"])
    with pytest.MonkeyPatch.context() as patch:  # it takes no sys.path, and says nothing without
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        multiprocessing.forkserver.ensure_running()
    return context


@pytest.fixture(scope="session")
def seconds(processes: Any, home: Path) -> float:
    """How long an undisturbed child takes."""
    took = []
    for number in range(2):
        started = time.perf_counter()
        start(processes, home / f"time-{os.getpid()}-{number}", home).join()
        took.append(time.perf_counter() - started)
    return took[-1]


def start(processes: Any, folder: Path, home: Path, at: int = -1, seed: int | None = None) -> Any:
    process = processes.Process(target=child, args=(str(folder), str(home / "lm"), at, seed))
    process.start()
    return process


@pytest.mark.parametrize("part", range(PARTS))
def test_killed_training_goes_on_to_the_same_bits(
    processes: Any, home: Path, whole: dict[str, Any], seconds: float, part: int
):
    random = chance("kill", part)
    kills, wanted, number = 0, max(1, size(200) // PARTS), 0
    while kills < wanted:
        folder = home / f"kill-{part}-{number}"
        number += 1
        for _ in range(random.randint(1, 4)):
            if random.random() < 0.5:  # by itself, when it writes for a random time
                process = start(processes, folder, home, at=random.randint(1, 150))
                process.join()
            else:
                process = start(processes, folder, home)
                time.sleep(random.uniform(0, seconds))
                with contextlib.suppress(ProcessLookupError):  # it has ended
                    os.kill(process.pid, random.choice(SIGNALS))
                process.join()
            assert process.exitcode in ENDS
            kills += process.exitcode != 0
        assert result_of(go(folder, named_lm(home / "lm"))) == whole
        status, told = command("check", str(folder))
        assert status == 0, told
        assert number < 50 * wanted


@pytest.mark.parametrize("number", range(size(10)))
def test_two_trainings_at_once_end_as_one(
    processes: Any, home: Path, whole: dict[str, Any], seconds: float, number: int
):
    folder, random = home / f"both-{number}", chance("both", number)
    pair = []
    for _ in range(2):
        pair.append(start(processes, folder, home))
        time.sleep(random.uniform(0, seconds / 3))
    for process in pair:
        process.join()
    assert sorted(process.exitcode for process in pair) in ([0, 0], [0, 1])
    assert result_of(go(folder, named_lm(home / "lm"))) == whole


@pytest.mark.parametrize("number", range(size(10)))
def test_two_different_trainings_in_one_folder_do_not_mix(
    processes: Any, home: Path, seconds: float, number: int
):
    folder, random = home / f"different-{number}", chance("different", number)
    pair = []
    for seed in (1, 2):
        pair.append(start(processes, folder, home, seed=seed))
        time.sleep(random.uniform(0, seconds / 3))
    for process in pair:
        process.join()
    assert sorted(process.exitcode for process in pair) == [0, 1]
    seed = 1 if pair[0].exitcode == 0 else 2
    run = Run.open(folder)
    assert (run.config.seed, run.finished) == (seed, True)
    assert command("check", str(folder))[0] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_there_is_a_storm_of_every_signal():
    assert len({chance("kill", part).choice(SIGNALS) for part in range(PARTS)}) >= 2
