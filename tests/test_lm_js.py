"""The LM of the page (docmem/explore/static), run by node, beside the LM of the package."""

import copy
import dataclasses
import json
import random
import shutil
import unicodedata
from typing import Any

import pytest
import torch
from node import run_node
from tokenizers import pre_tokenizers
from toys import toy_lm
from transformers.activations import ACT2FN

from docmem.core.config import MemoryConfig
from docmem.core.hook import attach
from docmem.core.memory import DocumentMemory, activation
from docmem.documents import load_documents
from docmem.errors import DocmemError
from docmem.explore._static import STATIC
from docmem.explore.lm_bundle import lm_bundle, worker_source
from docmem.lm.generation import ALL_ENTRIES, generate
from docmem.lm.loading import LanguageModel, load_lm

pytestmark = pytest.mark.slow
KEY_ACTIVATIONS = sorted({*ACT2FN, "swiglu"} - {"prelu", "xielu"})
ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
PROMPTS = ["The storm", " = Thornwick Light = \n\n", "naïve — “quoted” 北 🌊 and a few words more"]


def node(program: str, given: Any) -> Any:
    """What a program returns to whom `given` is given, with loadLM and the other names at hand."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("there is no node to run the page's JavaScript")
    imports = "".join(
        f'import {{ {names} }} from "{(STATIC / file).as_uri()}";\n'
        for file, names in {
            "activations.js": "activation",
            "tokenizer.js": "makeTokenizer",
            "lm.js": "loadLM",
            "lm_worker.js": "loadLMInWorker",
        }.items()
    )
    text = (
        f'import {{ readFileSync }} from "node:fs";\n{imports}'
        f"const run = async (given) => {{ {program} }};\n"
        'const result = await run(JSON.parse(readFileSync(0, "utf8")));\n'
        "const plain = (_, x) => ArrayBuffer.isView(x) ? Array.from(x) : x;\n"
        "process.stdout.write(JSON.stringify(result, plain));\n"
    )
    return run_node(found, text, given)


def random_memory(lm: LanguageModel, n_docs: int = 3, **shape: Any) -> DocumentMemory:
    """A memory with random biases too, whose documents differ in what the LM writes."""
    torch.manual_seed(1)
    memory = DocumentMemory(
        MemoryConfig(**{"d_model": lm.d_model, "n_docs": n_docs, "memory_dim": 24, **shape})
    )
    with torch.no_grad():
        for parameter in memory.parameters():
            if parameter.dim() == 1:
                parameter.normal_(std=0.3)
    return memory.requires_grad_(False)


def rounded(part: Any) -> Any:
    """A copy whose parameters, not its DocReps or frequencies, are as float16 has them."""
    part = copy.deepcopy(part)
    for parameter in part.parameters():
        parameter.data = parameter.data.half().float()
    return part


@torch.no_grad()
def logits_of(
    lm: LanguageModel, memory: DocumentMemory, layer: int, ids: list[int], doc_rep: Any
) -> torch.Tensor:
    with attach(lm.model, memory, layer) as hooked, hooked.document(doc_rep):
        return hooked.model(torch.tensor([ids])).logits[0]


def variant(**changes: Any) -> LanguageModel:
    """The toy GPT-NeoX with some settings changed."""
    lm = toy_lm()
    for name, value in changes.items():
        setattr(lm.model.config, name, value)
    state = lm.model.state_dict()
    model = type(lm.model)(lm.model.config)
    model.load_state_dict(state, strict=False)
    return dataclasses.replace(lm, model=model.requires_grad_(False).eval())


LOGITS = """
  const lm = await loadLM(given.bundle);
  return given.questions.map(([ids, docRep]) => lm.logits(ids, docRep));
