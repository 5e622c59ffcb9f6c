"""Whether this processor multiplies in bfloat16: tried in a child process, which it may kill.

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
import time, torch

def seconds(dtype):
    left, right = torch.ones(64, 576, dtype=dtype), torch.ones(576, 4096, dtype=dtype)
    started = time.perf_counter()
    left @ right
    return time.perf_counter() - started

fast, slow = (min(seconds(d) for _ in range(2)) for d in (torch.float32, torch.bfloat16))
print(slow / fast)
"""
SECONDS = 120
"""The trial may take this long, importing torch included."""
FAST = 0.8
"""Below this share of float32's time, bfloat16 is worth its rounding."""
SLOW = 20
"""From this many times the time of float32 on, the user is warned."""


@functools.cache
def bfloat16_cost() -> float | None:
    """Time of a bfloat16 product, as a multiple of float32's.

    None: the trial failed or took too long. Tried once per process, which takes some seconds.
    """
    command = [sys.executable, "-c", TRIAL]
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
    cost = bfloat16_cost()
    return "bfloat16" if cost is not None and cost < FAST else "float32"


def check_bfloat16() -> None:
    """Raise if this processor cannot multiply in bfloat16; warn if it is very slow at it."""
    cost = bfloat16_cost()
    if cost is None:
        raise DocmemError(
            "This processor cannot multiply in bfloat16: a trial in a child process was killed, "
            f"or took more than {SECONDS} seconds. Use float32."
        )
    if cost > SLOW:
        warnings.warn(
            f"A bfloat16 product takes {cost:.0f} times as long as one in float32 on this "
            "processor; float32 is the better choice.",
            stacklevel=3,
        )
