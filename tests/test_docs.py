"""The programs in the docs run as they stand, and docstrings become pages."""

import re
from pathlib import Path

import pytest
import torch
from toys import DOCUMENTS, toy_lm

import docmem
from docmem.core.memory import DocumentMemory

ROOT = Path(__file__).parents[1]


def programs(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_a_model_of_your_own_is_trained_and_read(tmp_path: Path):
    folder = tmp_path / "my_folder"
    folder.mkdir()
    titles = [document.title for document in DOCUMENTS]
    texts = [" ".join(document.text.split()[:20]) for document in DOCUMENTS]
    for title, text in zip(titles, texts, strict=True):
        (folder / f"{title}.txt").write_text(text, encoding="utf-8")
    lm = toy_lm("llama")
    by_hand, loop = programs("your_model.md")
    names = {"model": lm.model, "tokenizer": lm.tokenizer}
    exec(by_hand.replace("num_epochs=12", "num_epochs=2, save_freq=1"), names)
    assert names["run"].finished
    recalled = names["docmem"].recall(names["run"], 0, lm=names["lm"], max_new_tokens=4)
    assert "Cyclone" in str(recalled)
    names |= {"texts": texts, "titles": titles}
    before = [parameter.clone() for parameter in lm.model.parameters()]
    torch.manual_seed(0)  # with some seeds two DocReps lie close together
    exec(loop, names)
    assert names["own"] < names["other"] - 0.5
    assert all(map(torch.equal, before, lm.model.parameters()))
    memory = DocumentMemory.from_pretrained(tmp_path / "my_memory")
    assert memory.titles == titles
    with names["attach"](lm.model, memory) as hooked:
        ids = lm.tokenizer(texts, return_tensors="pt", padding=True).input_ids
        with hooked.document(memory.doc_reps[[2, 0, 1]]):
            assert hooked.model(input_ids=ids).logits.shape[0] == 3


@pytest.mark.slow
def test_every_public_name_has_its_docstring_on_a_page(tmp_path: Path) -> None:
    from build_site import write_api  # which takes a second

    write_api(tmp_path)
    page = (tmp_path / "docmem.html").read_text("utf-8")
    for name in docmem.__all__:
        assert f'id="{name}"' in page, name
    assert "Hook <code>memory</code> after block <code>layer</code>" in page
    shown = re.sub(r'<div class="pdoc-code.*?</div>', "", page, flags=re.DOTALL)  # but its source
    assert "Annotated" not in shown
    assert (tmp_path / "docmem/evaluation/plane.html").exists()
