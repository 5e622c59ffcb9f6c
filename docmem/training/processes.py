"""One training on several processes, which `torchrun` or `accelerate launch` starts.

    torchrun --nproc_per_node 2 -m docmem train

Batches are dealt in turn: of n processes, process r reads batches r, r + n, r + 2n, … in every
epoch, and keeps the hidden states of these alone. (With one batch per document, documents are
dealt.) A step reads one batch per process, or num_accumulation_steps of them; gradients are added
up, divided by the number of batches that were read, and every process takes the same step. Every
process draws the negatives of all batches, so they are those that one process would have drawn.

So n processes take the steps of one process with n times the num_accumulation_steps, a last,
shorter group included; that product is what the run records. The first process alone writes.
"""

import atexit
import os
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import current_process
from typing import Any

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from docmem.errors import DocmemError
from docmem.lm.loading import chosen_dtype
from docmem.training.config import TrainConfig


@dataclass(frozen=True)
class Processes:
    """The processes of a training, seen from one of them."""

    rank: int = 0
    """Which one this is; 0 is the first, which writes."""
    count: int = 1
    """How many there are."""
    device: str = "auto"
    """The device of this one, if there are several."""

    def placed(self, config: TrainConfig) -> TrainConfig:
        """The settings with this process's device and, for all, the number format of the first."""
        if self.count == 1:
            return config
        with self.together():
            dtype = chosen_dtype(config.lm, config.dtype, self.device)
        return replace(config, device=self.device, num_gpus=None, dtype=self.gather(dtype)[0])

    def deal(self, n_batches: int) -> range:
        """Which batches are this process's; DocmemError if there are too few for all."""
        if n_batches < self.count:
            raise DocmemError(
                f"There are {self.count} processes and {n_batches} batches to read; start no more "
                "processes than batches, or choose a smaller batch_size."
            )
        return range(self.rank, n_batches, self.count)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Put into each tensor its sum over the processes, the same on all of them."""
        if self.count > 1:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            _reach(dist.all_reduce, flat)
            for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in their order."""
        values = [value] * self.count
        if self.count > 1:
            _reach(dist.all_gather_object, values, value)
        return values

    def alone(self, job: Callable[..., object], *arguments: Any) -> None:
        """Let the first process do something; its error is raised by all."""
        with self.together():
            if self.rank == 0:
                job(*arguments)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Within, an error of one process is raised by all; nothing may be exchanged there."""
        own = None
        try:
            yield
        except DocmemError as error:
            own = error
        for first in filter(None, self.gather(own)):
            raise first

    def check_same(self, value: object) -> None:
        """Raise if the processes do not all have the same value."""
        if any(other != value for other in self.gather(value)):
            raise DocmemError(
                "The processes do not see the same training: their settings, LM, documents or run "
                "folder differ. Give all the same command, and a save_dir that all can read."
            )


ALONE = Processes()  # no others


def main_process() -> bool:
    """Whether this process is the first, or the only one: it writes, and it speaks."""
    rank = os.environ.get("RANK", "")
    return os.environ.get("WORLD_SIZE", "1") == "1" or not rank.isdecimal() or int(rank) == 0


def join(config: TrainConfig) -> Processes:
    """Meet the other processes; DocmemError if a launcher left them out, or a device is named."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        if unstarted() is not None:
            raise DocmemError(
                "accelerate was asked for several processes and started this one alone: without "
                "GPUs it leaves the others to MPI. Start them by `torchrun --nproc_per_node N`."
            )
        return ALONE
    said = {name: os.environ.get(name, "") for name in ("WORLD_SIZE", "RANK", "MASTER_PORT")}
    if not (all(map(str.isdecimal, said.values())) and os.environ.get("MASTER_ADDR")):
        raise DocmemError(
            f"WORLD_SIZE is {said['WORLD_SIZE']!r} in the environment, so there would be several "
            "processes; but a launcher also sets RANK, MASTER_ADDR and MASTER_PORT, to numbers and "
            "a host. Start them by `torchrun --nproc_per_node N`, or unset WORLD_SIZE."
        )
    count = int(said["WORLD_SIZE"])
    if config.num_gpus or config.device not in ("auto", "cpu", "cuda"):
        raise DocmemError(
            f"device is {config.device!r} and num_gpus is {config.num_gpus}, but each of the "
            f"{count} processes has one device of its own. Leave both out, or give device cpu."
        )
    told = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "yes", "1")
    no_gpu = told or not torch.cuda.is_available()
    if config.device == "cuda" and no_gpu:
        why = "accelerate was told to use the CPU" if told else "torch can use none on this machine"
        raise DocmemError(f"device is 'cuda', and {why}. Give auto, cpu, or start it where one is.")
    if config.device == "cpu" or config.num_gpus == 0 or no_gpu:
        device, backend = "cpu", "gloo"
    else:
        here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", count)), torch.cuda.device_count()
        if here > gpus:
            raise DocmemError(
                f"{here} processes were started on a machine with {gpus} GPU(s), and each takes "
                "one. Start no more than that, or give --device cpu."
            )
        if "LOCAL_RANK" not in os.environ:
            raise DocmemError(
                "LOCAL_RANK is not set, so no process knows which GPU is its own. Start them with "
                "torchrun or accelerate launch, or give --device cpu."
            )
        device, backend = f"cuda:{os.environ['LOCAL_RANK']}", "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)
    if "OMP_NUM_THREADS" not in os.environ or type(current_process()).__name__ == "ForkProcess":
        torch.set_num_threads(1)  # as in torchrun; after a fork, as in notebooks, more would hang
    if not dist.is_initialized():
        dist.init_process_group(backend)
        atexit.register(leave)
    if not main_process():
        from transformers.utils import logging

        logging.disable_progress_bar()  # of loading the LM
    return Processes(dist.get_rank(), dist.get_world_size(), device)


def leave() -> bool:
    """Part from the other processes, if there are any; returns whether there were.

    One whose threads still listen may abort at its end.
    """
    there = dist.is_available() and dist.is_initialized()
    if there:
        dist.destroy_process_group()
    return there


def unstarted() -> int | None:
    """How many processes accelerate was asked for (0: unknown), if it started one; None if not."""
    asked = {"ACCELERATE_MIXED_PRECISION", "MASTER_PORT"} <= os.environ.keys()
    if not asked or "WORLD_SIZE" in os.environ:
        return None
    flags = ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--num_processes", "--num-processes", type=int, default=0)
    return flags.parse_known_args(psutil.Process(os.getppid()).cmdline())[0].num_processes


def _reach(exchange: Callable[..., Any], *arguments: Any) -> None:
    """Exchange something with all processes; DocmemError if one of them is gone."""
    try:
        exchange(*arguments)
    except RuntimeError as error:
        raise DocmemError(
            "Another process of this training has ended, or no longer answers. The same command "
            "goes on."
        ) from error
