"""Build site/, what GitHub Pages shows: `make site`.

The page of the demo's two runs (trained if they are not there yet), with and without the LM in it;
the notebooks as HTML with their stored pictures; the claims and their figures; what docstrings say
of all that the notebooks import, in api/. Nothing is fetched to build it; formulas are set by
MathJax, which a reader's browser fetches.
"""

import html
import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pdoc
from nbconvert import HTMLExporter

from docmem.cli.demo import demo_configs
from docmem.explore.page import write_page
from docmem.training.train import train

ROOT = Path(__file__).parents[1]
SITE = ROOT / "site"
in_words = inspect.formatannotation
PARTS = ("", ".core", ".plots", ".explore", ".evaluation", ".editing")


def describe_pictures(notebook: Any) -> None:
    """Put the alt texts of pictures, which nbconvert leaves out, beside them in HTML."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            alt = output.get("metadata", {}).get("image/png", {}).get("alt")
            if alt and (png := output["data"].pop("image/png", None)):
                source = f"data:image/png;base64,{png}"
                picture = f'<img style="max-width:100%" alt="{html.escape(alt)}" src="{source}">'
                output["data"]["text/html"] = picture


def without_limits(kind: Any, base_module: Any = None) -> str:
    """An annotation in words, without what `Annotated` adds: `Count` is int, to who reads of it."""
    return re.sub(r"(?:typing\.)?Annotated\[(\w+), .*?\]", r"\1", in_words(kind, base_module))


def write_api(out: Path) -> None:
    """The docstrings of what can be imported, as HTML."""
    inspect.formatannotation = pdoc.doc.formatannotation = without_limits
    pdoc.render.configure(docformat="google")
    pdoc.pdoc(*(f"docmem{part}" for part in PARTS), output_directory=out)


def build() -> None:
    """Write everything into an empty site/."""
    shutil.rmtree(SITE, ignore_errors=True)
    runs = {name: train(config) for name, config in demo_configs().items()}
    write_page([runs["tanh"], runs["relu"]], SITE / "index.html", with_lm=True)
    exporter = HTMLExporter(require_js_url="")
    shutil.copytree(ROOT / "figures" / "experiments", SITE / "figures" / "experiments")
    text = (ROOT / "docs" / "claims.md").read_text("utf-8").replace("../figures/", "figures/")
    claims = nbformat.v4.new_markdown_cell(text)
    pages = {"claims": nbformat.v4.new_notebook(cells=[claims])}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        pages[f"notebooks/{path.stem}"] = nbformat.read(path, as_version=4)
    for name, notebook in pages.items():
        describe_pictures(notebook)
        body, _ = exporter.from_notebook_node(notebook)
        out = SITE / f"{name}.html"
        out.parent.mkdir(exist_ok=True)
        out.write_text(body, encoding="utf-8")
        print(f"{out.relative_to(ROOT)}: {out.stat().st_size / 1e6:.1f} MB")
    write_api(SITE / "api")


if __name__ == "__main__":
    build()
