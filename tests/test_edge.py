"""The edge of the API: a wrong call ends in one sentence that names what was wrong with it.

A line of a table is a call, and after the bar words that its sentence has to hold.
"""

import copy
import dataclasses
import json
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import DOCUMENTS, WIDTH, quick_config, toy_lm
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2ForSequenceClassification

import docmem
from docmem import explore, plots
from docmem.cli.main import main
from docmem.core.hook import attach
from docmem.core.memory import DocumentMemory
from docmem.editing.add import add
from docmem.editing.doc_reps import append_doc_rep, drop_doc_rep, keep_doc_reps
from docmem.editing.forget import forget
from docmem.editing.place import doc_reps_from_lm
from docmem.errors import as_doc_reps
from docmem.evaluation.cached import first_segments, measure, measure_plane
from docmem.evaluation.continuity import continuity
from docmem.evaluation.plane import along_line, key_plane
from docmem.evaluation.recall import Completion, Recognition, completion, recognition
from docmem.evaluation.search import search_descent, search_grid
from docmem.evaluation.verbatim import verbatim
from docmem.experiments import runner
from docmem.explore.page import write_page
from docmem.lm.fetch import fetch
from docmem.lm.generation import generate_text, generate_texts
from docmem.lm.hidden_states import HiddenStateCache, cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.lm.pretraining import PretrainConfig, pretrain
from docmem.plots.animation import memory_selection_gif, selection_figure
from docmem.plots.figures import Result, draw_figures, table
from docmem.plots.style import new_figure
from docmem.training.check import check
from docmem.training.description import to_dict
from docmem.training.overview import overview
from docmem.training.plan import plan
from docmem.training.run import Run
from docmem.training.sweep import sweep

CALLABLE = (
    add, along_line, append_doc_rep, cache_hidden_states, check, completion, continuity, overview,
    new_figure, pretrain, sweep, doc_reps_from_lm, draw_figures,
    drop_doc_rep, fetch, first_segments, forget, generate_text, generate_texts, HiddenStateCache,
    keep_doc_reps, key_plane,
    measure, measure_plane, memory_selection_gif, Path, plan, PretrainConfig, recognition,
    runner.claims, runner.figure, runner.load_results, runner.redraw, runner.run_experiment,
    search_descent, search_grid, selection_figure, table, toy_lm, verbatim, write_page,
)  # fmt: skip
pytestmark = pytest.mark.usefixtures("unchecked")

DOCUMENT_CALLS = """
load_documents(5) | source, string, path
load_documents(None) | source
load_documents(b"encyclopedia") | source
load_documents(["encyclopedia"]) | source
load_documents(docs) | source
load_documents("") | source
load_documents("  ") | source
load_documents("nowhere") | 'nowhere'
load_documents("x" * 5000) | cannot be a path
load_documents(Path("nowhere")) | 'nowhere'
load_documents(file) | a_file is a file
load_documents(run) | source, Run
load_documents("encyclopedia", True) | max_documents, True
load_documents("encyclopedia", "3") | max_documents, '3'
load_documents("encyclopedia", 2.0) | max_documents, 2.0
load_documents("encyclopedia", 0) | max_documents is 0
load_documents("encyclopedia", -1) | max_documents is -1
load_documents("encyclopedia", nan) | max_documents
load_documents("encyclopedia", titles="Cyclone Odalys") | titles, list, string
load_documents("encyclopedia", titles=[1]) | titles
load_documents("encyclopedia", titles=None) | titles
load_documents("encyclopedia", titles=(title for title in ["Cyclone Odalys"])) | titles
load_documents("encyclopedia", titles=["Cyclone"]) | Did you mean 'Cyclone Odalys'
load_documents("encyclopedia", titles=["Cyclone Odalys"] * 2) | names a document twice
load_documents("encyclopedia", titles=[""]) | ''
load_documents("encyclopedia", 2, seed="1") | seed
load_documents("encyclopedia", 2, seed=1.5) | seed
load_documents("encyclopedia", 2, seed=True) | seed
load_documents("encyclopedia", 2, seed=-1) | seed is -1
load_documents("encyclopedia", 2, seed=2**70) | seed, 2 ** 63
load_documents("encyclopedia", cache_dir=3) | cache_dir, path
load_documents("encyclopedia", max_docs=3) | 'max_docs', Did you mean 'max_documents'
load_documents("encyclopedia", 2, 3) | load_documents, positional
Document("A") | Document, 'text'
Document("A", b"text") | text, b'text'
Document("A", None) | text is None
Document("", "text") | title
Document(" ", "text") | title
Document(3, "text") | title is 3
Document(None, "text") | title
Document("A", "text", "more") | Document
Document("\\ud800", "text") | title, place 0, UTF-8
Document("A", "text \\udcff") | text, place 5, UTF-8
Document(name="A", text="text") | takes no argument 'name'
Document(titel="A", text="text") | Did you mean 'title' or 'text'?
segments(5, 3) | text is 5
segments(b"a b", 3) | text
segments(docs[0], 3) | text is a Document
segments("", 3) | without words
segments("a b", 0) | segment_length is 0
segments("a b", -3) | segment_length
segments("a b", "3") | segment_length
segments("a b", 2.5) | segment_length
segments("a b", True) | segment_length
segments("a b", 3, 0) | max_segments
segments("a b", 3, -1) | max_segments
segments("a b", 3, True) | max_segments
segments("a b", length=3) | 'length', segment_length
"""

LM_CALLS = """
load_lm("pythia") | family, lm_size
load_lm("llama2-70b") | no LM 'llama2-70b', Did you mean, llama2-7b
load_lm("pythia-1bb") | pythia-1bb, Did you mean, pythia-1b
load_lm(None) | name is None
load_lm(5) | name
load_lm(b"tiny") | name
load_lm("") | name
load_lm(lm) | name is a LanguageModel
load_lm("no/such-lm") | 'no/such-lm', smollm2-135m
load_lm("not an id!") | not an id
load_lm(folder("{}")) | could not be loaded
load_lm(folder("[]")) | could not be loaded
load_lm(folder("{")) | could not be loaded
load_lm(folder('{"model_type": "nonsense"}')) | could not be loaded
load_lm(folder('{"model_type": 5}')) | could not be loaded
load_lm("tiny", dtype="float") | dtype, float32
load_lm("tiny", dtype=torch.int8) | dtype is 'int8'
load_lm("tiny", dtype=32) | dtype
load_lm("tiny", dtype=None) | dtype
load_lm("tiny", dtype=np.float32) | dtype is the class float32
load_lm(saved("masked")) | BertForMaskedLM, causal
load_lm(saved("layerless")) | lacks 12 of the weights
load_lm(saved("untokenized")) | no files of a tokenizer
load_lm("tiny", device=0) | device
load_lm("tiny", device="gpu") | device is 'gpu'
load_lm("tiny", device="") | device
load_lm("tiny", num_gpus=True) | num_gpus
load_lm("tiny", num_gpus="1") | num_gpus
load_lm("tiny", num_gpus=-1) | num_gpus
load_lm("tiny", num_gpus=1.0) | num_gpus
load_lm("tiny", lm_cache_dir=4) | lm_cache_dir
load_lm("tiny", cache_dir="x") | 'cache_dir', Did you mean 'lm_cache_dir'
load_lm("tiny", "float32") | positional
fetch("tiny") | 'tiny', smollm2-135m
fetch(5) | name
fetch("smollm2-135m", 5) | lm_cache_dir
load_lm(run.path) | a run of docmem, Run.open
lm.tokenize("a text") | texts
lm.tokenize([]) | no texts
lm.tokenize(["\\udcff x"]) | UTF-8
LanguageModel(lm.model) | missing, 'tokenizer'
LanguageModel("tiny", lm.tokenizer, "tiny") | model is 'tiny'
LanguageModel(lm.model, None, "tiny") | tokenizer is None
LanguageModel(lm.model, lm.tokenizer, None) | name is None
LanguageModel(lm.model, lm.tokenizer, "") | name
LanguageModel(lm.model.gpt_neox, lm.tokenizer, "body") | GPTNeoXModel, head
LanguageModel(classifier, lm.tokenizer, "classes") | GPT2ForSequenceClassification, head
LanguageModel(masked, lm.tokenizer, "masked") | BertForMaskedLM, causal
strange.tokenize(["The storm drowned Zanzibar"]) | the LM has 400, own tokenizer
HiddenStateCache(lm, [], [], -1) | no batches
lm.tokenize([5]) | texts
lm.tokenize([""]) | without tokens
lm.tokenize(["a text"], 0) | max_length
"""