"""


def worst_logit(lm: LanguageModel, memory: DocumentMemory, layer: int) -> tuple[float, float]:
    """Largest difference of the page's logits to torch's: on float16 weights, on the full ones."""
    points = [memory.doc_reps[0], torch.linspace(0.7, -1.9, memory.config.key_dim), None]
    questions = [
        (lm.tokenizer(prompt)["input_ids"], point) for prompt in PROMPTS for point in points
    ]
    given = {
        "bundle": lm_bundle(lm, memory, layer),
        "questions": [(ids, None if p is None else p.tolist()) for ids, p in questions],
    }
    found = [
        torch.tensor(rows).view(-1, lm.model.config.vocab_size) for rows in node(LOGITS, given)
    ]

    def worst(lm: LanguageModel, memory: DocumentMemory) -> float:
        true = [logits_of(lm, memory, layer, *question) for question in questions]
        return max((f - t).abs().max().item() for f, t in zip(found, true, strict=True))

    lm16 = dataclasses.replace(lm, model=rounded(lm.model))
    return worst(lm16, rounded(memory)), worst(lm, memory)


def test_logits_of_the_embedded_lm_are_torchs() -> None:
    """Its weights are float16 already; those of the memory are rounded for the page."""
    lm = load_lm("tiny")
    same, full = worst_logit(lm, random_memory(lm, memory_dim=128, n_docs=10), -1)
    assert same < 1e-3
    assert same < full < 0.05


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_parallel_residual": False, "hidden_act": "gelu_new"},
        {"attention_bias": False, "tie_word_embeddings": True, "layer_norm_eps": 1e-3},
        {"rope_parameters": {**ROPE, "rope_theta": 500.0, "partial_rotary_factor": 1.0}},
    ],
)
def test_logits_follow_the_configuration(changes: dict[str, Any]) -> None:
    lm = variant(**changes)
    plain = [logits_of(one, random_memory(lm), 1, [5, 6, 7], None) for one in (toy_lm(), lm)]
    assert torch.equal(*plain) == (not changes)
    assert worst_logit(lm, random_memory(lm), 1)[0] < 1e-3


@pytest.mark.parametrize("layer", [0, 1, -1])
def test_memory_stands_after_its_block(layer: int) -> None:
    lm = toy_lm()
    assert worst_logit(lm, random_memory(lm), layer)[0] < 1e-3


@pytest.mark.parametrize(
    "shape",
    [
        {"document_key_module_type": "nonlinear"},
        {"document_key_module_type": "nonlinear", "key_internal_layers": 1},
        {
            "document_key_module_type": "nonlinear",
            "key_internal_layers": 4,
            "key_internal_dim": 7,
            "key_internal_activation": "silu",
            "key_activation": "swiglu",
            "key_dim": 3,
            "lm_act": "mish",
        },
    ],
)
def test_key_generators_are_torchs(shape: dict[str, Any]) -> None:
    lm = toy_lm()
    assert worst_logit(lm, random_memory(lm, **shape), -1)[0] < 1e-3


def test_activations_are_those_of_transformers() -> None:
    x = torch.linspace(-12, 12, 241)
    names = [name for name in KEY_ACTIVATIONS if name != "swiglu"]
    program = "return given.names.map((name) => given.x.map(activation(name)));"
    found = node(program, {"names": names, "x": x.tolist()})
    for name, values in zip(names, found, strict=True):
        torch.testing.assert_close(torch.tensor(values), activation(name)(x), msg=name)


WRITE = """
  const texts = [];
  for (const bundle of given.bundles) {
    const lm = await loadLM(bundle);
    for (const docRep of given.docReps) {
      texts.push(await lm.write({ prompt: given.prompt, docRep, maxNewTokens: 40 }));
    }
  }
  return texts;
