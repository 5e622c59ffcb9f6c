"""Peak memory of one baseline in a process of its own: `python -m benchmarks.peak SHAPE WHO`.

Prints how many bytes the most memory it held lies above what it held before the LM was built. The
LM's weights count; Python and its libraries do not: a toy goes through the same first.
"""

import sys
import tempfile
from pathlib import Path

from benchmarks.baselines import VARIANTS, Attached
from benchmarks.measure import resident
from benchmarks.shapes import TOY, build_lm, settings, some_documents
from docmem.training.config import TrainConfig
from docmem.training.train import train


def work(baseline: str, shape: str, config: TrainConfig) -> None:
    """Build the LM, then one step of `original` or `frozen`, or an epoch of `docmem`."""
    lm, documents = build_lm(shape), some_documents(2)  # the least that has a negative
    if baseline == "docmem":
        train(config, lm=lm, documents=documents, progress=False)
    else:
        Attached(lm, documents, config, **VARIANTS[baseline]).step(0)


def main(shape: str, baseline: str) -> int:
    """The bytes at the paper's batch: ten segments of up to 256 tokens."""
    with tempfile.TemporaryDirectory() as folder:
        once = {"num_epochs": 1, "max_segments": 1, "segment_length": 8}
        work(baseline, TOY.name, settings(TOY.name, save_dir=Path(folder) / "toy", **once))
        before = resident().now
        once = {"num_epochs": 1, "max_segments": 10, "segment_length": 128}
        work(baseline, shape, settings(shape, save_dir=Path(folder) / "run", **once))
    return resident().peak - before


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
