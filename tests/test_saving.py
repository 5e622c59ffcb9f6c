"""A memory on disk: saved and loaded to the bit, or refused by name."""

from pathlib import Path

import pytest
import torch

from docmem.core.config import MemoryConfig
from docmem.core.memory import DocumentMemory
from docmem.errors import DocmemError


def make(titles: list[str] | None = None, **changes) -> DocumentMemory:
    settings = {"d_model": 16, "n_docs": 5, "memory_dim": 8, **changes}
    return DocumentMemory(MemoryConfig(**settings), titles)


@pytest.mark.parametrize("titles", [["A", "B", "Ç", "D", "E"], None])
@pytest.mark.parametrize("kind", ["linear", "nonlinear"])
def test_saved_memory_comes_back_bit_for_bit(tmp_path: Path, titles, kind: str):
    memory = make(titles, document_key_module_type=kind, key_activation="swiglu")
    memory.save_pretrained(tmp_path)
    again = DocumentMemory.from_pretrained(tmp_path)
    assert (again.config, again.titles) == (memory.config, titles)
    assert again.state_dict().keys() == memory.state_dict().keys()
    assert all(torch.equal(again.state_dict()[k], v) for k, v in memory.state_dict().items())
    hidden = torch.randn(3, 7, 16)
    assert torch.equal(again(hidden, again.doc_reps[0]), memory(hidden, memory.doc_reps[0]))


def test_memory_is_config_and_safetensors(tmp_path: Path):
    make().save_pretrained(tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert files - {"README.md"} == {"config.json", "model.safetensors"}


def test_weights_that_are_no_numbers_are_not_saved_over_good_ones(tmp_path: Path):
    memory = make()
    memory.save_pretrained(tmp_path)
    memory.values.weight.data[0, 0] = torch.nan
    with pytest.raises(DocmemError, match="no finite numbers"):
        memory.save_pretrained(tmp_path)
    assert DocumentMemory.from_pretrained(tmp_path).config == memory.config


def test_truncated_weights_are_rejected(tmp_path: Path):
    make().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DocmemError, match=r"model\.safetensors cannot be read: it is damaged"):
        DocumentMemory.from_pretrained(tmp_path)


def test_missing_config_is_rejected(tmp_path: Path):
    make().save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(DocmemError, match=r"There is no file .*config\.json.*Give a folder"):
        DocumentMemory.from_pretrained(tmp_path)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("content", ["{", '{"d_model": 16}', '{"colour": 1}'])
def test_wrong_config_is_rejected(tmp_path: Path, content: str):
    make().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(DocmemError, match=r"cannot be read|does not describe the memory"):
        DocumentMemory.from_pretrained(tmp_path)


def test_weights_of_another_shape_are_rejected(tmp_path: Path):
    make().save_pretrained(tmp_path / "a")
    make(memory_dim=9).save_pretrained(tmp_path / "b")
    (tmp_path / "a" / "config.json").replace(tmp_path / "b" / "config.json")
    with pytest.raises(DocmemError, match="does not describe the memory"):
        DocumentMemory.from_pretrained(tmp_path / "b")


def test_from_pretrained_rejects_misspelt_options(tmp_path: Path):
    make().save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="revison"):
        DocumentMemory.from_pretrained(tmp_path, revison="main")
    assert DocumentMemory.from_pretrained(tmp_path, revision="main", local_files_only=True)


def test_a_disk_that_is_full_leaves_the_memory_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = make()
    first.save_pretrained(tmp_path)

    def full(*_, **__) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DocmemError, match=r"Could not write .* Nothing there was changed"):
        make().save_pretrained(tmp_path)
    kept = DocumentMemory.from_pretrained(tmp_path)
    assert all(torch.equal(kept.state_dict()[k], v) for k, v in first.state_dict().items())


@pytest.mark.parametrize("option", [{"pushh": 1}, {"repo_id": "a/b"}, {"config": {"a": 1}}])
def test_saving_rejects_options_without_effect(tmp_path: Path, option: dict):
    (name,) = option
    with pytest.raises(DocmemError, match=f"{name} has no effect without push_to_hub=True"):
        make().save_pretrained(tmp_path / "memory", **option)
    assert not (tmp_path / "memory").exists()


@pytest.mark.parametrize("options", [{}, {"privat": True}])
def test_pushing_fails_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for push in (
        lambda: make().push_to_hub("me/memory", **options),
        lambda: make().save_pretrained(tmp_path, push_to_hub=True, repo_id="me/memory", **options),
    ):
        with pytest.raises(DocmemError, match="Could not push to 'me/memory': "):
            push()
    DocumentMemory.from_pretrained(tmp_path)  # it was written before
