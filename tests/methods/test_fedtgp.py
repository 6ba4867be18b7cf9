"""FedTGP: the loss and its margin by the paper's formulas, and prototypes that come apart."""

from typing import Any

import pytest
import torch
from federations import CLASSES, ROWS, SMALL, WIDE, Federation, federation, samples
from torch import Tensor

from fedkd.errors import ConfigError
from fedkd.methods.unlike.fedtgp import contrastive, margin

ALIKE = {"name": "mlp", "hidden": [7, 12]}


def built(classes: list[list[int]], **changes: Any) -> Federation:
    """A client for each list; it keeps the samples of these classes."""
    method = {"name": "fedtgp", "student": {"epochs": 1}, **changes.pop("method", {})}
    changes = {"models": [SMALL, ALIKE], "count": len(classes), "rounds": 3, **changes}
    fed = federation(method, ROWS, (20,) * len(classes), **changes)
    for client, held in enumerate(classes):
        data = samples(30, ROWS, 10 + client)
        fed.data[client] = data.subset(torch.isin(data.y, torch.tensor(held)).nonzero().flatten())
    return fed


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def test_the_loss_is_the_papers_formula() -> None:
    rows, prototypes, y = drawn(4, 6), drawn(3, 6).flip(0), torch.tensor([0, 2, 1, 0])
    known = torch.tensor([True, True, True])
    found = contrastive(rows, y, prototypes, known=known, margin=1.5)
    for i, c in enumerate(y.tolist()):
        apart = [(rows[i] - p).square().sum().sqrt() for p in prototypes]
        own = (-(apart[c] + 1.5)).exp()
        others = sum((-apart[k]).exp() for k in range(3) if k != c)
        torch.testing.assert_close(found[i], -(own / (own + others)).log())


def test_a_class_that_nobody_has_held_is_told_apart_from_nothing() -> None:
    rows, prototypes, y = drawn(3, 6), drawn(3, 6).flip(0), torch.tensor([0, 1, 0])
    known = torch.tensor([True, True, False])
    found = contrastive(rows, y, prototypes, known=known, margin=0.5)
    without = contrastive(rows, y, prototypes[:2], known=known[:2], margin=0.5)
    torch.testing.assert_close(found, without)


def test_a_prototype_on_a_clients_own_has_a_finite_gradient() -> None:
    """By a matrix product the distance of equal vectors is the root of what rounding left."""
    rows = 1000 + drawn(3, 8)
    prototypes = rows.clone().requires_grad_()
    known = torch.ones(3, dtype=torch.bool)
    contrastive(rows, torch.arange(3), prototypes, known=known, margin=1.0).sum().backward()
    assert prototypes.grad is not None
    assert prototypes.grad.isfinite().all()


def test_the_margin_is_the_largest_distance_of_two_classes_means() -> None:
    rows = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 3.0], [1.0, -5.0]])
    y = torch.tensor([0, 0, 2, 5])  # means: (1, 0), (1, 3), (1, -5)
    assert margin(rows, y, most=100.0) == pytest.approx(8.0)  # to the nearest class 5 at most
    assert margin(rows, y, most=2.5) == 2.5
    assert margin(rows[:2], y[:2], most=100.0) == 0.0


def test_trained_prototypes_are_farther_apart_than_means_and_near_their_own() -> None:
    fed = built([[0, 1, 2]] * 2, method={"prototypes": {"epochs": 300, "learning_rate": 0.1}})
    uploads = {c: fed.wire(c, fed.ask(c, 1, fed.begin())) for c in (0, 1)}
    for client, noise in zip((0, 1), drawn(2, CLASSES, 12), strict=True):
        uploads[client]["prototypes"] = 3 * torch.eye(CLASSES, 12) + 0.3 * noise
    ctx = fed.server_context()
    told = fed.method.server(ctx, uploads).common["prototypes"]
    means = torch.stack([upload["prototypes"] for upload in uploads.values()]).mean(dim=0)
    assert torch.pdist(told).min() > 1.2 * torch.pdist(means).min()
    for upload in uploads.values():
        nearest = torch.cdist(upload["prototypes"], told).argmin(dim=1)
        assert nearest.tolist() == list(range(CLASSES))
    assert ctx.losses["prototypes"] < 2  # 5.5 of equal distances: log(1 + 2 exp(the margin))


def test_prototypes_go_on_and_one_whose_holders_are_away_is_still_known() -> None:
    fed = built([[0, 1], [1]], method={"prototypes": {"epochs": 3}})
    first, _ = fed.round(1, fed.begin())
    assert first.common["known"].tolist() == [True, True, False]
    assert not first.common["prototypes"][2].any()
    second, _ = fed.round(2, first, cohort=[1])
    assert second.common["known"].tolist() == [True, True, False]
    moved = (second.common["prototypes"] - first.common["prototypes"]).abs().max()
    assert 0 < moved < 1


def test_unlike_widths_are_refused_by_name() -> None:
    fed = built([[0, 1, 2]] * 2, models=[SMALL, WIDE])
    with pytest.raises(ConfigError, match="method 'fedtgp' compares features of unlike widths"):
        fed.method.check(fed.setting)
