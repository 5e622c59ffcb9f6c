"""docs/scale.md: what six million pages would take, reckoned from what was measured here."""

from pathlib import Path

from tabulate import tabulate

from benchmarks.growth import DISK, PER, WORKERS
from benchmarks.measure import Numbers

PAGES, SEGMENTS, WORDS, TOKENS_PER_WORD, NEGATIVE_ROWS = 6_000_000, 10, 128, 1.5, 2
ENTRIES_PER_PAGE = 12.8  # the presets' 128 for ten documents
SPACING_OF_TEN = 0.62  # between the nearest two of ten spread DocReps in the plane
LMS = {  # width, weights, vocabulary
    "Pythia-1B": (2048, 1.0e9, 50_304),
    "Llama-3.1-8B": (4096, 8.0e9, 128_256),
    "Llama-3.1-70B": (8192, 70.6e9, 128_256),
}
GPUS, DOLLARS, EPOCHS, KEY_DIM = 64, 2.0, 20, 24
GPU_FLOPS = 2.7e14  # of an epoch of Pythia-6.9B's shape on an H200, as RESULTS.md has it
TOKENS = PAGES * SEGMENTS * WORDS * TOKENS_PER_WORD
READ = TOKENS * (1 + NEGATIVE_ROWS / SEGMENTS)
"""Tokens that an epoch reads after the memory, under both DocReps."""
ENTRIES = PAGES * ENTRIES_PER_PAGE


def gpu_days(flops: float) -> float:
    """How long one GPU takes, in days."""
    return flops / GPU_FLOPS / 86_400


def row(name: str) -> dict[str, str]:
    """What an LM takes, a cell each."""
    width, weights, vocabulary = LMS[name]
    frozen, epoch = gpu_days(2 * weights * TOKENS), gpu_days(4 * width * vocabulary * READ)
    days = frozen + EPOCHS * epoch
    return {
        "LM": name,
        "hidden states": f"{TOKENS * width * 2 / 1e12:,.0f} TB",
        "frozen pass": f"{frozen:,.1f} GPU days",
        "an epoch": f"{epoch:,.1f} GPU days",
        f"{EPOCHS} epochs, all": f"{days:,.0f} GPU days",
        f"on {GPUS} GPUs": f"{days / GPUS * 24:,.1f} hours",
        f"at {DOLLARS:.0f} dollars an hour": f"{days * 24 * DOLLARS:,.0f} dollars",
        "memory, float32": f"{ENTRIES * 2 * width * 4 / 1e12:,.1f} TB",
    }


def scale_page(growth: Numbers) -> str:
    """The page, from the part `growth` of the benchmark."""
    width, weights, vocabulary = LMS["Pythia-1B"]
    few, many = (growth[f"{count} documents, 1 process"] for count in (10, 1000))
    on_disk = growth["1000 documents, 1 process, states on disk"]
    one, two = (growth[f"100 documents, {way}"][PER] for way in ("1 process", "2 processes"))
    epoch = 4 * width * vocabulary * READ
    again = 2 * weights * TOKENS / epoch
    bandwidth = TOKENS * width * 2 / (epoch / GPU_FLOPS / GPUS) / 1e9
    template = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    return template.format(
        few=few[PER], many=many[PER], few_peak=few["peak memory, MB"],
        many_peak=many["peak memory, MB"], files=many["files, MB per document"],
        on_disk_peak=on_disk["without mapped files, MB"], disk=growth[DISK][PER], two=two / one,
        workers=growth[WORKERS][PER],
        opening=many["s to open the run"], segments=SEGMENTS, words=WORDS,
        tokens_per_word=TOKENS_PER_WORD, billions=TOKENS / 1e9, negative_rows=NEGATIVE_ROWS,
        tflops=GPU_FLOPS / 1e12, entries_per_page=ENTRIES_PER_PAGE,
        table=tabulate(map(row, LMS), "keys", "github", disable_numparse=True),
        states=TOKENS * width * 2 / 1e12, gpus=GPUS,
        bandwidth=bandwidth, again=again, break_even=bandwidth / again, entries=ENTRIES / 1e6,
        dense=4 * width * ENTRIES / (2 * weights), spacing_of_ten=SPACING_OF_TEN,
        spacing=SPACING_OF_TEN * (10 / PAGES) ** 0.5, key_dim=KEY_DIM,
        in_space=(1 / PAGES) ** (1 / KEY_DIM), steps=PAGES / GPUS / 16,
    )  # fmt: skip
