"""What results were measured with: the code, the machine, the day.

    code_digest("activation")           # changes when what it measures may have changed

The digest is of the syntax of the study, of what it uses of the other experiments, and of the
method itself; not of comments, docstrings, drawings, what is claimed of the numbers, or how a
memory is written to files. Nor is it of evaluation and editing: tests compare what they measure
with the plain way to measure it.
"""

import ast
import datetime
import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

import docmem
from docmem.lm.loading import LanguageModel
from docmem.training.description import processor

PACKAGE = Path(docmem.__file__).parent
METHOD = (
    "core/memory.py", "core/loss.py", "training/doc_reps.py", "training/muon.py",
    "training/negatives.py", "training/step.py", "training/trainer.py",
)  # fmt: skip
"""What a trained memory depends on besides its settings."""
TOLD = {
    "_draw", "_claims", "title", "size", "alt", "shown", "finding", "needs", "caption", "trains",
    "SMALL",
}  # fmt: skip
"""Names that only tell of numbers, as functions do that begin with `draw`; and the settings of each
set of results, which results carry."""
SAVING = {"save_pretrained", "push_to_hub", "generate_model_card"}
"""Methods of a memory that write files: what they write is checked where it is read."""
TELLING = {"drawing", "stats", "claims", "study"}
"""Modules of the experiments that measure nothing."""


@dataclass(frozen=True)
class Made:
    """When and on what results were measured."""

    date: str
    processor: str
    threads: int
    device: str
    """What the LM ran on, and in which number format."""
    lm: str
    """Where the LM's weights are from."""


def made_now(lm: LanguageModel) -> Made:
    """This machine, today."""
    return Made(
        datetime.datetime.now(datetime.UTC).date().isoformat(),
        processor(),
        torch.get_num_threads(),
        f"{torch.cuda.get_device_name() if lm.device.type == 'cuda' else lm.device}, {lm.dtype}",
        lm.origin,
    )


def code_digest(name: str) -> str:
    """A digest of the code that an experiment's numbers come from."""
    files = [*_measuring(PACKAGE / "experiments" / "studies" / f"{name}.py", set())]
    texts = [_syntax(path) for path in (*files, *(PACKAGE / one for one in METHOD))]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def _measuring(path: Path, seen: set[Path]) -> list[Path]:
    """A module of the experiments, and those it imports that measure something, each once."""
    if path in seen or not path.exists():
        return []
    seen.add(path)
    found = [path]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        module = node.module or ""
        if not module.startswith("docmem.experiments"):
            continue
        for full in (module, *(f"{module}.{alias.name}" for alias in node.names)):
            if full.rpartition(".")[2] not in TELLING:
                inside = full.split(".")[1:]
                found += _measuring(PACKAGE.joinpath(*inside).with_suffix(".py"), seen)
    return found


def _syntax(path: Path) -> str:
    """The syntax of a module without imports, types, docstrings, and what tells of numbers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [one for one in node.body if not _tells(one)] or [ast.Pass()]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
    return _dump(tree)


def _dump(node: object) -> str:
    """A syntax tree as text, alike in all versions of Python: empty fields are left out."""
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node)
                  if value is not None and value != []]  # fmt: skip
        return f"{type(node).__name__}({', '.join(f'{n}={_dump(v)}' for n, v in fields)})"
    return f"[{', '.join(map(_dump, node))}]" if isinstance(node, list) else repr(node)


def _tells(node: ast.stmt) -> bool:
    """Whether a statement is an import, a docstring, a drawing, or what is said of the numbers."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    names: list[str] = []
    if isinstance(node, ast.FunctionDef):
        names = [node.name]
    elif isinstance(node, ast.Assign):
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        names = [node.target.id]
    return any(name in TOLD | SAVING or name.startswith("draw") for name in names)
