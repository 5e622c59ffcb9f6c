"""Whether this processor multiplies in 16 bits: tried in a child process, which it may kill.

Some virtual machines promise instructions (AMX) that end the process; on processors without
bfloat16 instructions a product may take hundreds of times as long as in float32.
"""

import functools
import subprocess
import sys
import warnings

import torch

from docmem.errors import DocmemError

TRIAL = """
import sys, time, torch

def seconds(dtype):
    left, right = torch.ones(64, 576, dtype=dtype), torch.ones(576, 4096, dtype=dtype)
    started = time.perf_counter()
    left @ right
    return time.perf_counter() - started

half = getattr(torch, sys.argv[1])
fast, slow = (min(seconds(d) for _ in range(2)) for d in (torch.float32, half))
print(slow / fast)
"""
SECONDS = 120
"""The trial may take this long, importing torch included."""
FAST = 0.8
"""Below this share of float32's time, bfloat16 is worth its rounding."""
SLOW = 1.5
"""From this many times the time of float32 on, the user is warned."""


@functools.cache
def half_cost(dtype: str) -> float | None:
    """Time of a product in bfloat16 or float16, as a multiple of float32's.

    None: the trial failed or took too long. Tried once per process, which takes some seconds.
    """
    command = [sys.executable, "-c", TRIAL, dtype]
    try:
        child = subprocess.run(command, capture_output=True, check=True, timeout=SECONDS)
    except subprocess.SubprocessError:
        return None
    return float(child.stdout)


def fast_dtype(device: str) -> str:
    """The number format in which a device multiplies fastest; on a CPU bfloat16 is measured.

    Except on processors with AVX2 and no more: none of them has instructions for bfloat16.
    """
    if device.startswith("cuda"):
        # A T4, as in Colab, emulates bfloat16 slowly.
        return "bfloat16" if torch.cuda.get_device_capability(device)[0] >= 8 else "float16"
    if not device.startswith("cpu") or torch.backends.cpu.get_cpu_capability() == "AVX2":
        return "float32"
    cost = half_cost("bfloat16")
    return "bfloat16" if cost is not None and cost < FAST else "float32"


def check_half(dtype: str) -> float:
    """`half_cost`; DocmemError if this processor cannot multiply in that format."""
    cost = half_cost(dtype)
    if cost is None:
        raise DocmemError(
            f"This processor cannot multiply in {dtype}: a trial in a child process was killed, "
            f"or took more than {SECONDS} seconds. Use float32."
        )
    return cost


def warn_if_slow(dtype: str) -> None:
    """Warn, once, if a CPU is slower in this number format than in float32; raises as `check_half`.

    What is trained can still have another; what is trained already is read as it was.
    """
    if dtype in ("bfloat16", "float16") and (cost := check_half(dtype)) > SLOW:
        warnings.warn(
            f"A {dtype} product takes {cost:.0f} times as long as one in float32 on this "
            "processor: take float32, as model.float() makes a model that you give.",
            stacklevel=2,
        )
