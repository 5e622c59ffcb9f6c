"""Run the notebooks of this folder from top to bottom and store their outputs.

Drops what only a live kernel can show (widget views and their state) and what differs from
machine to machine (timings of progress bars), so that GitHub renders them and diffs stay small.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def clean(notebook: nbformat.NotebookNode) -> None:
    """Leave only outputs that stand without a kernel."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [
                output
                for output in cell.outputs
                if WIDGET_VIEW not in output.get("data", {}) and output.get("name") != "stderr"
            ]


def main() -> None:
    """Execute the notebooks named on the command line, or all."""
    folder = Path(__file__).parent
    for path in [Path(name) for name in sys.argv[1:]] or sorted(folder.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(
            notebook, timeout=1200, resources={"metadata": {"path": str(folder)}}
        ).execute()
        clean(notebook)
        nbformat.write(notebook, path)
        print(path)


if __name__ == "__main__":
    main()
