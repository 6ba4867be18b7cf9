"""One class out of C at each token: logits on the last axis, all 0 where a model says nothing."""

from dataclasses import replace

import torch
from torch import Tensor

from fedkd.knowledge import label
from fedkd.knowledge.places import mean_of_counted, spoken
from fedkd.tasks.likelihoods import categorical
from fedkd.tasks.likelihoods.categorical import IGNORED


def divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """`knowledge.label.kd` of logits (N, *S, C): (N,), a mean over places.

    Places of which the teacher says nothing do not count; a record without any other costs 0.
    """
    where = spoken(teacher)
    return mean_of_counted(label.kd(student, teacher, temperature=temperature, where=where), where)


def decide(answers: Tensor) -> Tensor:
    """(N, *S, C) -> (N, *S): the likeliest class, `IGNORED` where nothing is said."""
    return answers.argmax(dim=-1).masked_fill(~spoken(answers), IGNORED)


def decide_spans(answers: Tensor) -> Tensor:
    """Logits (N, 2, L) of where a span begins and ends -> (N, 2): the likeliest one of all.

    The two have the largest sum of logits among all places of which the first is not after the
    last (Devlin et al. 2019, arXiv:1810.04805).
    """
    begins, ends = answers.unbind(dim=1)
    best, where = begins.cummax(dim=-1)
    last = (best + ends).argmax(dim=-1, keepdim=True)
    return torch.cat([where.gather(1, last), last], dim=1)


TOKENS = replace(categorical.CATEGORICAL, divergence=divergence, decide=decide, moved=None)
SPANS = replace(TOKENS, decide=decide_spans)
