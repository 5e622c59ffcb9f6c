"""Clock, peak memory, and the description of the machine."""

import os
import platform
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import torch

from docmem.training.description import processor, version_of

Numbers = dict[str, Any]
LIBRARIES = ("docmem", "torch", "transformers", "peft", "numpy", "matplotlib")


def peak_memory() -> int:
    """The most memory that this process has held, in bytes.

    On Linux from VmHWM: what getrusage says there may be inherited from the parent process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def in_fresh_process(*arguments: str, **environment: str) -> str:
    """What Python prints with these arguments, run from the repository's root.

    `environment` is added to this process's own.
    """
    command, root = [sys.executable, *arguments], Path(__file__).parents[1]
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=root, env=env, check=True, text=True, stdout=-1).stdout


def machine() -> Numbers:
    """Hardware and versions, stored beside the numbers."""
    gpu = torch.cuda.get_device_properties() if torch.cuda.is_available() else None
    return {
        "processor": processor(),
        "cores": psutil.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": gpu.name if gpu else None,
        "gpu_memory_gb": round(gpu.total_memory / 1e9, 1) if gpu else None,
        "python": platform.python_version(),
        **{library: version_of(library) for library in LIBRARIES},
    }
