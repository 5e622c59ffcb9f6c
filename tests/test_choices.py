"""Every value that a setting may have by name does something of its own."""

import dataclasses
from typing import get_args

import torch
from toys import DOCUMENTS, toy_lm

from docmem.core.config import MemoryConfig
from docmem.core.loss import LossForm, Negative, guidance_term
from docmem.core.memory import DocumentMemory
from docmem.experiments.runner import METHODS
from docmem.training.config import DocRepInit, OptimizerName, TrainConfig
from docmem.training.negatives import negative_doc_rep
from docmem.training.setup import new_memory
from docmem.training.trainer import new_optimizer

ADDING = "a branch is missing, or does what another does; docs/adding.md says where it goes"


def test_every_negative_draws_its_own() -> None:
    doc_reps = torch.tensor([[0.3, 0.4], [0.7, -0.2]])
    drawn = {
        kind: negative_doc_rep(kind, doc_reps, 0, torch.Generator().manual_seed(1)).tolist()
        for kind in get_args(Negative)
    }
    assert len({*map(tuple, drawn.values())}) == len(drawn), f"{drawn}: {ADDING}"


def test_every_form_of_the_guidance_term_has_its_own_value() -> None:
    own, near_tau = torch.tensor(6.0), (torch.tensor(4.2), torch.tensor(4.7))
    terms = {
        form: tuple(guidance_term(own, one, form=form).item() for one in near_tau)
        for form in get_args(LossForm)
    }
    assert len({*terms.values()}) == len(terms), f"{terms}: {ADDING}"


def test_every_optimizer_steps_in_its_own_way_and_has_a_name() -> None:
    stepped = {}
    for name in get_args(OptimizerName):
        torch.manual_seed(0)
        memory = DocumentMemory(MemoryConfig(8, 2, 4))
        optimizer = new_optimizer(TrainConfig(optimizer=name), memory)
        memory(torch.ones(1, 3, 8), torch.ones(2)).square().mean().backward()
        optimizer.step()
        stepped[name] = memory.values.weight.flatten().tolist()
    assert len({*map(tuple, stepped.values())}) == len(stepped), f"{[*stepped]}: {ADDING}"
    assert {*METHODS} == {*stepped}


def test_every_way_to_place_doc_reps_has_its_own_places() -> None:
    lm, places = toy_lm(), {}
    for name in get_args(DocRepInit):
        config = dataclasses.replace(TrainConfig(), doc_rep_init=name)
        places[name] = new_memory(config, lm, DOCUMENTS).doc_reps.flatten().tolist()
    assert len({*map(tuple, places.values())}) == len(places), f"{[*places]}: {ADDING}"
