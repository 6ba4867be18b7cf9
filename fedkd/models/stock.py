"""The models of one setting, of which those that can be are built once and used again.

Building a model draws its initial weights and tries it out, which for a small one costs more than a
round of its training. What is used again must never show what it was used for before:

- only fedkd's own models are used again: they hold nothing but parameters, buffers and options, and
  answering in evaluation mode writes none of these. A user's or a hub's may keep what it saw, in
  itself or wherever its hooks reach, so each is built anew;
- what is handed out is a copy of a model that nobody has called since it was built, or is lent to
  one thread for a moment, which puts all weights into it.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from fedkd import rng
from fedkd.config import ModelSpec
from fedkd.models.copies import Copier
from fedkd.models.factory import build, is_own
from fedkd.tasks import Task

_ANY = "specification"
"""The purpose of a model whose initial weights nobody uses."""


@dataclass(frozen=True)
class Stock:
    """Builds models; arguments as of `factory.build`."""

    seed: int
    shape: tuple[int, ...]
    classes: int
    columns: Mapping[str, Tensor] | None
    task: Task
    _copiers: dict[tuple[str, str], Copier] = field(default_factory=dict, repr=False)
    _lent: dict[tuple[str, int], nn.Module] = field(default_factory=dict, repr=False)

    def build(self, spec: ModelSpec, *, purpose: str, client: int | None = None) -> nn.Module:
        """A fresh model on the CPU, initialised from the stream of (client, purpose)."""
        if client is not None or not is_own(spec):  # a client's draws are made once
            return self._anew(spec, purpose, client)
        return self._copier(spec, purpose)()

    def of(
        self, weights: Mapping[str, Tensor], spec: ModelSpec, *, purpose: str, client: int
    ) -> nn.Module:
        """A model with a state dict's weights; as `build` where that is empty."""
        if not weights:
            return self.build(spec, purpose=purpose, client=client)
        if (holding := self.holding(weights, spec)) is not None:
            return holding
        model = self.build(spec, purpose=purpose, client=client)
        model.load_state_dict(weights)
        return model

    def holding(self, weights: Mapping[str, Tensor], spec: ModelSpec) -> nn.Module | None:
        """A model of fedkd's own with all its weights given, so that none are drawn.

        None of another's, or where the weights are not just those of its state dict.
        """
        return self._copier(spec, _ANY).holding(weights) if is_own(spec) else None

    def to_ask(self, spec: ModelSpec) -> nn.Module:
        """A model that this thread has until it asks for the next one.

        Its weights are whatever they were: all are to be put in, then it may answer in evaluation
        mode. It is not to be trained, changed or kept.
        """
        if not is_own(spec):
            return self.build(spec, purpose=_ANY)
        key = (str(spec), threading.get_ident())
        if key not in self._lent:
            self._lent[key] = self.build(spec, purpose=_ANY).eval()
        return self._lent[key]

    def _copier(self, spec: ModelSpec, purpose: str) -> Copier:
        key = (str(spec), purpose)
        if key not in self._copiers:
            self._copiers[key] = Copier(self._anew(spec, purpose, None))
        return self._copiers[key]

    def _anew(self, spec: ModelSpec, purpose: str, client: int | None) -> nn.Module:
        return build(
            spec,
            shape=self.shape,
            classes=self.classes,
            generator=rng.stream(self.seed, purpose=purpose, client=client),
            columns=self.columns,
            task=self.task,
        )
