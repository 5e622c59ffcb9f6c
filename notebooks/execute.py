"""Run the notebooks of this folder from top to bottom and store their outputs.

Drops what only a live kernel can show (widget views and their state) and what differs from
machine to machine (timings of progress bars), so that GitHub renders them and diffs stay small.
Each stores a hash of the code it ran, so that a test can tell when its outputs are out of date.
"""

import ast
import hashlib
import io
import re
import sys
import tempfile
import tokenize
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
PACKAGE = FOLDER.parent / "docmem"
# Beside the modules: the page's side of the widgets, the embedded LM and its texts.
READ_FROM = {".js", ".css", ".json", ".safetensors", ".txt"}

# Its modules are imported by name, and it reads results: whoever uses one may use them all.
BY_NAME = "experiments"

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def fast(notebook: nbformat.NotebookNode) -> None:
    """Set FAST in a new cell after the parameters, as papermill sets parameters."""
    place = next(
        index
        for index, cell in enumerate(notebook.cells)
        if "parameters" in cell.metadata.get("tags", [])
    )
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell("FAST = True"))


def what_runs(source: str) -> str:
    """Python source without comments, docstrings and blank lines; the same on every version."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            end = node.end_lineno or node.lineno
            lines[node.lineno - 1 : end] = [""] * (end - node.lineno + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def imported(source: str, package: Path) -> set[Path]:
    """The package's modules that a source names in its imports, wherever they stand."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    modules = set()
    for name in names:
        first, *parts = name.split(".")
        if first == package.name:  # and importing a.b.c imports a and a.b
            for length in range(len(parts) + 1):
                path = package.joinpath(*parts[:length])
                modules |= {path / "__init__.py", path.with_suffix(".py")}
    return {path for path in modules if path.is_file()}


def used(source: str, package: Path = PACKAGE) -> dict[Path, str]:
    """The modules that a source imports, those that these import, and so on, with their texts."""
    modules: dict[Path, str] = {}
    waiting = imported(source, package)
    while waiting:
        path = waiting.pop()
        modules[path] = path.read_text(encoding="utf-8")
        waiting |= imported(modules[path], package)
        if path.parent == package / BY_NAME:
            waiting |= set(path.parent.glob("*.py"))
        waiting -= set(modules)
    return modules


def code_hash(notebook: nbformat.NotebookNode, package: Path = PACKAGE) -> str:
    """A hash of all that decides a notebook's outputs: its code, and the package's as far as used.

    A change of text is taken for one of behaviour: a false alarm costs `make notebooks`, a false
    all-clear would cost a reader's trust.
    """
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    modules = used(re.sub(r"^(\s*)[%!].*", r"\1pass", code, flags=re.MULTILINE), package)
    results = package / "data" / BY_NAME
    drawn = any(path.parent == package / BY_NAME for path in modules)
    found = hashlib.sha256(code.encode())
    for path in sorted(package.rglob("*")):
        read = path.suffix in READ_FROM and (drawn or path.parent != results)
        if path in modules or read:
            found.update(path.relative_to(package).as_posix().encode())
            text = what_runs(modules[path]).encode() if path in modules else path.read_bytes()
            found.update(text)
    return found.hexdigest()


def clean(notebook: nbformat.NotebookNode) -> None:
    """Leave only outputs that stand without a kernel.

    A widget leaves the picture that it brings for such places; one that brings nothing but its
    name, as a progress bar does, goes.
    """
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        kept = []
        for output in cell.outputs:
            view = output.get("data", {}).pop(WIDGET_VIEW, None)
            left = set(output.get("data", {})) - {"text/plain"}
            if output.get("name") != "stderr" and (view is None or left):
                kept.append(output)
        cell.outputs = kept


def main() -> None:
    """Execute the notebooks named on the command line, or all.

    In a new folder, so that no run is found there that older code has trained; they share it, as
    a reader's do.
    """
    with tempfile.TemporaryDirectory() as folder:
        for path in [Path(name) for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb")):
            notebook = nbformat.read(path, as_version=4)
            ran = code_hash(notebook)
            NotebookClient(
                notebook,
                coalesce_streams=True,
                timeout=1200,
                resources={"metadata": {"path": folder}},
            ).execute()
            clean(notebook)
            notebook.metadata["docmem"] = {"code": ran}
            nbformat.write(notebook, path)
            print(path)


if __name__ == "__main__":
    main()
