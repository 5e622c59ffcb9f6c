"""Damaged files are refused, wherever a bit flips; files of version 0.1 are read unchecked."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from toys import DOCUMENTS, assert_same, at, quick_config, toy_lm

from docmem.core.files import load_tensors
from docmem.core.memory import DocumentMemory
from docmem.errors import DocmemError
from docmem.evaluation.cached import measure
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.run import Run
from docmem.training.train import train

FLIPS = 40


READERS: dict[str, Callable[[Run], Any]] = {
    "memory/model.safetensors": lambda run: run.load_memory().state_dict(),
    "memory/config.json": lambda run: run.load_memory().config,
    "snapshots/000003.safetensors": lambda run: vars(run.load_snapshots()),
    "checkpoint.safetensors": lambda run: load_tensors(run.checkpoint),
    "measured/recall.safetensors": lambda run: load_tensors(
        run.path / "measured" / "recall.safetensors"
    ),
    "run.json": lambda run: Run.open(run.path).description,
    "documents.json.gz": lambda run: Run.open(run.path).documents,
    "history.jsonl": Run.load_history,
}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run with cached evaluation results; every test leaves it whole."""
    lm = toy_lm()
    config = quick_config(tmp_path_factory.mktemp("evaluated") / "run")
    run = train(config, lm=lm, documents=DOCUMENTS, progress=False)
    measure(run, lambda: lm)
    return run


@pytest.mark.parametrize("name", READERS)
def test_flipped_bit_is_rejected(evaluated: Run, name: str):
    path, read = evaluated.path / name, READERS[name]
    good, expected = path.read_bytes(), repr(read(evaluated))
    chance, refused = random.Random(0), 0
    try:
        for _ in range(FLIPS):
            place, bit = chance.randrange(len(good)), chance.randrange(8)
            path.write_bytes(good[:place] + bytes([good[place] ^ 1 << bit]) + good[place + 1 :])
            try:  # white space may change where it has no meaning
                assert repr(read(evaluated)) == expected, (place, bit)
            except DocmemError:
                refused += 1
    finally:
        path.write_bytes(good)
    assert refused >= FLIPS - 1


@pytest.mark.parametrize("line", [0, 3])
def test_history_without_a_line_in_the_middle_is_rejected(evaluated: Run, line: int):
    path = evaluated.path / "history.jsonl"
    good = path.read_text().splitlines(keepends=True)
    try:
        path.write_text("".join(good[:line] + good[line + 1 :]))
        with pytest.raises(DocmemError, match=r"history\.jsonl, line \d, cannot be read"):
            evaluated.load_history()
    finally:
        path.write_text("".join(good))


def test_config_of_another_memory_is_rejected(tmp_path: Path, memory: DocumentMemory):
    memory.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"tanh"', '"relu"'))  # of the same shape
    with pytest.raises(DocmemError, match="does not describe the memory"):
        DocumentMemory.from_pretrained(tmp_path)


def without_digests(run: Run) -> None:
    """Make the files of a run those of version 0.1."""
    (run.path / "documents.json.gz").unlink()
    for path in run.path.rglob("*.safetensors"):
        tensors, metadata = load_tensors(path)
        kept = {key: metadata[key] for key in ("titles", "epoch") if key in metadata}
        safetensors.torch.save_file(tensors, path, metadata={"docmem": json.dumps(kept)})
    for name, digest in (("run.json", "sha256"), ("history.jsonl", "digest")):
        path = run.path / name
        whole = path.read_text()
        parts = [json.loads(part) for part in ([whole] if name == "run.json" else whole.split("\n"))
                 if part]  # fmt: skip
        for part in parts:
            del part[digest]
            if name == "run.json":
                del part["texts"]
                part["documents"] = [vars(document) for document in DOCUMENTS]
                for name in ("weight_decay", "device"):
                    del part["config"][name]
                part["config"] |= {"dtype": "float32", "num_gpus": 0}
                del part["lm"]["origin"]
        path.write_text("\n".join(map(json.dumps, parts)))


@pytest.mark.parametrize("extended", [False, True])
def test_run_of_version_0_1_opens_and_goes_on(
    go: Callable[..., Run], lm: LanguageModel, config: TrainConfig, whole: Run, extended: bool,
    tmp_path: Path,
):  # fmt: skip
    if extended:
        short = replace(config, num_epochs=3)
        run, stop = train(short, lm=lm, documents=DOCUMENTS, progress=False), 3
    else:
        run, stop = go(at(4, lambda: False)), 4
    without_digests(run)
    opened = Run.open(shutil.copytree(run.path, tmp_path / "copy"))
    weights = run.load_memory().state_dict()
    for name, tensor in opened.load_memory().state_dict().items():
        assert torch.equal(tensor, weights[name])
    assert len(opened.load_history()) == stop
    assert opened.documents == whole.documents
    epochs: list[int] = []
    assert_same(go(lambda done: epochs.append(done.epoch)), whole)
    assert epochs == list(range(stop + 1, 8))


def test_run_of_version_0_1_with_a_short_history_is_rejected(go: Callable[..., Run]):
    run = go(at(4, lambda: False))
    without_digests(run)
    history = run.path / "history.jsonl"
    history.write_text(history.read_text().split("\n", 1)[0])
    with pytest.raises(DocmemError, match="has 1 of the 4 epochs that were trained"):
        go()
