"""Run the notebooks of this folder from top to bottom and store their outputs.

Drops what only a live kernel can show (widget views and their state) and what differs from
machine to machine (progress bars), so that GitHub renders them and diffs stay small. Each is run
a second time with FAST = True, for the fingerprint by which a test can tell when it is stale.
"""

import copy
import sys
import tempfile
from pathlib import Path

import nbformat
from fingerprint import fingerprint
from nbclient import NotebookClient

import docmem

FOLDER = Path(__file__).parent
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def fast(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with FAST set in a new cell after the parameters, as papermill does it."""
    quick = copy.deepcopy(notebook)
    place = next(
        index
        for index, cell in enumerate(quick.cells)
        if "parameters" in cell.metadata.get("tags", [])
    )
    quick.cells.insert(place + 1, nbformat.v4.new_code_cell("FAST = True"))
    return quick


def execute(notebook: nbformat.NotebookNode, folder: Path | str) -> None:
    """Run all cells in a new kernel that works in `folder`; an error in a cell is raised."""
    NotebookClient(
        notebook, coalesce_streams=True, timeout=1200, resources={"metadata": {"path": str(folder)}}
    ).execute()


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

    In a new folder, so that no run is found there that older code has trained. The notebooks
    share it, as a reader's do; each FAST run has one of its own, as in the test.
    """
    with tempfile.TemporaryDirectory() as shared:
        for path in [Path(name) for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb")):
            notebook = nbformat.read(path, as_version=4)
            quick = fast(notebook)
            with tempfile.TemporaryDirectory() as alone:
                execute(quick, alone)
            clean(quick)
            execute(notebook, shared)
            clean(notebook)
            notebook.metadata["docmem"] = {
                "version": docmem.__version__,
                "fingerprint": fingerprint(quick),
            }
            nbformat.write(notebook, path)
            print(path)


if __name__ == "__main__":
    main()
