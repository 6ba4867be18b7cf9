"""FedFTG: what the generator and the student minimise, and faults of the authors' code."""

import copy
import math
from typing import Any

import pytest
import torch
from federations import CLASSES, IMAGES, ROWS, Federation, equal, federation, snapshot
from torch import Tensor, nn

from fedkd.errors import ConfigError
from fedkd.exchange.aggregation import average_models
from fedkd.exchange.messages import group
from fedkd.knowledge import synthetic
from fedkd.learning.consensus import class_weights
from fedkd.learning.data_free.synthesis import draw_labels
from fedkd.methods.data_free import fedftg
from fedkd.methods.data_free.fedftg import FedFTG, classification, discrepancy
from fedkd.models.generators import build_generator

TINY = {"iterations": 2, "student_steps": 2, "batch_size": 6, "latent": 4, "width": 4}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(shape: tuple[int, ...] = IMAGES, **parameters: Any) -> Federation:
    cnn = ["dense-cnn"] if len(shape) == 3 else ["mlp"]
    method = {"name": "fedftg", **TINY, **parameters}
    return federation(method, shape, models=cnn, student=cnn[0], rounds=2)


def sent(fed: Federation, round: int = 1) -> dict[int, dict[str, Tensor]]:
    broadcast = fed.begin()
    return {c: fed.wire(c, fed.ask(c, round, broadcast)) for c in range(3)}


def shares(row: Tensor) -> list[float]:
    powers = [math.exp(value) for value in row.tolist()]
    return [power / sum(powers) for power in powers]


def test_losses_are_the_formulas_and_each_client_counts_by_its_share_of_the_class() -> None:
    teachers = torch.randn(3, 5, CLASSES, generator=generator(1)).double()
    student = torch.randn(5, CLASSES, generator=generator(2)).double()
    y = torch.tensor([0, 1, 2, 2, 0])
    counts = torch.tensor([[6, 0, 1], [2, 5, 0], [0, 5, 0]])
    weights = class_weights(counts.double())[:, y]
    parts = [[0.75, 0.0, 1.0], [0.25, 0.5, 0.0], [0.0, 0.5, 0.0]]
    apart, right = discrepancy(student, teachers, weights), classification(teachers, y, weights)
    for n, target in enumerate(y.tolist()):
        q = shares(student[n])
        divergence, entropy = 0.0, 0.0
        for k in range(3):
            p = shares(teachers[k, n])
            gap = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
            divergence += parts[k][target] * gap
            entropy -= parts[k][target] * math.log(p[target])
        assert apart[n].item() == pytest.approx(divergence)
        assert right[n].item() == pytest.approx(entropy)


def test_no_class_weight_is_lost_to_a_mean() -> None:
    """The authors' code averages cross-entropy over the batch before the weights multiply it."""
    teachers = torch.randn(2, 2, CLASSES, generator=generator(3))
    y = torch.tensor([0, 1])
    weights = class_weights(torch.tensor([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0]]))[:, y]
    found = classification(teachers, y, weights)
    # Each label is one client's alone, so that what the other says does not matter at all.
    other = teachers.clone()
    other[0, 1] += torch.tensor([9.0, -9.0, 0.0])
    other[1, 0] += torch.tensor([-9.0, 9.0, 0.0])
    assert torch.equal(classification(other, y, weights), found)
    assert torch.equal(discrepancy(teachers[0], other, weights)[0], torch.tensor(0.0))


def test_the_generator_s_adversary_has_the_gradient_of_the_clients_too() -> None:
    """The authors' code detaches the clients' logits where generator and student disagree."""
    teachers = torch.randn(2, 4, CLASSES, generator=generator(4)).requires_grad_()
    student = torch.randn(4, CLASSES, generator=generator(5)).requires_grad_()
    weights = torch.full((2, 4), 0.5)
    of_teachers, of_student = torch.autograd.grad(
        discrepancy(student, teachers, weights).sum(), (teachers, student)
    )
    p, q = teachers.detach().softmax(2), student.detach().softmax(1)
    gap = (p / q).log()
    wanted = 0.5 * p * (gap - (p * gap).sum(dim=2, keepdim=True))
    torch.testing.assert_close(of_teachers, wanted)
    torch.testing.assert_close(of_student, q - p.mean(dim=0))


def without_idle_biases(*arguments: Any, **options: Any) -> nn.Module:
    """The generator, its biases fixed: BatchNorm takes them out, and Adam would walk by noise."""
    net = build_generator(*arguments, **options)
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            module.bias.requires_grad_(False)
    return net


