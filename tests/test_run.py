"""A run on disk: opened anywhere, refused where it is not one."""

import importlib.metadata
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toys import DOCUMENTS, quick_config, toy_lm

from docmem.core.blocks import lm_fingerprint
from docmem.errors import DocmemError
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.description import describe, from_dict, to_dict
from docmem.training.run import Run
from docmem.training.texts import read_parts
from docmem.training.train import train


@pytest.fixture
def run(trained: tuple[LanguageModel, Run], tmp_path: Path) -> Run:
    """A copy of the trained run, in another folder."""
    return Run.open(shutil.copytree(trained[1].path, tmp_path / "copy"))


def test_copied_run_opens_equal(run: Run, trained: tuple[LanguageModel, Run]):
    original = trained[1]
    assert run.path != original.path
    assert run.config == original.config
    assert run.config == replace(quick_config(Path()), num_epochs=60, save_freq=20, save_dir=None)
    assert run.description == original.description
    assert run.documents == original.documents == read_parts(DOCUMENTS, run.config)
    assert run.titles == [document.title for document in DOCUMENTS]
    assert run.load_history() == original.load_history()
    assert run.finished
    assert run.load_snapshots().epochs == [0, 20, 40, 60]
    for part in ("token", "document", "doc_reps"):
        assert torch.equal(
            getattr(run.load_snapshots(), part), getattr(original.load_snapshots(), part)
        )
    assert run.load_memory().titles == run.titles
    weights = original.load_memory().state_dict()
    assert all(torch.equal(run.load_memory().state_dict()[name], weights[name]) for name in weights)


def test_run_opens_from_a_string(run: Run):
    assert Run.open(str(run.path)).description == run.description


def test_run_records_library_versions_and_lm(run: Run):
    versions = run.description["versions"]
    assert versions["torch"] == importlib.metadata.version("torch")
    assert {"docmem", "torch", "transformers", "safetensors"} <= versions.keys()
    fingerprint = lm_fingerprint(toy_lm().model)
    assert run.description["lm"] == {
        "name": "toy-gpt_neox",
        "origin": "",
        "dtype": "float32",
        "fingerprint": fingerprint,
    }


def test_history_counts_epochs_from_one(run: Run):
    assert [epoch.epoch for epoch in run.load_history()] == list(range(1, 61))
    assert all(epoch.seconds > 0 for epoch in run.load_history())


def test_snapshot_is_a_selection(run: Run):
    selection = run.load_snapshots().at(-1)
    assert torch.equal(selection.token, run.load_snapshots().token[-1])
    assert torch.equal(selection.document, run.load_snapshots().document[-1])
    torch.testing.assert_close(
        selection.document, run.load_memory().select(run.load_memory().doc_reps).detach()
    )


def test_settings_survive_json():
    config = TrainConfig(
        titles=("B", "A"),
        save_dir=Path("some/where"),
        lm_cache_dir=Path("/cache"),
        document_key_module_type="nonlinear",
        key_internal_layers=3,
        negative_key_type="perturb",
    )
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"config": {"colour": 1}}'])
def test_folder_without_a_readable_run_is_rejected(tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    complaint = "has no run.json" if content is None else r"run\.json cannot be read"
    with pytest.raises(DocmemError, match=complaint):
        Run.open(tmp_path)


def test_run_open_rejects_missing_folder():
    with pytest.raises(DocmemError, match="nowhere is not a run"):
        Run.open("nowhere")


def test_run_caches_hidden_states_of_its_lm(run: Run, lm: LanguageModel):
    cache = run.cache_hidden_states(lm)
    assert cache.doc_ids == [0, 0, 1, 1, 2]
    assert cache.layer == 2


def test_another_lm_is_rejected_by_name(run: Run):
    other = toy_lm(seed=1)
    with pytest.raises(
        DocmemError, match=r"trained on the LM 'toy-gpt_neox' in float32.*other weights"
    ):
        run.cache_hidden_states(other)


def test_fingerprint_depends_on_weights_format_and_architecture(lm: LanguageModel):
    lms = [lm, toy_lm(seed=1), toy_lm("phi")]
    fingerprints = [lm_fingerprint(one.model) for one in lms]
    lm.model.bfloat16()
    fingerprints.append(lm_fingerprint(lm.model))
    assert len(set(fingerprints)) == 4
    assert lm_fingerprint(toy_lm().model) == fingerprints[0]


def test_lm_is_loaded_again_by_its_name(lm: LanguageModel, config: TrainConfig, tmp_path: Path):
    lm.model.save_pretrained(tmp_path / "lm")
    lm.tokenizer.save_pretrained(tmp_path / "lm")
    named = LanguageModel(lm.model, lm.tokenizer, str(tmp_path / "lm"))
    run = train(replace(config, num_epochs=1), lm=named, documents=DOCUMENTS, progress=False)
    loaded = run.load_lm()
    assert all(
        torch.equal(tensor, lm.model.state_dict()[name])
        for name, tensor in loaded.model.state_dict().items()
    )
    lm.model.gpt_neox.embed_in.weight[0] += 1
    lm.model.save_pretrained(tmp_path / "lm")
    with pytest.raises(DocmemError, match="has other weights"):
        run.load_lm()


def test_untrained_run_has_no_memory_and_no_snapshots(lm: LanguageModel, config: TrainConfig):
    run = Run(config.save_dir, describe(config, lm, DOCUMENTS))
    run.path.mkdir()
    assert run.load_history() == []
    assert not run.finished
    with pytest.raises(DocmemError, match="has no memory yet; train it first"):
        _ = run.load_memory()
    with pytest.raises(DocmemError, match="has no snapshots yet; train it first"):
        _ = run.load_snapshots()


def test_damaged_snapshot_or_memory_is_named(run: Run):
    for path in (run.path / "snapshots" / "000040.safetensors",
                 run.path / "memory" / "model.safetensors"):  # fmt: skip
        path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DocmemError, match=r"000040\.safetensors cannot be read"):
        _ = run.load_snapshots()
    with pytest.raises(DocmemError, match=r"model\.safetensors cannot be read"):
        _ = run.load_memory()


@pytest.mark.parametrize("content", ["{", "[]", '{"config": {}}'])
def test_damaged_description_is_named(run: Run, content: str):
    (run.path / "run.json").write_text(content)
    with pytest.raises(DocmemError, match=r"run\.json cannot be read"):
        Run.open(run.path)


@pytest.mark.parametrize("name", ["final.safetensors", "1e3.safetensors"])
def test_foreign_file_among_the_snapshots_is_named(run: Run, name: str):
    shutil.copy(run.path / "snapshots" / "000040.safetensors", run.path / "snapshots" / name)
    with pytest.raises(DocmemError, match=rf"snapshots holds {name}, no snapshot; move it away"):
        run.load_snapshots()


def test_setting_that_cannot_be_is_named_with_its_file(run: Run):
    file = run.path / "run.json"
    content = json.loads(file.read_text())
    del content["sha256"]
    content["config"]["num_epochs"] = -2
    file.write_text(json.dumps(content))
    with pytest.raises(DocmemError, match=r"run\.json: num_epochs is -2"):
        Run.open(run.path)


def test_a_run_whose_folder_has_gone_says_so(run: Run):
    shutil.move(run.path, run.path.with_name("elsewhere"))
    for read in (run.load_history, run.load_memory, run.snapshots, lambda: run.finished):
        with pytest.raises(DocmemError, match=r"There is no folder .*copy now: it was moved"):
            read()
    assert "it was moved" in repr(run)
