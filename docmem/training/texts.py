"""The texts of a run: of each document what was read, in a compressed file of its own.

`run.json` names the documents and has a digest of this file's content, so that a run of thousands
opens at once and the texts are read when they are asked for.
"""

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from docmem.core.files import reading, replacing
from docmem.documents import Document, as_read, documents_in, is_folder, listed
from docmem.errors import DocmemError, counted
from docmem.lm.forward import TokenBatch
from docmem.training.config import TrainConfig

TEXTS = "documents.json.gz"


def check_in_no_run(path: Path, *begun: Path) -> None:
    """Raise if a path is, or lies in, the folder of a run, which holds its own files alone.

    `begun`: folders of runs that have nothing in them yet.
    """
    runs = {folder.resolve() for folder in begun}
    for folder in (path.resolve(), *path.resolve().parents):
        there = (folder / "run.json").is_file() and (folder / TEXTS).is_file()
        if there or folder in runs:
            raise DocmemError(
                f"{path} lies in the run {folder}; choose a folder that is in no run."
            )


def digest_of(content: str | bytes) -> str:
    """The SHA-256 of a text, or of bytes."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def read_parts(documents: Sequence[Document], config: TrainConfig) -> list[Document]:
    """The documents, cut after the last word that a segment covers: they have the same segments."""
    return [
        Document(one.title, as_read(one.text, config.segment_length, config.max_segments))
        for one in documents
    ]


def describe_texts(documents: Sequence[Document], config: TrainConfig) -> dict[str, Any]:
    """What run.json says of the documents: words, those read, digests of the texts and of all."""
    parts = read_parts(documents, config)
    return {
        "documents": [
            {
                "title": document.title,
                "sha256": digest_of(document.text),
                "words": len(document.text.split()),
                "read": len(part.text.split()),
            }
            for document, part in zip(documents, parts, strict=True)
        ],
        "texts": digest_of(_content(parts)),
    }


def what_is_read(
    documents: Sequence[Document],
    told: Sequence[Mapping[str, Any]],
    config: TrainConfig,
    batches: Sequence[TokenBatch],
    named: bool,
    doc_reps: Tensor | None,
) -> str:
    """How many documents a training reads, and how much of them, and why, in sentences.

    And what else lies in their folder; texts so alike that no memory can tell them apart, and
    documents with one DocRep.

    Args:
        documents: what is memorised.
        told: the same as `describe_texts` describes them.
        config: how much of each is read.
        batches: their segments.
        named: whether the configuration names the documents, or they were given.
        doc_reps: their DocReps, (n_docs, key_dim), if they were given.
    """
    words, read = (sum(one[key] for one in told) for key in ("words", "read"))
    in_folder = named and is_folder(config.source)
    there, others = documents_in(Path(config.source)) if in_folder else ([], [])
    most = f" of {len(there):,}" if len(there) > len(told) else ""
    most += f" (max_labels: {config.max_labels})" if named and not config.titles else ""
    text = f"Reading {counted(len(told), 'document')}{most}, "
    if read == words:
        text += f"all of their {words:,} words."
    else:
        cut = max(told, key=lambda one: one["words"] - one["read"])
        text += (
            f"{read:,} of their {words:,} words; of {cut['title']!r} the first {cut['read']:,} "
            f"of {cut['words']:,}. max_segments ({config.max_segments}) and segment_length "
            f"({config.segment_length} words) say how many."
        )
    full = sum(int((one.attention_mask.sum(1) == config.max_length).sum()) for one in batches)
    if full:
        fill, ends = ("fills", "ends") if full == 1 else ("fill", "end")
        text += (
            f" {counted(full, 'segment')} {fill} max_length, {config.max_length} tokens, and "
            f"{ends} there."
        )
    if others:
        shown = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
        text += f" Not read, since no .txt or .md files: {shown} ({len(others)} in all)."
    alike: dict[str, list[str]] = {}
    for part in read_parts(documents, config):
        alike.setdefault(" ".join(part.text.split()), []).append(part.title)
    for titles in alike.values():
        if len(titles) > 1:
            text += (
                f" {listed([*map(repr, titles)], 2)} have the same words as far as they are read: "
                "nothing can tell them apart."
            )
    if doc_reps is not None and len(doc_reps.unique(dim=0)) < len(doc_reps):
        text += " Some documents have one DocRep, and are read alike under it."
    return text


def write_texts(path: Path, parts: Sequence[Document]) -> None:
    """Write what was read; the same texts are the same bytes."""
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(_content(parts), mtime=0))


def read_texts(path: Path, digest: str) -> list[Document]:
    """The documents that `write_texts` wrote.

    Raises:
        DocmemError: if the file is missing or damaged, or of another run.
    """
    with reading(path):
        content = gzip.decompress(path.read_bytes())
        if digest_of(content) != digest:
            raise ValueError("its content does not match the digest in run.json")
        return [Document(title, text) for title, text in json.loads(content)]


def _content(parts: Sequence[Document]) -> bytes:
    return json.dumps([(part.title, part.text) for part in parts], ensure_ascii=False).encode()
