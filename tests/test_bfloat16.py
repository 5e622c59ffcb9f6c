"""bfloat16 on the CPU is tried in a child process before the first product."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from toys import toy_lm

from docmem.errors import DocmemError
from docmem.lm import bfloat16, loading
from docmem.lm.bfloat16 import bfloat16_cost, check_bfloat16
from docmem.lm.loading import load_lm
from docmem.lm.pretraining import PretrainConfig, pretrain

KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"


@pytest.fixture(autouse=True)
def untried() -> Iterator[None]:
    """Nothing is known of the processor before a test, nor after it."""
    bfloat16_cost.cache_clear()
    yield
    bfloat16_cost.cache_clear()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    lm = toy_lm()
    lm.model.save_pretrained(tmp_path / "lm")
    lm.tokenizer.save_pretrained(tmp_path / "lm")
    return tmp_path / "lm"


@pytest.mark.parametrize("trial", [KILLED, "import time; time.sleep(60)"])
def test_processor_that_fails_the_trial_is_rejected(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trial: str
):
    monkeypatch.setattr(bfloat16, "TRIAL", trial)
    monkeypatch.setattr(bfloat16, "SECONDS", 1)
    complaint = "cannot multiply in bfloat16: .* was killed, .* Use float32"
    with pytest.raises(DocmemError, match=complaint):
        load_lm(saved, dtype="bfloat16")
    with pytest.raises(DocmemError, match=complaint):
        load_lm(saved, dtype="bfloat16", device="cpu")
    with pytest.raises(DocmemError, match=complaint):
        pretrain(PretrainConfig(text=tmp_path, out=tmp_path / "out", precision="bf16"))
    assert not (tmp_path / "out").exists()
    assert load_lm(saved, dtype="float32").dtype == "float32"


def test_processor_is_tried_once_and_only_for_bfloat16_on_the_cpu(
    saved: Path, monkeypatch: pytest.MonkeyPatch
):
    tried = []

    def run(command: list[str], **options):
        tried.append(command[0])
        return subprocess.CompletedProcess(command, 0, stdout="0.5\n")

    monkeypatch.setattr(subprocess, "run", run)
    load_lm(saved)
    load_lm(saved, dtype="float16")
    monkeypatch.setattr(loading, "placement", lambda num_gpus: {"device_map": "meta"})
    with pytest.raises(DocmemError, match="does not fit"):
        load_lm(saved, dtype="bfloat16", num_gpus=1)
    assert not tried
    monkeypatch.undo()
    monkeypatch.setattr(subprocess, "run", run)
    assert load_lm(saved, dtype="bfloat16").model.dtype == torch.bfloat16
    check_bfloat16()
    assert tried == [sys.executable]


def test_slow_processor_is_warned_of(saved: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bfloat16, "TRIAL", "print(312.4)")
    with pytest.warns(UserWarning, match="product takes 312 times as long as one in float32"):
        assert load_lm(saved, dtype="bfloat16").dtype == "bfloat16"


def test_trial_measures_this_processor():
    cost = bfloat16_cost()
    assert cost is None or 1e-3 < cost < 1e5