"""


def written_by_both(
    lm: LanguageModel, memories: list[DocumentMemory], prompt: str
) -> tuple[list[str], list[str]]:
    """40 tokens under every document, and under none: by the page, by the package."""
    doc_reps = [*memories[0].doc_reps.tolist(), None]
    bundles = [lm_bundle(lm, memory, -1) for memory in memories]
    found = node(WRITE, {"bundles": bundles, "docReps": doc_reps, "prompt": prompt})
    true = []
    for memory in memories:
        with attach(lm.model, rounded(memory), -1) as hooked:
            for doc in (*range(memory.config.n_docs), ALL_ENTRIES):
                true.append(generate(hooked, lm.tokenizer, prompt, doc, max_new_tokens=40))
    return found, true


def test_embedded_lm_writes_as_torch_does() -> None:
    lm = load_lm("tiny")
    found, true = written_by_both(lm, [random_memory(lm, n_docs=2, memory_dim=128)], "The storm")
    assert found == true
    assert len(set(found)) == 3


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", "swiglu", "gelu_new", "mish"])
def test_same_text_with_every_key_activation(name: str) -> None:
    lm = toy_lm()
    lm = dataclasses.replace(lm, model=rounded(lm.model))
    found, true = written_by_both(lm, [random_memory(lm, key_activation=name)], "The storm")
    assert found == true
    assert len(set(found)) > 2


def test_text_ends_with_the_end_of_text() -> None:
    lm = toy_lm()
    lm = dataclasses.replace(lm, model=rounded(lm.model))
    memory = random_memory(lm)
    with attach(lm.model, rounded(memory), -1) as hooked, hooked.document(0):
        ids = lm.tokenizer("The storm", return_tensors="pt")["input_ids"]
        third = int(hooked.model.generate(ids, max_new_tokens=40, do_sample=False)[0, -38])
    lm.model.generation_config.eos_token_id = [third]
    found, true = written_by_both(lm, [memory], "The storm")
    assert found == true
    assert len(lm.tokenizer(found[0])["input_ids"]) < 10


TORTURE = [
    "", " ", "  ", "\n", "\n\n", " \n ", "\t\r\n", "  two  spaces  ", " leading", "trailing ",
    "a\u0000b\u0001\u001c\u001f\u007f", "\u0085next\u00a0line\u2028and\u3000wide", "\ufeffa\ufeff",
    "👩\u200d👩\u200d👧\u200d👦 👍🏽 🇩🇪 ❤\ufe0f", "北京 東京都、世界。 한국어 ｶﾀｶﾅ",
    "שלום مرحبا بالعالم",
    "e\u0301 a\u0308\u0323 n\u0303\u0303 \u212b ﬁ ½ ²", "\u202bRTL\u202c \u200b\u200d\u180e",
    "हिन्दी ไทย", "𝒦 𝔘𝔫𝔦 \U0010fffd \ue000", "१२३ ٣٤٥ Ⅷ ①", "'" * 7, "x=1;y_2-3.14e+10%",
    "it's IT'S we'll they've I'd I'm you're 's 't", "undefined null",
    "<|endoftext|>", "a<|endoftext|><|endoftext|> b", "<|padding|>x<|endoftext", "<|endoftext|",
    "a" * 3000, "straw" * 400, "Donaudampfschifffahrtsgesellschaftskapitän" * 20,
]  # fmt: skip


def random_texts(count: int) -> list[str]:
    """Texts from all over Unicode 3.2, whose normal forms no later version changed."""
    chance = random.Random(0)
    ranges = [(0, 128), (0, 128), (128, 0x250), (0x300, 0x370), (0x370, 0x3100), (0x4E00, 0x9FFF),
              (0xAC00, 0xD7A3), (0xF900, 0xFFFE), (0x1F300, 0x1FA00)]  # fmt: skip

    def character() -> str:
        found = chr(chance.randrange(*chance.choice(ranges)))
        return found if unicodedata.ucd_3_2_0.category(found) != "Cn" else " "

    return ["".join(character() for _ in range(chance.randrange(40))) for _ in range(count)]


def test_tokenizer_is_the_packages() -> None:
    lm = load_lm("tiny")
    texts = [document.text for document in load_documents("encyclopedia")]
    texts += TORTURE + random_texts(2000)
    program = """
      const { encode, decode } = makeTokenizer(given.tokenizer);
      const ids = given.texts.map(encode);
      return [ids, ids.map((row) => decode(row)), ids.map((row) => decode(row, false)),
        ids.map((row) => decode(row.slice(1)))];
    """
    bundle = lm_bundle(lm, random_memory(lm), -1)
    found = node(program, {"tokenizer": bundle["tokenizer"], "texts": texts})
    ids = [lm.tokenizer(text)["input_ids"] for text in texts]
    decode = lm.tokenizer.decode
    for text, row, *got in zip(texts, ids, *found, strict=True):
        parts = [decode(row), decode(row, skip_special_tokens=True), decode(row[1:])]
        assert got == [row, *parts], text
    assert sum(one == text for one, text in zip(found[1], texts, strict=True)) > 1000


WORKER = """
  class WorkerGlobalScope {}
  globalThis.Blob = class { constructor([text]) { this.text = text; } };
  globalThis.URL = { createObjectURL: (blob) => blob.text, revokeObjectURL() {} };
  globalThis.Worker = class { // in this thread, but by messages only
    constructor(source) {
      const later = (to, data) =>
        setTimeout(() => to.onmessage({ data: structuredClone(data) }), 1);
      const scope = { postMessage: (data) => later(this, data) };
      this.postMessage = (data) => later(scope, data);
      new Function("self", "globalThis", source)(scope, { WorkerGlobalScope });
    }
  };
  const said = (error) => error.message ?? error;
  const lm = await loadLMInWorker(given.bundle, given.source);
  const alone = await loadLM(given.bundle);
  const request = { prompt: "The storm", docRep: [0.5, -1], maxNewTokens: 30 };
  const controller = new AbortController();
  const [signal, abort] = [controller.signal, () => controller.abort("enough")];
  const tokens = [];
  const [written, other, stopped] = await Promise.all([
    lm.write({ ...request, onPart: (text) => tokens.push(text) }),
    lm.write({ ...request, docRep: null }),
    lm.write({ ...request, onPart: abort, signal }).catch(said),
  ]);
  const measured = [];
  const measure = { docRep: null, order: [1, 0] };
  await lm.measure({ ...measure, onPart: (part) => measured.push(part) });
  await alone.measure({ ...measure, onPart: (part) => measured.push(part) });
  return {
    written: [written, await alone.write(request)],
    other: [other, await alone.write({ ...request, docRep: null })],
    tokens, measured, stopped: [stopped, await alone.write({ ...request, signal }).catch(said)],
    errors: [
      await lm.write({ ...request, prompt: "" }).catch(said),
      await lm.write({ ...request, maxNewTokens: 1000 }).catch(said),
      await lm.write({ ...request, docRep: [1] }).catch(said),
    ],
  };
