"""How one model is fitted, and how noise protects what it is fitted to."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from fedkd.config.parts import Frozen, ShortChoice, absent


class Augmentation(ShortChoice):
    """A random change of training inputs: `"flip"` or `{ name = "crop", padding = 2 }`."""


OPTIMISERS = {
    "sgd": "SGD",
    "adam": "Adam",
    "adamw": "AdamW",
    "rmsprop": "RMSprop",
    "adagrad": "Adagrad",
    "adadelta": "Adadelta",
    "adamax": "Adamax",
    "nadam": "NAdam",
    "radam": "RAdam",
}
"""The optimisers by name, each with its class in `torch.optim`: all whose state is tensors that can
be kept from round to round, and whose rate may change from step to step."""

_UNFIT = {
    "lbfgs": "LBFGS evaluates the loss several times in a step",
    "sparseadam": "SparseAdam takes sparse gradients alone",
    "rprop": "Rprop has step sizes of its own and needs all data in one batch",
}


def _optimiser(name: str) -> str:
    if name not in OPTIMISERS:
        *most, last = map(repr, OPTIMISERS)
        reason = f"; {_UNFIT[name.lower()]}" if name.lower() in _UNFIT else ""
        raise PydanticCustomError("optimiser", f"{', '.join(most)} or {last}{reason}")
    return name


class Optimisation(Frozen):
    """How one model is fitted: epochs, batches, optimiser, and what is done to inputs."""

    epochs: int = Field(default=5, ge=1)
    batch_size: int = Field(default=64, ge=1)
    optimiser: Annotated[str, AfterValidator(_optimiser)] = "sgd"
    """One of `OPTIMISERS`."""
    learning_rate: float = Field(default=0.01, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of `sgd`; the other optimisers have torch's defaults beside rate and decay."""
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: float = Field(default=0.0, ge=0, exclude_if=absent)
    """The epochs, such as 0.5, in which the rate rises from a hundredth of the schedule's."""
    clip_norm: float | None = Field(default=None, gt=0, exclude_if=absent)
    """The largest L2 norm of a step's gradient, all parameters together; None: any."""
    augment: tuple[Augmentation, ...] = Field(default=(), exclude_if=absent)
    """What is done to each batch of inputs, in this order: see `fedkd.learning.augment`."""

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> Self:
        if self.warmup > self.epochs:
            raise ValueError(
                f"warmup is {self.warmup:g} epochs, and epochs is {self.epochs}: expected at most "
                "as many"
            )
        return self


def _is_flat(clipping: str) -> bool:
    return clipping == "flat"


class DPSGD(Frozen):
    """How noise is added to the training of a model, and where it is accounted for."""

    delta: float = Field(default=1e-5, gt=0, lt=1)
    """Well below one over the number of units that are hidden."""
    most_records: int | None = Field(default=None, ge=1)
    """`record`: a public number that no data set's records reach; 10,000 unless given. Delta is
    held against it, so that no refusal tells how many records there are."""
    noise_multiplier: float | None = Field(default=None, gt=0)
    """Noise over sensitivity; without it, the least with which the whole plan fits the budget."""
    clip: float = Field(default=1.0, ge=1e-6, le=1e6)
    """`record`: the L2 norm that a record's gradient, or its features, are clipped to."""
    clipping: Literal["flat", "automatic", "layers"] = Field(default="flat", exclude_if=_is_flat)
    """`record`: how a gradient is clipped: all of it together; the same, and what is shorter made
    as long; or each layer's part alone, to a clip of which the squares add up to that of `clip`."""
    sample_rate: float = Field(default=0.05, gt=0, le=1)
    """`record`: the probability with which a step takes each record; public, equal for all."""
    batch_size: int | None = Field(default=None, ge=1)
    """`record`: what a step's noisy sum is divided by; public; that of training unless given."""
    ledger: str | None = Field(default=None, min_length=1)
    """A folder for the ledgers, so that all runs share one budget; the run's own unless given."""
