"""LSTMs and GRUs: each record's gradients are those of a loop, whatever the layer's options."""

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedkd.errors import ConfigError
from fedkd.learning.dp.checks import check_model
from fedkd.learning.dp.per_sample import PerSample

LAYERS = list(itertools.product((nn.LSTM, nn.GRU), (1, 2), (False, True), (False, True)))


class Reader(nn.Module):
    """Reads token numbers twice, from states of its own; looks at all states and the last."""

    def __init__(self, layer: nn.LSTM | nn.GRU) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 5, padding_idx=3)
        self.layer = layer
        self.ways = layer.num_layers * (2 if layer.bidirectional else 1)
        self.first = nn.Linear(5, 4 * self.ways)
        self.last = nn.Linear(4 * (2 if layer.bidirectional else 1), 3)

    def forward(self, x: Tensor) -> Tensor:
        words = self.words(x)
        states = self.first(words.mean(dim=1)).reshape(len(x), self.ways, 4)
        first = states.transpose(0, 1).contiguous()
        lstm = isinstance(self.layer, nn.LSTM)
        one, ends = self.layer(self._in(words), (first, first.tanh()) if lstm else first)
        other, _ = self.layer(self._in(words.sin()))
        end = torch.cat(ends) if lstm else ends
        seen = self.last(self._in(one + other).tanh()).sum(dim=1)
        return seen + end.square().sum(dim=(0, 2))[:, None]

    def _in(self, sequences: Tensor) -> Tensor:
        return sequences if self.layer.batch_first else sequences.transpose(0, 1)


@pytest.mark.parametrize(("kind", "layers", "both_ways", "bias"), LAYERS)
def test_gradients_are_those_of_a_loop(
    kind: type[nn.LSTM | nn.GRU], layers: int, both_ways: bool, bias: bool
) -> None:
    torch.manual_seed(0)
    layer = kind(5, 4, layers, bidirectional=both_ways, bias=bias, batch_first=bias)
    model, x = Reader(layer).double(), torch.randint(11, (5, 6))
    plain, weights = copy.deepcopy(model), torch.randn(3).double()

    def loss(said: Tensor, _: Tensor) -> Tensor:
        return (said @ weights).sin()

    with PerSample(model) as per_sample:
        found = per_sample.gradients(x, x, loss)
        names = list(per_sample.parameters)
    own = [dict(plain.named_parameters())[name] for name in names]
    for row in range(5):
        wanted = torch.autograd.grad(loss(plain(x[row : row + 1]), x).sum(), own)
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours[row], theirs, rtol=1e-6, atol=1e-12)
    assert torch.equal(model(x), plain(x))  # its own forward pass again


class Louder(nn.LSTM):
    def forward(self, x: Tensor, hx: Any = None) -> Any:
        return super().forward(2 * x, hx)


def test_a_layer_of_ones_own_made_of_them_is_refused() -> None:
    model = Reader(Louder(5, 4, batch_first=True))
    with pytest.raises(ConfigError, match=r"cannot train layer 'layer', Louder"):
        check_model(model, (6,), like=torch.randint(11, (5, 6)))