def test_it_equals_the_textbook_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fedftg, "build_generator", without_idle_biases)
    fed = built(classification=0.7, diversity=0.3, generator_steps=2)
    uploads = sent(fed)
    ctx = fed.server_context()
    models = [m.eval() for m in ctx.load_teachers(uploads).values()]
    counts = torch.stack([upload["counts"] for upload in uploads.values()])
    plain = copy.deepcopy(fed.student)
    plain.load_state_dict(
        average_models([group("model", u) for u in uploads.values()], counts.sum(dim=1).tolist())
    )
    net = without_idle_biases(
        IMAGES, latent=4, width=4, classes=CLASSES, generator=ctx.rng("generator")
    )
    up = torch.optim.Adam(net.parameters(), lr=0.01)
    down = torch.optim.SGD(plain.parameters(), lr=0.01)
    draws = ctx.rng("synthesis")
    for _ in range(2):
        y = draw_labels(counts.sum(dim=0), 6, draws)
        z = torch.randn(6, 4, generator=draws)
        weights = torch.stack([c[y] / counts.sum(dim=0)[y] for c in counts.double()]).float()
        for _ in range(2):
            x = net.train()(z, y)
            said = torch.stack([model(x) for model in models])
            loss = 0.7 * classification(said, y, weights).mean()
            loss = loss - discrepancy(plain.eval()(x), said, weights).mean()
            loss = loss + 0.3 * synthetic.diversity(z, x)
            up.zero_grad()
            loss.backward()
            up.step()
        x = net.eval()(z, y).detach()
        told = torch.stack([model(x).detach() for model in models])
        for _ in range(2):
            loss = discrepancy(plain.train()(x), told, weights).mean()
            down.zero_grad()
            loss.backward()
            down.step()
    fed.method.server(ctx, uploads)
    assert ctx.losses["distil"] == pytest.approx(loss.item(), rel=1e-4)
    assert ctx.generated is not None
    assert torch.equal(ctx.generated.y, y)
    for key, value in snapshot(fed.student).items():
        torch.testing.assert_close(value, plain.state_dict()[key], rtol=1e-4, atol=1e-5)
    assert not any(module.training for module in fed.student.modules())


def test_the_student_s_batchnorm_sees_its_own_steps_alone() -> None:
    fed = built(generator_steps=3)
    uploads = sent(fed)
    fed.method.server(fed.server_context(), uploads)
    first = int(uploads[0]["model/norm1.num_batches_tracked"])
    assert int(fed.student.get_buffer("norm1.num_batches_tracked")) == first + 2 * 2


def test_the_generator_goes_on_from_round_to_round_and_rates_fall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fed = built(decay=0.5)
    broadcast, _ = fed.round(1, fed.begin())
    kept = group("generator", dict(fed.server_state))
    starts: list[dict[str, Tensor]] = []
    rates: list[float] = []
    own, rate = FedFTG._generator, FedFTG._rate

    def watched(method: FedFTG, ctx: Any) -> nn.Module:
        net = own(method, ctx)
        starts.append(snapshot(net))
        return net

    def watched_rate(method: FedFTG, ctx: Any, *arguments: Any) -> Any:
        rates.append(rate(method, ctx, *arguments).learning_rate)
        return rate(method, ctx, *arguments)

    monkeypatch.setattr(FedFTG, "_generator", watched)
    monkeypatch.setattr(FedFTG, "_rate", watched_rate)
    fed.round(2, broadcast)
    assert equal(starts[0], kept)
    assert rates == pytest.approx([0.005, 0.005])
    assert not equal(group("generator", fed.server_state), kept)


def test_labels_are_drawn_by_the_counts_of_all_and_from_any_where_there_are_none() -> None:
    drawn = draw_labels(torch.tensor([3, 0, 1]), 4000, generator(6))
    found = torch.bincount(drawn, minlength=3) / 4000
    assert found.tolist() == pytest.approx([0.75, 0.0, 0.25], abs=0.03)
    assert set(draw_labels(torch.zeros(3).long(), 200, generator(7)).tolist()) == {0, 1, 2}


def test_counts_that_noise_has_made_0_do_not_end_the_run() -> None:
    fed = built()
    uploads = sent(fed)
    for upload in uploads.values():
        upload["counts"] = torch.zeros(CLASSES, dtype=torch.int64)
    ctx = fed.server_context()
    fed.method.server(ctx, uploads)
    assert math.isfinite(ctx.losses["distil"])


def test_threads_do_not_change_the_student() -> None:
    students = []
    for threads in (1, 3):
        fed = built()
        fed.method.server(fed.server_context(threads=threads), sent(fed))
        students.append(snapshot(fed.student))
    assert equal(*students)


def test_rows_are_refused_and_the_class_counts_are_what_is_sent() -> None:
    rows = built(ROWS)
    with pytest.raises(ConfigError, match=r"method 'fedftg' cannot generate inputs of shape \(5,"):
        rows.method.check(rows.setting)
    fed = built()
    fed.method.check(fed.setting)
    for client, upload in sent(fed).items():
        counts = torch.bincount(fed.data[client].y, minlength=CLASSES)
        assert torch.equal(upload["counts"], counts)
