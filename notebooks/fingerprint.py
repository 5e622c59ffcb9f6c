"""Is a stored notebook still true? Fingerprints of what it shows, and their comparison.

A fingerprint holds, for each code cell, the numbers of its text and a thumbnail of each of its
pictures. A comment, a docstring or a refactoring changes neither. It is taken of a run with
FAST = True, since that run can be repeated in seconds.
"""

import base64
import re
from io import BytesIO
from typing import Any

import nbformat
import numpy as np
from PIL import Image

SIDE = 16  # pixels of a thumbnail, across and down
# The tolerances: processors differ in the last digits, and those grow in training.
RELATIVE, ABSOLUTE = 0.02, 0.02  # of a number; the larger one counts
LEVELS = 4.0  # of 256, the mean over the twentieth of a thumbnail that differs most

# Not inside a word, a path or a date; its sign may stand before it, % behind.
NUMBER = re.compile(r"(?<![\w.,/-])([-+−]?\d+(?:,\d{3})*(?:\.\d+)?)(%?)(?![\w/]|-\w)")
TIME = re.compile(r"[\d.,]+ ?(?:ms|s|seconds?|min|minutes?|h|hours?|GFLOP/s)\b")
# What the LM writes may change as a whole where two tokens are nearly as likely.
QUOTED = re.compile("“[^”]*”")
PICTURE = re.compile(r"data:image/(?:png|gif);base64,([\w+/=\s]+)")


def numbers(text: str) -> list[float]:
    """The numbers of a text in their order, 8% as 0.08; no times or speeds, nothing in “quotes”."""
    text = TIME.sub("", QUOTED.sub("", text))
    return [
        round(float(number.replace(",", "").replace("−", "-")) / (100 if percent else 1), 4)
        for number, percent in NUMBER.findall(text)
    ]


def thumbnail(picture: bytes) -> str:
    """A PNG, or the last frame of a GIF, as 16 × 16 colours in base64."""
    with Image.open(BytesIO(picture)) as opened:
        opened.seek(getattr(opened, "n_frames", 1) - 1)
        small = opened.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    return base64.b64encode(small.tobytes()).decode()


def fingerprint(notebook: nbformat.NotebookNode) -> dict[str, dict[str, list[Any]]]:
    """Numbers and thumbnails of each cell that shows any, by the cell's id.

    The notebook's outputs are those that `execute.clean` leaves: progress bars would bring times.
    """
    found: dict[str, dict[str, list[Any]]] = {}
    for cell in notebook.cells:
        shown: dict[str, list[Any]] = {"numbers": [], "pictures": []}
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            text = output.get("text", data.get("text/markdown", data.get("text/plain", "")))
            shown["numbers"] += numbers(text)
            pictures = [data["image/png"]] if "image/png" in data else []
            pictures += PICTURE.findall(data.get("text/html", ""))
            shown["pictures"] += [thumbnail(base64.b64decode(picture)) for picture in pictures]
        if any(shown.values()):
            found[cell.id] = shown
    return found


def differences(stored: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What has changed between two fingerprints, a sentence for each cell; empty if nothing."""
    told = []
    for cell in sorted({*stored, *now}):
        if cell not in stored or cell not in now:
            told.append(f"Cell {cell} shows something only {'now' if cell in now else 'then'}.")
            continue
        old, new = stored[cell]["numbers"], now[cell]["numbers"]
        if len(old) != len(new):
            told.append(f"Cell {cell} had {len(old)} numbers and has {len(new)}.")
        elif wrong := [pair for pair in zip(old, new, strict=True) if not _close(*pair)]:
            told.append(
                f"Cell {cell}: {len(wrong)} of {len(old)} numbers differ, the first was "
                f"{wrong[0][0]:g} and is {wrong[0][1]:g}."
            )
        before, after = stored[cell]["pictures"], now[cell]["pictures"]
        if len(before) != len(after):
            told.append(f"Cell {cell} had {len(before)} pictures and has {len(after)}.")
        else:
            distances = map(distance, before, after)
            told += [
                f"Cell {cell}: picture {place} differs by {levels:.1f} of 256 levels."
                for place, levels in enumerate(distances, start=1)
                if levels > LEVELS
            ]
    return told


def _close(old: float, new: float) -> bool:
    return abs(old - new) <= max(ABSOLUTE, RELATIVE * abs(old))


def distance(before: str, after: str) -> float:
    """Mean difference of two thumbnails where they differ most, in levels of 256.

    Over a twentieth of the pixels, since a curve is a thin line on much white.
    """
    left, right = (
        np.frombuffer(base64.b64decode(picture), np.uint8).astype(float)
        for picture in (before, after)
    )
    levels = np.sort(np.abs(left - right))
    return float(levels[-len(levels) // 20 :].mean())
