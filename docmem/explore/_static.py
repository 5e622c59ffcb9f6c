"""The page's side of the explorers: JavaScript modules and style sheets in static/."""

import re
from pathlib import Path

STATIC = Path(__file__).parent / "static"


def read(name: str) -> str:
    """The text of a file in static/."""
    return (STATIC / name).read_text(encoding="utf-8")


def joined(*names: str) -> str:
    """Modules of static/ as one, without a bundler.

    They stand in the order given, each after those that it imports; their imports of each other
    and the word `export` are taken out, so names at their top level have to differ.
    """
    modules = "\n".join(read(name) for name in names)
    return re.sub(r'^import [^;]*? from "\./[^"]*";\n|^export (?!default)', "", modules, flags=re.M)
