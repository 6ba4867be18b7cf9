"""What SITE.toml says, key by key."""

from typing import Literal, Self

from pydantic import Field, model_validator

from fedkd.config import Format, Frozen, Interactions, Layout, PictureKeys, TextColumns


class OwnData(PictureKeys):
    """The site's data."""

    path: str
    """An .npz file or a folder of .npy files with `x_train` and `y_train`, a folder of pictures, a
    table, CSV or Parquet, or a table of texts, which may be JSON too."""
    format: Format | None = None
    """By the file's name unless given."""
    label: str | tuple[str, ...] = "label"
    """CSV and texts: the column of labels; of spans the answer's, and perhaps where it starts."""
    decimal: Literal[".", ","] = "."
    """CSV: what stands in front of a number's decimals."""
    layout: Layout | None = None
    """Arrays: how records are laid out, as `data.layout` of an experiment."""
    range: tuple[float, float] | None = None
    """Arrays and pictures: what becomes 0 and 1, as `data.range` of the experiment."""
    tile: int | None = Field(default=None, ge=1)
    """Pictures: the side of squares into which all are cut, as `data.tile` of the experiment."""
    interactions: Interactions | None = None
    """CSV of a recommender: its columns, as `data.interactions` of an experiment."""
    text: TextColumns | None = None
    """A table of texts: its columns, as `column` and `cut` of an experiment's `data.text`."""


class Allow(Frozen):
    """What may run on the site's data."""

    methods: tuple[str, ...] = Field(min_length=1)
    """By name, or by import path for a method that is installed here."""
    models: tuple[str, ...] | None = None
    """By name, or by import path for a model that is installed here; `torchvision/*` is all of a
    family, likewise `timm/*` and `hf/*`. All built-in ones unless given."""
    experiments: tuple[str, ...] = ()
    """The SHA-256 of each experiment that may run, as 'fedkd deploy app' prints it; empty: any."""
    exemplars: int = Field(default=0, ge=0)
    """The most records of earlier stages (`[data.stream]`) that are learned from again; here."""


class Cap(Frozen):
    """What protection the site asks for."""

    unit: Literal["record", "none"]
    """`none` lets experiments run that protect nothing; say so on purpose."""
    epsilon: float | None = Field(default=None, gt=0)
    """The most that all experiments together may ever spend of the site's data."""
    delta: float | None = Field(default=None, gt=0, lt=1)
    secure_aggregation: bool = False
    """`record`: whether experiments may have the site add no more than its share of the noise, on
    the server's word that others add theirs and that it sees none but the sum."""

    @model_validator(mode="after")
    def _budget_is_whole(self) -> Self:
        for name in ("epsilon", "delta"):
            given = getattr(self, name) is not None
            if given != (self.unit == "record"):
                rule = "needs it" if self.unit == "record" else "has no budget"
                raise ValueError(f"privacy.{name}: privacy.unit = {self.unit!r} {rule}")
        return self


class Limits(Frozen):
    """How much the site gives to one experiment."""

    rounds: int = Field(default=100, ge=1)
    seconds: float = Field(default=3600.0, gt=0)
    """For one answer."""
    bytes: int = Field(default=1_000_000_000, ge=1)
    """In one message, in or out."""


class Site(Frozen):
    """SITE.toml."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    server: str = Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$")
    """The server's `host:port`, the host as its certificate has it."""
    ca: str = "ca.crt"
    """The certificate of the federation's CA."""
    key: str
    """The site's private key."""
    clients: str = "clients"
    """The folder of all sites' public keys, NAME.pub each: by these it knows under secure
    aggregation that the server makes nobody up."""
    shared: str = "shared.safetensors"
    """What all parties hold: proxy set and test set, as the coordinator gave it out."""
    weights: str = "weights"
    """The folder of weights that models may start from, by file name, and Hugging Face folders."""
    state: str = "state"
    """The folder of teachers and of the ledger."""
    device: str = Field(default="cpu", min_length=1)
    """Where the site's models learn, whatever `[engine]` says; `auto` takes an accelerator."""
    data: OwnData
    allow: Allow
    privacy: Cap
    limits: Limits = Limits()
