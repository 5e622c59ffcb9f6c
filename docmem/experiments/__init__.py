"""The experiments: each a question, a measurement, a drawing, and the claims it bears on.

    docmem experiment activation            # or all

An experiment is a `Study` in `studies/NAME.py`, a class with the file's name.
"""

import importlib
from typing import TYPE_CHECKING, Any, Literal, get_args

from docmem.errors import check_type

if TYPE_CHECKING:
    from docmem.experiments.study import Study

Name = Literal[
    "activation", "plane", "length", "nonlinear", "recalling", "continuity", "guidance", "layers",
    "seeds", "procedure", "capacity", "rivals", "attribution", "routing", "together",
    "knowledge", "forgetting", "adding", "placing",
]  # fmt: skip
NAMES: tuple[str, ...] = get_args(Name)


def load_study(name: str) -> "Study[Any]":
    """The experiment of this name; DocmemError if there is none."""
    check_type("experiment", name, Name)
    module = importlib.import_module(f"docmem.experiments.studies.{name}")
    return getattr(module, name.capitalize())()