CONFIG_CALLS = """
preset("tinny") | 'tinny', tiny
preset(None) | name is None
preset(num_epochs=3) | missing a required argument, 'name'
preset("tiny", self=3) | takes no argument 'self'
preset("tiny", lr=10**400) | lr is 1000, finite number above 0
preset("tiny", lr=1e300) | lr is 1e+300, at most
preset("tiny", optimizer="muon", muon_lr=1e38) | muon_lr, at most
preset("tiny", max_length=10**30) | max_length, below 2 ** 63
preset("tiny", key_dim=60000) | key_dim is 60000, 21201, orthogonal
preset("tiny", save_dir="") | save_dir is ''
preset("tiny", save_dir="~/runs") | save_dir, where ~ means nothing
preset("tiny", lr=one) | lr is a Tensor, number
preset(lm) | name
preset("tiny", guidence=0.1) | 'guidence', Did you mean 'guidance'
preset("tiny", lr="0.1") | lr
preset("tiny", lr=nan) | lr
preset("tiny", lr=True) | lr
preset("tiny", guidance=inf) | guidance
preset("tiny", guidance=None) | guidance
preset("tiny", num_epochs=2.0) | num_epochs
preset("tiny", num_epochs="20") | num_epochs
preset("tiny", num_epochs=True) | num_epochs
preset("tiny", max_labels=0) | max_labels
preset("tiny", seed="1") | seed
preset("tiny", seed=1.0) | seed
preset("tiny", seed=-1) | seed
preset("tiny", seed=True) | seed
preset("tiny", seed=None) | seed
preset("tiny", seed=2**64) | seed
preset("tiny", hook_memory_layer="last") | hook_memory_layer
preset("tiny", hook_memory_layer=1.0) | hook_memory_layer
preset("tiny", hook_memory_layer=True) | hook_memory_layer
preset("tiny", hook_memory_layer=None) | hook_memory_layer
preset("tiny", save_dir=5) | save_dir
preset("tiny", save_dir=b"x") | save_dir
preset("tiny", save_dir="x" * 300) | save_dir, cannot be a path
preset("tiny", states_dir="a" + chr(0)) | states_dir, cannot be a path
preset("tiny", lm_cache_dir=True) | lm_cache_dir
preset("tiny", titles="Cyclone Odalys") | titles
preset("tiny", titles=[3]) | titles
preset("tiny", titles={"Cyclone Odalys": 1}) | titles
preset("tiny", lm_name=None) | lm_name
preset("tiny", lm_name=lm) | lm_name
preset("tiny", lm_name="") | lm_name
preset("tiny", documents=docs) | documents
preset("tiny", documents=5) | documents
preset("tiny", device=0) | device
preset("tiny", device=None) | device
preset("tiny", dtype="fp16") | dtype, float16
preset("tiny", dtype=16) | dtype
preset("tiny", optimizer="sgd") | optimizer, adamw
preset("tiny", optimizer=torch.optim.SGD) | optimizer
preset("tiny", doc_rep_init="random") | doc_rep_init
preset("tiny", loss_form=None) | loss_form
preset("tiny", negative_key_type=["other"]) | negative_key_type
preset("tiny", negative_rows=True) | negative_rows
preset("tiny", negative_rows=0) | negative_rows
preset("tiny", snapshot_freq=0.5) | snapshot_freq
preset("tiny", key_activation=torch.tanh) | key_activation
preset("tiny", lm_act=3) | lm_act
preset("tiny", key_dim=True) | key_dim
preset("tiny", gpu_cache_gb=nan) | gpu_cache_gb
preset("tiny", cpu_cache_gb="8") | cpu_cache_gb
preset("tiny", num_gpus=0.5) | num_gpus
preset("tiny", key_internal_dim="8", document_key_module_type="nonlinear") | key_internal_dim
preset("tiny", key_internal_layers=True, document_key_module_type="nonlinear") | key_internal_layers
preset("tiny", key_internal_activation=3, document_key_module_type="nonlinear") | key_internal
preset("tiny", key_internal_dim=8) | key_internal_dim, linear
preset("tiny", negative_delta=0.2) | negative_delta, perturb
preset("tiny", lm_size="3b") | lm_size is 3b, tiny, no effect
preset_for("gpt2", lm_size="1b") | lm_size is 1b
preset("tiny", optimizer="adamw", muon_lr=0.1) | muon_lr, adamw
preset("tiny", negative_rows=20) | negative_rows, batch_size
preset_for(5) | lm
preset_for(num_epochs=3) | missing a required argument, 'lm'
preset_for(None) | lm
preset_for(lm) | lm is a LanguageModel
preset_for("gpt2", epochs=3) | 'epochs'
preset_for("gpt2", num_epochs="3") | num_epochs
TrainConfig(learning_rate=1) | 'learning_rate'
TrainConfig({}) | lm_name
TrainConfig("tiny", None, None) | device
replace(preset("tiny"), epochs=3) | 'epochs'
MemoryConfig() | 'd_model'
MemoryConfig(8) | 'n_docs'
MemoryConfig("8", 2) | d_model
MemoryConfig(8.0, 2) | d_model
MemoryConfig(True, 2) | d_model
MemoryConfig(8, 0) | n_docs
MemoryConfig(8, -2) | n_docs
MemoryConfig(8, None) | n_docs
MemoryConfig(8, 2, key_dim=nan) | key_dim
MemoryConfig(8, 2, memory_dim="32") | memory_dim
MemoryConfig(8, 2, key_activation=None) | key_activation
MemoryConfig(8, 2, lm_act=torch.tanh) | lm_act
MemoryConfig(8, 2, document_key_module_type="deep") | document_key_module_type, nonlinear
MemoryConfig(8, 2, document_key_module_type=None) | document_key_module_type
MemoryConfig(8, 2, key_internal_dim=True, document_key_module_type="nonlinear") | key_internal_dim
MemoryConfig(8, 2, memory_dims=3) | Did you mean 'memory_dim'
MemoryConfig(8, 2, sel=3) | takes no argument 'sel'. Did you mean 'd_model'?
PretrainConfig() | 'text'
PretrainConfig(5) | text
PretrainConfig("prose", layers=True) | layers
PretrainConfig("prose", vocab_size=1) | vocab_size is 1, at least 258
PretrainConfig("prose", lr=nan) | lr
PretrainConfig("prose", lr="1e-3") | lr
PretrainConfig("prose", held_out=nan) | held_out
PretrainConfig("prose", precision="fp16") | precision, bf16
PretrainConfig("prose", seed=-1) | seed
PretrainConfig("prose", seed=True) | seed
PretrainConfig("prose", epochs=3) | 'epochs'
"""

