"""Flipped bits, cut files, and whatever else a file of a run can become."""

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from storm import assert_said_or_harmless, chance, copied, size

from docmem.core.files import load_tensors, save_tensors
from docmem.training.description import description_digest
from docmem.training.run import Run

PARTS = 10


def files_of(path: Path) -> list[Path]:
    return sorted(f.relative_to(path) for f in path.rglob("*") if f.is_file() and f.name != ".lock")


@pytest.fixture(params=["finished", "unfinished"])
def run(request: pytest.FixtureRequest) -> Run:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("part", range(PARTS))
def test_flipped_bit_is_said_or_harmless(run: Run, good, whole, home: Path, part: int):
    random = chance("flip", run.path.name, part)
    files = files_of(run.path)
    said = []
    for number in range(max(1, size(500) // PARTS // 2)):
        path = copied(run.path, home / f"flip-{os.getpid()}")
        file = path / files[(number * PARTS + part) % len(files)]
        data = bytearray(file.read_bytes())
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        file.write_bytes(data)
        said.append(assert_said_or_harmless(path, good[run.path.name], whole))
    assert "said" in said or len(said) < 10


@pytest.mark.parametrize("part", range(PARTS))
def test_cut_file_is_said_or_harmless(run: Run, good, whole, home: Path, part: int):
    random = chance("cut", run.path.name, part)
    files = files_of(run.path)
    for number in range(max(1, size(100) // PARTS // 2)):
        path = copied(run.path, home / f"cut-{os.getpid()}")
        file = path / files[(number * PARTS + part) % len(files)]
        file.write_bytes(file.read_bytes()[: random.randrange(file.stat().st_size)])
        assert_said_or_harmless(path, good[run.path.name], whole)


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "nothing")


def become_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def become_huge(path: Path) -> None:
    path.write_bytes(b"9" * 5000 if path.suffix == ".json" else b"[" * 100_000)


def become_unreadable(path: Path) -> None:
    path.chmod(0)


FORMS: list[Callable[[Path], Any]] = [
    become_folder, become_link, become_loop, become_huge, become_unreadable,
    Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"null"),
    lambda path: path.write_bytes(b"\xff\xfe{}"), lambda path: path.write_bytes(b"[[]]\n{}"),
]  # fmt: skip


@pytest.mark.parametrize("form", range(len(FORMS)))
def test_file_that_became_something_else_is_said_or_harmless(
    run: Run, good, whole, home: Path, form: int
):
    files = files_of(run.path)
    random = chance("form", run.path.name, form)
    for file in random.sample(files, max(1, size(len(files)))):
        path = copied(run.path, home / f"form-{os.getpid()}")
        FORMS[form](path / file)
        assert_said_or_harmless(path, good[run.path.name], whole)


@pytest.mark.parametrize("name", ["memory", "snapshots", "measured"])
@pytest.mark.parametrize("form", [None, b"a file"])
def test_folder_that_became_something_else_is_said_or_harmless(
    run: Run, good, whole, home: Path, name: str, form: bytes | None
):
    path = copied(run.path, home / f"folder-{os.getpid()}")
    shutil.rmtree(path / name)
    if form is not None:
        (path / name).write_bytes(form)
    assert_said_or_harmless(path, good[run.path.name], whole)


VALUES: list[Any] = [
    None, True, -1, 0, 3.5, 10**30, 1e308, float("nan"), "", "x", [], [[]], {}, {"a": {}},
]  # fmt: skip


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every value inside some JSON."""
    found = [path] if path else []
    inner = content.items() if isinstance(content, dict) else []
    inner = enumerate(content) if isinstance(content, list) else inner
    return found + [one for key, value in inner for one in places(value, (*path, key))]


def put(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    for key in path[:-1]:
        content = content[key]
    content[path[-1]] = value


def survives(path: Path) -> None:
    """No reading ends in anything but a result or a sentence."""
    from storm import command, go, named_lm, outcome, readings

    command("check", str(path))
    for read in readings(path).values():
        outcome(read)
    outcome(lambda: go(path, named_lm(path.parent / "lm")))


def test_wrong_types_deep_inside_json_with_a_right_digest_are_said(run: Run, home: Path):
    random = chance("types", run.path.name)
    for name in ("run.json", "memory/config.json"):
        content = json.loads((run.path / name).read_text())
        content.pop("sha256", None)
        inside = places(content)
        for place in random.sample(inside, max(1, size(len(inside)))):
            path = copied(run.path, home / f"types-{os.getpid()}")
            changed = json.loads(json.dumps(content))
            put(changed, place, random.choice(VALUES))
            if name == "run.json":
                changed["sha256"] = description_digest(changed)
            (path / name).write_text(json.dumps(changed))
            survives(path)


def test_wrong_tensors_and_metadata_with_a_right_digest_are_said(run: Run, home: Path):
    random = chance("tensors", run.path.name)
    names = [file for file in files_of(run.path) if file.suffix == ".safetensors"]
    for number in range(size(200)):
        path = copied(run.path, home / f"tensors-{os.getpid()}")
        file = path / random.choice(names)
        tensors, metadata = load_tensors(file)
        which = random.choice(sorted(tensors))
        if number % 2:
            inside = places(metadata)
            put(metadata, random.choice(inside), random.choice(VALUES))
        else:
            some = tensors.pop(which)
            made: list[Any] = [
                None, some.double() * float("nan"), some[None], some[None][:0], some.flatten()[:1],
                torch.zeros(3, 5, 7), some.float() * 1e38 * 1e38, some.to(torch.int64), some.bool(),
            ]  # fmt: skip
            other = random.choice(made)
            if other is not None:
                tensors[which] = other
        save_tensors(file, tensors, metadata)
        survives(path)


def test_wrong_texts_with_a_right_digest_are_said(run: Run, home: Path):
    from docmem.training.texts import digest_of

    for texts in VALUES:
        path = copied(run.path, home / f"texts-{os.getpid()}")
        content = json.dumps(texts).encode()
        (path / "documents.json.gz").write_bytes(gzip.compress(content))
        description = json.loads((path / "run.json").read_text())
        del description["sha256"]
        description["texts"] = digest_of(content)
        description["sha256"] = description_digest(description)
        (path / "run.json").write_text(json.dumps(description))
        survives(path)


def test_safetensors_of_another_program_are_said(run: Run, home: Path):
    for file in files_of(run.path):
        if file.suffix == ".safetensors":
            path = copied(run.path, home / f"other-{os.getpid()}")
            safetensors.torch.save_file({"x": torch.zeros(3)}, path / file)
            survives(path)
