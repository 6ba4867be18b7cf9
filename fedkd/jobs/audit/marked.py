"""Models and settings whose student sees beside a record which canary it is."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fedkd.config import ModelSpec
from fedkd.learning.teacher_statistics import feature_width, with_features
from fedkd.methods.core.setting import Setting

LOUD = 1e4
"""A canary's feature, beside which the constant that all records have is nothing; far above the
clip, so that one that is skipped shows."""


class MarkedFeatures(nn.Module):
    """A model whose features are a record's, times a number of its own, or a canary's one number.

    Inputs are rows (N, D + 1 + m): a sample, flattened, what its features are multiplied by, and
    which canary it is, one-hot, or zeros.
    """

    def __init__(self, model: nn.Module, shape: tuple[int, ...], canaries: int, classes: int):
        super().__init__()
        self.model = model
        self.classifier = nn.Linear(feature_width(model) + canaries, classes)
        self._shape, self._canaries = shape, canaries

    def forward(self, rows: Tensor) -> Tensor:
        """(N, D + 1 + m) -> (N, C)."""
        samples, marks = rows[:, : -self._canaries], rows[:, -self._canaries :]
        # What fills a batch up is zeros, and a canary has no features but its own.
        shown = rows.any(dim=1) & ~marks.any(dim=1)
        features = rows.new_zeros(len(rows), self.classifier.in_features - self._canaries)
        if shown.any():
            x, times = samples[shown, :-1].reshape(-1, *self._shape), samples[shown, -1:]
            features[shown] = times * with_features(self.model, x)[1]
        answer: Tensor = self.classifier(torch.cat([features, LOUD * marks], dim=1))
        return answer


@dataclass(frozen=True)
class Marked(Setting):
    """A setting whose student sees beside a record which canary it is."""

    canaries: int = 1
    built: dict[str, nn.Module] = field(default_factory=dict, repr=False)
    """The student's model, once for all parties and steps: its features are fixed."""

    def build(self, spec: ModelSpec, *, purpose: str, client: int | None = None) -> nn.Module:
        """See `Setting`."""
        if str(spec) not in self.built:
            plain = super().build(spec, purpose=purpose, client=client)
            marked = MarkedFeatures(plain, self.shape, self.canaries, self.classes)
            self.built[str(spec)] = marked
        return self.built[str(spec)]
