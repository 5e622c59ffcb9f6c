"""On a GPU: what is trained and measured there is what it is on the CPU."""

from pathlib import Path

import pytest
import torch

from docmem.documents import load_documents
from docmem.editing.add import add
from docmem.editing.forget import forget
from docmem.experiments import NAMES, experiment, pool
from docmem.experiments.pool import RunPool
from docmem.lm.cross_entropy import cross_entropies_at
from docmem.lm.hidden_states import cache_hidden_states
from docmem.lm.loading import load_lm
from docmem.training.config import preset
from docmem.training.train import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

SMALL = {"num_gpus": 1, "max_segments": 1, "num_epochs": 2, "max_labels": 3, "segment_length": 40}


def test_a_memory_is_measured_changed_and_handed_back_on_its_own_device(tmp_path: Path) -> None:
    config = preset("tiny", save_dir=tmp_path, **SMALL)
    *known, _ = documents = load_documents("encyclopedia", 4)
    lm = load_lm("tiny", num_gpus=1)
    memory = train(config, lm=lm, documents=known).load_memory()
    cache = cache_hidden_states(lm, documents, config)
    on_cpu = cache_hidden_states(load_lm("tiny"), known, config)
    for changed in (
        add(cache, memory, documents[-1].title, epochs=1),
        forget(cache_hidden_states(lm, known, config), memory, 0, epochs=1),
        memory,
    ):
        assert changed.doc_reps.device.type == "cpu"
    found = cross_entropies_at(cache_hidden_states(lm, known, config), memory, memory.doc_reps)
    expected = cross_entropies_at(on_cpu, memory, memory.doc_reps)
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_is_measured(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "FAST", {**pool.FAST, **SMALL})
    assert experiment(name).measure(RunPool(fast=True, seeds=1, folder=tmp_path))
