"""A run is known by its LM's weights and its texts, wherever they lie, whatever they are called."""

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toys import DOCUMENTS, assert_same, at

from docmem.errors import DocmemError
from docmem.lm.loading import LanguageModel, load_lm
from docmem.training.config import TrainConfig
from docmem.training.description import describe
from docmem.training.run import Run
from docmem.training.setup import configured_documents, configured_lm, default_folder
from docmem.training.train import train


def place(lm: LanguageModel, folder: Path) -> dict[str, Any]:
    """Put LM and documents into a folder; the settings that name them there."""
    lm.model.save_pretrained(folder / "lm")
    lm.tokenizer.save_pretrained(folder / "lm")
    (folder / "texts").mkdir()
    for number, document in enumerate(DOCUMENTS):
        (folder / "texts" / f"{number}.txt").write_text(document.text)
    caches = {"lm_cache_dir": folder / "lms", "data_cache_dir": folder / "data"}
    return {"lm_name": str(folder / "lm"), "documents": str(folder / "texts"), **caches}


def test_moved_lm_and_documents_go_on_in_the_same_folder(
    go, lm: LanguageModel, whole: Run, config: TrainConfig, tmp_path: Path
):
    here = replace(config, **place(lm, tmp_path / "here"))
    titles = tuple(document.title for document in DOCUMENTS)
    there = replace(config, **place(lm, tmp_path / "there"), titles=titles, max_labels=7)
    stopped = train(here, on_epoch=at(4, lambda: False), progress=False)
    assert not stopped.finished
    run = train(there, progress=False)
    assert_same(run, whole)
    opened = Run.open(run.path)
    assert opened.config.lm_name == opened.description["lm"]["name"] == str(tmp_path / "there/lm")
    assert opened.load_lm().d_model == lm.d_model


def test_default_folder_is_the_same_wherever_lm_and_documents_lie(
    lm: LanguageModel, config: TrainConfig, tmp_path: Path
):
    folders = []
    for name in ("here", "there"):
        one = replace(config, save_dir=None, **place(lm, tmp_path / name))
        folders.append(default_folder(one, configured_lm(one), configured_documents(one)))
    assert folders[0] == folders[1]
    assert folders[0].parts[:2] == ("outputs", "lm")
    (tmp_path / "there" / "lm").rename(tmp_path / "there" / "renamed")
    renamed = replace(one, lm_name=str(tmp_path / "there" / "renamed"))
    folders[0].mkdir(parents=True)
    found = default_folder(renamed, load_lm(renamed.lm_name), configured_documents(renamed))
    assert found == folders[0]


OTHER: dict[str, Any] = {
    "segment_length": 10, "max_segments": 3, "max_length": 30, "key_dim": 3,
    "key_activation": "relu", "doc_rep_init": "spread", "hook_memory_dim": 23,
    "hook_memory_layer": 1, "lm_act": "relu", "document_key_module_type": "nonlinear",
    "negative_key_type": "zero", "negative_delta": 0.2, "negative_rows": 1,
    "target_negative_ce": 4.0, "guidance": 0.5, "loss_form": "absolute", "batch_size": 3,
    "optimizer": "muon", "muon_lr": 0.01, "lr": 0.02, "weight_decay": 0.02,
    "num_accumulation_steps": 2, "grad_clip_coeff": 4.0, "save_freq": 2, "snapshot_freq": 4,
    "seed": 2,
}  # fmt: skip
"""What counts: another value of each is another training."""
SAME: dict[str, Any] = {
    "lm_name": "elsewhere/lm", "lm_size": "1b", "device": "cpu", "num_gpus": 0,
    "lm_cache_dir": Path("lms"), "dtype": "float32", "documents": "elsewhere",
    "data_cache_dir": Path("data"), "titles": ("A",), "max_labels": 3, "num_epochs": 9,
    "gpu_cache_gb": 1.0, "cpu_cache_gb": 1.0, "states_dir": Path("elsewhere"),
}  # fmt: skip
"""What does not: where LM and documents are, what they are called, where and how long it runs."""


def test_every_setting_counts_or_is_known_not_to():
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    # The folder is where one looks; what is inside a nonlinear key generator counts with it.
    inside = {"key_internal_dim", "key_internal_activation", "key_internal_layers"}
    assert OTHER.keys() | SAME.keys() | inside | {"save_dir"} == fields


@pytest.mark.parametrize("name", OTHER)
def test_setting_that_counts_is_refused_by_name(
    whole: Run, lm: LanguageModel, config: TrainConfig, name: str
):
    other = replace(config, **{name: OTHER[name]})
    with pytest.raises(DocmemError, match=f"another config: {name} was"):
        Run.find(whole.path, describe(other, lm, DOCUMENTS))


@pytest.mark.parametrize("name", SAME)
def test_setting_that_does_not_count_finds_the_run(
    whole: Run, lm: LanguageModel, config: TrainConfig, name: str
):
    other = replace(config, **{name: SAME[name]})
    found = Run.find(whole.path, describe(other, replace(lm, name="another/name"), DOCUMENTS))
    assert found is not None
    assert found.description["lm"]["name"] == "another/name"


def test_other_weights_or_texts_are_refused(whole: Run, lm: LanguageModel, config: TrainConfig):
    texts = [replace(DOCUMENTS[0], text=DOCUMENTS[0].text.replace("low", "high")), *DOCUMENTS[1:]]
    with pytest.raises(DocmemError, match="on other documents"):
        Run.find(whole.path, describe(config, lm, texts))
    titles = [replace(DOCUMENTS[0], title="Another"), *DOCUMENTS[1:]]
    with pytest.raises(DocmemError, match="on other documents"):
        Run.find(whole.path, describe(config, lm, titles))
    lm.model.gpt_neox.embed_in.weight[0] += 1
    with pytest.raises(DocmemError, match="another lm: fingerprint was"):
        Run.find(whole.path, describe(config, lm, DOCUMENTS))
