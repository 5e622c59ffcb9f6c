"""Documents, each with a title and a text, and their segments of words.

    documents = load_documents("encyclopedia", max_documents=10)
    segments(documents[0].text, segment_length=64, max_segments=4)

A document comes from the embedded encyclopedia of an invented world (no LM can have read it),
from a folder of .txt or Markdown files, or from WikiText at document level.
"""

import os
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from docmem.errors import (
    Count,
    DocmemError,
    Natural,
    check_fields,
    check_path,
    check_text,
    check_title,
    check_titles,
    check_unicode,
    checked,
)  # fmt: skip

ENCYCLOPEDIA = Path(__file__).parent / "assets" / "encyclopedia"
SUFFIXES = (".txt", ".md", ".markdown")
# What Markdown files may begin with: settings, as `key: value`, between two lines of dashes, which
# are no text.
FRONT_MATTER = re.compile(
    r"\A---[ \t]*\n(?=(?:[ \t]*(?:#[^\n]*)?\n)*(?:[\"'\w][\w .\"'/-]*:(?=\s)|---|\.\.\.))"
    r"(.*?\n)?(---|\.\.\.)[ \t]*(\n|\Z)",
    re.S,
)
NAMED, SAID = 5, 3
"""Files that an error names, and faults that it says, at most."""
WIKITEXT = "EleutherAI/wikitext_document_level"
WIKITEXT_CONFIGS = {"wikitext-103": "wikitext-103-raw-v1", "wikitext-2": "wikitext-2-raw-v1"}
PAPER_TITLES = (
    "Meteorological history of Hurricane Mitch",
    "Iranian Embassy siege",
    "The Quick and the Dead ( 1995 film )",
    "Kurt Angle",
    "Norwegian Public Safety Radio",
    "Slashdot",
    "Typhoon Chataan",
    "Adventure ( Atari 2600 )",
    "Museum of Bad Art",
    "History of York City F.C. ( 1980 – present )",
    "Joan of Arc ( poem )",
    "1907 Tour de France",
    "Bronwyn Oliver",
    "James Brudenell , 7th Earl of Cardigan",
    "Maryland Route 194",
    "Heavy Competition",
    "Hurricane Rick ( 2009 )",
    "Arsène Wenger",
    "Einar Jolin",
    "Tommy James ( American football )",
)
"""The pages of WikiText-103 that the authors' seed 1 drew; their runs have the first ten or all."""


@checked
@dataclass(frozen=True)
class Document:
    """A title and the whole text, the title line included; DocmemError if either is no string."""

    title: str
    text: str

    def __post_init__(self) -> None:
        check_fields(self)
        check_text("title", self.title)
        check_unicode("text", self.text)


def heading(text: str) -> re.Match[str] | None:
    """The heading that a text begins with: ` = Title = `, or Markdown's `# Title`."""
    first = text.lstrip().split("\n", 1)[0]
    return re.match(r"=([^=]+)=(?:\s|$)|#\s+(.+?)(?:\s+#+)?\s*$", first)


def title_of(text: str, otherwise: str) -> str:
    """The title in the heading that a text begins with; else `otherwise`."""
    found = heading(text)
    return " ".join((found[1] or found[2]).split() if found else ()) or otherwise


def front_title(settings: str) -> str:
    """The title in a Markdown file's front matter, also over several lines; empty without one."""
    found = re.search(r"^[\"']?title[\"']?[ \t]*:(.*(?:\n[ \t]+.*)*)", settings, re.M)
    words = " ".join(found[1].split()) if found else ""
    if quoted := re.fullmatch(r"([\"'])(.*?)\1(?: #.*)?", words):
        return quoted[2].strip()
    return re.sub(r"^[>|][+-]? | #.*$|^#.*$", "", words).strip()


