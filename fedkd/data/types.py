"""What data is, before and after it is split among clients."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fedkd.data import targets, views
from fedkd.data.texts.tokenizer import Tokenizer
from fedkd.data.views import Sight
from fedkd.rows import Rows, concat, shape_of, shapes_of, take
from fedkd.tasks import Targets, Vocabulary

Limits = views.Limits


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled inputs.

    Attributes:
        x: N records, float32 (N, *shape) in memory or in a file: images (N, C, H, W) in [0, 1],
            rows of features (N, F); or a table of named columns.
        y: their targets, as `fedkd.tasks.Targets` says: classes from 0, int64 (N,); 0 or 1 by
            label, int64 (N, L); or numbers, float32 (N, D).
        stage: int64 (N,), in which stage of `data.stream` each comes, from 0; None without one.
    """

    x: Rows
    y: Tensor
    stage: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y)

    def subset(self, indices: Tensor) -> "Samples":
        """The samples at `indices`, int64 (M,), in that order."""
        stage = None if self.stage is None else self.stage[indices]
        return Samples(take(self.x, indices), self.y[indices], stage)

    def of_stage(self, stage: int) -> "Samples":
        """The samples of one stage, or all where they come in none."""
        return self if self.stage is None else self.subset((self.stage == stage).nonzero()[:, 0])

    def seen_by(self, sight: Sight | None) -> "Samples":
        """The samples with what is seen of their inputs; None sees all."""
        return self if sight is None else replace(self, x=sight.of(self.x))

    def last_of_each_class(self, count: int) -> "Samples":
        """The last `count` samples of each class, class after class."""
        labels = sorted(set(self.y.tolist()))
        chosen = [(self.y == label).nonzero().flatten()[-count:] for label in labels]
        return self.subset(torch.cat(chosen))


def joined(*parts: Samples) -> Samples:
    """Samples one after the other, with their stages where all have some."""
    stages = [part.stage for part in parts if part.stage is not None]
    stage = torch.cat(stages) if len(stages) == len(parts) else None
    return Samples(concat([p.x for p in parts]), torch.cat([p.y for p in parts]), stage)


class Tokenized:
    """What follows from how texts became numbers, of whatever data has `tokenizers` by view."""

    tokenizers: Mapping[str, Tokenizer]

    @property
    def vocabularies(self) -> dict[str, Vocabulary]:
        """Of texts, what tokens records hold, by view."""
        return {name: each.vocabulary for name, each in self.tokenizers.items()}

    @property
    def decode(self) -> Callable[[Tensor], list[str]] | None:
        """Token numbers (N, L) as texts; None of what is no text, or has several tokenisers."""
        found = [each.decode for each in self.tokenizers.values()]
        return found[0] if len(found) == 1 else None


@dataclass(frozen=True, eq=False)
class Dataset(Tokenized):
    """A data set with its official or drawn test split, not yet split among clients.

    Attributes:
        name: as the run's summary shows it.
        train: what clients will share out.
        test: held out for evaluation.
        classes: the number of classes C; labels are 0..C-1. Of other targets, how many labels or
            numbers a sample has.
        class_names: C names, by label.
        groups: int64 (N_train,), the natural client of each training sample, 0..G-1; None without.
        features: F names, where samples are rows with named columns; else none.
        scale: the limits by which columns were scaled, by name; an .npz's are numbers from 0, and
            of records that are no rows all values are one column, `scaling.ALL`.
        targets: what targets are.
        tokenizers: of texts, how they became numbers; by view, where records have several.
        length: of texts, the most tokens of one; 0 of records that are no texts.
        own: of views whose targets are their own, such as what is written in other tokens: the data
            set of each, by name; `train.y` and `test.y` are then those of the first.
    """

    name: str
    train: Samples
    test: Samples
    classes: int
    class_names: tuple[str, ...]
    groups: Tensor | None = None
    features: tuple[str, ...] = ()
    scale: Mapping[str, Limits] = field(default_factory=dict)
    targets: Targets = "classes"
    tokenizers: Mapping[str, Tokenizer] = field(default_factory=dict)
    length: int = 0
    own: Mapping[str, "Dataset"] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample: (C, H, W) or (F,)."""
        return shape_of(self.train.x)

    def seen_by(self, sight: Sight | None) -> "Dataset":
        """The data set with what is seen of its inputs; None sees all."""
        if sight is None:
            return self
        if self.own and len(sight.parts) == 1:
            return self.own[next(iter(sight.parts))]
        train, test = (part.seen_by(sight) for part in (self.train, self.test))
        return replace(
            self,
            train=train,
            test=test,
            features=sight.features(self.features),
            scale=sight.scale(self.scale),
            tokenizers=sight.among(self.tokenizers),
        )


@dataclass(frozen=True, eq=False)
class FederatedData(Tokenized):
    """A data set split among clients.

    Attributes:
        name: as the run's summary shows it.
        classes: as in `Dataset`.
        class_names: C names, by label.
        clients: each client's private training data, by client index.
        public: M unlabelled records that every party holds; None without.
        test: held out for evaluation.
        features: F names, where samples are rows with named columns; else none.
        scale: as in `Dataset`.
        targets: as in `Dataset`.
        held_out: what each client keeps from training, by client index; none where nobody does.
        tokenizers: as in `Dataset`.
        length: as in `Dataset`.
    """

    name: str
    classes: int
    class_names: tuple[str, ...]
    clients: tuple[Samples, ...]
    public: Rows | None
    test: Samples
    features: tuple[str, ...] = ()
    scale: Mapping[str, Limits] = field(default_factory=dict)
    targets: Targets = "classes"
    held_out: tuple[Samples, ...] = ()
    tokenizers: Mapping[str, Tokenizer] = field(default_factory=dict)
    length: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample: (C, H, W) or (F,); () of a table, whose columns have shapes."""
        found = shapes_of(self.test.x)
        return found if isinstance(found, tuple) else ()

    def seen_by(self, sight: Sight | None) -> "FederatedData":
        """The data with what is seen of inputs, whoever's they are; None sees all."""
        if sight is None:
            return self
        return replace(
            self,
            clients=tuple(each.seen_by(sight) for each in self.clients),
            held_out=tuple(each.seen_by(sight) for each in self.held_out),
            public=None if self.public is None else sight.of(self.public),
            test=self.test.seen_by(sight),
            features=sight.features(self.features),
            scale=sight.scale(self.scale),
            tokenizers=sight.among(self.tokenizers),
        )

    @property
    def counted_names(self) -> tuple[str, ...]:
        """What the columns of `counts` are called."""
        return targets.counted_names(self.class_names, self.targets)

    def counts(self) -> Tensor:
        """How many samples of each class each client holds: int64 (clients, C).

        Of labels (clients, L), how many have each; of numbers (clients, D), how many there are; of
        what is written (clients, 1), how many tokens.
        """
        return torch.stack(
            [targets.counted(client.y, self.targets, self.classes) for client in self.clients]
        )

    def pooled(self) -> Samples:
        """All clients' training data in one place, client after client."""
        return joined(*self.clients)
