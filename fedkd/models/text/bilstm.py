"""Two LSTMs over a text, one from each end."""

import torch
from pydantic import Field
from torch import Tensor, nn

from fedkd.config import Frozen
from fedkd.models.text.base import ONE_ANSWER, PER_TOKEN, Heads, TextModel, read, words_of
from fedkd.tasks import Task


class BiLSTMOptions(Frozen):
    """Options of `bilstm`."""

    width: int = Field(default=32, ge=1)
    """Of a word piece's vector."""
    hidden: int = Field(default=64, ge=1)
    """Of each direction's state."""


class BiLSTM(nn.Module):
    """Token numbers (N, L) -> answers, as the student of Tang et al. 2019, arXiv:1903.12136.

    The second LSTM reads the text turned round, its padding still at the end, so that padding
    changes nothing and no sequence has to be packed.
    """

    def __init__(self, task: Task, options: BiLSTMOptions) -> None:
        super().__init__()
        words = words_of(task)
        self._padding = words.padding
        self.embedding = nn.Embedding(words.size, options.width, padding_idx=words.padding)
        self.forwards = nn.LSTM(options.width, options.hidden, batch_first=True)
        self.backwards = nn.LSTM(options.width, options.hidden, batch_first=True)
        self.heads = Heads(2 * options.hidden, task)

    def forward(self, x: Tensor) -> Tensor:
        """Answers (N, *A)."""
        ids, counted = read(x, self._padding)
        vectors, order = self.embedding(ids), turned(counted)
        left, _ = self.forwards(vectors)
        right, _ = self.backwards(ordered(vectors, order))
        states = torch.cat([left, ordered(right, order)], dim=-1)
        answer: Tensor = self.heads(states, counted)
        return answer


def turned(counted: Tensor) -> Tensor:
    """Of each record its tokens from the last to the first, then its padding: int64 (N, K)."""
    places = torch.arange(counted.shape[1], device=counted.device)
    length = counted.sum(dim=1, keepdim=True)
    return torch.where(places < length, length - 1 - places, places)


def ordered(states: Tensor, order: Tensor) -> Tensor:
    """States (N, K, D) in another order; twice in a turned one they are as before."""
    return states.gather(1, order.unsqueeze(-1).expand(-1, -1, states.shape[-1]))


MODEL = TextModel(BiLSTMOptions, BiLSTM, ONE_ANSWER | PER_TOKEN)
