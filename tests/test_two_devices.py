"""An untied LM spread over two devices by accelerate trains and is measured as on one."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import dispatch_model
from devices import place, pretended_devices
from slow import slow
from torch import nn
from toys import DOCUMENTS, quick_config, toy_lm

from docmem.core.hook import attach
from docmem.editing.add import add
from docmem.editing.forget import forget
from docmem.editing.place import doc_reps_from_lm
from docmem.evaluation.attribution import attribute
from docmem.evaluation.plane import key_plane
from docmem.evaluation.recall import completion, recognition
from docmem.lm.cross_entropy import base_cross_entropies, cross_entropies_at
from docmem.lm.generation import generate
from docmem.lm.hidden_states import cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.run import Run
from docmem.training.train import train

MAP = {
    **dict.fromkeys(("model.embed_tokens", "model.rotary_emb", "model.layers.0"), "cuda:0"),
    **dict.fromkeys(("model.layers.1", "model.layers.2", "model.norm", "lm_head"), "cuda:1"),
}
PROMPT = "The harbour master read"


def untied_lm(plain: bool) -> LanguageModel:
    """A toy Llama; with another kind of head, its own forward computes the logits."""
    lm = toy_lm("llama")
    if not plain:
        lm.model.lm_head = nn.Sequential(lm.model.lm_head)
    return lm


def settings(folder: Path, layer: int) -> TrainConfig:
    changes = {"hook_memory_layer": layer, "num_epochs": 2, "num_accumulation_steps": 2}
    return replace(quick_config(folder), **changes)


def measured(lm: LanguageModel, run: Run) -> dict[str, object]:
    """What evaluation, generation and editing make of a run."""
    cache, memory = run.cache_hidden_states(lm), run.load_memory()
    first_two = cache_hidden_states(lm, run.documents[:2], run.config)
    smaller = train_two(lm, run)
    with attach(lm.model, memory, cache.layer) as hooked:
        texts = [generate(hooked, lm.tokenizer, PROMPT, n, max_new_tokens=4) for n in (0, 1)]
    found = {
        "recognition": recognition(cache, memory).ce,
        "plane": key_plane(cache, run.load_memory(), points=2).ce,
        "base LM": base_cross_entropies(cache),
        "placed": doc_reps_from_lm(cache, 3, 2),
        "completion": completion(cache, memory, 4, 4),
        "attribution": attribute(lm, run.load_memory(), cache.layer, "The low island"),
        "texts": texts,
        "added": add(cache, smaller, "Quillon Engine", epochs=1).state_dict(),
        "forgotten": forget(first_two, smaller, 0, epochs=1).state_dict(),
    }
    return found


def train_two(lm: LanguageModel, run: Run):
    config = replace(run.config, save_dir=run.path.parent / "two", num_epochs=1)
    return train(config, lm=lm, documents=DOCUMENTS[:2], progress=False).load_memory()


@pytest.fixture
def two_devices() -> Iterator[None]:
    with pretended_devices():
        yield


def test_pretended_devices_refuse_what_cuda_refuses(two_devices: None):
    x = torch.ones(3).to("cuda:0")
    assert (x.device, (x + 1)[1:].device) == (torch.device("cuda:0"),) * 2
    assert (x * torch.tensor(2.0))[torch.tensor([0, 1])].device.index == 0
    for other in (torch.ones(3), torch.ones(3, device="cuda:1"), torch.ones(()).to("cuda:1")):
        with pytest.raises(RuntimeError, match="meets tensors on"):
            x + other
    with pytest.raises(RuntimeError, match="meets tensors on"):
        x[torch.tensor([True, False, True]).to("cuda:1")]
    y = torch.ones(3, requires_grad=True)
    (2 * y.to("cuda:1")).sum().backward()
    assert y.grad.tolist() == [2, 2, 2]
    assert place(y.grad) == torch.device("cpu")


@pytest.mark.parametrize(
    ("plain", "layer"),
    [slow(True, 0), slow(True, -1), slow(False, 0)],
    ids=["linear head", "linear head, last layer", "another head"],
)
def test_two_devices_train_and_measure_as_one(plain: bool, layer: int, tmp_path: Path):
    lm = untied_lm(plain)
    one = train(
        settings(tmp_path / "one" / "run", layer), lm=lm, documents=DOCUMENTS, progress=False
    )
    expected = measured(lm, one)
    with pretended_devices():
        spread = untied_lm(plain)
        dispatch_model(spread.model, MAP, main_device="cuda:0")
        devices = {place(parameter) for parameter in spread.model.parameters()}
        assert devices == {torch.device("cuda:0"), torch.device("cuda:1")}
        cache = cache_hidden_states(spread, DOCUMENTS, settings(tmp_path, layer))
        assert cache.device == torch.device("cuda", layer % 2)
        assert (cache.head is not None) == plain
        config = settings(tmp_path / "two" / "run", layer)
        two = train(config, lm=spread, documents=DOCUMENTS, progress=False)
        found = measured(spread, two)
    weights = one.load_memory().state_dict()
    for name, tensor in two.load_memory().state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert found.keys() == expected.keys()
    for name in ("attribution", "texts"):
        assert found.pop(name) == expected.pop(name)
    torch.testing.assert_close(found, expected)


@pytest.mark.slow
def test_places_of_documents_need_no_float64_on_the_device(
    lm: LanguageModel, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    """Apple's MPS has no float64."""
    cache = cache_hidden_states(lm, DOCUMENTS, config)
    expected = doc_reps_from_lm(cache, 3, 2)
    with pretended_devices(without_float64="mps:0"):
        lm.model.to("mps:0")
        on_mps = cache_hidden_states(lm, DOCUMENTS, config)
        assert on_mps.device.type == "mps"
        with pytest.raises(TypeError, match="float64"):
            on_mps.states(0).double()
        assert torch.equal(doc_reps_from_lm(on_mps, 3, 2), expected)
        memory = train(config, lm=lm, documents=DOCUMENTS, progress=False).load_memory()
        found = cross_entropies_at(on_mps, memory, memory.doc_reps)
        attribute(lm, memory, -1, PROMPT)
        assert {tensor.device.type for tensor in memory.state_dict().values()} == {"cpu"}
    torch.testing.assert_close(found, cross_entropies_at(cache, memory.cpu(), memory.doc_reps))
