"""On one GPU or several: what is trained and measured there is what it is on the CPU."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves
from toys import DOCUMENTS, quick_config, toy_lm

from docmem.core.hook import attach
from docmem.documents import load_documents
from docmem.editing.add import add
from docmem.editing.forget import forget
from docmem.experiments import NAMES, load_study, pool
from docmem.experiments.pool import RunPool
from docmem.lm.cross_entropy import base_cross_entropies, cross_entropies_at
from docmem.lm.generation import generate
from docmem.lm.hidden_states import cache_hidden_states
from docmem.lm.loading import load_lm
from docmem.training.config import preset
from docmem.training.train import train

GPUS = [
    pytest.param(
        n, marks=pytest.mark.skipif(torch.cuda.device_count() < n, reason=f"needs {n} GPUs")
    )
    for n in (1, 2)
]
SMALL: dict[str, Any] = {
    "num_gpus": 1, "max_segments": 1, "num_epochs": 2, "max_labels": 3, "segment_length": 40,
}  # fmt: skip


@pytest.mark.parametrize("num_gpus", GPUS)
def test_untied_lm_trains_and_is_measured_as_on_cpu(num_gpus: int, tmp_path: Path) -> None:
    toy = toy_lm("llama")
    toy.model.save_pretrained(tmp_path / "lm")
    toy.tokenizer.save_pretrained(tmp_path / "lm")
    found = {}
    for gpus in (0, num_gpus):
        lm = load_lm(tmp_path / "lm", num_gpus=gpus, dtype="float32")
        places = {parameter.device.type for parameter in lm.model.parameters()}
        assert places == {"cuda" if gpus else "cpu"}
        if gpus > 1:
            assert len({parameter.device for parameter in lm.model.parameters()}) == gpus
        run = train(quick_config(tmp_path / str(gpus)), lm=lm, documents=DOCUMENTS, progress=False)
        cache, memory = run.cache_hidden_states(lm), run.load_memory()
        ce = cross_entropies_at(cache, memory, memory.doc_reps)
        with attach(lm.model, memory) as hooked:
            assert generate(hooked, lm.tokenizer, "The harbour", 0, max_new_tokens=4)
        found[gpus] = torch.cat([ce.flatten(), base_cross_entropies(cache)])
    torch.testing.assert_close(found[num_gpus], found[0], atol=1e-2, rtol=0)


@pytest.mark.parametrize("num_gpus", GPUS[:1])
def test_memory_is_edited_and_handed_back_on_its_own_device(num_gpus: int, tmp_path: Path) -> None:
    config = preset("tiny", save_dir=tmp_path, **SMALL)
    *known, _ = documents = load_documents("encyclopedia", 4)
    lm = load_lm("tiny", num_gpus=num_gpus, dtype="float32")
    memory = train(config, lm=lm, documents=known).load_memory()
    cache, old = (cache_hidden_states(lm, some, config) for some in (documents, known))
    on_cpu = cache_hidden_states(load_lm("tiny", device="cpu"), documents, config)
    for changed in (
        add(cache, memory, documents[-1].title, epochs=1),
        forget(old, memory, 0, epochs=1),
        memory,
    ):
        assert changed.doc_reps.device.type == "cpu"
    larger = add(cache, memory, documents[-1].title, epochs=1)
    torch.testing.assert_close(
        cross_entropies_at(cache, larger, larger.doc_reps),
        cross_entropies_at(on_cpu, larger, larger.doc_reps),
        atol=1e-2,
        rtol=0,
    )


@pytest.mark.parametrize("num_gpus", GPUS[:1])
@pytest.mark.parametrize("name", NAMES)
def test_experiment_measures_finite_numbers(
    num_gpus: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "FAST", {**pool.FAST, **SMALL, "num_gpus": num_gpus})
    measured = load_study(name).measure(RunPool(fast=True, seeds=1, folder=tmp_path))
    numbers = [x for x in tree_leaves(dataclasses.asdict(measured)) if isinstance(x, float)]
    assert numbers
    assert all(map(math.isfinite, numbers))


@pytest.mark.parametrize("num_gpus", GPUS[:1])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_shorter_formats_learn_as_float32_does(num_gpus: int, dtype: str, tmp_path: Path) -> None:
    documents = load_documents("encyclopedia", 3)
    found = []
    for name in ("float32", dtype):
        lm = load_lm("tiny", num_gpus=num_gpus, dtype=name)
        config = preset("tiny", save_dir=tmp_path / name, **SMALL)
        history = train(config, lm=lm, documents=documents, progress=False).load_history()
        found.append(torch.tensor([epoch.positive_ce for epoch in history]))
    torch.testing.assert_close(*found, atol=0.05, rtol=0)
