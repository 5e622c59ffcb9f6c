"""Disks that are full or read only, clocks that jump, and a hub out of reach."""

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from storm import (
    FAULTS,
    NO_SPACE,
    READ_ONLY,
    SHARE,
    chance,
    command,
    copied,
    go,
    named_lm,
    outcome,
    readings,
    result_of,
)
from toys import files

import docmem
from docmem.errors import DocmemError
from docmem.lm.fetch import fetch
from docmem.training.run import Run

PARTS = 8


@pytest.fixture(scope="session")
def writes(home: Path) -> int:
    """How often a training calls what writes."""
    with FAULTS.armed(-1, NO_SPACE):
        go(home / f"count-{os.getpid()}", named_lm(home / "lm"))
        return FAULTS.count


@pytest.mark.parametrize("part", range(PARTS))
def test_full_disk_at_every_write_loses_nothing(
    home: Path, whole: dict[str, Any], writes: int, part: int
):
    assert writes > 80
    # The last only syncs a folder, which a system may refuse.
    for at in range(1 + part, writes, round(PARTS / SHARE)):
        folder = home / f"full-{at}"
        with (
            FAULTS.armed(at, NO_SPACE),
            pytest.raises(DocmemError, match=r"Could not write.*No space left"),
        ):
            go(folder, named_lm(home / "lm"))
        assert (
            not [name for name in files(folder) if name.endswith(".partial")]
            if folder.exists()
            else True
        )
        if (folder / "run.json").exists():
            assert (
                command("check", str(folder))[0] == 0
                or (folder / "checkpoint.safetensors").exists()
            )
        assert result_of(go(folder, named_lm(home / "lm"))) == whole


def test_small_disk_that_is_made_larger(home: Path, tmp_path: Path, whole: dict[str, Any]):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("Only root can mount a small disk, and not everywhere.")
    try:
        with pytest.raises(DocmemError, match="No space left"):
            go(disk / "run", named_lm(home / "lm"))
        subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
        assert result_of(go(disk / "run", named_lm(home / "lm"))) == whole
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        run = Run.open(disk / "run")
        assert result_of(run) == whole
        assert command("check", str(run.path))[0] == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_read_only_folder_is_read_and_not_trained_in(
    home: Path, finished: Run, unfinished: Run, good, whole: dict[str, Any]
):
    for run in (finished, unfinished):
        path = copied(run.path, home / f"read-only-{run.path.name}")
        before = files(path)
        with FAULTS.armed(0, READ_ONLY):
            for name, read in readings(path).items():
                assert outcome(read) == good[run.path.name][name], name
            assert command("check", str(path))[0] == 0
            if run is finished:
                assert result_of(go(path, named_lm(home / "lm"))) == whole
            else:
                with pytest.raises(DocmemError, match=r"Could not write .*Read-only"):
                    go(path, named_lm(home / "lm"))
        assert files(path) == before


def test_clock_that_jumps_changes_nothing(
    home: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    random = chance("clock")
    for name, unit in (("time", 1.0), ("time_ns", 1), ("perf_counter", 1.0), ("monotonic", 1.0)):
        monkeypatch.setattr(
            time, name, lambda unit=unit: type(unit)(random.randrange(-(10**9), 10**9))
        )
    run = go(home / "clock", named_lm(home / "lm"))
    assert result_of(run) == whole
    assert command("check", str(run.path))[0] == 0


ASKING = {
    "lm": lambda: docmem.load_lm("pythia-70m"),
    "documents": lambda: docmem.load_documents("wikitext-2"),
    "memory": lambda: docmem.DocumentMemory.from_pretrained("someone/memory"),
    "package": lambda: fetch("smollm2-135m", Path("lms").absolute()),
}


@pytest.mark.parametrize("what", ASKING)
@pytest.mark.parametrize("offline", [True, False])
def test_hub_out_of_reach_is_said(what: str, offline: bool, monkeypatch: pytest.MonkeyPatch):
    import datasets.config
    import huggingface_hub.constants

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between one try and the next
    monkeypatch.setenv("HF_HOME", str(Path("hf").absolute()))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", offline)
    with pytest.raises(DocmemError, match=r".{40}"):
        ASKING[what]()
    assert not list(Path().rglob("*.partial"))


def test_run_whose_lm_is_gone_is_said(home: Path, finished: Run, good, whole: dict[str, Any]):
    path = copied(finished.path, home / "moved" / "run")
    assert command("generate", str(path), "--prompt", "x", "--lm", str(home / "none"))[0] == 1
    assert Run.open(path).load_lm(str(home / "lm")).d_model == 32