TRAIN_CALLS = """
train() | train, 'config'
train("tiny") | config is 'tiny', docmem.preset
train(None) | config
train({"lr": 1}) | config
train(preset) | config
train(torch.Tensor) | config is the class Tensor
train(MemoryConfig(8, 2)) | config
train(config, lm) | positional
train(config, lm="tiny") | lm is 'tiny', docmem.load_lm
train(config, lm=lm.model) | lm is a GPTNeoXForCausalLM
train(config, lm=(lm.model, lm.tokenizer)) | lm
train(config, lm=lm, documents="encyclopedia") | documents, list, Document
train(config, lm=lm, documents=docs[0]) | documents
train(config, lm=lm, documents=[]) | no documents
train(config, lm=lm, documents=["a text", "another"]) | documents
train(config, lm=lm, documents=[{"title": "A", "text": "a"}]) | documents
train(config, lm=lm, documents={"A": "a text"}) | documents
train(config, lm=lm, documents=[*docs, None]) | documents
train(config, lm=strange, documents=docs) | the LM has 400, own tokenizer
train(config, lm=lm, documents=[[one] for one in docs]) | documents
train(config, lm=lm, documents=(one for one in docs)) | documents
train(config, lm=lm, documents=[*docs, Document("(base LM)", "A text")]) | '(base LM)', title
train(config, lm=lm, documents=[*docs, Document("all entries", "A text")]) | 'all entries', title
train(config, lm=lm, documents=[docs[0], docs[0]]) | 2 documents, 'Cyclone Odalys'
train(config, lm=lm, documents=docs[:1]) | second document
train(config, lm=lm, documents=[*docs, Document("Empty", "")]) | 'Empty'
train(config, lm=lm, documents=[*docs, Document("White", " ")]) | 'White'
train(config, lm=lm, documents=docs, doc_reps="places") | doc_reps
train(config, lm=lm, documents=docs, doc_reps=5) | DocReps
train(config, lm=lm, documents=docs, doc_reps=b"ab") | doc_reps, text
train(config, lm=lm, documents=docs, doc_reps=[b"ab"] * 3) | doc_reps, text
train(config, lm=lm, documents=docs, doc_reps=[]) | DocReps
train(config, lm=lm, documents=docs, doc_reps=[[0, 1], [1, 0]]) | (2, 2), (3, 2)
train(config, lm=lm, documents=docs, doc_reps=np.zeros((2, 3))) | (2, 3), (3, 2)
train(config, lm=lm, documents=docs, doc_reps=[[0, 1], [1, 0], [1]]) | doc_reps
train(config, lm=lm, documents=docs, doc_reps=[[0, 1], [1, 0], [1, nan]]) | doc_reps, finite
train(config, lm=lm, documents=docs, doc_reps=torch.full((3, 2), inf)) | doc_reps, finite
train(config, lm=lm, documents=docs, doc_reps=torch.ones(3, 2) > 0) | doc_reps
train(config, lm=lm, documents=docs, doc_reps=torch.zeros(3, 2) * 1j) | doc_reps
train(config, lm=lm, documents=docs, doc_reps={"A": [0, 1]}) | doc_reps
train(config, lm=lm, documents=docs, doc_reps=[["0", "1"]] * 3) | doc_reps
train(config, lm=lm, documents=docs, on_epoch=5) | on_epoch
train(config, lm=lm, documents=docs, on_epoch="print") | on_epoch
train(config, lm=lm, documents=docs, on_epoch=sleepy) | on_epoch, async
train(config, lm=lm, documents=docs, on_epoch=lambda epoch: (yield epoch)) | on_epoch, `yield`
train(config, lm=lm, documents=docs, on_epoch=lambda: None) | on_epoch, the epoch alone
train(config, lm=lm, documents=docs, on_epoch=lambda run, epoch: None) | on_epoch, the epoch alone
train(config, lm=lm, documents=docs, on_epoch=Watcher) | the class Watcher, Watcher()
train(config, lm=lm, documents=docs, on_epoch=Watcher()) | on_start, the run alone
train(config, lm=lm, documents=docs, doc_reps=[torch.zeros(2)] * 2) | (2, 2), (3, 2)
train(config, lm=lm, documents=docs, doc_reps=[torch.zeros(2), torch.ones(1)]) | doc_reps, size
train(config, lm=lm, documents=docs, progress="yes") | progress, True or False
train(config, lm=lm, documents=docs, progress=None) | progress
train(config, lm=lm, documents=docs, epochs=3) | 'epochs'
train(config, lm=lm, docs=docs) | 'docs'
train(replace(config, hook_memory_layer=3), lm=lm, documents=docs) | 3 blocks
train(replace(config, key_activation="tanhh"), lm=lm, documents=docs) | 'tanhh'
train(replace(config, hook_memory_dim=10**13), lm=lm, documents=docs) | hook_memory_dim, not fit
train(replace(config, hook_memory_dim=2**62), lm=lm, documents=docs) | hook_memory_dim, not fit
train(replace(config, lm_name="no/such-lm"), documents=docs) | 'no/such-lm'
train(replace(config, lm_name="no/such-lm", documents="nowhere")) | 'no/such-lm'
train(replace(config, documents="nowhere"), lm=lm) | 'nowhere'
train(replace(config, titles=("Nobody",)), lm=lm) | 'Nobody'
train(replace(config, save_dir=file), lm=lm, documents=docs) | a_file
plan("tiny") | config
plan(None) | config
plan(config, "encyclopedia") | documents
plan(config, []) | documents
plan(config, docs[0]) | documents
plan(config, documents=[5]) | documents
plan(replace(config, hook_memory_layer=9), docs) | 4 blocks
plan(replace(config, key_activation="tanhh"), docs) | 'tanhh'
plan(replace(config, max_length=2000, segment_length=2000)) | context of tiny, 512
plan(config, docs[:1]) | second document
plan(replace(config, hook_memory_dim=10**30)) | hook_memory_dim, below 2 ** 63
plan(replace(config, hook_memory_dim=2**62)) | hook_memory_dim, No memory
Run.open(5) | path
Run.open(b"outputs") | path
Run.open(None) | path
Run.open(run) | path is a Run
Run.open("") | path is
Run.open("nowhere") | nowhere
Run.open("x" * 5000) | cannot be a path
Run.open(file) | is not a run
Run.open() | 'path'
Run.open("x", close=True) | takes no argument 'close'
run.load_lm(5) | name
run.load_lm(lm) | name
run.load_lm("") | name is ''
run.load_lm(Path("nowhere")) | './nowhere'
check(run) | path is a Run
check("nowhere", repair=1) | repair
run.check_lm("tiny") | lm
run.check_lm(None) | lm
run.check_lm(lm.model) | lm
run.check_lm(toy_lm(seed=1)) | other weights
run.cache_hidden_states("tiny") | lm
cache_hidden_states("tiny", docs, config) | lm is 'tiny', docmem.load_lm
cache_hidden_states(lm, "encyclopedia", config) | documents, list
cache_hidden_states(lm, docs[0], config) | documents is a Document
cache_hidden_states(lm, docs, None) | config
run.cache_hidden_states(None) | lm
"""

