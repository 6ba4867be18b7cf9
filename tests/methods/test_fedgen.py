"""FedGen: a generator of features on the server, and what clients learn from it."""

import math
from typing import Any

import pytest
import torch
from federations import CLASSES, IMAGES, STILL, Federation, equal, federation, snapshot, tensors
from torch import Tensor, nn

from fedkd import models
from fedkd.errors import ConfigError
from fedkd.exchange.messages import group
from fedkd.learning.data_free.generated_features import client_loss, generator_loss
from fedkd.learning.teacher_statistics import with_features
from fedkd.methods.data_free import fedgen
from fedkd.models.generators import FeatureGenerator, build_feature_generator

TINY = {"steps": 4, "batch_size": 8, "latent": 4, "hidden": 6}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(**parameters: Any) -> Federation:
    changes = {"training": parameters.pop("training")} if "training" in parameters else {}
    return federation({"name": "fedgen", **TINY, **parameters}, rounds=3, **changes)


def maker(width: int = 12) -> FeatureGenerator:
    net = build_feature_generator(
        width, classes=CLASSES, latent=4, hidden=6, generator=generator(1)
    )
    net(torch.randn(20, 4, generator=generator(2)), torch.arange(20) % CLASSES)
    return net


def log_shares(row: Tensor) -> list[float]:
    total = math.log(sum(math.exp(value) for value in row.tolist()))
    return [value - total for value in row.tolist()]


def test_the_generator_s_loss_weighs_each_client_by_its_share_of_the_label() -> None:
    net, z, y = (
        maker().eval(),
        torch.randn(5, 4, generator=generator(3)),
        torch.tensor([0, 1, 2, 1, 0]),
    )
    heads = [nn.Linear(12, CLASSES) for _ in range(2)]
    for seed, head in enumerate(heads):
        nn.init.normal_(head.weight, generator=generator(seed))
    weights = torch.tensor([[0.2, 1.0, 0.5], [0.8, 0.0, 0.5]])[:, y]
    found = generator_loss(net, heads, z, y, weights, 0.6).item()
    features = net(z, y)
    want = 0.0
    for n, target in enumerate(y.tolist()):
        for k, head in enumerate(heads):
            want -= weights[k, n].item() * log_shares(head(features)[n])[target] / 5
    pairs = [
        ((z[i] - z[j]) ** 2).mean().item() * (features[i] - features[j]).abs().mean().item()
        for i in range(5)
        for j in range(5)
    ]
    assert found == pytest.approx(want + 0.6 * math.exp(-sum(pairs) / 25), rel=1e-5)


def test_a_client_s_loss_is_the_formula_and_what_it_says_of_features_of_its_labels_a_constant() -> (
    None
):
    fed = built()
    model, data = fed.student, fed.data[0].subset(torch.arange(6))
    net = maker().eval()
    counts = torch.tensor([5, 0, 3])
    loss = client_loss(
        model,
        data.x,
        data.y,
        generator=net,
        counts=counts,
        classification=2.0,
        distillation=3.0,
        rng=generator(9),
    )
    draws = generator(9)
    drawn = fedgen.draw_labels(counts, 6, draws)
    z = torch.randn(12, 4, generator=draws)
    head = models.head(model)
    own, others = net(z[:6], data.y).detach(), net(z[6:], drawn).detach()
    logits, _ = with_features(model, data.x)
    want = 0.0
    for n in range(6):
        said, told, made = (log_shares(t[n]) for t in (logits, head(own), head(others)))
        divergence = sum(math.exp(a) * (a - b) for a, b in zip(told, said, strict=True))
        want += (3 * divergence - said[data.y[n]] - 2 * made[drawn[n]]) / 6
    assert loss.item() == pytest.approx(want, rel=1e-5)
    loss.backward()
    assert all(parameter.grad is None for parameter in net.parameters())
    found = [
        parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None
    ]
    constant = head(own).detach().softmax(dim=1)
    plain = nn.functional.cross_entropy(model(data.x), data.y)
    plain = plain + 2 * nn.functional.cross_entropy(head(others), drawn)
    plain = plain - 3 * (constant * model(data.x).log_softmax(dim=1)).sum(dim=1).mean()
    wanted = torch.autograd.grad(plain, list(model.parameters()))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_noise_is_normal_on_the_server_and_at_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """The authors' code draws it uniformly between 0 and 1 where a Gaussian is meant."""
    seen: list[Tensor] = []
    forward = FeatureGenerator.forward

    def watched(net: FeatureGenerator, z: Tensor, y: Tensor) -> Tensor:
        seen.append(z)
        return forward(net, z, y)

    monkeypatch.setattr(FeatureGenerator, "forward", watched)
    fed = built(batch_size=64, steps=20)
    broadcast, _ = fed.round(1, fed.begin())
    server, seen[:] = torch.cat(seen).flatten(), []
    fed.ask(0, 2, broadcast)
    for noise in (server, torch.cat(seen).flatten()):
        assert float(noise.mean()) == pytest.approx(0, abs=0.12)
        assert float(noise.std()) == pytest.approx(1, abs=0.12)
        assert float(noise.min()) < -1.5