"""


def test_worker_answers_as_the_lm_does() -> None:
    lm = toy_lm()
    texts = [[5, 6, 7], [8, 9, 10, 11]]
    given = {"bundle": lm_bundle(lm, random_memory(lm), -1, texts), "source": worker_source()}
    found = node(WORKER, given)
    for name in ("written", "other"):
        assert found[name][0] == found[name][1], name
    assert found["written"] != found["other"]
    assert len(found["tokens"]) == 30
    assert found["measured"][:2] == found["measured"][2:]
    assert found["tokens"][-1] == found["written"][0]
    assert found["stopped"] == ["enough", "enough"]
    assert [error.split()[0] for error in found["errors"]] == ["The", "1006", "A"]


MEASURE = """
  const lm = await loadLM(given.bundle);
  const measured = [];
  for (const docRep of given.points) {
    const onPart = ({ index, ce }) => measured.push([index, ce]);
    await lm.measure({ docRep, order: [1, 0], onPart });
  }
  const controller = new AbortController();
  const stopped = await lm
    .measure({
      docRep: null,
      order: [0, 1],
      onPart: () => controller.abort("enough"),
      signal: controller.signal,
    })
    .catch((error) => error);
  return { measured, stopped };
"""


@pytest.mark.parametrize("layer", [0, -1])
def test_texts_are_measured_as_torch_does(layer: int) -> None:
    """Twice under each of two DocReps: what was kept of the first reading changes nothing."""
    lm = toy_lm()
    memory = random_memory(lm)
    texts = [lm.tokenizer(prompt)["input_ids"] for prompt in PROMPTS[1:]]
    points = [[0.5, -1.0], [-0.3, 2.0], [0.5, -1.0], None]
    bundle = lm_bundle(lm, memory, layer, texts)
    found = node(MEASURE, {"bundle": bundle, "points": points})
    lm16, memory16 = dataclasses.replace(lm, model=rounded(lm.model)), rounded(memory)
    for at, (index, ce) in enumerate(found["measured"]):
        assert index == (1, 0)[at % 2]
        point = points[at // 2]
        doc_rep = None if point is None else torch.tensor(point)
        ids = torch.tensor(texts[index])
        logits = logits_of(lm16, memory16, layer, texts[index], doc_rep)
        wanted = torch.nn.functional.cross_entropy(logits[:-1], ids[1:])
        assert ce == pytest.approx(wanted.item(), abs=1e-4)
    assert len(found["measured"]) == 8
    assert found["stopped"] == "enough"


@pytest.mark.parametrize(
    ("family", "shape", "layer", "sentence"),
    [
        ("gpt2", {}, -1, "toy-gpt2 is of the kind gpt2"),
        ("gpt_neox", {"d_model": 8}, -1, "width 8"),
        ("gpt_neox", {"memory_dim": 190_000}, -1, "would take 25.9 MB of the page, at most 25"),
        ("gpt_neox", {}, 3, "Layer 3 is out of range"),
    ],
)
def test_bundle_is_refused(family: str, shape: dict[str, Any], layer: int, sentence: str) -> None:
    lm = toy_lm(family)
    with pytest.raises(DocmemError, match=sentence):
        lm_bundle(lm, random_memory(lm, **shape), layer)


def test_bundle_refuses_weights_beyond_float16() -> None:
    lm = toy_lm()
    memory = random_memory(lm)
    memory.values.weight[0, 0] = 1e6
    with pytest.raises(DocmemError, match=r"values.weight holds numbers"):
        lm_bundle(lm, memory, -1)


def test_bundle_refuses_what_the_page_cannot_compute() -> None:
    scaled = variant(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4})
    with pytest.raises(DocmemError, match="rotary embeddings of the type 'linear'"):
        lm_bundle(scaled, random_memory(scaled), -1)
    lm = toy_lm()
    spaced = copy.deepcopy(lm.tokenizer)
    spaced.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    with pytest.raises(DocmemError, match="other rules"):
        lm_bundle(dataclasses.replace(lm, tokenizer=spaced), random_memory(lm), -1)


def test_bundle_of_the_embedded_lm_fits_the_page() -> None:
    lm = load_lm("tiny")
    assert len(json.dumps(lm_bundle(lm, random_memory(lm, memory_dim=128), -1))) < 25_000_000
