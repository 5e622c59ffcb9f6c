"""What run.json says of a training, and when two trainings are the same one."""

import dataclasses
import functools
import importlib.metadata
import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dacite
from jaxtyping import Float
from torch import Tensor
from torch.utils import collect_env

from docmem.core.blocks import lm_fingerprint
from docmem.core.files import HINT
from docmem.documents import Document, listed
from docmem.errors import DocmemError
from docmem.lm.loading import LanguageModel
from docmem.training.config import PAPER_PROCEDURE, TrainConfig
from docmem.training.texts import describe_texts, digest_of

LIBRARIES = ("docmem", "torch", "transformers", "tokenizers", "safetensors", "huggingface-hub")

# Settings that say where a run works and how long, not what it computes: they may change.
RESUME_IGNORES = (
    "save_dir", "lm_cache_dir", "data_cache_dir", "states_dir", "device", "num_gpus",
    "gpu_cache_gb", "cpu_cache_gb", "num_epochs",
)  # fmt: skip
# Settings that name the LM and the documents. What they came to counts: the LM's fingerprint and
# the texts as they were read, whatever they are called and wherever they lie.
NAMES = ("lm_name", "lm_size", "dtype", "documents", "titles", "max_labels")


@functools.cache
def version_of(library: str) -> str:
    """The installed version of a library, or `not installed` where it runs from a folder."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """The name of this machine's processor."""
    found = collect_env.get_cpu_info(collect_env.run) or platform.machine()
    named = re.search(r"^Model name:(.+)", found, re.M)  # lscpu's; sysctl gives the name alone
    return named[1].strip() if named else found


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """The configuration as JSON knows it."""
    values = {**asdict(config), "titles": list(config.titles)}
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in values.items()
    }


def from_dict(settings: Mapping[str, Any]) -> TrainConfig:
    """The configuration of what `to_dict` made, here or in an earlier version."""
    casts = dacite.Config(cast=[Path, tuple, float], strict=True)
    return dacite.from_dict(TrainConfig, {**PAPER_PROCEDURE, **settings}, casts)


@dataclass(frozen=True)
class _LM:
    name: str
    dtype: str
    fingerprint: str
    origin: str = ""  # version 0.1 knew none


@dataclass(frozen=True)
class _Document:
    title: str
    sha256: str
    words: int
    read: int


@dataclass(frozen=True)
class Description:
    """What run.json has to hold."""

    config: dict[str, Any]
    lm: _LM
    versions: dict[str, str]
    documents: list[_Document]
    texts: str
    doc_reps: list[list[float]] | None = None


def describe(
    config: TrainConfig,
    lm: LanguageModel,
    documents: Sequence[Document],
    doc_reps: Float[Tensor, "n_docs key_dim"] | None = None,
) -> dict[str, Any]:
    """What run.json says of a training; `doc_reps` only where they are given, not the seed's."""
    description: dict[str, Any] = {
        "config": to_dict(dataclasses.replace(config, save_dir=None, states_dir=None)),
        "lm": {
            "name": lm.name,
            "origin": lm.origin,
            "dtype": lm.dtype,
            "fingerprint": lm_fingerprint(lm.model),
        },
        "versions": {name: version_of(name) for name in LIBRARIES},
        **describe_texts(documents, config),
    }
    if doc_reps is not None:
        description["doc_reps"] = doc_reps.float().tolist()
    return description


def description_digest(description: Mapping[str, Any]) -> str:
    """The digest of a description, which stands beside it in run.json."""
    return digest_of(json.dumps(description, sort_keys=True))


def read_description(file: Path) -> tuple[dict[str, Any], list[Document] | None]:
    """What a run.json says; and the whole texts, which version 0.1 kept in it.

    Raises:
        Exception: of any kind, if the file is damaged.
    """
    description = json.loads(file.read_text(encoding="utf-8"))
    try:
        from_dict(description["config"])
    except DocmemError as error:
        raise DocmemError(f"{file}: {error}") from error
    digest = description.pop("sha256", None)
    if digest not in (None, description_digest(description)):
        raise ValueError("its content does not match its digest")
    whole = None
    if "texts" not in description:
        whole = [Document(**document) for document in description["documents"]]
        description |= describe_texts(whole, from_dict(description["config"]))
    dacite.from_dict(Description, description, dacite.Config(strict=True))
    return description, whole


def check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise unless both describe the same training, wherever it runs. `path`: the run's folder."""
    if difference := _difference(before, now):
        raise DocmemError(f"{path} holds a run {'. '.join(difference)}")


def check_own(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise unless a checkpoint, at `path`, is of the run that lies around it."""
    if difference := _difference(before, now):
        raise DocmemError(f"{path} is the checkpoint of a run {difference[0]}. {HINT}")


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, str] | None:
    """How two descriptions of trainings differ, and what to do; None if they do not."""
    if before.get("doc_reps") != now.get("doc_reps"):
        return "with other DocReps", (
            "Give those it began with (none, if they were the seed's), or choose another save_dir."
        )
    mine = {"config": to_dict(from_dict(before["config"])), "lm": before["lm"]}
    for part, ignored in (("config", (*RESUME_IGNORES, *NAMES)), ("lm", ("name", "origin"))):
        changed = {
            name: f"{name} was {old!r}, now {new!r}"
            for name, old in mine[part].items()
            if name not in ignored and old != (new := now[part].get(name))
        }
        if changed:
            said, choose = "; ".join(changed.values()), "Choose"
            if "dtype" in changed:  # another fingerprint follows from it
                said = changed["dtype"]
                choose = f"Give dtype {mine[part]['dtype']} to go on, choose"
            return f"with another {part}: {said}", (
                f"{choose} another save_dir, or delete that folder to start anew."
            )
    if before["texts"] != now["texts"]:
        return f"on other documents: {_other(before, now)}", "Choose another save_dir."
    return None


def _other(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How the documents of two descriptions differ, in words."""
    old, new = (
        {one["title"]: one["sha256"] for one in part["documents"]} for part in (before, now)
    )
    gone = [repr(title) for title in old if title not in new]
    added = [repr(title) for title in new if title not in old]
    said = [f"{listed(gone)} {'was' if len(gone) == 1 else 'were'} among them"] if gone else []
    said += [f"{listed(added)} {'was' if len(added) == 1 else 'were'} not"] if added else []
    changed = [repr(title) for title in old if new.get(title, old[title]) != old[title]]
    said += [f"the text of {listed(changed)} was another"] if changed else []
    same = "more or less of them was read" if [*old] == [*new] else "they were in another order"
    return ", ".join(said) or same
