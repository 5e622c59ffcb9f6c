"""Invented documents: as many as asked for, where the encyclopedia's twenty are too few.

    invented(30, seed=1)

To the embedded LM their first 64 words are as unlikely as an article's (5.2 nats per token), and of
200 such beginnings 0.4 % of all six words in a row stand in another one too.
"""

import random
from itertools import pairwise

from docmem.documents import Document, load_documents

WORDS = 170  # four segments of 64, half a segment apart


def invented(count: int, seed: int = 0) -> list[Document]:
    """Documents whose words follow each other as they do somewhere in the encyclopedia."""
    draw = random.Random(seed)
    follow: dict[str, list[str]] = {}
    for document in load_documents("encyclopedia"):
        for word, following in pairwise(document.text.split()):
            follow.setdefault(word, []).append(following)
    starts = sorted(follow)
    documents = []
    for number in range(count):
        words = [draw.choice(starts)]
        while len(words) < WORDS:
            words.append(draw.choice(follow.get(words[-1], starts)))
        documents.append(Document(f"Invented {number + 1}", " ".join(words)))
    return documents
