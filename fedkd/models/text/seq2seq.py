"""Models that read one text and write another: sequence to sequence."""

from abc import abstractmethod
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from fedkd.config import Frozen
from fedkd.models.text.attention import Block, shown
from fedkd.models.text.base import TextModel, mean, read, whole
from fedkd.models.text.bilstm import ordered, turned
from fedkd.models.text.causal import TransformerOptions, Words
from fedkd.tasks import Task


class Memory(NamedTuple):
    """What is kept of a text that was read."""

    states: Tensor
    """Of its tokens, (N, K, D)."""
    counted: Tensor
    """Which of them count, bool (N, K)."""


class Seq2Seq(nn.Module):
    """Token numbers (N, 2 L - 1) -> logits of what comes next (N, L - 1, V), zeros at padding.

    Inputs are a text (L,) and what was written of the other so far (L - 1,).
    """

    def __init__(self, task: Task, width: int, *, places: bool, tied: bool) -> None:
        super().__init__()
        self._written = task.answer[0]
        self._source = task.inputs[-1] - self._written
        self.words = Words(task, width, self._source if places else 0, tied=tied)

    @abstractmethod
    def encode(self, source: Tensor) -> Memory:
        """Read texts, token numbers (N, L)."""

    @abstractmethod
    def decode(self, memory: Memory, ids: Tensor) -> Tensor:
        """Logits (N, K, V) of what follows each of the tokens written so far, (N, K)."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, L - 1, V)."""
        source, before = x[:, : self._source], x[:, self._source :]
        ids, counted = read(before, self.words.padding)
        logits = self.decode(self.encode(source), ids)
        return whole(logits.masked_fill(~counted.unsqueeze(-1), 0.0), self._written)


class GRUOptions(Frozen):
    """Options of `gru-seq2seq`."""

    width: int = Field(default=64, ge=1)
    """Of a token's vector."""
    hidden: int = Field(default=64, ge=2)
    """Of the writer's state; the reader has half of it from each end, so an even number."""
    tied: bool = True
    """Whether a token's vector and its row of the last layer are one (Press & Wolf 2017,
    arXiv:1608.05859)."""


class GRUSeq2Seq(Seq2Seq):
    """Two GRUs that read, one from each end, and one that writes and looks back.

    Bahdanau et al. 2015, arXiv:1409.0473, with the attention of Luong et al. 2015,
    arXiv:1508.04025 ("general"): so all tokens written are learned in one pass. Beside the state of
    a token that is looked at goes its vector, so that a name is copied by looking at it.
    """

    def __init__(self, task: Task, options: GRUOptions) -> None:
        super().__init__(task, options.width, places=False, tied=options.tied)
        width, hidden, half = options.width, options.hidden, options.hidden // 2
        self.forwards = nn.GRU(width, half, batch_first=True)
        self.backwards = nn.GRU(width, half, batch_first=True)
        self.start = nn.Linear(2 * half, hidden)
        self.writer = nn.GRU(width, hidden, batch_first=True)
        self.look = nn.Linear(hidden, 2 * half, bias=False)
        self.joined = nn.Linear(hidden + 2 * half + width, width)

    def encode(self, source: Tensor) -> Memory:
        """See the base."""
        ids, counted = read(source, self.words.padding)
        vectors, order = self.words(ids), turned(counted)
        left, _ = self.forwards(vectors)
        right, _ = self.backwards(ordered(vectors, order))
        states = torch.cat([left, ordered(right, order), vectors], dim=-1)
        return Memory(states, counted)

    def decode(self, memory: Memory, ids: Tensor) -> Tensor:
        """See the base."""
        width = self.words.embedding.embedding_dim
        keys = memory.states[..., :-width]
        start = torch.tanh(self.start(mean(keys, memory.counted)))
        states, _ = self.writer(self.words(ids), start.unsqueeze(0))
        alike = self.look(states) @ keys.transpose(1, 2) / keys.shape[-1] ** 0.5
        seen = alike.masked_fill(~shown(memory.counted)[:, 0], -torch.inf).softmax(dim=-1)
        looked = seen @ memory.states
        joined = torch.tanh(self.joined(torch.cat([states, looked], dim=-1)))
        return self.words.logits(joined + looked[..., -width:])


class TransformerSeq2Seq(Seq2Seq):
    """A transformer that reads and one that writes, Vaswani et al. 2017, arXiv:1706.03762.

    With norms before each part, and learned places that both share.
    """

    def __init__(self, task: Task, options: TransformerOptions) -> None:
        super().__init__(task, options.width, places=True, tied=options.tied)
        hidden = options.hidden or 4 * options.width
        sizes = (options.width, options.heads, hidden)
        self.reader = nn.ModuleList(Block(*sizes) for _ in range(options.layers))
        self.reader_norm = nn.LayerNorm(options.width)
        self.writer = nn.ModuleList(Block(*sizes, crossed=True) for _ in range(options.layers))
        self.writer_norm = nn.LayerNorm(options.width)

    def encode(self, source: Tensor) -> Memory:
        """See the base."""
        ids, counted = read(source, self.words.padding)
        states, mask = self.words(ids), shown(counted)
        for block in self.reader:
            states = block(states, mask)
        return Memory(self.reader_norm(states), counted)

    def decode(self, memory: Memory, ids: Tensor) -> Tensor:
        """See the base."""
        states = self.words(ids)
        mask = shown(torch.ones_like(ids, dtype=torch.bool), causal=True)
        for block in self.writer:
            states = block(states, mask, memory.states, shown(memory.counted))
        return self.words.logits(self.writer_norm(states))


GRU = TextModel(GRUOptions, GRUSeq2Seq, frozenset({"tokens"}))
TRANSFORMER = TextModel(TransformerOptions, TransformerSeq2Seq, frozenset({"tokens"}))
