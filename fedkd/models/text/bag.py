"""A bag of word pieces: the mean of their vectors, and a small perceptron on it."""

from pydantic import Field
from torch import Tensor, nn

from fedkd.config import Frozen
from fedkd.models.text.base import ONE_ANSWER, TextModel, mean, read, words_of
from fedkd.tasks import Task


class BagOptions(Frozen):
    """Options of `bag`."""

    width: int = Field(default=64, ge=1)
    """Of a word piece's vector."""
    hidden: int = Field(default=0, ge=0)
    """Of a layer between the mean and the answer; 0: none."""


class Bag(nn.Module):
    """Token numbers (N, L) -> answers (N, C), in whatever order tokens stand.

    fastText's model (Joulin et al. 2016, arXiv:1607.01759).
    """

    def __init__(self, task: Task, options: BagOptions) -> None:
        super().__init__()
        words = words_of(task)
        self._padding = words.padding
        self.embedding = nn.Embedding(words.size, options.width, padding_idx=words.padding)
        nn.init.normal_(self.embedding.weight, std=options.width**-0.5)
        between = options.hidden or options.width
        self.features = (
            nn.Sequential(nn.Linear(options.width, between), nn.ReLU())
            if options.hidden
            else nn.Identity()
        )
        self.classifier = nn.Linear(between, task.answer[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Answers (N, C)."""
        ids, counted = read(x, self._padding)
        answer: Tensor = self.classifier(self.features(mean(self.embedding(ids), counted)))
        return answer


MODEL = TextModel(BagOptions, Bag, ONE_ANSWER)
