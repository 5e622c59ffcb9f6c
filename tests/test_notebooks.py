import ast
import base64
import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from execute import WIDGET_VIEW, clean, execute, fast
from fingerprint import differences, fingerprint, numbers

import docmem
from docmem.lm.fetch import fetched_folder
from docmem.plots.style import new_figure, png_bytes

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


# As a reader would run it, in a kernel outside the project: nothing may be found by its path.
# `make test-colab` runs this test alone, without conftest.py and with Colab's versions of the
# libraries, whose pictures may differ.
@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Jupyter's own, which nobody here can mend
@EACH
def test_notebook_runs_from_top_to_bottom_and_shows_what_is_stored(
    path: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    notebook = read(path)
    if "a_real_lm" in path.stem and not fetched_folder("smollm2-135m").exists():
        pytest.skip("SmolLM2-135M is not here: docmem fetch smollm2-135m")
    ran = fast(notebook)
    execute(ran, tmp_path)

    stderr = [output.text for output in outputs(ran) if output.get("name") == "stderr"]
    assert not stderr
    shown = [output.data for output in outputs(ran) if WIDGET_VIEW in output.get("data", {})]
    explorers = [data for data in shown if "text/html" in data]
    called = re.findall(r"\bexplore\.\w+\(", "\n".join(c.source for c in code_cells(ran)))
    assert len(explorers) >= len(called)
    models = ran.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    for data in explorers:
        assert data[WIDGET_VIEW]["model_id"] in models["state"]
        assert len(data["text/plain"]) > 40  # the alt text

    if not request.config.getoption("noconftest"):
        clean(ran)
        changed = differences(notebook.metadata["docmem"]["fingerprint"], fingerprint(ran))
        assert not changed, f"{path.name} is stale, run `make notebooks`: {' '.join(changed)}"


@EACH
def test_notebook_was_stored_by_this_version(path: Path) -> None:
    stored = read(path).metadata.get("docmem", {}).get("version")
    assert stored == docmem.__version__, f"{path.name} is a release old: run `make notebooks`."


def test_every_explorer_is_used_in_a_notebook() -> None:
    source = (ROOT / "docmem/explore/__init__.py").read_text(encoding="utf-8")
    explorers = set(re.findall(r"^ +explore\.(\w+)\(", source, re.MULTILINE))
    code = "\n".join(cell.source for path in NOTEBOOKS for cell in code_cells(read(path)))
    assert len(explorers) == 5
    assert explorers <= set(re.findall(r"\bexplore\.(\w+)\(", code))


@EACH
def test_notebook_defines_no_function_or_class(path: Path) -> None:
    for cell in code_cells(read(path)):
        assert not re.search(r"^\s*(def|class|async def) |lambda", cell.source, re.MULTILINE)


@EACH
def test_notebook_has_one_cell_with_the_six_parameters(path: Path) -> None:
    (cell,) = [c for c in code_cells(read(path)) if "parameters" in c.metadata.get("tags", [])]
    assigned = [statement.targets[0].id for statement in ast.parse(cell.source).body]
    assert assigned == PARAMETERS


def test_notebooks_begin_with_the_same_short_colab_cell() -> None:
    (first,) = {code_cells(read(path))[0].source for path in NOTEBOOKS}
    assert "%pip install" in first
    assert not re.search(r"--upgrade|-U\b", first)
    assert len(first.splitlines()) <= 6


@EACH
def test_notebook_is_stored_executed_and_clean(path: Path) -> None:
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
def test_colab_badge_opens_its_own_notebook(path: Path) -> None:
    first = read(path).cells[0].source
    badge = re.search(r"colab\.research\.google\.com/github/docmem/docmem/blob/main/(\S+)\)", first)
    assert badge is not None
    assert ROOT / badge.group(1) == path


@EACH
def test_links_of_a_notebook_exist(path: Path) -> None:
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\((?!https?:|#|attachment:)([^)#\s]+)", cell.source):
                assert (path.parent / target).exists(), target


def test_notebooks_readme_lists_every_notebook_with_its_badge() -> None:
    text = (ROOT / "notebooks/README.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert f"]({path.name})" in text
        assert f"blob/main/notebooks/{path.name})" in text
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        assert (ROOT / "notebooks" / target).exists(), target


def test_pictures_and_links_of_readme_and_docs_exist() -> None:
    found = 0
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (page.parent / target).exists(), (page.name, target)
            found += 1
        for alt in re.findall(r"!\[([^\]]*)\]", text):
            assert len(alt) > 40, (page.name, alt)
    assert found > 20


@pytest.mark.parametrize(
    ("section", "results"),
    [
        ("To a real LM", "docs/real_lm.md"),
        ("What holds", "docs/claims.md"),
        ("Speed", "benchmarks/RESULTS.md"),
    ],
)
def test_numbers_of_readme_are_those_of_the_stored_results(section: str, results: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    text = readme.split(f"\n## {section}\n")[1].split("\n## ")[0]
    found, measured = re.findall(r"\d+\.\d+", text), (ROOT / results).read_text(encoding="utf-8")
    assert len(found) > 2
    for number in found:
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d])", measured), number


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 160


# Storing outputs


def display(**data: Any) -> nbformat.NotebookNode:
    kinds = {"html": "text/html", "plain": "text/plain", "view": WIDGET_VIEW, "png": "image/png"}
    return nbformat.v4.new_output("display_data", {kinds[k]: v for k, v in data.items()})


def notebook_of(*shown: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A notebook of one code cell, called `cell`, with these outputs."""
    cell = nbformat.v4.new_code_cell("pass", id="cell", outputs=list(shown))
    return nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {}})


def printed(text: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("stream", name="stdout", text=text)


def test_clean_keeps_pictures_of_widgets_and_drops_progress_bars() -> None:
    notebook = notebook_of(
        display(view={"model_id": "a"}, html="<img>", plain="what it shows"),
        display(view={"model_id": "b"}, plain="100%"),
        display(plain="a number"),
        nbformat.v4.new_output("stream", name="stderr", text="100%"),
        printed("done"),
    )
    clean(notebook)
    assert "widgets" not in notebook.metadata
    kept = [output.get("data", output.get("text")) for output in notebook.cells[0].outputs]
    assert kept == [
        {"text/html": "<img>", "text/plain": "what it shows"},
        {"text/plain": "a number"},
        "done",
    ]


def test_fast_leaves_the_notebook_itself_unchanged() -> None:
    notebook = read(NOTEBOOKS[0])
    before = nbformat.writes(notebook)
    quick = [cell.source for cell in code_cells(fast(notebook))]
    assert quick.index("FAST = True") == 2
    assert nbformat.writes(notebook) == before


# Fingerprints


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("own 0.65, others' 3.87 nats per token", [0.65, 3.87]),
        ("right: 82%, of 10 documents", [0.82, 10]),
        ("(-0.74, +1.5) and −2", [-0.74, 1.5, -2]),
        ("1,912 barrels", [1912]),
        ("outputs/tiny/tanh-128-2855df31", []),
        ("0.46 s per epoch, 0.7 minutes for 90 epochs", [90]),
        ("61 GFLOP/s for 3 products", [3]),
        ("the LM writes “in 1907 and 1921” at 0.5", [0.5]),
    ],
)
def test_numbers_reads_numbers_but_no_times_paths_or_quotes(text: str, found: list[float]) -> None:
    assert numbers(text) == found


def test_changed_number_is_found_and_last_digits_are_not() -> None:
    stored = fingerprint(notebook_of(printed("own 2.50, right 40% of 40")))
    noise = fingerprint(notebook_of(printed("own 2.52, right 41% of 40")))
    assert differences(stored, noise) == []
    for changed in ("own 2.60, right 40% of 40", "own 2.50, right 43% of 40", "own 2.50, 40%"):
        (told,) = differences(stored, fingerprint(notebook_of(printed(changed))))
        assert "cell" in told


def test_numbers_of_a_widget_come_from_its_alt_text_and_of_a_table_from_its_markdown() -> None:
    widget = display(html='<p style="width: 7px">', plain="own 0.5 nats per token")
    table = nbformat.v4.new_output("display_data", {"text/markdown": "| 3 |", "text/plain": "0"})
    assert fingerprint(notebook_of(widget, table))["cell"]["numbers"] == [0.5, 3]


def curve(height: float, *, noise: float = 0.0, color: str = "#117733") -> nbformat.NotebookNode:
    """A picture like those of the notebooks: a curve that falls to `height`."""
    figure = new_figure(7, 5)
    epochs = np.arange(1, 91)
    losses = height + (5 - height) * np.exp(-epochs / 20)
    figure.subplots().plot(epochs, losses + noise * np.sin(epochs), color=color)
    return display(png=base64.b64encode(png_bytes(figure)).decode(), plain="A curve that falls.")


def test_changed_picture_is_found_and_noise_is_not() -> None:
    stored = fingerprint(notebook_of(curve(0.6)))
    assert differences(stored, fingerprint(notebook_of(curve(0.6, noise=0.005)))) == []
    for changed in (curve(1.6), curve(0.6, color="#cc3311")):
        (told,) = differences(stored, fingerprint(notebook_of(changed)))
        assert "picture 1" in told


def test_picture_inside_html_counts_as_a_picture() -> None:
    png = curve(0.6).data["image/png"]
    inside = display(html=f'<img src="data:image/png;base64,{png}" alt="A curve">', plain="A curve")
    pictures = fingerprint(notebook_of(inside))["cell"]["pictures"]
    assert pictures == fingerprint(notebook_of(curve(0.6)))["cell"]["pictures"]


def test_output_that_appears_or_goes_is_found() -> None:
    nothing, number = fingerprint(notebook_of()), fingerprint(notebook_of(printed("7 documents")))
    picture = fingerprint(notebook_of(curve(0.6)))
    for before, after in ((nothing, number), (number, nothing), (number, picture)):
        assert differences(before, after)
