"""Many trainings: in processes of this machine, or in a Slurm queue.

    runs = perform(train, [(one,), (another,)], "local:2", Path("outputs/logs"))

What is performed has to be a function of a module, with arguments that can be pickled: it is called
in another process. Results are the same wherever they are made, up to rounding, which grows with
the steps: the order in which sums are made depends on the number of threads.
"""

import multiprocessing
import os
import signal
import threading
import typing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ClassVar

import torch
from tqdm.auto import tqdm

from docmem.errors import DocmemError


def perform(
    call: Callable[..., Any], arguments: Sequence[Sequence[Any]], executor: str, logs: Path
) -> list[Any]:
    """Call a function with each of several lists of arguments, elsewhere and at once.

    Args:
        call: a function of a module.
        arguments: of each call.
        executor: `local:N`, for N processes that share this machine's threads, each with a GPU of
            its own if there are any; or `slurm`, with options of sbatch after a colon
            (`slurm:partition=gpu,gpus_per_node=1,time=120`), through submitit: one array, whose
            jobs are queued again when their time is over.
        logs: folder for what Slurm's jobs print.

    Returns:
        What each call returned, or the DocmemError that it raised.

    Raises:
        DocmemError: if there is no such executor, submitit is missing, or this is no cluster.
    """
    kind, _, options = executor.partition(":")
    if kind == "local" and options.isdecimal() and int(options) > 0:
        return _local(_Job(call), arguments, int(options))
    if kind == "slurm":
        return _slurm(_Job(call), arguments, options, logs)
    raise DocmemError(
        f"There is no executor {executor!r}; give local:2 (or another number of processes), or "
        "slurm, with options of sbatch as in slurm:partition=gpu,time=120."
    )


@dataclass(frozen=True)
class _Job:
    """A call whose DocmemError is its result: one call that fails does not stop the others."""

    call: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        try:
            return self.call(*arguments)
        except DocmemError as error:
            return error

    def checkpoint(self, *arguments: Any) -> Any:
        """What submitit queues when the time is over: the same call, which goes on by itself."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)


@dataclass(frozen=True)
class _Interruptible:
    """A job of a worker, which hears of Ctrl-C while it works, and only then."""

    job: _Job
    stopping: ClassVar[Any] = None

    def __call__(self, *arguments: Any) -> Any:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            if self.stopping.is_set():
                raise KeyboardInterrupt
            return self.job(*arguments)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _local(job: _Job, arguments: Sequence[Sequence[Any]], count: int) -> list[Any]:
    context = multiprocessing.get_context("spawn")
    others, stopping = {*multiprocessing.active_children()}, context.Event()
    begin = (count, context.Value("i", 0), stopping)

    def workers() -> Iterator[BaseProcess]:
        return (child for child in multiprocessing.active_children() if child not in others)

    pool = ProcessPoolExecutor(count, context, _begin, begin)
    try:
        return _in_turn(pool, _Interruptible(job), arguments, count)
    except BrokenProcessPool as error:
        raise DocmemError(
            "One of the processes was killed, perhaps for want of memory, or could not begin (it "
            "then said why), and the others ended with it. The same command goes on; give fewer "
            "processes if it happens again."
        ) from error
    except KeyboardInterrupt:
        tqdm.write("Stopping after the epochs that run now; press Ctrl-C again to stop now.")
        stopping.set()
        for worker in workers():
            os.kill(typing.cast(int, worker.pid), signal.SIGINT)
        raise
    finally:
        try:
            pool.shutdown()
        except KeyboardInterrupt:  # the second
            for worker in workers():
                worker.kill()
            raise


def _in_turn(
    pool: Executor, job: Callable[..., Any], arguments: Sequence[Sequence[Any]], count: int
) -> list[Any]:
    """The results of all calls, at most `count` of them handed to the pool at a time.

    So none waits there, to begin after Ctrl-C.
    """
    results, waiting = [None] * len(arguments), list(enumerate(arguments))[::-1]
    running: dict[Future[Any], int] = {}
    with tqdm(total=len(arguments), unit="job") as bar:
        while waiting or running:
            with on_interrupt(signal.SIG_IGN):  # nor in processes that begin here
                while waiting and len(running) < count:
                    place, one = waiting.pop()
                    running[pool.submit(job, *one)] = place
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                results[running.pop(future)] = future.result()
                bar.update()
    return results


@contextmanager
def on_interrupt(handler: Any) -> Iterator[None]:
    """Within: Ctrl-C calls a handler. In other threads, which do not hear of it: nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def _begin(count: int, begun: Any, stopping: Any) -> None:
    """What a worker does first. `stopping`: an event that all share: Ctrl-C was pressed."""
    if os.name == "posix":
        os.setsid()  # a terminal interrupts all that it began; a worker is told in its time
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _Interruptible.stopping = stopping
    share_machine(count, begun)


def share_machine(count: int, begun: Any) -> None:
    """Give one of `count` processes its share of the threads, and a GPU of its own.

    Args:
        count: how many there are.
        begun: a number they share: how many have begun.
    """
    with begun.get_lock():
        number = begun.value
        begun.value += 1
    torch.set_num_threads(max(1, torch.get_num_threads() // count))
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # several bars in one place cannot be read
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = seen.split(",") if seen else [str(gpu) for gpu in range(torch.cuda.device_count())]
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]


def _end_with_parent() -> None:
    """Wait until the process that began this one has ended, and end too, whatever runs."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _slurm(job: _Job, arguments: Sequence[Sequence[Any]], options: str, logs: Path) -> list[Any]:
    try:
        import submitit
    except ImportError as error:
        raise DocmemError(
            "The executor slurm needs submitit: pip install 'docmem[slurm]'."
        ) from error
    faults = submitit.core.utils
    failed, ended = faults.FailedJobError, faults.UncompletedJobError
    given = [option.partition("=") for option in options.split(",") if option]
    if bad := [name for name, _, value in given if not value]:
        raise DocmemError(
            f"{bad[0]!r} is no option of sbatch with a value; write it as in "
            "slurm:partition=gpu,time=120."
        )
    try:
        queue = submitit.SlurmExecutor(folder=logs)
        queue.update_parameters(
            **{name: int(value) if value.isdecimal() else value for name, _, value in given}
        )
        with queue.batch():
            jobs = [queue.submit(job, *one) for one in arguments]
    except (RuntimeError, TypeError, NameError, OSError, failed) as error:
        raise DocmemError(f"Slurm did not take the jobs: {error}") from error
    return [_result(one, failed, ended) for one in tqdm(jobs, unit="job")]


def _result(job: Any, failed: type[Exception], ended: type[Exception]) -> Any:
    """What a Slurm job returned; a DocmemError in its place if it was ended before."""
    try:
        return job.result()
    except failed:  # a kind of `ended`: by a fault of the program
        raise
    except ended as error:
        return DocmemError(f"Its Slurm job was ended: {error}")
