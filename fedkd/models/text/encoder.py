"""A small transformer that reads a text from both ends: an encoder."""

import torch
from pydantic import Field
from torch import Tensor, nn

from fedkd.config import Frozen
from fedkd.models.text.attention import Block, shown
from fedkd.models.text.base import ONE_ANSWER, PER_TOKEN, Heads, TextModel, read, words_of
from fedkd.tasks import Task


class EncoderOptions(Frozen):
    """Options of `encoder`."""

    width: int = Field(default=64, ge=1)
    """Of a token's state."""
    layers: int = Field(default=2, ge=1)
    """How many blocks."""
    heads: int = Field(default=4, ge=1)
    """Of each attention; a divisor of the width."""
    hidden: int = Field(default=0, ge=0)
    """Of a block's perceptron; 0: four times the width."""


class Encoder(nn.Module):
    """Token numbers (N, L) -> answers: BERT's parts (Devlin et al. 2019, arXiv:1810.04805), small.

    Norms stand before each part, and one at the end. By name: `embedded` gives the vectors of
    tokens and their places, `blocks.0`, `blocks.1`, ... states (N, K, D), and within a block
    `attention.query`, `attention.key` and `attention.value` what attention is made of.
    """

    def __init__(self, task: Task, options: EncoderOptions) -> None:
        super().__init__()
        words, width = words_of(task), options.width
        self._padding = words.padding
        self.embedding = nn.Embedding(words.size, width, padding_idx=words.padding)
        self.places = nn.Embedding(task.inputs[-1], width)
        for each in (self.embedding, self.places):
            nn.init.normal_(each.weight, std=width**-0.5)
        self.embedded = nn.Identity()
        hidden = options.hidden or 4 * width
        self.blocks = nn.ModuleList(
            Block(width, options.heads, hidden) for _ in range(options.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.heads = Heads(width, task)

    def forward(self, x: Tensor) -> Tensor:
        """Answers (N, *A)."""
        ids, counted = read(x, self._padding)
        # Of each record its own, since a gradient of each is asked for under DP-SGD.
        places = self.places(torch.arange(ids.shape[1], device=ids.device).expand_as(ids))
        states, mask = self.embedded(self.embedding(ids) + places), shown(counted)
        for block in self.blocks:
            states = block(states, mask)
        answer: Tensor = self.heads(self.norm(states), counted)
        return answer


MODEL = TextModel(EncoderOptions, Encoder, ONE_ANSWER | PER_TOKEN)