MEMORY_CALLS = """
DocumentMemory() | 'config'
DocumentMemory(8) | config
DocumentMemory({"d_model": 8, "n_docs": 2}) | config
DocumentMemory(config) | config is a TrainConfig
DocumentMemory(MemoryConfig(8, 2), "AB") | titles
DocumentMemory(MemoryConfig(8, 2), ["A"]) | 1 titles
DocumentMemory(MemoryConfig(8, 2), ["A", "A"]) | 'A'
DocumentMemory(MemoryConfig(8, 2), ["A", ""]) | title
DocumentMemory(MemoryConfig(8, 2), [1, 2]) | titles
DocumentMemory(MemoryConfig(8, 2), docs[:2]) | titles
DocumentMemory(MemoryConfig(8, 2), title=["A", "B"]) | 'title', titles
DocumentMemory(MemoryConfig(8, 2, key_activation="tanhh")) | 'tanhh'
DocumentMemory(MemoryConfig(8, 2, lm_act="prelu")) | 'prelu'
DocumentMemory.from_pretrained(5) | path
DocumentMemory.from_pretrained(None) | path
DocumentMemory.from_pretrained(run) | path
DocumentMemory.from_pretrained("nowhere") | nowhere
DocumentMemory.from_pretrained(run.path) | There is no file, save_pretrained wrote
DocumentMemory.from_pretrained(run.path / "memory", map_location="gpu") | gpu, device here
DocumentMemory.from_pretrained(run.path / "memory", map_location="cuda:99") | device here
DocumentMemory.from_pretrained(run.path / "memory", map_location=5) | map_location
DocumentMemory.from_pretrained(run.path / "memory", strict=False) | 'strict'
memory.save_pretrained(5) | save_directory
memory.save_pretrained("") | save_directory is ''
memory.save_pretrained("~/memory") | ~ means nothing
verbatim("a b", "c", 0) | least is 0
key_plane(cache, memory, points=3, extent=1e300) | extent
train(replace(config, dtype="bfloat16"), lm=lm, documents=docs) | dtype is bfloat16, float32
train(replace(config, num_gpus=40), lm=lm, documents=docs) | num_gpus 40
write(do_sample=True, epsilon_cutoff=5.0) | epsilon_cutoff, 0 to 1
write(diversity_penalty=1.0) | diversity_penalty, beam
write(output_scores=True) | output_scores
LanguageModel(lm.model, lm.tokenizer, "x" * 300) | name
key_plane(HiddenStateCache(lm, [cache.batches[0]], [1], -1), memory, points=3) | document 0
memory.save_pretrained(None) | save_directory
memory.save_pretrained(file) | a_file
memory.index_of(True) | document is True
memory.index_of(None) | document is None
memory.index_of(1.0) | document is 1.0
memory.index_of(3) | 0 to 2
memory.index_of(-4) | 0 to 2
memory.index_of("") | ''
memory.index_of("Cyclone") | Did you mean 'Cyclone Odalys'
memory.index_of(docs[0]) | document is a Document
memory("text") | h is 'text'
memory([[1.0]]) | h
memory(torch.zeros(2, 32)) | (batch, seq, 32), (2, 32)
memory(torch.zeros(1, 2, 8)) | (batch, seq, 32), (1, 2, 8)
memory(torch.zeros(1, 2, 32), 0) | doc_rep
memory(torch.zeros(1, 2, 32), "Cyclone Odalys") | doc_rep
memory(torch.zeros(1, 2, 32), torch.zeros(3)) | (3,), (2,)
memory(torch.zeros(1, 2, 32), torch.zeros(2, 2)) | (2, 2), (1, 2)
attached(None) | model
attached("tiny") | model
attached(lm) | model is a LanguageModel
attached(torch.nn.Linear(2, 2)) | Linear, LM
attached(lm.model, None) | memory
attached(lm.model, run) | memory is a Run
attached(lm.model, "outputs/run") | memory
attached(lm.model, wide) | width 16
attached(lm.model, memory, 3) | 3 blocks
attached(lm.model, memory, -4) | 3 blocks
attached(lm.model, memory, "last") | layer
attached(lm.model, memory, 1.0) | layer
attached(lm.model, memory, True) | layer
attached(lm.model, memory, None) | layer
attached(lm.model, memory, [0]) | layer
attached(lm.model, memory, layers=1) | 'layers', layer
under(True) | document is True
under(1.0) | document is 1.0
under(nan) | document
under(3) | 0 to 2
under("Cyclone") | Did you mean
under("") | ''
under(b"Cyclone Odalys") | document
under({"document": 0}) | document
under(docs[0]) | document is a Document
under([]) | DocRep
under([0.1]) | DocRep, (1,)
under([0.1, "x"]) | document
under([nan, 0.0]) | document, finite
under(["Cyclone Odalys"]) | document, titles
under(torch.zeros(0, 2)) | document, none, (0, 2)
under(torch.tensor([1e300, 0], dtype=torch.float64)) | document, finite
under([memory.doc_reps[0], memory.doc_reps[1][:1]]) | document, equal size
under(bytearray(b"ab")) | document
under(torch.zeros(3)) | (2,)
under(torch.zeros(1, 1, 2)) | (2,)
under(torch.tensor([nan, 1.0])) | document, finite
under(torch.tensor([True, False])) | document
under(np.zeros(5)) | (2,)
under(np.array(["a", "b"])) | document
under(torch.tensor(1)) | DocRep
guidance_loss(1.0, 2.0) | positive_ce, tensor
guidance_loss(one, None) | negative_ce
guidance_loss(torch.ones(3), one) | positive_ce, (3,)
guidance_loss(torch.tensor(1), one) | positive_ce
guidance_loss(one, one, alpha=True) | alpha
guidance_loss(one, one, alpha="0.1") | alpha
guidance_loss(one, one, alpha=nan) | alpha
guidance_loss(one, one, alpha=-1.0) | alpha
guidance_loss(one, one, tau=inf) | tau
guidance_loss(one, one, tau=None) | tau
guidance_loss(one, one, form="l2") | form, squared
guidance_loss(one, one, form=None) | form
guidance_loss(one, one, beta=1) | 'beta'
"""

GENERATE_CALLS = """
generate(hooked, lm.tokenizer, "The", generation_config=None) | generate sets generation_c
generate(lm, lm.tokenizer, "The") | hooked, docmem.attach
generate(lm.model, lm.tokenizer, "The") | hooked
generate(None, lm.tokenizer, "The") | hooked
generate(hooked, lm, "The") | tokenizer is a LanguageModel, lm.tokenizer
generate(hooked, None, "The") | tokenizer
generate(hooked, strange.tokenizer, "The storm drowned Zanzibar") | the LM has 400
generate_text(lm, lm.tokenizer, "The") | model is a LanguageModel, lm.model
generate_text(lm.model.gpt_neox, lm.tokenizer, "The") | GPTNeoXModel, head
generate_texts(lm.model, lm.tokenizer, "The", 0) | rows is 0
generate_texts(lm.model, lm.tokenizer, "The", -1) | rows is -1
generate(hooked, "The") | 'prompt'
generate(hooked, lm.tokenizer, "") | prompt is empty
generate(hooked, lm.tokenizer, "The", 0.5) | a tensor or, an array or, docmem.ALL
generate(hooked, lm.tokenizer, None) | prompt
generate(hooked, lm.tokenizer, 5) | prompt
generate(hooked, lm.tokenizer, b"The") | prompt
generate(hooked, lm.tokenizer, ["The", "A"]) | prompt
generate(hooked, lm.tokenizer, "The " * 100) | context
generate(hooked, lm.tokenizer, "The", True) | document
generate(hooked, lm.tokenizer, "The", 1.5) | document
generate(hooked, lm.tokenizer, "The", 3) | 0 to 2
generate(hooked, lm.tokenizer, "The", "Cyclone") | Did you mean
generate(hooked, lm.tokenizer, "The", docs[0]) | document
generate(hooked, lm.tokenizer, "\\udcff x") | prompt, UTF-8
generate(hooked, lm.tokenizer, "The", [nan, 0]) | finite
generate(hooked, lm.tokenizer, do_sample=True) | missing a required argument, 'prompt'
generate(hooked, lm.tokenizer, "The", BASE_LM) | base LM, generate_text, compare
write(max_new_tokens=0) | max_new_tokens
write(max_new_tokens=-1) | max_new_tokens
write(max_new_tokens=True) | max_new_tokens
write(max_new_tokens="5") | max_new_tokens
write(max_new_tokens=2.5) | max_new_tokens
write(max_new_tokens=None) | max_new_tokens
write(max_new_tokens=1000) | context
write(max_new_token=5) | 'max_new_token', Did you mean 'max_new_tokens'
write(max_tokens=5) | 'max_tokens'
write(temprature=5) | 'temprature', Did you mean 'temperature'
write(temperature=0.7) | temperature, do_sample
write(top_k=5, do_sample=False) | top_k, do_sample
write(top_p=0.9) | top_p, do_sample
write(temperature=-1.0, do_sample=True) | temperature
write(temperature="hot", do_sample=True) | temperature
write(temperature=nan, do_sample=True) | temperature
write(top_k=-1, do_sample=True) | top_k
write(top_p=-2.0, do_sample=True) | top_p
write(do_sample="yes") | do_sample
write(num_beams=0) | num_beams
write(num_beams="two") | num_beams
write(max_length=5) | generate sets max_length
write(num_return_sequences=2) | call `hooked.model.generate`
write(return_dict_in_generate=True) | generate sets return_dict
write(input_ids=torch.ones(1, 1)) | generate sets input_ids
write(repetition_penalty=-1.0) | repetition_penalty
write(stop_strings=5) | stop_strings
write(length_penalty=2.0) | length_penalty, num_beams
write(early_stopping=True) | early_stopping, num_beams
write(top_p=5.0, do_sample=True) | top_p is 5.0, 0 to 1
write(top_p=np.float32(5), do_sample=True) | top_p is 5.0, 0 to 1
write(top_p=True, do_sample=True) | top_p is True
write(temperature=True, do_sample=True) | temperature is True
write(top_k=2.0, do_sample=True) | top_k is 2.0, whole number
write(min_p=2, do_sample=True) | min_p is 2, 0 to 1
write(min_length=100) | min_length is 100, max_new_tokens 40
write(min_new_tokens=4, max_new_tokens=3) | min_new_tokens is 4, max_new_tokens 3
write(lm=5) | 'lm'
write(_from_model_config=True) | '_from_model_config'
"""

