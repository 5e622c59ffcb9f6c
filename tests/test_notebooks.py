import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from execute import WIDGET_VIEW, clean, code_hash, fast, used

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
PARAMETERS = ["MODEL", "DOCUMENTS", "LAYER", "ACTIVATION", "SEED", "FAST"]


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def words(output: nbformat.NotebookNode) -> str:
    """An output without its pictures, whose base64 may spell anything."""
    data = {kind: text for kind, text in output.get("data", {}).items() if "image" not in kind}
    return re.sub(r"base64,[\w+/=\s]+", "", f"{output.get('text', '')}{data}")


# nbmake, as a reader would run it, in a kernel outside the project: nothing may be found by its
# path. `make test-colab` runs this test alone, with Colab's versions.
@EACH
def test_a_notebook_runs_from_top_to_bottom_and_its_widgets_build(
    path: Path, tmp_path: Path
) -> None:
    copy = tmp_path / path.name
    notebook = read(path)
    fast(notebook)
    nbformat.write(notebook, copy)
    nbmake = ["-m", "pytest", "--nbmake", "--nbmake-timeout=240", "--overwrite", copy.name]
    told = subprocess.run([sys.executable, *nbmake], cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr

    ran = read(copy)
    stderr = [output.text for output in outputs(ran) if output.get("name") == "stderr"]
    assert not stderr
    shown = [output.data for output in outputs(ran) if WIDGET_VIEW in output.get("data", {})]
    explorers = [data for data in shown if "text/html" in data]
    called = re.findall(
        r"\bexplore\.(?!verbatim)\w+\(", "\n".join(c.source for c in code_cells(ran))
    )
    assert len(explorers) >= len(called)
    models = ran.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    for data in explorers:
        assert data[WIDGET_VIEW]["model_id"] in models["state"]
        assert len(data["text/plain"]) > 40  # the alt text


def test_every_explorer_is_met_in_a_notebook() -> None:
    source = (ROOT / "docmem/explore/__init__.py").read_text(encoding="utf-8")
    explorers = set(re.findall(r"^ +explore\.(\w+)\(", source, re.MULTILINE))
    code = "\n".join(cell.source for path in NOTEBOOKS for cell in code_cells(read(path)))
    assert len(explorers) == 5
    assert explorers <= set(re.findall(r"\bexplore\.(\w+)\(", code))


@EACH
def test_a_notebook_defines_nothing(path: Path) -> None:
    for cell in code_cells(read(path)):
        assert not re.search(r"^\s*(def|class|async def) |lambda", cell.source, re.MULTILINE)


@EACH
def test_a_notebook_has_the_six_parameters_in_a_cell_of_their_own(path: Path) -> None:
    (cell,) = [c for c in code_cells(read(path)) if "parameters" in c.metadata.get("tags", [])]
    assigned = [statement.targets[0].id for statement in ast.parse(cell.source).body]
    assert assigned == PARAMETERS


def test_all_notebooks_begin_with_the_same_few_lines_for_colab() -> None:
    (first,) = {code_cells(read(path))[0].source for path in NOTEBOOKS}
    assert "%pip install" in first
    assert not re.search(r"--upgrade|-U\b", first)
    assert len(first.splitlines()) <= 6


@EACH
def test_a_notebook_is_committed_executed_and_clean(path: Path) -> None:
    notebook = read(path)
    assert "widgets" not in notebook.metadata
    assert path.stat().st_size <= 2_000_000
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert outputs(notebook)
    for output in outputs(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr"
        assert WIDGET_VIEW not in output.get("data", {})
        assert not re.search(r"(/home/|/Users/|/root/|/tmp/|site-packages)", words(output))


@EACH
def test_a_notebook_is_as_new_as_the_code_it_calls(path: Path) -> None:
    notebook = read(path)
    stored, now = notebook.metadata.get("docmem", {}).get("code"), code_hash(notebook)
    assert stored == now, (
        f"{path.name} was stored before the code it calls was changed: run `make notebooks`."
    )


@EACH
def test_every_picture_of_a_notebook_has_alt_text(path: Path) -> None:
    notebook = read(path)
    alts = []
    for output in outputs(notebook):
        for kind in output.get("data", {}):
            if kind.startswith("image/"):
                alts.append(output.metadata[kind]["alt"])
        for tag in re.findall(r"<img\b[^>]*>", output.get("data", {}).get("text/html", "")):
            found = re.search(r'\balt="([^"]*)"', tag)
            alts.append(found.group(1) if found else "")
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            pictures = re.findall(r"!\[([^\]]*)\]\((\S+?)\)", cell.source)
            alts += [alt for alt, target in pictures if "colab-badge" not in target]
    assert alts
    for alt in alts:
        assert len(alt) > 40, alt


@EACH
def test_the_badge_of_a_notebook_opens_that_notebook(path: Path) -> None:
    first = read(path).cells[0].source
    badge = re.search(r"colab\.research\.google\.com/github/docmem/docmem/blob/main/(\S+)\)", first)
    assert badge is not None
    assert ROOT / badge.group(1) == path


@EACH
def test_links_of_a_notebook_lead_somewhere(path: Path) -> None:
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\((?!https?:|#|attachment:)([^)#\s]+)", cell.source):
                assert (path.parent / target).exists(), target


def test_the_map_lists_every_notebook_with_its_badge() -> None:
    text = (ROOT / "notebooks/README.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert f"]({path.name})" in text
        assert f"blob/main/notebooks/{path.name})" in text
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        assert (ROOT / "notebooks" / target).exists(), target


def test_pictures_and_links_of_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert len(targets) > 10
    for target in targets:
        assert (ROOT / target).exists(), target
    for alt in re.findall(r"!\[([^\]]*)\]", text):
        assert alt


# What stores the outputs


def display(**data: Any) -> nbformat.NotebookNode:
    kinds = {"html": "text/html", "plain": "text/plain", "view": WIDGET_VIEW}
    return nbformat.v4.new_output("display_data", {kinds[k]: v for k, v in data.items()})


def test_of_a_widget_its_picture_is_stored_and_of_a_progress_bar_nothing() -> None:
    cell = nbformat.v4.new_code_cell("widgets")
    cell.outputs = [
        display(view={"model_id": "a"}, html="<img>", plain="what it shows"),
        display(view={"model_id": "b"}, plain="100%"),
        display(plain="a number"),
        nbformat.v4.new_output("stream", name="stderr", text="100%"),
        nbformat.v4.new_output("stream", name="stdout", text="done"),
    ]
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {}})
    clean(notebook)
    assert "widgets" not in notebook.metadata
    kept = [output.get("data", output.get("text")) for output in cell.outputs]
    assert kept == [
        {"text/html": "<img>", "text/plain": "what it shows"},
        {"text/plain": "a number"},
        "done",
    ]


def test_words_about_the_code_do_not_make_a_notebook_old_and_code_does(tmp_path: Path) -> None:
    package = tmp_path / "docmem"
    (package / "explore/static").mkdir(parents=True)
    module, page = package / "loss.py", package / "explore/static/plane.js"
    (package / "__init__.py").write_text("")
    (package / "explore/__init__.py").write_text("from docmem.core.loss import loss")
    page.write_text("draw(1)")
    source = "%pip install docmem\nfrom docmem import explore"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])

    def hashed(source: str) -> str:
        module.write_text(source)
        return code_hash(notebook, package)

    plain = hashed('COLOR = "#123456"\n\n\ndef loss(x):\n    return 2 * x\n')
    described = (
        '"""What it costs."""\n\nCOLOR = "#123456"  # blue\n\n\ndef loss(x):\n'
        '    """Twice\n    x. # two"""\n    # why\n\n    return 2 * x  # nats\n'
    )
    assert hashed(described) == plain
    assert hashed(described.replace("2 * x", "3 * x")) != plain
    assert hashed(described.replace("#123456", "#123457")) != plain

    (package / "cli.py").write_text("from docmem.core.loss import loss")  # which nobody imports
    notebook.cells.append(nbformat.v4.new_markdown_cell("prose"))
    assert hashed(described) == plain
    page.write_text("draw(2)")
    assert hashed(described) != plain
    page.write_text("draw(1)")
    notebook.cells[0].source += "\nprint(1)"
    assert hashed(described) != plain


def test_a_notebook_uses_what_its_imports_import_and_not_the_commands() -> None:
    modules = used("from docmem import explore")
    names = {path.relative_to(ROOT / "docmem").with_suffix("").as_posix() for path in modules}
    assert {"__init__", "training", "hook", "explore/_plane", "plots/_plane"} <= names
    assert not {"cli", "demo", "pretraining", "experiments/__init__"} & names
