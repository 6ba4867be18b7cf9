"""Calls: on how many inputs a client calls a class, beside how many others do.

Who is honest about some inputs, and certain of one class on all others, agrees with the rest in
part, and no measure of a whole client tells it from one that knows little. What it cannot hide is
how often it calls its class.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fedkd.exchange.aggregation.agreement import FEWEST

_OFTEN = 2.0
"""How many times as often as is usual a client may call a class."""


def no_oftener(answers: Tensor, chances: Tensor) -> tuple[Tensor, Tensor]:
    """Answers in which no client calls a class more than twice as often as is usual.

    Usual is the share of inputs that the median of the others gives to the class, at least an even
    share. Of more, those are believed that the others find likeliest; on the rest it says what
    those say in the mean who are heard there. An honest client of few classes calls these
    everywhere; where it is wrong, it is not missed.

    Args:
        answers: (K, N, C), such as logits.
        chances: the same as probabilities.

    Returns:
        The answers, the very same where all are heard; and the share of inputs on which each
        client is not, (K,), float64. Of fewer than three clients nothing is usual.
    """
    clients, inputs, classes = chances.shape
    heard = torch.ones(clients, inputs, dtype=torch.bool)
    if clients >= FEWEST:
        given = chances.detach().cpu().double()
        often, together = given.mean(dim=1), given.sum(dim=0)
        for client, own in enumerate(given):
            usual = torch.cat([often[:client], often[client + 1 :]]).median(dim=0).values
            most = (_OFTEN * usual.clamp(min=1 / classes) * inputs).ceil()
            called = own.argmax(dim=1)
            believed = (together - own).gather(1, called[:, None])[:, 0]
            order = believed.argsort(descending=True, stable=True)
            place = F.one_hot(called[order], classes).cumsum(dim=0)
            place = place.gather(1, called[order][:, None])[:, 0]
            heard[client, order] = place <= most[called[order]]
    unheard = (~heard).double().mean(dim=1)
    if bool(heard.all()):
        return answers, unheard
    where = heard.to(answers.device)[..., None]
    count = where.sum(dim=0)
    mean = (answers.float() * where).sum(dim=0) / count.clamp(min=1)
    return torch.where(where | (count == 0), answers.float(), mean), unheard