EVALUATION_CALLS = """
continuity(cache, memory, pairs=0) | pairs is 0
continuity(run, memory) | cache is a Run
continuity(cache, memory, extent=0) | extent is 0
continuity(cache, memory, seed=-1) | seed is -1
overview(5) | folder
sweep(["x"], "local:1") | configs
sweep([config], 3) | executor is 3
pretrain(5) | config is 5, PretrainConfig
recall("outputs/run", 0) | run is 'outputs/run', docmem.Run.open
recall(run.path, 0) | run
recall(memory, 0) | run is a DocumentMemory
recall(run) | 'document'
recall(run, True, lm=lm) | document
recall(run, None, lm=lm) | document
recall(run, 1.0, lm=lm) | document
recall(run, 3, lm=lm) | 0 to 2
recall(run, "Cyclone", lm=lm) | Did you mean
recall(run, docs[0], lm=lm) | document
recall(run, 0, 5, lm=lm) | prompt
recall(run, 0, "", lm=lm) | prompt is empty
recall(run, 0, "\\udcff x", lm=lm) | UTF-8
recall(run, 0, "The " * 100, lm=lm) | context
recall(run, 0, lm="tiny") | lm
recall(run, 0, lm=lm.model) | lm
recall(run, 0, lm=toy_lm(seed=1)) | other weights
recall(run, 0, lm=lm, segment=99) | segment
recall(run, 0, lm=lm, segment=-1) | segment
recall(run, 0, lm=lm, segment=True) | segment
recall(run, 0, lm=lm, segment="0") | segment
recall(run, 0, lm=lm, max_new_tokens=0) | max_new_tokens
recall(run, 0, lm=lm, max_new_tokens=True) | max_new_tokens
recall(run, 0, lm=lm, words=3) | 'words'
compare(None, 0) | run
compare(run, 0, lm=lm, under={}) | under
compare(run, 0, lm=lm, under=["Cyclone Odalys"]) | under
compare(run, 0, lm=lm, under="Cyclone Odalys") | under
compare(run, 0, lm=lm, under={1: 0}) | under
compare(run, 0, lm=lm, under={"x": "Nobody"}) | 'Nobody'
compare(run, 0, lm=lm, under={"x": 2.5}) | document
compare(run, 0, lm=lm, under={"x": [nan, 1]}) | finite
compare(run, 0, lm=lm, memory=wide) | width 16
compare(run, 0, lm=lm, memory=run) | memory
compare(run, 0, lm=lm)["all entry"] | 'all entry', Did you mean 'all entries'
opening("text") | document
opening(docs[0], 99) | segment
opening(docs[0], "0") | segment
opening(docs[0], 0, 0) | words
opening(docs[0], 0, True) | words
opening(docs[0], segment_length=0) | segment_length
attribute("tiny", memory, -1, "a text") | lm
attribute(lm.model, memory, -1, "a text") | lm
attribute(lm, run, -1, "a text") | memory is a Run
attribute(lm, memory, 9, "a text") | 3 blocks
attribute(lm, memory, "-1", "a text") | layer
attribute(lm, memory, True, "a text") | layer
attribute(lm, memory, -1, 5) | text
attribute(lm, memory, -1, ["a text"]) | text
attribute(lm, memory, -1, docs[0]) | text
attribute(lm, memory, -1, "") | text
attribute(lm, memory, -1, "\\udcff x") | UTF-8
attribute(lm, memory, -1, "a text " * 99) | context
attribute(lm, wide, -1, "a text") | width 16
attribute(lm, memory, "a text") | 'text'
key_plane(run, memory) | cache is a Run, cache_hidden_states
key_plane(cache, run) | memory
key_plane(cache, wide) | width 16
key_plane(cache, memory, points=1) | points
key_plane(cache, memory, points=True) | points
key_plane(cache, memory, points="25") | points
key_plane(cache, memory, points=2.5) | points
key_plane(cache, memory, extent=0.0) | extent
key_plane(cache, memory, extent=-1.0) | extent
key_plane(cache, memory, extent=nan) | extent
key_plane(cache, memory, tolerance=-1.0) | tolerance
key_plane(cache, memory, tolerance=nan) | tolerance
key_plane(cache, memory, progress=1) | progress
key_plane(cache, memory, 25) | positional
key_plane(cache, flat, points=3) | cannot span a plane
key_plane(cache, fewer, points=3) | 'Quillon Engine', no more documents
key_plane(cache, turned, points=3) | 'Cyclone Odalys', 'Quillon Engine', order
key_plane(cache, memory, texts=[0, 1, 2]) | texts, whole numbers
key_plane(cache, memory, texts=torch.tensor([0, 1, 5])) | texts, 5, 0 to 2
key_plane(cache, memory, texts=torch.tensor([0, 2, 1])) | 'Thornwick Light', order
plane.ce_of("Cyclone Odalys") | document is 'Cyclone Odalys'
plane.ce_of(True) | document is True
plane.ce_of(-1) | Document -1
plane.share_below(5.0) | perplexity is 5.0, tensor
plane.share_below(torch.ones(2)) | 2 limits, 3 texts
along_line(cache, fewer, [0, 1], [1, 0]) | 'Quillon Engine', order
along_line(cache, memory, 0, 1) | (2,)
along_line(cache, memory, [0, 1], [0, 1, 2]) | (2,)
along_line(cache, memory, [0, nan], [0, 1]) | finite
along_line(cache, memory, [0, 1], "end") | start or end
along_line(cache, memory, [0, 1], [1, 0], 0) | points
search_grid(texts, memory, points=1) | points
search_grid(texts, memory, refinements=-1) | refinements
search_grid(texts, memory, refinements=True) | refinements
search_grid(cache, memory) | one batch per text
search_grid(texts, fewer) | 'Quillon Engine', no more documents
search_grid(texts, None) | memory
search_grid(texts, wide) | width 16
search_descent(texts, memory, steps=-1) | steps
search_descent(texts, memory, lr=nan) | lr
search_descent(texts, memory, lr=0) | lr
search_descent(run, memory) | cache
recognition(run, memory) | cache
recognition(cache, wide) | width 16
recognition(cache, fewer) | 3 documents, 2
recognition(cache, turned) | 'Cyclone Odalys', 'Quillon Engine', order
recognition(cache, memory, [0, 1, 2]) | texts, whole numbers
recognition(cache, memory, torch.zeros(3)) | texts, whole numbers
recognition(cache, memory, torch.tensor([0])) | 1 documents, 3
recognition(cache, memory, torch.tensor([0, 1, 5])) | texts, 5, 0 to 2
recognition(cache, memory, torch.tensor([-1, 0, 1])) | texts, -1, 0 to 2
recognition(cache, memory, doc_reps=0) | doc_reps
completion(cache, fewer) | 3 documents, 2
completion(cache, memory, texts=torch.tensor([0])) | 1 documents, 3
completion(cache, memory, 0) | prompt_tokens
completion(cache, memory, 4, True) | new_tokens
completion(cache, memory, others=-1) | others
add(cache, memory, "New") | 3 documents, 4
add(run, memory, "New") | cache
add(cache, fewer) | title
add(cache, fewer, "Cyclone Odalys") | 2 documents, 'Cyclone Odalys'
add(cache, fewer, "") | title
add(cache, fewer, 5) | title
add(cache, fewer, "New", epochs=0) | epochs
add(cache, fewer, "New", epochs=1.5) | epochs
add(cache, fewer, "New", lr=nan) | lr
add(cache, fewer, "New", lr=0) | lr
add(cache, fewer, "New", lr=1e300) | lr, at most
add(cache, fewer, "New", guidance=-1) | alpha
add(cache, fewer, "New", target_negative_ce=nan) | tau
add(cache, fewer, "New", weight_decay=-1) | weight_decay
add(cache, fewer, "New", grad_clip_coeff=0) | grad_clip_coeff
add(cache, fewer, "New", rehearse=1) | rehearse
add(cache, wide, "New") | width 16
forget(run, memory, 0) | cache
forget(cache, run, 0) | memory
forget(cache, memory, True) | document
forget(cache, memory, 3) | 0 to 2
forget(cache, memory, "Nobody") | 'Nobody'
forget(cache, memory, [0, 3]) | 0 to 2
forget(cache, memory, [0, 1.5]) | document
forget(cache, memory, []) | names nothing to forget
forget(cache, memory, 0, epochs=0) | epochs
forget(cache, memory, 0, epochs=True) | epochs
forget(cache, memory, 0, margin=nan) | margin
forget(cache, memory, 0, margin="0.3") | margin
forget(cache, memory, 0, margin=inf) | margin is inf; it must be a finite number.
forget(cache, memory, 0, lr=-1) | lr
forget(cache, memory, 0, weight_decay=inf) | weight_decay
forget(cache, memory, 0, extent=0) | extent
forget(cache, memory, 0, seed=-1) | seed
forget(cache, memory, 0, seed="0") | seed
forget(cache, fewer, 0) | 3 documents, 2
forget(cache, turned, "Quillon Engine") | 'Cyclone Odalys', order
drop_doc_rep(memory, 3) | 0 to 2
drop_doc_rep(memory, True) | document
drop_doc_rep(run, 0) | memory is a Run
keep_doc_reps(memory, [5]) | kept, 0 to 2
keep_doc_reps(memory, ["title"]) | kept, whole number
keep_doc_reps(memory, 0) | kept is 0, list
keep_doc_reps(memory, [0, -3]) | kept, once
keep_doc_reps(memory, []) | at least one
append_doc_rep(memory, 5) | title is 5
append_doc_rep(run, "New") | memory is a Run
doc_reps_from_lm(run, 3, 2) | cache is a Run
doc_reps_from_lm(cache, 5, 2) | n_docs is 5, 3 documents
doc_reps_from_lm(cache, 2, 1) | n_docs is 2, 3 documents
doc_reps_from_lm(cache, 0, 1) | n_docs is 0
doc_reps_from_lm(cache, 3, 0) | key_dim is 0
doc_reps_from_lm(cache, 3, -1) | key_dim is -1
doc_reps_from_lm(cache, 3, 3) | span, directions
measure("runs/a") | run is 'runs/a', docmem.Run.open
measure(run, "tiny") | lm is 'tiny', docmem.load_lm
measure(run, lm.model) | lm is a GPTNeoXForCausalLM, docmem.load_lm
measure(run, toy_lm(seed=1)) | other weights
measure_plane("runs/a") | run
measure_plane(run, lm, 1) | points is 1
measure_plane(run, lm.model, 3) | lm is a GPTNeoXForCausalLM
measure_plane(run, lm, 3, 0) | tokens is 0
measure_plane(run, toy_lm(seed=1), 3) | other weights
first_segments("runs/a", lm) | run
first_segments(run, "tiny") | lm
first_segments(run, lm, "8") | tokens is '8'
first_segments(run, lm, texts=[0]) | texts, whole numbers
first_segments(run, lm, texts=torch.tensor([7])) | texts, 7, 0 to 2
snapshots.at(99) | There is no snapshot 99
snapshots.at("last") | index is 'last'
snapshots.at(0).strongest(10**6) | count is 1000000, 24 entries
snapshots.at(0).strongest(0) | count is 0
snapshots.distance_correlation(99) | There is no snapshot 99
draw_figures(run, "figures") | runs
draw_figures([], "figures") | at least one run
draw_figures([run.path], "figures") | runs
draw_figures([run], 5) | folder
draw_figures([run], "") | folder is ''
draw_figures([run], "figures", lm="tiny") | lm
draw_figures([run], "figures", points=1) | points
draw_figures([run], "figures", points=True) | points
draw_figures([run], "figures", map_tokens=1) | map_tokens
draw_figures([run], "figures", map_tokens="8") | map_tokens
draw_figures([run], file) | a_file is a file
draw_figures([run], file / "figures") | a_file is a file
"""

