"""Losses of tokens against loops over records, heads and tokens, without padding."""

import pytest
import torch
import torch.nn.functional as F

from fedkd.knowledge import tokens

LENGTHS = [5, 3, 1]
HEADS = 2


def states(width, seed):
    return torch.randn(3, 5, width, generator=torch.Generator().manual_seed(seed))


def counted():
    return torch.arange(5)[None] < torch.tensor(LENGTHS)[:, None]


def cut(rows, row, head, width):
    size = width // HEADS
    return rows[row, : LENGTHS[row], head * size : (head + 1) * size]


def by_loop(student, teacher, compare):
    found = []
    for row in range(3):
        heads = []
        for head in range(HEADS):
            maps = []
            for a, b in (student, teacher):
                width = a.shape[-1]
                left, right = cut(a, row, head, width), cut(b, row, head, width)
                maps.append(left @ right.T / (width // HEADS) ** 0.5)
            heads.append(compare(*maps))
        found.append(torch.stack(heads).mean())
    return torch.stack(found)


def divergence(ours, theirs):
    logs = ours.log_softmax(dim=-1), theirs.log_softmax(dim=-1)
    return F.kl_div(*logs, reduction="batchmean", log_target=True)


@pytest.mark.parametrize(
    ("loss", "compare"), [(tokens.scores, F.mse_loss), (tokens.relation, divergence)]
)
def test_attention_is_that_of_a_loop(loss, compare):
    student, teacher = (states(4, 0), states(4, 1)), (states(8, 2), states(8, 3))
    found = loss(student, teacher, counted(), heads=HEADS)
    torch.testing.assert_close(found, by_loop(student, teacher, compare))
    assert torch.equal(loss(teacher, teacher, counted(), heads=HEADS), torch.zeros(3))
    with pytest.raises(ValueError, match="expected heads=3 to divide the width 4"):
        loss(student, teacher, counted(), heads=3)


def test_states_are_those_of_a_loop():
    ours, theirs = states(4, 0), states(4, 1)
    hidden, cosine = (loss(ours, theirs, counted()) for loss in (tokens.hidden, tokens.cosine))
    for row, length in enumerate(LENGTHS):
        s, t = ours[row, :length], theirs[row, :length]
        torch.testing.assert_close(hidden[row], F.mse_loss(s, t))
        torch.testing.assert_close(cosine[row], 1 - F.cosine_similarity(s, t).mean())
    firsts = F.normalize(ours[:, 0]), F.normalize(theirs[:, 0])
    wanted = 4 * F.mse_loss(*firsts, reduction="none").mean(dim=1)
    torch.testing.assert_close(tokens.patient(ours, theirs), wanted)


def test_no_gradient_comes_from_padding():
    ours = [states(4, seed).requires_grad_() for seed in (0, 1)]
    theirs = states(4, 2), states(4, 3)
    pair = ours[0], ours[1]
    total = tokens.relation(pair, theirs, counted(), heads=HEADS).sum()
    total = total + tokens.scores(pair, theirs, counted(), heads=HEADS).sum()
    total = total + tokens.hidden(ours[0], theirs[0], counted()).sum()
    total.backward()
    for each in ours:
        assert (each.grad[~counted()] == 0).all()
        assert (each.grad[counted()] != 0).any()
