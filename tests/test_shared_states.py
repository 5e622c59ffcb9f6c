"""Hidden states that trainings share: computed once, and never trusted unread."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toys import DOCUMENTS, quick_config, raising, toy_lm

from docmem.errors import DocmemError
from docmem.evaluation.cached import measure
from docmem.lm import shared_states
from docmem.lm.hidden_states import HiddenStateCache, cache_hidden_states
from docmem.lm.shared_states import SharedStates
from docmem.training.config import TrainConfig
from docmem.training.run import Run
from docmem.training.train import train


@pytest.fixture
def shared(config: TrainConfig, tmp_path: Path) -> TrainConfig:
    return replace(config, states_dir=tmp_path / "states")


def states(cache: HiddenStateCache) -> list[torch.Tensor]:
    return [cache.states(index) for index in range(len(cache.batches))]


def files(config: TrainConfig) -> list[Path]:
    assert config.states_dir is not None
    return sorted(config.states_dir.iterdir())


def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the forwards of the frozen blocks."""
    seen: list[int] = []
    kept = HiddenStateCache._read

    def read(self: HiddenStateCache, batch: object) -> torch.Tensor:
        seen.append(1)
        return kept(self, batch)

    monkeypatch.setattr(HiddenStateCache, "_read", read)
    return seen


def test_states_are_computed_once_and_are_the_same(
    shared: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = states(cache_hidden_states(toy_lm(), DOCUMENTS, replace(shared, states_dir=None)))
    first = cache_hidden_states(toy_lm(), DOCUMENTS, shared)
    counted = reads(monkeypatch)
    again = cache_hidden_states(toy_lm(), DOCUMENTS, shared)
    assert len(counted) == 1  # only to see how the block answers
    assert len(files(shared)) == len(plain)
    assert again.store.places() == ["disk"] * len(plain)
    for one, two, three in zip(plain, states(first), states(again), strict=True):
        assert torch.equal(one, two) and torch.equal(one, three)


def test_another_choice_of_documents_finds_them_another_lm_or_layer_does_not(
    shared: TrainConfig,
) -> None:
    cache_hidden_states(toy_lm(), DOCUMENTS, shared)
    count = len(files(shared))
    cache_hidden_states(toy_lm(), DOCUMENTS[::-1][:2], shared)
    assert len(files(shared)) == count
    cache_hidden_states(toy_lm(), DOCUMENTS, replace(shared, hook_memory_layer=0))
    assert len(files(shared)) == 2 * count
    cache_hidden_states(toy_lm(seed=1), DOCUMENTS, shared)
    assert len(files(shared)) == 3 * count
    ablated = toy_lm()
    with torch.no_grad():
        ablated.model.gpt_neox.layers[0].mlp.dense_h_to_4h.weight[5] = 0
    cache_hidden_states(ablated, DOCUMENTS, shared)
    assert len(files(shared)) == 4 * count


def test_damaged_states_are_made_again(shared: TrainConfig) -> None:
    whole = states(cache_hidden_states(toy_lm(), DOCUMENTS, shared))
    for place, path in zip((20, -5, None), files(shared)[:3], strict=True):
        content = bytearray(path.read_bytes())
        if place is None:
            del content[len(content) // 2 :]
        else:
            content[place] ^= 1
        path.unlink()  # the tensors above are mapped
        path.write_bytes(content)
    for one, two in zip(
        whole, states(cache_hidden_states(toy_lm(), DOCUMENTS, shared)), strict=True
    ):
        assert torch.equal(one, two)


def test_training_with_shared_states_ends_with_the_same_weights(
    shared: TrainConfig, tmp_path: Path
) -> None:
    found = []
    for name, where in (
        ("plain", None),
        ("first", shared.states_dir),
        ("second", shared.states_dir),
    ):
        config = replace(quick_config(tmp_path / name), states_dir=where, num_epochs=2)
        run = train(config, lm=toy_lm(), documents=DOCUMENTS, progress=False)
        found.append(run.load_memory().state_dict())
    for other in found[1:]:
        assert all(torch.equal(other[name], found[0][name]) for name in other)


def test_what_is_measured_after_a_training_finds_its_states(
    shared: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = toy_lm()
    run = train(replace(shared, num_epochs=1), lm=lm, documents=DOCUMENTS, progress=False)
    counted = reads(monkeypatch)
    measured = measure(run, lm)
    assert not counted
    monkeypatch.undo()
    (run.path / "measured" / "recall.safetensors").unlink()
    assert torch.equal(measure(Run.open(run.path), lm).recognition.ce, measured.recognition.ce)


def test_folder_stays_within_its_budget(
    shared: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_hidden_states(toy_lm(), DOCUMENTS, shared)
    first, *others = files(shared)
    size = first.stat().st_size
    for path in others:
        os.utime(path, (1, 1))  # used long ago
    left = first.with_name(f".{first.name}.1.partial")  # of a process that was killed
    left.write_bytes(bytes(size))
    os.utime(left, (1, 1))
    monkeypatch.setattr(shared_states, "BUDGET_GB", 1.5 * size / 1e9)
    lm = toy_lm()
    assert shared.states_dir is not None
    SharedStates(shared.states_dir, lm.model, 0)
    assert files(shared) == [first]
    assert not left.exists()


def test_folder_that_cannot_be_written_is_a_sentence(shared: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = replace(shared, states_dir=tmp_path / "file")
    with pytest.raises(DocmemError, match=r"could not be kept in .* another states_dir"):
        cache_hidden_states(toy_lm(), DOCUMENTS, config)


@pytest.mark.parametrize("where", ["run", "run/states", "other", "other/states"])
def test_hidden_states_are_kept_in_no_run(where: str, config: TrainConfig, tmp_path: Path) -> None:
    here = replace(config, save_dir=tmp_path / "run", states_dir=tmp_path / where)
    other = replace(config, save_dir=tmp_path / "other", num_epochs=1)
    train(other, lm=toy_lm(), documents=DOCUMENTS, progress=False)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DocmemError, match=r"lies in the run .*; choose a folder that is in no run"):
        train(here, lm=toy_lm(), documents=DOCUMENTS, progress=False)
    assert sorted(tmp_path.rglob("*")) == before


def test_files_of_others_in_the_folder_are_nobodys_to_delete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = tmp_path / "model-00001-of-00002.safetensors"
    shard.write_bytes(bytes(1000))
    monkeypatch.setattr(shared_states, "BUDGET_GB", 1e-9)
    SharedStates(tmp_path, toy_lm().model, 0)
    assert shard.exists()


def test_the_same_weights_in_another_architecture_have_states_of_their_own(tmp_path: Path) -> None:
    model = toy_lm("llama").model
    first = SharedStates(tmp_path, model, 0).kind
    model.config._name_or_path = "elsewhere"
    assert SharedStates(tmp_path, model, 0).kind == first
    model.config.rms_norm_eps *= 2
    assert SharedStates(tmp_path, model, 0).kind != first


def test_states_in_a_folder_that_is_only_read_are_found(
    shared: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_hidden_states(toy_lm(), DOCUMENTS, shared)
    counted = reads(monkeypatch)
    monkeypatch.setattr(os, "utime", lambda *_: raising(PermissionError("not yours"))())
    cache_hidden_states(toy_lm(), DOCUMENTS, shared)
    assert len(counted) == 1  # only to see how the block answers