EXPERIMENT_CALLS = """
run_experiment("nope", run, "folder") | pool is a Run
run_experiment("activation", None, "folder") | pool
load_results("nope") | experiment is 'nope', activation
load_results("activation", 5) | folder is 5
claims("nope") | experiment is 'nope', activation
figure("nope") | experiment is 'nope', activation
figure("activation", "nowhere") | nowhere, docmem experiment activation
redraw("nowhere", "out") | nowhere
redraw(5, "out") | folder is 5
"""

PLOT_CALLS = """
plots.square(paper.add_subplot(), nan) | extent is nan
plots.plane_map(paper.add_subplot(), [[0, 1], [1, 0]], 0) | extent is 0
plots.plane_map(paper.add_subplot(), [[0, 1], [1]], 1) | values must be a grid
plots.plane_map(paper.add_subplot(), [["a", "b"], ["c", "d"]], 1) | values must be a grid
plots.losses(paper, {"a": run.load_history()}, nan, "") | tau is nan
new_figure(-1, 5) | width is -1
new_figure("6", 5) | width
plots.key_plane(paper, plane, run.titles[:2], "") | 2 titles, 3 documents
plots.key_plane(paper, plane, run.titles, None) | note
plots.key_plane(paper, run, run.titles, "") | plane is a Run
plots.key_plane("out.png", plane, run.titles, "") | figure is 'out.png'
plots.key_plane(paper, plane, "ABC", "") | titles is 'ABC', list
plots.key_plane(paper, plane, ["A", None, "C"], "") | titles is a list with None in it, string
plots.losses(paper, {"a": 5}, 4.5, "") | histories is a dict with 5 in it
plots.losses(paper, {1: run.load_history()}, 4.5, "") | histories is a dict with 1 in it
plots.perplexity_wells(paper, plane, run.titles[:2], [0], "") | 2 titles, 3 documents
plots.perplexity_wells(paper, plane, run.titles, [], "") | chosen is empty
plots.perplexity_wells(paper, plane, run.titles, [3], "") | no document 3, 0 to 2
plots.perplexity_wells(paper, plane, run.titles, 0, "") | chosen is 0, list
plots.forgetting(paper, {"a": plane}, 9, "") | Document 9
plots.forgetting(paper, {}, 0, "") | maps is empty
plots.along_line(paper, line, run.titles, (0, 9), "") | no document 9, 0 to 2
plots.along_line(paper, line, run.titles, (0, 1, 2), "") | ends
plots.along_line(paper, line, run.titles[:2], (0, 1), "") | 2 titles, 3 documents
plots.continuity(paper, run, "") | measured is a Run
plots.losses(paper, {}, 4.5, "") | histories is empty
plots.losses(paper, {"a": []}, 4.5, "") | history of 'a' is empty
plots.losses(paper, run.load_history(), 4.5, "") | histories is a list, dict
plots.losses(paper, {"a": run.load_history()}, "4.5", "") | tau
plots.losses(paper, {"a": run.load_history()}, 4.5, "", "others") | negative, other, random
plots.open_entries(paper, {}, 0.1, "") | snapshots is empty
plots.open_entries(paper, {"a": run}, 0.1, "") | snapshots
plots.published_curves(paper, [1], {}, "") | published
plots.territories(plane, 2) | n_docs is 2, 3 documents
plots.plane_map(paper, [[1, 2], [3, 4]], 1.0) | axes is a Figure
plots.plane_map(paper.subplots(), [[1]], 1.0) | values, (1, 1)
plots.plane_map(paper.subplots(), [1, 2], 1.0) | values, (2,)
plots.square(paper, 1.0) | axes is a Figure
table([]) | results is empty
table([1]) | results
table([result], "nope") | style is 'nope'
table([result], "githab") | Did you mean 'github'
memory_selection_gif(run.path, "x.gif") | run
memory_selection_gif(run, 5) | path is 5
memory_selection_gif(run, "x.mp4") | x.mp4, .gif
memory_selection_gif(run, ".") | '.' is a folder
memory_selection_gif(run, "") | path is ''
memory_selection_gif(run, file / "x.gif") | a_file is a file
memory_selection_gif(run, "x.gif", frames=0) | frames is 0
selection_figure(run, 99) | There is no snapshot 99
"""

