"""bfloat16 on the CPU is tried in a child process before the first product."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toys import DOCUMENTS, quick_config, toy_lm

from docmem.errors import DocmemError
from docmem.lm import bfloat16, loading
from docmem.lm.bfloat16 import check_half, half_cost
from docmem.lm.cross_entropy import cross_entropies_at
from docmem.lm.hidden_states import cache_hidden_states
from docmem.lm.loading import LanguageModel, load_lm
from docmem.lm.pretraining import PretrainConfig, pretrain
from docmem.training.config import preset
from docmem.training.train import train

KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"


@pytest.fixture(autouse=True)
def untried() -> Iterator[None]:
    """Nothing is known of the processor before a test, nor after it."""
    half_cost.cache_clear()
    yield
    half_cost.cache_clear()


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
    monkeypatch.setattr(loading, "placement", lambda *_: {"device_map": "meta"})
    with pytest.raises(DocmemError, match="does not fit"):
        load_lm(saved, dtype="bfloat16", num_gpus=1)
    assert not tried
    monkeypatch.undo()
    monkeypatch.setattr(subprocess, "run", run)
    assert load_lm(saved, dtype="bfloat16").model.dtype == torch.bfloat16
    check_half("bfloat16")
    assert tried == [sys.executable]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_slow_processor_is_warned_of_where_a_training_begins(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
):
    monkeypatch.setattr(bfloat16, "TRIAL", "print(312.4)")
    config = replace(quick_config(tmp_path / "run"), num_epochs=1)
    lm = LanguageModel(toy_lm().model.to(getattr(torch, dtype)), toy_lm().tokenizer, "given")
    said = f"{dtype} product takes 312 times as long as one in float32 .* float()"
    with pytest.warns(UserWarning, match=said):
        train(config, lm=lm, documents=DOCUMENTS, progress=False)
    train(config, lm=lm, documents=DOCUMENTS, progress=False)  # it is there: nothing to choose
    lm.model.float()
    train(replace(config, save_dir=tmp_path / "2"), lm=lm, documents=DOCUMENTS, progress=False)
    with pytest.warns(UserWarning, match=said):
        config = replace(config, save_dir=tmp_path / "3", lm_name=str(saved), dtype=dtype)
        train(config, documents=DOCUMENTS, progress=False)


@pytest.mark.slow
def test_trial_measures_this_processor():
    cost = half_cost("bfloat16")
    assert cost is None or 1e-3 < cost < 1e5


@pytest.mark.parametrize(
    ("cost", "dtype"), [(None, "float32"), (1.0, "float32"), (0.4, "bfloat16")]
)
def test_auto_takes_bfloat16_where_it_was_measured_to_be_faster(
    saved: Path, monkeypatch: pytest.MonkeyPatch, cost: float | None, dtype: str
):
    monkeypatch.setattr(bfloat16, "half_cost", lambda _: cost)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    lm = load_lm(saved, device="cpu")
    assert lm.dtype == dtype
    assert next(lm.model.parameters()).dtype == getattr(torch, dtype)


def test_auto_tries_no_processor_that_has_avx2_alone_and_none_for_the_embedded_lm(
    saved: Path, monkeypatch: pytest.MonkeyPatch
):
    def trial(dtype: str) -> float:
        raise AssertionError("a trial")

    monkeypatch.setattr(bfloat16, "half_cost", trial)
    assert load_lm(saved, device="cpu").dtype == "float32"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert load_lm("tiny", device="cpu").dtype == "float32"
    with pytest.raises(AssertionError, match="a trial"):
        load_lm(saved, device="cpu")


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), "float16"), ((9, 0), "bfloat16")])
def test_auto_on_a_gpu_goes_by_its_generation(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: str
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert bfloat16.fast_dtype("cuda:0") == dtype


def test_run_records_the_format_that_auto_took(saved: Path, tmp_path: Path):
    config = replace(quick_config(tmp_path / "run"), dtype="auto", num_epochs=1)
    run = train(config, lm=load_lm(saved, dtype="auto"), documents=DOCUMENTS, progress=False)
    assert run.config.dtype == "auto"
    assert run.description["lm"]["dtype"] in ("float32", "bfloat16")
    assert run.load_lm(str(saved)).dtype == run.description["lm"]["dtype"]


@pytest.mark.skipif(
    bfloat16.fast_dtype("cpu") != "bfloat16", reason="needs a processor that is fast at bfloat16"
)
def test_losses_in_bfloat16_are_near_those_in_float32(tmp_path: Path):
    config = preset("tiny", save_dir=tmp_path, max_labels=3, max_segments=1, num_epochs=4)
    run = train(config, progress=False)
    memory, found = run.load_memory(), []
    for name in ("float32", "bfloat16"):
        lm = load_lm("tiny", device="cpu", dtype=name)
        cache = cache_hidden_states(lm, run.documents, config)
        found.append(cross_entropies_at(cache, memory, memory.doc_reps))
    torch.testing.assert_close(found[1], found[0], atol=0.01, rtol=0)
