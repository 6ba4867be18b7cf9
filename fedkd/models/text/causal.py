"""A small transformer that writes: each token is foretold from those before it."""

import torch
from pydantic import Field
from torch import Tensor, nn

from fedkd.config import Frozen
from fedkd.models.text.attention import Block, shown
from fedkd.models.text.base import TextModel, read, whole, words_of
from fedkd.models.text.tied import TiedLinear
from fedkd.tasks import Task


class TransformerOptions(Frozen):
    """Options of `causal-transformer` and `transformer-seq2seq`."""

    width: int = Field(default=64, ge=1)
    """Of a token's state."""
    layers: int = Field(default=2, ge=1)
    """How many blocks; of sequence to sequence so many for each side."""
    heads: int = Field(default=4, ge=1)
    """Of each attention; a divisor of the width."""
    hidden: int = Field(default=0, ge=0)
    """Of a block's perceptron; 0: four times the width."""
    tied: bool = True
    """Whether a token's vector and its row of the last layer are one (Press & Wolf 2017,
    arXiv:1608.05859)."""


class Words(nn.Module):
    """Token numbers as vectors, with the place of each, and states as logits of tokens.

    Args:
        task: of texts, of one vocabulary.
        width: D of a vector.
        length: how many places there are at the most; 0: a vector does not tell its place.
        tied: whether logits are by the same vectors.
    """

    def __init__(self, task: Task, width: int, length: int, *, tied: bool) -> None:
        super().__init__()
        words = words_of(task)
        self.padding = words.padding
        self.embedding = nn.Embedding(words.size, width, padding_idx=words.padding)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.places = nn.Embedding(length, width) if length else None
        if self.places is not None:
            nn.init.normal_(self.places.weight, std=width**-0.5)
        self.classifier = TiedLinear(words.size) if tied else nn.Linear(width, words.size)

    def forward(self, ids: Tensor) -> Tensor:
        """(N, K) -> (N, K, D)."""
        vectors: Tensor = self.embedding(ids)
        if self.places is None:
            return vectors
        # Of each record, for DP-SGD, which has to know whose gradient is whose.
        places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        placed: Tensor = vectors + self.places(places)
        return placed

    def logits(self, states: Tensor) -> Tensor:
        """(N, K, D) -> (N, K, V)."""
        shared = (self.embedding.weight,) if isinstance(self.classifier, TiedLinear) else ()
        found: Tensor = self.classifier(states, *shared)
        return found


class CausalTransformer(nn.Module):
    """Token numbers (N, L) -> logits of what comes next (N, L, V), zeros at padding.

    Radford et al. 2019's (GPT-2, no arXiv) order of parts: learned places, norms before each part
    and one at the end.
    """

    def __init__(self, task: Task, options: TransformerOptions) -> None:
        super().__init__()
        self._length, hidden = task.inputs[-1], options.hidden or 4 * options.width
        self.words = Words(task, options.width, self._length, tied=options.tied)
        self.blocks = nn.ModuleList(
            Block(options.width, options.heads, hidden) for _ in range(options.layers)
        )
        self.norm = nn.LayerNorm(options.width)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, L, V)."""
        ids, counted = read(x, self.words.padding)
        states, mask = self.words(ids), shown(counted, causal=True)
        for block in self.blocks:
            states = block(states, mask)
        logits = self.words.logits(self.norm(states))
        return whole(logits.masked_fill(~counted.unsqueeze(-1), 0.0), self._length)


MODEL = TextModel(TransformerOptions, CausalTransformer, frozenset({"next-tokens"}))