EXPLORE_CALLS = """
explore.key_plane("outputs/run") | run is 'outputs/run'
explore.key_plane(run.path) | run
explore.key_plane(run, points=1, lm=lm) | points
explore.key_plane(run, points=True, lm=lm) | points
explore.key_plane(run, lm="tiny") | lm
explore.key_plane(run, 5, lm=toy_lm(seed=1)) | other weights
explore.key_plane(run, 5, lm=lm, cache=run) | cache
explore.key_plane(run, 5, lm=lm, plane=[1]) | plane
explore.key_plane(run, 5, cache=others) | 'Quillon Engine', 'Cyclone Odalys'
explore.key_plane(run, 5, lm=lm, prompt=5) | prompt
explore.key_plane(run, 5, lm=lm, prompt="") | prompt is empty
explore.scrubber(None) | runs
explore.scrubber(run.path) | runs
explore.scrubber([run]) | runs
explore.scrubber({}) | at least one run
explore.scrubber({"relu": "outputs/run"}) | runs
explore.scrubber({1: run}) | runs
scrubber.show(nan) | epoch is nan
scrubber.frame("x") | epoch is 'x'
explore.recall(None) | run
explore.recall(memory) | run
explore.recall(run, lm=lm.model) | lm
explore.recall(run, model=lm) | 'model'
explore.attribution("outputs/run") | run
explore.attribution(run, lm=5) | lm
explore.attribution(run, lm=lm, text=5) | text
explore.attribution(run, lm=lm, text="") | no text
write_page(run, "page.html") | runs is a Run, list
write_page([run.path], "page.html") | runs
write_page([], "page.html") | at least one run
write_page([run], ".") | '.' is a folder
write_page([run], "") | folder
write_page([run], Path("/")) | '/' is a folder
write_page([run], run.path) | is a folder
write_page([run], "a" + chr(0)) | out, cannot be a path
write_page([run], chr(0xD800) + ".html") | out has, no character of Unicode
write_page([run], "x" * 300) | out, cannot be a path
write_page([run], file / "page.html") | a_file is a file
write_page([run], 5) | out
write_page([run], "page.html", lm="tiny") | lm is 'tiny'
write_page([run], "page.html", prompts="The storm") | prompts, list
write_page([run], "page.html", prompts=[" "]) | prompt
write_page([run], "page.html", points=0) | points is 0
write_page([run], "page.html", text_points=0) | text_points is 0
write_page([run], "page.html", map_tokens=0) | map_tokens is 0
write_page([run], "page.html", map_tokens=1) | map_tokens is 1
explore.training("tiny") | config
explore.training(run) | config
explore.training(config, lm="tiny") | lm
explore.training(config, lm=lm, documents="encyclopedia") | documents
explore.training(config, lm=lm, documents=docs[0]) | documents
"""

TABLES = {
    "documents": DOCUMENT_CALLS, "lm": LM_CALLS, "config": CONFIG_CALLS, "train": TRAIN_CALLS,
    "memory": MEMORY_CALLS, "generate": GENERATE_CALLS, "evaluation": EVALUATION_CALLS,
    "experiments": EXPERIMENT_CALLS, "plots": PLOT_CALLS, "explore": EXPLORE_CALLS,
}  # fmt: skip
CALLS = [line for table in TABLES.values() for line in table.strip().splitlines()]
INTERNAL = (
    "Traceback",
    "NoneType",
    "object at 0x",
    "__init__",
    "_fits",
    "beartype",
    "<class",
    "'cls'",
)


class Watcher:
    """What watches a training, written wrongly."""

    def on_start(self) -> None: ...
    def on_epoch(self, epoch: Any) -> None: ...


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("edge")


@pytest.fixture(scope="module")
def names(trained: tuple[LanguageModel, Run], folders: Path) -> Iterator[dict[str, Any]]:
    """What the calls of the tables may name."""
    lm, run = trained
    (folders / "a_file").write_text("no run")
    masked = BertForMaskedLM(BertConfig(vocab_size=400, hidden_size=WIDTH, num_hidden_layers=2,
                                        num_attention_heads=2, intermediate_size=64))  # fmt: skip
    memory, open_until_end = run.load_memory(), ExitStack()
    another = copy.deepcopy(lm.model)  # lm itself is measured without the memory
    hooked = open_until_end.enter_context(attach(another, memory))

    def attached(model: Any, memory: Any = memory, *layer: Any, **options: Any) -> None:
        with attach(model, memory, *layer, **options):
            pass

    def under(document: Any) -> None:
        with hooked.document(document):
            pass

    def folder(config: str) -> Path:
        path = folders / f"{abs(hash(config))}"
        path.mkdir(exist_ok=True)
        (path / "config.json").write_text(config)
        return path

    def saved(what: str) -> Path:
        path, model = folders / what, masked if what == "masked" else lm.model
        model.save_pretrained(path)
        if what != "untokenized":
            lm.tokenizer.save_pretrained(path)
        if what == "layerless":
            weights = load_file(path / "model.safetensors")
            kept = {name: one for name, one in weights.items() if ".layers.2." not in name}
            save_file(kept, path / "model.safetensors", {"format": "pt"})
        return path

    async def sleepy(epoch: Any) -> bool:
        return False

    def write(**options: Any) -> str:
        return docmem.generate(hooked, lm.tokenizer, "The storm", **options)

    public = {name: getattr(docmem, name) for name in docmem.__all__}
    cache = run.cache_hidden_states(lm)
    yield public | {one.__name__: one for one in CALLABLE} | {
        "explore": explore, "Watcher": Watcher, "np": np, "torch": torch,
        "lm": lm, "run": run, "memory": memory, "docs": DOCUMENTS, "hooked": hooked,
        "cache": cache, "plane": key_plane(cache, memory, points=3),
        "line": along_line(cache, memory, *memory.doc_reps[:2], 3), "plots": plots,
        "others": cache_hidden_states(lm, DOCUMENTS[::-1], run.config), "paper": new_figure(6, 5),
        "scrubber": explore.scrubber(run),
        "turned": keep_doc_reps(memory, [2, 0, 1]), "snapshots": run.load_snapshots(),
        "config": quick_config(folders / "run"),
        "wide": DocumentMemory(docmem.MemoryConfig(16, 3), run.titles),
        "flat": DocumentMemory(docmem.MemoryConfig(WIDTH, 3, key_dim=1)),
        "fewer": drop_doc_rep(memory, 2), "one": torch.tensor(1.0), "nan": math.nan,
        "inf": math.inf, "replace": dataclasses.replace, "attached": attached, "under": under,
        "folder": folder, "write": write, "file": folders / "a_file",
        "texts": first_segments(run, lm), "saved": saved, "masked": masked, "sleepy": sleepy,
        "classifier": GPT2ForSequenceClassification(GPT2Config(n_embd=WIDTH, n_layer=2, n_head=2)),
        "strange": LanguageModel(lm.model, docmem.load_lm("tiny").tokenizer, "strange"),
        "result": Result(
            "a", Recognition.of_all(torch.eye(3)), Completion(1, 1, 1), torch.ones(3), 1.0, 3
        ),
    }  # fmt: skip
    open_until_end.close()


def test_there_are_three_hundred_calls_and_none_twice() -> None:
    assert len(CALLS) == len(set(CALLS)) >= 300


@pytest.mark.parametrize("line", CALLS)
def test_wrong_call_ends_in_a_sentence(line: str, names: dict[str, Any], folders: Path) -> None:
    call, _, words = line.rpartition(" | ")
    with pytest.raises(docmem.DocmemError) as caught:
        eval(call, names)
    message = str(caught.value)
    assert all(word in message for word in words.split(", ")), message
    assert not any(word in message for word in INTERNAL), message
    assert not (folders / "run").exists()


def test_numbers_of_numpy_are_as_good_as_pythons(names: dict[str, Any], tmp_path: Path) -> None:
    drawn = docmem.load_documents("encyclopedia", np.int64(2), seed=np.int64(3))
    assert drawn == docmem.load_documents("encyclopedia", 2, seed=3)
    forget(names["cache"], names["memory"], np.int64(0), epochs=np.int64(1), seed=np.int64(1))
    config = docmem.MemoryConfig(np.int64(8), np.int32(2), memory_dim=np.uint8(4))
    DocumentMemory(config).save_pretrained(tmp_path)
    assert DocumentMemory.from_pretrained(tmp_path).config == config


def test_paths_may_be_strings(trained: tuple[LanguageModel, Run], tmp_path: Path) -> None:
    run, film, empty = trained[1], tmp_path / "film.gif", str(tmp_path)
    assert {found.state for found in check(str(run.path))} <= {"whole", "foreign"}
    assert memory_selection_gif(run, str(film), frames=1) == film and film.exists()
    assert runner.load_results("activation", empty) is None
    assert runner.redraw(empty, empty) == []


