"""Settings from a file: TOML that a person wrote, or the run.json that a run wrote."""

import dataclasses
import json
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import dacite

from docmem.documents import WIKITEXT_CONFIGS, load_documents
from docmem.errors import DocmemError, did_you_mean
from docmem.training.config import TrainConfig
from docmem.training.description import from_dict
from docmem.training.setup import configured_documents
from docmem.training.texts import digest_of

MISSPELT = "max_segements"
"""How the authors' program spells `max_segments`."""


def read_settings(
    path: Path, start: TrainConfig, preset: str | None = None, documents_too: bool = True
) -> tuple[TrainConfig, list[str]]:
    """`start` with the settings of a TOML or JSON file, and their names.

    A run.json says all settings, but names none: those without effect are no mistake in it.

    Args:
        path: the file, or the folder of a run.
        start: what a TOML file changes.
        preset: the name of `start`, if somebody chose it.
        documents_too: of a run.json, also which articles it chose; False: others are named.

    Raises:
        DocmemError: if the file cannot be read, or a setting is unknown or cannot work; or if it
            is a run.json, and a preset was chosen too.
    """
    path = path / "run.json" if path.is_dir() else path
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            content = json.loads(text, object_pairs_hook=_once)
        else:
            content = tomllib.loads(text)
        if not isinstance(content, dict):
            raise ValueError("it holds no settings by name")
        if isinstance(content.get("config"), dict) and "versions" in content:
            if preset is not None:
                raise DocmemError(
                    f"it says every setting, so the preset {preset} would have no effect. Leave "
                    "one of the two out."
                )
            config = from_dict(content["config"])
            if content.get("doc_reps") is not None:
                raise DocmemError(
                    "its DocReps were given in Python, and no setting says them. Train it from "
                    "Python, with doc_reps."
                )
            if documents_too:
                config = _with_its_documents(config, content["documents"])
            return config, []
        if "preset" in content:
            raise DocmemError("a preset is no setting; give --preset beside --config.")
        content = _once([("max_segments" if n == MISSPELT else n, v) for n, v in content.items()])
        known = [field.name for field in dataclasses.fields(start)]
        for name in content.keys() - known:
            raise DocmemError(f"there is no setting {name!r}.{did_you_mean(name, known)}")
        return dataclasses.replace(start, **content), [*content]
    except DocmemError as error:
        raise DocmemError(f"{path}: {error}") from error
    except (OSError, ValueError, TypeError, KeyError, RecursionError, dacite.DaciteError) as error:
        raise DocmemError(
            f"{path} cannot be read as settings: {error}. Give TOML with lines as `seed = 1`, "
            "or the run.json of a run."
        ) from error


def _with_its_documents(config: TrainConfig, told: list[dict[str, Any]]) -> TrainConfig:
    """A run's settings, with the titles that Python chose; `told`: run.json's of the documents.

    Raises:
        DocmemError: if it read documents that their source does not hold.
    """
    if not all("sha256" in one for one in told):
        return config  # version 0.1 kept no digests
    pages = config.source in WIKITEXT_CONFIGS
    try:
        held = configured_documents(config) if pages else load_documents(config.source)
        known = {one.title: digest_of(one.text) for one in held}
    except DocmemError as error:
        if pages:
            return config  # out of reach now; who reads them says so
        raise DocmemError(
            f"{error} The run names its folder as it was called from where it was trained; give "
            "--documents."
        ) from error
    if any(known.get(one["title"]) != one["sha256"] for one in told):
        raise DocmemError(
            f"it read other documents than {config.source} holds: they were given in Python, or "
            "have changed. Give --documents, or train it from Python."
        )
    titles = tuple(one["title"] for one in told)
    named = config.titles or tuple(known)[: config.max_labels]
    return config if titles == named else dataclasses.replace(config, titles=titles)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs of an object as a dict; ValueError if a name stands twice."""
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise ValueError(f"it says {name} {count} times")
    return dict(pairs)