def read_document(path: Path) -> Document:
    """One text file as a document.

    Its title is in the heading that it begins with, or in a Markdown file's front matter, which is
    left out of the text; else it is the file's name.

    Raises:
        DocmemError: if the file cannot be read, is not UTF-8, or holds no words.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DocmemError(f"{path} cannot be read: {error}.") from error
    except UnicodeDecodeError as error:
        raise DocmemError(
            f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8, or move it away."
        ) from error
    if "\0" in text:  # as every second byte of UTF-16 without its mark
        raise DocmemError(
            f"{path} has a NUL, so it is not UTF-8 text. Save it as UTF-8, or move it away."
        )
    title = " ".join(path.stem.split())
    if path.suffix.lower() != ".txt" and (front := FRONT_MATTER.match(text)):
        text = text[front.end() :]
        title = front_title(front[1] or "") or title
    if not text.split():
        raise DocmemError(f"{path} is empty. Write something in it, or move it away.")
    if not (title := title_of(text, otherwise=title)):
        raise DocmemError(f"{str(path)!r} has no name to be its title; rename it.")
    check_unicode(f"The file name {path.name!r}", title)
    return Document(title, text)


def documents_in(folder: Path) -> tuple[list[Path], list[str]]:
    """The files of a folder that are documents, in name order; the names of what is not read.

    Hidden files are neither. .TXT and .txt are the same.

    Raises:
        DocmemError: if the folder is missing, a file, or cannot be read.
    """
    check_path("documents", folder)
    try:
        there = [*folder.iterdir()] if folder.is_dir() else None
    except OSError as error:
        raise DocmemError(f"{folder} cannot be read: {error}.") from error
    if there is None and folder.exists():
        raise DocmemError(
            f"{folder} is a file; give a folder, of which all .txt and .md files are read."
        )
    if there is None:
        raise DocmemError(
            f"There is no folder {str(folder)!r}, and no documents are called so. Give "
            f"encyclopedia, {', '.join(WIKITEXT_CONFIGS)}, or a folder of .txt or .md files."
        )
    visible = sorted(p for p in there if not p.name.startswith("."))  # what systems leave
    named = [p for p in visible if p.suffix.lower() in SUFFIXES]
    # A link to nothing is an error, and so is what may not be looked at.
    paths = [p for p in named if os.path.isfile(p) or not os.path.exists(p)]  # noqa: PTH110, PTH113
    known = {*paths}
    return paths, [p.name for p in visible if p not in known]


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def read_files(folder: Path) -> dict[str, Document]:
    """Every .txt, .md and .markdown file of a folder, by its name, in name order; no hidden ones.

    Raises:
        DocmemError: as `documents_in`; or if it holds no such file, or some cannot be read, which
            are all named.
    """
    paths, _ = documents_in(folder)
    if not paths:
        raise DocmemError(
            f"{folder} holds no .txt or .md file, and folders in it are not read; put one document "
            "in each file."
        )
    documents, faults = {}, {}
    for path in paths:
        try:
            documents[path.name] = read_document(path)
        except DocmemError as error:
            faults[path.name] = error
    if faults:
        (first, *_), told = faults.values(), [str(fault) for fault in faults.values()]
        rest = [*faults][SAID:]
        also = [f"Nor can these be read: {listed(rest, NAMED)}."] if rest else []
        raise DocmemError(" ".join([*told[:SAID], *also])) from first
    return documents


def as_named(name: str | os.PathLike[str]) -> str:
    """A name as it is; a relative Path as ./path, so that no name that docmem knows hides it."""
    relative = isinstance(name, os.PathLike) and not Path(name).is_absolute()
    return f"./{os.fspath(name)}" if relative else os.fspath(name)


def is_folder(source: str) -> bool:
    """Whether a setting of documents names a folder, and not what docmem knows by name."""
    return source not in ("encyclopedia", *WIKITEXT_CONFIGS)


def read_wikitext(name: str, cache_dir: Path | None) -> list[Document]:
    """The training pages of WikiText, one document a page, through `datasets`.

    Raises:
        DocmemError: if the hub is out of reach and nothing is cached.
    """
    import datasets

    try:
        pages = datasets.load_dataset(
            WIKITEXT, WIKITEXT_CONFIGS[name], split="train", cache_dir=cache_dir
        )["page"]
    # The hub's client, `datasets` and the file system each fail in their own way.
    except Exception as error:
        raise DocmemError(
            f"{name} could not be loaded from {WIKITEXT}: {error}. Without a network, use the "
            "documents 'encyclopedia' or a folder of your own; or load it once on a machine "
            "with a network and give that cache as data_cache_dir, with HF_HUB_OFFLINE=1."
        ) from error
    return [Document(title_of(page, otherwise="untitled"), page) for page in pages]


def choose(
    documents: Sequence[Document], titles: Sequence[str], count: int | None, seed: int | None
) -> list[Document]:
    """The documents named by `titles` in that order; else `count` of them, at random by `seed`.

    Raises:
        DocmemError: if a title is unknown (the nearest are named), named twice or ambiguous.
    """
    if titles:
        by_title = {document.title: document for document in documents}
        for title in titles:
            check_title(title, by_title)
        check_titles([document.title for document in documents if document.title in titles])
        if len(set(titles)) < len(titles):
            raise DocmemError("titles names a document twice; name each once.")
        return [by_title[title] for title in titles]
    if count is None:
        return list(documents)
    if seed is None:
        return list(documents[:count])
    generator = torch.Generator().manual_seed(seed)
    picked = torch.randperm(len(documents), generator=generator, device="cpu")[:count]
    return [documents[index] for index in picked.tolist()]


@checked
def load_documents(
    source: str | os.PathLike[str] = "encyclopedia",
    max_documents: Count | None = None,
    *,
    titles: Sequence[str] = (),
    seed: Natural | None = None,
    cache_dir: Path | None = None,
) -> list[Document]:
    """Load documents.

    Args:
        source: `encyclopedia`, `wikitext-103`, `wikitext-2`, or a folder of .txt, .md and .markdown
            files; folders in it are not read.
        max_documents: how many at most; None: all. The encyclopedia has twenty.
        titles: these documents, in this order, whatever `max_documents` says.
        seed: choose `max_documents` at random by this seed; None: the first ones.
        cache_dir: where downloads are kept; None: Hugging Face's own cache.

    Raises:
        DocmemError: if an argument cannot be, or the source is unknown, unreadable, empty, or
            has two pages of one title.
    """
    check_text("source", str(source))
    if seed is not None and max_documents is None and not titles:
        raise DocmemError("seed has no effect without max_documents, how many are chosen by it.")
    files: dict[str, Document] = {}
    if isinstance(source, str) and source in WIKITEXT_CONFIGS:
        documents = read_wikitext(source, cache_dir)
    else:
        # A Path of the encyclopedia's name is a folder.
        files = read_files(ENCYCLOPEDIA if source == "encyclopedia" else Path(source))
        documents = [*files.values()]

    def check(wanted: Container[str]) -> None:
        """Where two have one title, the names of their files help."""
        named = {file: one.title for file, one in files.items() if one.title in wanted}
        check_titles([*named.values()], [*named])

    check({*titles})
    chosen = choose(documents, titles, max_documents, seed)
    check({one.title for one in chosen})
    check_titles([document.title for document in chosen])
    return chosen


@checked
def segments(text: str, segment_length: Count, max_segments: Count | None = None) -> list[str]:
    """Cut a text into overlapping segments of `segment_length` words, half a segment apart.

    A text shorter than one segment is one segment; words after the last full segment (fewer
    than half a segment) are left out. `max_segments` None keeps them all.

    Raises:
        DocmemError: if the text has no words, or a length or number is below one.
    """
    words = text.split()
    if not words:
        raise DocmemError("A document without words cannot be memorised; give it some text.")
    starts = _starts(len(words), segment_length, max_segments)
    return [" ".join(words[start : start + segment_length]) for start in starts]


def as_read(text: str, segment_length: int, max_segments: int | None = None) -> str:
    """A text up to the last word that its segments cover: it has the same segments."""
    words = list(re.finditer(r"\S+", text))
    starts = _starts(len(words), segment_length, max_segments)
    return text[: words[: starts[-1] + segment_length][-1].end()] if words else text


def _starts(words: int, segment_length: int, max_segments: int | None) -> range:
    """Where each segment of a text of so many words begins."""
    stride = max(1, segment_length // 2)
    return range(0, max(1, words - segment_length + 1), stride)[:max_segments]