def test_numbers_of_any_kind_are_settings_that_json_can_say() -> None:
    config = docmem.preset("tiny", guidance=np.longdouble(0.5), lr=Fraction(1, 10))
    assert '"guidance": 0.5, ' in json.dumps(to_dict(config))
    assert (type(config.guidance), type(config.lr), config.lr) == (float, float, 0.1)


def test_numbers_of_numpy_are_options_of_generate(names: dict[str, Any]) -> None:
    def sampled(**options: Any) -> str:
        torch.manual_seed(0)
        return names["write"](do_sample=True, max_new_tokens=4, **options)

    found = sampled(temperature=np.float32(0.5), top_k=np.int64(5), top_p=np.float32(0.5),
                    repetition_penalty=np.float32(1.5))  # fmt: skip
    assert found == sampled(temperature=0.5, top_k=5, top_p=0.5, repetition_penalty=1.5)


@pytest.mark.parametrize("given", [np.eye(3, 2)[::-1][::-1], np.eye(3, 2).astype(">f4"),
                                   np.eye(2, 3, dtype=">i2").T, [*np.eye(3, 2).astype(">f8")]],
                         ids=["turned", "big-endian", "transposed", "list"])  # fmt: skip
def test_arrays_in_any_order_are_doc_reps(given: Any) -> None:
    assert as_doc_reps("doc_reps", given).tolist() == [[1, 0], [0, 1], [0, 0]]
    assert as_doc_reps("doc_reps", given[::-1]).tolist() == [[0, 0], [0, 1], [1, 0]]


def test_a_list_of_two_is_as_good_as_a_tuple(names: dict[str, Any]) -> None:
    paper, line, titles = new_figure(6, 5), names["line"], names["run"].titles
    assert plots.along_line(paper, line, titles, [0, 1], "") is paper  # type: ignore[arg-type]


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_what_trains_has_its_gradients_where_they_are_off(
    without: Any, names: dict[str, Any], tmp_path: Path
) -> None:
    config = dataclasses.replace(quick_config(tmp_path / "run"), num_epochs=1)
    cache, memory, fewer = names["cache"], names["memory"], names["fewer"]
    with without():
        run = docmem.train(config, lm=names["lm"], documents=DOCUMENTS, progress=False)
        add(cache, fewer, "New", epochs=1)
        forget(cache, memory, 0, epochs=1)
        search_descent(names["texts"], memory, points=2, steps=1)
    assert run.finished


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_a_pipe_is_no_file_to_write(names: dict[str, Any], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(docmem.DocmemError, match="pipe' is no file that can be replaced"):
        write_page([names["run"]], tmp_path / "pipe")


COMMANDS = """
train --lr nan | lr
train --lr 0 | lr
train --guidance inf | guidance
train --num_epochs 0 | num_epochs
train --seed -1 | seed
train --lm_name no/such-lm --documents nowhere | no/such-lm
train --lm_name tiny --documents nowhere | nowhere
train --documents  | documents
train --save_dir  | --save_dir is ''
sweep --save_dir= --seed 1 2 | --save_dir is ''
plan --config  | --config is ''
figures {run} --out  | --out is ''
check  | An argument is ''
runs  | An argument is ''
pretrain --text  | --text is ''
train --titles Nobody | Nobody
train --titles | --titles stands without a value
train --titles --seed 2 | --titles stands without a value
sweep --titles --seed 1 2 | --titles stands without a value
sweep --save_dir nowhere --seed 1 2 | save_dir is 'nowhere' for 2 trainings
sweep --executor local:² | 'local:²'
page {run} --prompts | --prompts stands without a value
train --lm_size 1b | lm_size is 1b, tiny
train --preset smollm2-135m --lm-size=1b | lm_size is 1b
train --documents {file} | a_file is a file
train --titles Thornwick | Did you mean 'Thornwick Light'
train --titles Thornwick --max_labels 3 | max_labels is 3, but titles says which documents
train --max_labels 1 | second document
train --lm_name pythia | 'pythia', lm_size, 1b
train --save_dir \udcff | save_dir has, Unicode
train --key_internal_layers 1 --key_internal_dim 8 --document_key_module_type nonlinear | no effect
train --preset tiny --config {run}/run.json | preset tiny would have no effect
plan --lm_name pythia | family, lm_size
plan --documents wikitext-103 --max_labels 9000000000000000000 | more memory than there is
page {run} --points 300000 | more memory than there is
generate {run} --prompt The --seed 3 | seed has no effect without a temperature
attribute {run} --text {long} | exceeds the context, Shorten it.
experiment activation --fresh | fresh is for all
runs {long} | cannot be a path
train --hook_memory_layer 4 | 4 blocks
train --key_activation tanhh | tanhh
train --device gpu | gpu
train --device cpu --num_gpus 0 | num_gpus
train --num_gpus 64 | num_gpus
train --key_internal_layers 3 | key_internal_layers
train --negative_delta 0.5 | negative_delta, perturb
train --lr 1e-3 --muon_lr 0.1 --optimizer adamw | muon_lr, adamw
train --optimizer adamw --muon-lr=0.1 | muon_lr, adamw
train --negative_rows 17 | negative_rows, batch_size
train --max_length 513 --segment_length 600 --max_segments 1 --max_labels 2 | context
train --save_dir {file} | a_file
plan --lm_name no/such-lm | no/such-lm
plan --hook_memory_layer 4 | 4 blocks
plan --muon_lr 0.1 --optimizer adamw | muon_lr
plan --key_activation nope | 'nope'
plan --max_labels 1 | second document
figures nowhere | nowhere
figures {file} | a_file
figures {run} --points 1 | points
figures {run} --map_tokens 0 | map_tokens
figures {run} --lm nowhere | nowhere
figures {run} --out {file} | a_file is a file
page {run} --out . | '.' is a folder
page {run} --out {run} | is a folder
page {run} --map_tokens 1 | map_tokens is 1
check | at least one run
check --repair | at least one run
generate nowhere --prompt x | nowhere
generate {run} --prompt  --document 0 | 0
generate {run} --prompt x --temperature nan | temperature
generate {run} --prompt x --temperature -1 | temperature
generate {run} --prompt x --seed -1 | seed
generate {run} --prompt x --document Nobody | Nobody
generate {run} --prompt x --document all --max_new_tokens 0 | max_new_tokens
generate {run} --prompt x | one token
attribute {run} --text x | one token
attribute {run} --text  | The text is empty
attribute {run} --text \udcff | UTF-8
generate {run} --prompt \udcff --document none | prompt, UTF-8
plan --lm_name {run} | is a run of docmem
attribute nowhere --text x | nowhere
runs nowhere | nowhere
experiment activation --seeds 0 | seeds
experiment activation --out {file} | a_file is a file
experiment activation --out {run}/experiments | lies in the run
pretrain --text nowhere | nowhere
pretrain --text nowhere --lr 0 | lr
pretrain --text nowhere --out {file} | a_file is a file
pretrain --text nowhere --out {run} | is a run of docmem
"""
USAGES = """
nonsense
train --lerning_rate 1
train --lr fast
train --num_epochs 1.5
train --optimizer sgd
train --preset big
generate
generate {run} --document 0
figures --points x
experiment nothing
fetch tiny
"""


def command(line: str, run: Run, folders: Path) -> list[str]:
    places = {"run": run.path, "file": folders / "a_file", "long": "ab" * 400}
    return [word.format(**places) for word in line.split(" ")]


@pytest.mark.parametrize("line", COMMANDS.strip().splitlines())
def test_wrong_command_ends_in_a_sentence_and_status_one(
    line: str, names: dict[str, Any], folders: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], trained: tuple[LanguageModel, Run],
) -> None:  # fmt: skip
    (lm, run), (arguments, _, words) = trained, line.rpartition(" | ")
    if "nowhere" not in words:
        monkeypatch.setattr("docmem.training.run.load_lm", lambda *_, **__: lm)
    assert main(command(arguments, run, folders)) == 1
    bars, _, message = f"\n{capsys.readouterr().err}".rpartition("\ndocmem: ")
    assert "Traceback" not in bars
    assert all(word in message for word in words.split(", ")), message
    assert not any(word in message for word in INTERNAL), message


@pytest.mark.parametrize("line", USAGES.strip().splitlines())
def test_wrong_usage_is_explained_with_status_two(
    line: str, trained: tuple[LanguageModel, Run], folders: Path, capsys: Any
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(command(line, trained[1], folders))
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