def test_the_student_is_the_mean_and_the_generator_travels_from_the_second_round_on() -> None:
    fed = built(training=STILL)
    first = fed.begin()
    assert {key.split("/")[0] for key in first.common} == {"model"}
    start = snapshot(fed.student)
    broadcast, ctx = fed.round(1, first)
    assert math.isfinite(ctx.losses["generator"])
    assert {key.split("/")[0] for key in broadcast.common} == {"model", "generator", "counts"}
    for key, value in snapshot(fed.student).items():
        torch.testing.assert_close(value, start[key])
    totals = sum(torch.bincount(data.y, minlength=CLASSES) for data in fed.data)
    assert torch.equal(broadcast.common["counts"], totals)
    kept = group("generator", broadcast.common)
    assert equal(kept, group("generator", fed.server_state))
    again, _ = fed.round(2, broadcast)
    assert not equal(group("generator", again.common), kept)


def test_the_generator_s_optimiser_goes_on_from_round_to_round() -> None:
    fed = built(training=STILL)
    broadcast, _ = fed.round(1, fed.begin())
    fed.round(2, broadcast)
    taken = {int(v) for k, v in fed.server_state.items() if k.endswith(".step")}
    assert taken == {2 * TINY["steps"]}


def test_clients_weights_of_the_generator_fall_from_round_to_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[float, float]] = []

    def watched(*arguments: Any, **options: Any) -> Tensor:
        seen.append((options["classification"], options["distillation"]))
        return client_loss(*arguments, **options)

    monkeypatch.setattr(fedgen, "client_loss", watched)
    fed = built()
    broadcast, _ = fed.round(1, fed.begin())
    assert seen == []
    fed.ask(0, 3, broadcast)
    assert seen[0] == pytest.approx((10 * 0.98**2, 10 * 0.98**2))


def test_the_generator_comes_to_give_features_of_its_labels() -> None:
    fed = built(steps=300, batch_size=32, learning_rate=0.01)
    broadcast, _ = fed.round(1, fed.begin())
    net = maker()
    net.load_state_dict(group("generator", broadcast.common))
    y = torch.arange(60) % CLASSES
    with torch.no_grad():
        said = models.head(fed.student)(net.eval()(torch.randn(60, 4, generator=generator(4)), y))
    assert float((said.argmax(dim=1) == y).float().mean()) > 0.9


def test_a_model_whose_last_linear_layer_makes_no_logits_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fed = built()
    fed.method.check(fed.setting)
    monkeypatch.setattr(fedgen, "head", lambda _model: nn.Linear(4, 7))
    with pytest.raises(ConfigError, match=r"last linear layer has 7 outputs.* expected 3$"):
        fed.method.check(fed.setting)


def test_it_says_why_it_cannot_be_protected() -> None:
    fed = federation({"name": "fedgen", **TINY}, IMAGES)
    assert "DP-SGD does not cover" in fed.method.card.no_dp
    assert set(tensors(fed.ask(0, 1, fed.begin()))) >= {"counts"}
