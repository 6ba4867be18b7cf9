import copy

import pytest
import torch
import torch.nn.functional as F
from clusters import CLASSES, FEATURES, generator, net, rows, state
from torch import nn

from fedkd import models
from fedkd.config import ModelSpec, Optimisation
from fedkd.errors import ConfigError
from fedkd.learning import evaluate
from fedkd.learning.ways import early_exits
from fedkd.models.exits import ExitOutput, Exits, attach

HOW = Optimisation(epochs=3, batch_size=16, learning_rate=0.05)
WEIGHTS = {"imitation": 0.3, "temperature": 3.0, "hint": 0.1}


def exits(network: nn.Module, *layers: str) -> Exits:
    return attach(network, layers, shape=(FEATURES,), generator=generator(9))


def leaving(seed: int) -> ExitOutput:
    draws = generator(seed)
    logits, features = (torch.randn(5, n, generator=draws).double() for n in (CLASSES, 4))
    return ExitOutput(logits.requires_grad_(), features.requires_grad_())


def test_the_loss_is_the_formula_s_and_the_deepest_is_not_pulled() -> None:
    early, deepest = leaving(1), leaving(2)
    y = torch.tensor([0, 1, 2, 0, 1])
    found = early_exits.early_loss(early, deepest, y, **WEIGHTS)
    p, q = ((each.logits / 3).softmax(dim=1) for each in (deepest, early))
    expected = 0.7 * -early.logits.log_softmax(dim=1)[torch.arange(5), y]
    expected = expected + 0.3 * 9 * (p * (p / q).log()).sum(dim=1)
    expected = expected + 0.1 * ((early.features - deepest.features) ** 2).sum(dim=1) / 4
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert deepest.logits.grad is None
    assert deepest.features.grad is None
    assert early.logits.grad is not None
    assert early.features.grad is not None


def test_exits_branch_off_maps_and_rows_and_the_deepest_is_the_network_s_own() -> None:
    spec = ModelSpec(name="dense-cnn")
    cnn = models.build(spec, shape=(1, 8, 8), classes=CLASSES, generator=generator())
    layers = ("pool1", "relu2", "flatten")
    model = attach(cnn, layers, deepest="pool2", shape=(1, 8, 8), generator=generator())
    x = torch.rand(4, 1, 8, 8, generator=generator())
    model.eval()
    *early, deepest = model.leave(x)
    assert [each.features.shape for each in (*early, deepest)] == [(4, 128)] * 4
    torch.testing.assert_close(deepest.logits, cnn(x))
    mean = sum(each.logits for each in (*early, deepest)) / 4
    torch.testing.assert_close(model(x), mean)
    assert not any(module._forward_hooks for module in model.modules())


def test_network_and_exits_learn_together() -> None:
    samples, model = rows(200, spread=2.0), exits(net(1, 8, 8), "relu1")
    before = state(model)
    losses = early_exits.train(model, samples, HOW, generator(), **WEIGHTS)
    assert losses[-1] < losses[0]
    assert all(not torch.equal(v, before[k]) for k, v in model.state_dict().items())
    *early, deepest = model.leave(samples.x)
    for each in (*early, deepest):
        assert evaluate.accuracy(each.logits, samples) > 0.7  # chance is 0.33
    assert not any(module.training for module in model.modules())


def test_it_equals_the_textbook_loop() -> None:
    samples, model = rows(40), exits(net(1, 8, 8), "relu1")
    plain = copy.deepcopy(model).train()
    losses = early_exits.train(model, samples, HOW, generator(3), **WEIGHTS)
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9)
    shuffles, expected = generator(3), []
    for _ in range(3):
        total = 0.0
        for index in torch.randperm(40, generator=shuffles).split(16):
            x, y = samples.x[index], samples.y[index]
            early, deepest = plain.leave(x)
            loss = F.cross_entropy(deepest.logits, y) + 0.7 * F.cross_entropy(early.logits, y)
            soft, own = deepest.logits.detach() / 3, early.logits / 3
            told = F.kl_div(own.log_softmax(1), soft.softmax(1), reduction="batchmean")
            apart = F.mse_loss(early.features, deepest.features.detach())
            loss = loss + 0.3 * 9 * told + 0.1 * apart
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(y)
        expected.append(total / 40)
    assert losses == pytest.approx(expected, rel=1e-4)
    for found, want in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)


def test_a_misspelt_layer_lists_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown layer 'relu9': .*valid here: .*relu1"):
        exits(net(), "relu9")
    with pytest.raises(ConfigError, match="features before the last layer"):
        attach(nn.Linear(6, 3), ["x"], shape=(6,), generator=generator())
