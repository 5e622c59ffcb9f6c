"""Train a document memory, or go on with one that was stopped.

    run = train(preset("tiny", key_activation="relu"))

Whatever stops it, the same call goes on from the last checkpoint and ends with the same weights.
More epochs in the same folder go on from where it ended.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from docmem.checkpoint import load_checkpoint, save_checkpoint
from docmem.core.files import reading
from docmem.documents import Document
from docmem.errors import DocmemError
from docmem.lm.forward import frozen
from docmem.lm.hidden_states import cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.description import describe
from docmem.training.history import Epoch
from docmem.training.origin import measured
from docmem.training.run import Run
from docmem.training.selection import Selection, memory_selection
from docmem.training.setup import (
    check_documents,
    configured_documents,
    configured_lm,
    default_folder,
    new_memory,
)
from docmem.training.trainer import Trainer

OnEpoch = Callable[[Epoch], bool | None]


def train(
    config: TrainConfig,
    *,
    lm: LanguageModel | None = None,
    documents: Sequence[Document] | None = None,
    doc_reps: Float[Tensor, "n_docs key_dim"] | None = None,
    on_epoch: OnEpoch | None = None,
    progress: bool = True,
) -> Run:
    """Train a document memory, or go on with one; a finished run is simply opened.

    Ctrl-C ends the current epoch, saves, and returns the unfinished run; a second one stops
    at once, leaving the last checkpoint.

    Args:
        config: all settings.
        lm: the LM; None: the one that `config` names.
        documents: what to memorise; None: what `config` names.
        doc_reps: where the documents lie, in their order; None: orthogonal, by the seed.
        on_epoch: called after each epoch; returning False stops as Ctrl-C does.
        progress: show a bar with the losses.

    Raises:
        DocmemError: if a setting or `doc_reps` cannot work with this LM or these documents, the
            run's folder holds another run or is in use, a file is damaged or cannot be written,
            or a loss is not a number.
    """
    documents = configured_documents(config) if documents is None else documents
    check_documents(config, documents)
    lm = configured_lm(config) if lm is None else lm
    memory = new_memory(config, lm, documents, doc_reps)
    folder = config.save_dir or default_folder(config, lm, documents, doc_reps)
    description = describe(config, lm, documents, doc_reps)
    run = Run.find(folder, description)
    if run is not None and run.finished:
        return run
    cache = cache_hidden_states(lm, documents, config)
    run = run or Run(folder, description)
    with run.lock(), frozen(lm.model), stop_after_epoch() as stop:
        run.begin(documents)
        trainer = Trainer(config, cache, memory.to(cache.device))
        resume(trainer, run)
        fit(trainer, run, stop, on_epoch, progress)
    return run


@contextmanager
def stop_after_epoch() -> Iterator[threading.Event]:
    """Within: the first Ctrl-C sets the event, a second one interrupts as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    usual = signal.getsignal(signal.SIGINT)

    def request_stop(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, usual)
        tqdm.write("Stopping after this epoch; press Ctrl-C again to stop now.")

    signal.signal(signal.SIGINT, request_stop)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, usual)


def resume(trainer: Trainer, run: Run) -> None:
    """Put the trainer where the run's checkpoint is; a run without one begins with a snapshot.

    Raises:
        DocmemError: if the checkpoint is damaged or lost.
    """
    if not run.checkpoint.exists():
        if run.load_history() or (run.path / "memory").exists():
            raise DocmemError(
                f"{run.path} has a memory or a history, but no checkpoint to go on from. Restore "
                f"{run.checkpoint.name} from a copy, or choose another save_dir."
            )
        run.save_snapshots({0: selection_now(trainer)}, trainer.memory.doc_reps)
        return
    progress = load_checkpoint(
        run.checkpoint, trainer.memory, trainer.optimizer, trainer.generators
    )
    with reading(run.checkpoint):
        trainer.history = [Epoch(*epoch) for epoch in progress.get("history", [])]
        wrong = progress["epoch"] != len(trainer.history) and "history" in progress
        if wrong or not isinstance(progress["epoch"], int):
            raise ValueError("its history does not have as many epochs as it says")
    if progress["epoch"] > trainer.config.num_epochs:
        raise DocmemError(
            f"{run.path} holds a run that has {progress['epoch']} epochs already, and num_epochs "
            f"is {trainer.config.num_epochs}. Give at least as many, or choose another save_dir."
        )
    if "history" not in progress:  # version 0.1 kept it in history.jsonl alone
        trainer.history = run.load_history()[: progress["epoch"]]
        if len(trainer.history) < progress["epoch"]:
            raise DocmemError(
                f"{run.path / 'history.jsonl'} has {len(trainer.history)} of the "
                f"{progress['epoch']} epochs that were trained. Restore it from a copy."
            )


def fit(
    trainer: Trainer, run: Run, stop: threading.Event, on_epoch: OnEpoch | None, progress: bool
) -> None:
    """Train to the last epoch or a stop, saving on the way."""
    config = trainer.config
    if len(trainer.history) == config.num_epochs:
        save(trainer, run, {})  # killed after the checkpoint, or files lost since
    taken: dict[float, Selection] = {}
    bar = tqdm(
        total=config.num_epochs,
        initial=len(trainer.history),
        unit="epoch",
        desc=config.key_activation,
        disable=not progress,
    )
    with bar:
        while len(trainer.history) < config.num_epochs and not stop.is_set():
            epoch = run_epoch(trainer, run, taken)
            bar.update()
            bar.set_postfix(own=f"{epoch.positive_ce:.2f}", negative=f"{epoch.negative_ce:.2f}")
            if on_epoch is not None and on_epoch(epoch) is False:
                stop.set()
            due = epoch.epoch % config.save_freq == 0 or epoch.epoch == config.num_epochs
            if due:
                taken[epoch.epoch] = selection_now(trainer)
            if due or stop.is_set():
                save(trainer, run, taken)
                taken.clear()


def run_epoch(trainer: Trainer, run: Run, taken: dict[float, Selection]) -> Epoch:
    """One epoch; snapshots within it are added to `taken`.

    An error says where the last good checkpoint is.
    """
    before, every = len(trainer.history), trainer.config.snapshot_freq

    def after_step(step: int, steps: int) -> None:
        if every is not None and (before * steps + step) % every == 0:
            taken[before + step / steps] = selection_now(trainer)

    try:
        return trainer.epoch(after_step)
    except DocmemError as error:
        raise DocmemError(
            f"{error} Training stopped; {run.path} keeps the last good checkpoint, if one was "
            "saved. Other settings take a new save_dir."
        ) from error


def selection_now(trainer: Trainer) -> Selection:
    """The memory's selections as they are at this moment."""
    return memory_selection(trainer.memory, trainer.cache)


def save(trainer: Trainer, run: Run, taken: Mapping[float, Selection]) -> None:
    """Snapshots, then the checkpoint; after it the others, which can be written anew from it."""
    if taken:
        run.save_snapshots(taken, trainer.memory.doc_reps)
    trainer.memory.origin = measured(trainer.memory.origin, trainer.history[-1])
    progress = {
        "epoch": len(trainer.history),
        "history": trainer.history,
        "snapshots": run.snapshots(),
        "run": run.description,
        "origin": trainer.memory.origin,
    }
    save_checkpoint(run.checkpoint, trainer.memory, trainer.optimizer, trainer.generators, progress)
    run.save_memory(trainer.memory)
    run.save_history(trainer.history)
