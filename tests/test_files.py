"""Files are whole or absent, and say what is wrong with them."""

import errno
import json
import os
import stat
from pathlib import Path

import pytest
import safetensors.torch
import torch

from docmem.core.files import load_tensors, replacing, save_tensors, write_json, write_text
from docmem.errors import DocmemError


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_tensors_and_metadata_come_back_as_saved(tmp_path: Path):
    tensors = {
        "transposed": torch.arange(6.0).view(2, 3).T,
        "half": torch.tensor([1.5, -2.25], dtype=torch.bfloat16),
        "flags": torch.tensor([True, False]),
        "trained": torch.ones(2, requires_grad=True),
    }
    save_tensors(tmp_path / "deep" / "er" / "t.safetensors", tensors, {"title": "Wärme", "n": 3})
    loaded, metadata = load_tensors(tmp_path / "deep" / "er" / "t.safetensors")
    assert metadata == {"title": "Wärme", "n": 3}
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_json_is_written_as_utf8_and_replaces_what_was_there(tmp_path: Path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    write_json(path, {"titel": "Öl, Ærø"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"titel": "Öl, Ærø"}
    assert names(tmp_path) == {"a.json"}


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt()])
def test_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, error):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(type(error)), replacing(path) as temporary:
        temporary.write_text("ne")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == {"a.txt"}


def test_old_file_stays_until_the_new_one_is_complete(tmp_path: Path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_full_disk_leaves_the_old_tensors_and_no_partial_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"x": torch.zeros(3)}, {})
    before = path.read_bytes()
    write = Path.write_bytes

    def full(path, data):
        write(path, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DocmemError, match=r"t\.safetensors.*No space left.*free some space"):
        save_tensors(path, {"x": torch.ones(3)}, {})
    assert path.read_bytes() == before
    assert names(tmp_path) == {"t.safetensors"}


def test_missing_file_is_named():
    with pytest.raises(DocmemError, match="There is no file nowhere"):
        load_tensors(Path("nowhere"))


@pytest.mark.parametrize("kept", [0, 4, 60, -1])
def test_truncated_file_is_rejected(tmp_path: Path, kept: int):
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"x": torch.zeros(30)}, {"epoch": 1})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DocmemError, match=r"t\.safetensors cannot be read: it is damaged"):
        load_tensors(path)


def test_another_programs_safetensors_file_is_rejected(tmp_path: Path):
    safetensors.torch.save_file({"x": torch.zeros(3)}, tmp_path / "t.safetensors")
    with pytest.raises(DocmemError, match="not a docmem file"):
        load_tensors(tmp_path / "t.safetensors")


def test_file_in_the_place_of_a_folder_is_named(tmp_path: Path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DocmemError, match=r"Could not write .*taken"):
        write_text(tmp_path / "taken" / "a.txt", "text")


def test_name_that_is_too_long_for_a_partial_file_is_a_sentence(tmp_path: Path):
    with pytest.raises(DocmemError, match=r"Could not write .*aaa"):
        write_text(tmp_path / ("a" * 250), "text")


@pytest.mark.parametrize(("umask", "rights"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_get_the_rights_that_the_umask_leaves(tmp_path: Path, umask: int, rights: int):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a.txt", "text")
        save_tensors(tmp_path / "t.safetensors", {"x": torch.zeros(3)}, {})
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {rights}


def test_file_reaches_the_disk_before_its_name_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    synced: list[tuple[str, bool]] = []
    fsync, path = os.fsync, tmp_path / "t.safetensors"

    def recording(handle: int) -> None:
        synced.append((Path(f"/proc/self/fd/{handle}").resolve().name, path.exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", recording)
    save_tensors(path, {"x": torch.zeros(3)}, {})
    assert [exists for _, exists in synced] == [False, True]
    assert synced[0][0].endswith(".partial")
    assert synced[1][0] == tmp_path.name


def test_a_folder_that_cannot_be_synced_is_written_in_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fsync = os.fsync

    def refusing(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", refusing)
    write_text(tmp_path / "a.txt", "text")
    assert (tmp_path / "a.txt").read_text() == "text"


def test_two_who_write_one_file_do_not_meet(tmp_path: Path):
    with replacing(tmp_path / "a.txt") as one:
        one.write_text("one")
        with replacing(tmp_path / "a.txt") as two:
            two.write_text("two")
    assert (tmp_path / "a.txt").read_text() == "one"
    assert len([*tmp_path.iterdir()]) == 1
