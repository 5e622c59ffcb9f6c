"""Stop-watch, statistics, energy, peak memory, and what machine it was."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from docmem.lm.pretraining import processor_name
from docmem.training.run import version_of

LIBRARIES = ("docmem", "torch", "transformers", "peft", "numpy", "matplotlib")
ROOT = Path(__file__).resolve().parent.parent


def now() -> float:
    """Seconds of a clock, once all work given to the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of(action: Callable[[], object]) -> float:
    """How long a call takes, in seconds."""
    started = now()
    action()
    return now() - started


def alternate(
    baselines: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each call: A B C, C B A, A B C …, so that noise and drift hit all alike.

    Args:
        baselines: what to call, by name.
        rounds: how often each is timed.
        warm_up: rounds before that, not recorded.
    """
    seconds: dict[str, list[float]] = {name: [] for name in baselines}
    for number in range(warm_up + rounds):
        order = list(baselines) if number % 2 == 0 else list(reversed(baselines))
        for name in order:
            took = seconds_of(baselines[name])
            if number >= warm_up:
                seconds[name].append(took)
    return seconds


class Quartiles(NamedTuple):
    """The middle of some values and their spread."""

    low: float
    median: float
    high: float


def quartiles(values: Sequence[float]) -> Quartiles:
    """Median and quartiles, interpolated; of a single value, three times that value."""
    if len(values) == 1:
        return Quartiles(values[0], values[0], values[0])
    return Quartiles(*statistics.quantiles(values, n=4, method="inclusive"))


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def joules() -> float | None:
    """Energy the current GPU has used since its driver was loaded, or None if it does not tell."""
    try:
        import pynvml
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    pynvml.nvmlInit()
    try:
        uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


class Resident(NamedTuple):
    """Memory of this process, in bytes."""

    now: int
    peak: int


def resident() -> Resident:
    """What this process holds now and held at most.

    From the kernel's VmHWM where there is one: what getrusage tells on Linux may be inherited from
    the process that started this one. Elsewhere only the peak is known, and stands for both.
    """
    status = Path("/proc/self/status")
    if status.exists():
        told = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return Resident(*(int(told[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM")))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak = peak if sys.platform == "darwin" else peak * 1024
    return Resident(peak, peak)


def in_fresh_process(*arguments: str) -> str:
    """What `python ARGUMENTS` prints, run from the repository's root."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE
    )
    return done.stdout.strip()


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """Hardware and versions, as they go beside the numbers."""
    cuda = torch.cuda.is_available()
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": processor_name(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(pages / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "gpu_memory_gb": round(torch.cuda.mem_get_info()[1] / 1e9, 1) if cuda else None,
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version()}
        | {library: version_of(library) for library in LIBRARIES},
    }
