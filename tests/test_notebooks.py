import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


@EACH
def test_a_notebook_runs_from_top_to_bottom(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    place = next(
        index
        for index, cell in enumerate(notebook.cells)
        if "parameters" in cell.metadata.get("tags", [])
    )
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell("FAST = True"))
    # A kernel outside the project: nothing may be found by its path.
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()


@EACH
def test_a_notebook_defines_nothing(path: Path) -> None:
    for cell in code_cells(path):
        assert not re.search(r"^\s*(def|class|async def) |lambda", cell.source, re.MULTILINE)


@EACH
def test_a_notebook_is_committed_executed_and_clean(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert "widgets" not in notebook.metadata
    assert path.stat().st_size < 2_000_000
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    assert outputs
    for output in outputs:
        assert output.output_type != "error"
        assert output.get("name") != "stderr"
        assert not re.search(r"(/home/|/Users/|/root/|/tmp/|site-packages)", str(output)[:5000])


@EACH
def test_every_picture_of_a_notebook_has_alt_text(path: Path) -> None:
    for cell in code_cells(path):
        for output in cell.outputs:
            for kind in ("image/png", "image/gif"):
                if kind in output.get("data", {}):
                    assert len(output.metadata[kind]["alt"]) > 40


@EACH
def test_the_badge_of_a_notebook_opens_that_notebook(path: Path) -> None:
    first = nbformat.read(path, as_version=4).cells[0].source
    badge = re.search(r"colab\.research\.google\.com/github/docmem/docmem/blob/main/(\S+)\)", first)
    assert badge is not None
    assert ROOT / badge.group(1) == path


def test_pictures_and_links_of_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert len(targets) > 10
    for target in targets:
        assert (ROOT / target).exists(), target
    for alt in re.findall(r"!\[([^\]]*)\]", text):
        assert alt
