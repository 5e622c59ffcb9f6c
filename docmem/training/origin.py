"""Where a trained memory is from, as it says in its file and its model card.

layer          index of the hooked block, from 0
lm, dtype      the LM's name and number format
fingerprint    `lm_fingerprint` of the LM: `attach` refuses another one
documents      SHA-256 of each document's text; None: not known
epochs, own_ce, negative_ce
               how the last epoch went, nats per token; absent in a memory changed since
"""

from collections.abc import Sequence
from typing import Any

from docmem.core.blocks import lm_fingerprint, resolve_layer
from docmem.documents import Document
from docmem.lm.loading import LanguageModel
from docmem.training.history import Epoch
from docmem.training.texts import digest_of


def origin_of(lm: LanguageModel, layer: int, documents: Sequence[Document]) -> dict[str, Any]:
    """The origin of a memory that is trained from here on."""
    return {
        "layer": resolve_layer(layer, len(lm.blocks)),
        "lm": lm.name,
        "dtype": lm.dtype,
        "fingerprint": lm_fingerprint(lm.model),
        "documents": [digest_of(document.text) for document in documents],
    }


def measured(origin: dict[str, Any], last: Epoch) -> dict[str, Any]:
    """The origin with what the last epoch measured."""
    ce = {"own_ce": last.positive_ce, "negative_ce": last.negative_ce}
    return {**origin, "epochs": last.epoch, **ce} if origin else {}


def changed(
    origin: dict[str, Any], documents: Sequence[str | None] | None = None
) -> dict[str, Any]:
    """The origin of a memory that was changed: nothing measured before is said of it."""
    if not origin:
        return {}
    kept = {name: origin[name] for name in ("layer", "lm", "dtype", "fingerprint")}
    return {**kept, "documents": list(documents or origin["documents"])}
