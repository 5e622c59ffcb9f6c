"""The experiments: each a question, a measurement, a drawing, and the claims it bears on.

    docmem experiment activation            # or all

An experiment is a module with `QUESTION`, `measure(pool)`, `draw(figure, results, note)`, `SIZE`,
`ALT` and `claims(results)`. `measure` answers with numbers that JSON can hold, a list over seeds
wherever there are seeds, and drawing takes nothing else: a figure is redrawn without a model.
"""

import importlib
from typing import Any, Literal, get_args

from docmem.errors import check_choice

Name = Literal[
    "activation",
    "plane",
    "length",
    "nonlinear",
    "recalling",
    "continuity",
    "guidance",
    "layers",
    "baselines",
    "attribution",
    "forgetting",
    "adding",
    "capacity",
    "placing",
]
NAMES: tuple[str, ...] = get_args(Name)


def experiment(name: str) -> Any:
    """The module of an experiment.

    Raises:
        DocmemError: if there is none of that name.
    """
    check_choice("experiment", name, Name)
    return importlib.import_module(f"docmem.experiments.studies.{name}")
