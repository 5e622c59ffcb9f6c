"""Settings from a file: TOML that a person wrote, or the run.json that a run wrote."""

import dataclasses
import json
import tomllib
from pathlib import Path

import dacite

from docmem.errors import DocmemError
from docmem.training.config import TrainConfig
from docmem.training.description import from_dict


def read_settings(path: Path, start: TrainConfig) -> tuple[TrainConfig, list[str]]:
    """`start` with the settings of a TOML or JSON file, and their names.

    A run.json says all settings, but names none: those without effect are no mistake in it.

    Raises:
        DocmemError: if the file cannot be read, or a setting is unknown or cannot work.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        if not isinstance(content, dict):
            raise ValueError("it holds no settings by name")
        if isinstance(content.get("config"), dict) and "versions" in content:
            return from_dict(content["config"]), []
        return dataclasses.replace(start, **content), [*content]
    except DocmemError as error:
        raise DocmemError(f"{path}: {error}") from error
    except (OSError, ValueError, TypeError, KeyError, dacite.DaciteError) as error:
        raise DocmemError(
            f"{path} cannot be read as settings: {error}. Give TOML with lines as `seed = 1`, "
            "or the run.json of a run."
        ) from error
