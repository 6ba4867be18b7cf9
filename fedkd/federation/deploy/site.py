"""A site's own word: SITE.toml says what its data may be used for, and nothing can loosen it.

An experiment comes from the server. Before anything that it names is imported, opened or trained,
it is held against the site's policy; the first line that does not allow it refuses it.
"""

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from fedkd.config import Experiment, Format, Frozen, Interactions, Layout, specs_in, validate
from fedkd.errors import ConfigError, PolicyError
from fedkd.federation.deploy.bundle import fingerprint
from fedkd.privacy.budget import Budget

_RUN = re.compile(r"[0-9a-f]{32}")


class OwnData(Frozen):
    """The site's data."""

    path: str
    """An .npz file or a folder of .npy files with `x_train` and `y_train`, or a CSV file."""
    format: Format | None = None
    """By the file's name unless given."""
    label: str = "label"
    """CSV: the column of labels."""
    decimal: Literal[".", ","] = "."
    """CSV: what stands in front of a number's decimals."""
    layout: Layout | None = None
    """Arrays: how records are laid out, as `data.layout` of an experiment."""
    range: tuple[float, float] | None = None
    """Arrays: what becomes 0 and 1, as `data.range` of the experiment."""
    interactions: Interactions | None = None
    """CSV of a recommender: its columns, as `data.interactions` of an experiment."""


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


@dataclass(frozen=True)
class Policy:
    """A site's word, and where it stands."""

    file: Path
    site: Site

    @classmethod
    def load(cls, file: Path) -> "Policy":
        """Read a SITE.toml.

        Raises:
            ConfigError: it is missing or no TOML, or a key or a value in it is wrong.
        """
        try:
            table = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(
                f"site {str(file)!r}: {error.strerror}; see docs/deploy.md"
            ) from error
        except ValueError as error:
            raise ConfigError(f"site {str(file)!r} is not valid TOML: {error}") from error
        try:
            return cls(file.resolve(), validate(Site, table))
        except ConfigError as error:
            raise ConfigError(f"site {str(file)!r}: {error}") from error

    def path(self, name: str) -> Path:
        """A path that the site names, from where its file stands."""
        return self.file.parent / Path(name).expanduser()

    def weights(self, name: str) -> str:
        """Where weights lie that an experiment names."""
        return str(self.path(self.site.weights) / name)

    @cached_property
    def format(self) -> Format:
        """What the data is.

        Raises:
            ConfigError: neither the site nor the file's name says it.
        """
        if self.site.data.format is not None:
            return self.site.data.format
        if self.path(self.site.data.path).is_dir():
            return "npz"
        match Path(self.site.data.path).suffix.lower():
            case ".npz":
                return "npz"
            case ".csv":
                return "csv"
        raise ConfigError(
            f"site {str(self.file)!r}: data.path = {self.site.data.path!r} ends in neither .npz "
            "nor .csv: say data.format"
        )

    @property
    def cap(self) -> Budget | None:
        """The most that may ever be spent."""
        cap = self.site.privacy
        if cap.epsilon is None or cap.delta is None:
            return None
        return Budget(cap.epsilon, cap.delta)

    def check(self, text: str, experiment: Experiment) -> None:
        """Refuse an experiment that the site does not allow; called before it is built.

        Args:
            text: the experiment as it came.
            experiment: the same, parsed.

        Raises:
            PolicyError: names the line of the site's file and what the experiment asks for.
        """
        from fedkd.models import NAMES, hub  # a SuperNode, which carries messages, needs no torch

        allow, limits = self.site.allow, self.site.limits
        models = NAMES if allow.models is None else allow.models
        if allow.experiments and fingerprint(text) not in allow.experiments:
            self._refuse("allow.experiments", f"experiment {fingerprint(text)} is not among them")
        if experiment.method.name not in allow.methods:
            self._refuse("allow.methods", f"the method is {experiment.method.name!r}")
        if (kept := experiment.method.parameters.get("exemplars", 0)) > allow.exemplars:
            self._refuse("allow.exemplars", f"the experiment would keep {kept}")
        for model in (*experiment.clients.models, experiment.student.model):
            if not _is_among(models, model.name):
                self._refuse("allow.models", f"a model is {model.name!r}")
        for value in _strings(experiment.model_dump(mode="json")):
            # A path to code, wherever a method may take one; what is allowed is said in full.
            if ":" in value and value not in (*allow.methods, *models):
                self._refuse("allow.models", f"the experiment names code, {value!r}")
            if hub.family(value) and not _is_among(models, value):
                self._refuse("allow.models", f"the experiment names the model {value!r}")
        self._check_paths(experiment)
        self._check_privacy(experiment)
        rounds = experiment.rounds + experiment.privacy.spare_rounds
        if rounds > limits.rounds:
            self._refuse("limits.rounds", f"the experiment has {rounds} rounds")

    def check_size(self, sent: int) -> None:
        """Refuse what would be sent, known before any data is touched.

        Raises:
            PolicyError: it is more bytes than the site allows.
        """
        if sent > self.site.limits.bytes:
            self._refuse("limits.bytes", f"each round's answer would have {sent} bytes")

    def out_of_time(self) -> PolicyError:
        """The complaint about a round that takes too long."""
        return PolicyError(self._text("limits.seconds", "the round took longer"), key=_SECONDS)

    def _check_paths(self, experiment: Experiment) -> None:
        data, privacy = experiment.data, experiment.privacy
        public = data.public.source if data.public is not None else ""
        for value in (data.name, data.test or "", public, privacy.ledger or ""):
            if _is_path(value):
                self._refuse(
                    "data.path", f"the experiment names the path {value!r}: only its own is read"
                )
        given = [spec.weights.file for spec in specs_in(experiment) if spec.weights is not None]
        names = _strings(experiment.model_dump(mode="json"))
        for value in (*given, *(name[3:] for name in names if name.startswith("hf/"))):
            if _is_path(value) or value in (".", ".."):
                self._refuse("weights", f"the experiment names the path {value!r}: only names do")

    def _check_privacy(self, experiment: Experiment) -> None:
        privacy, cap = experiment.privacy, self.cap
        if cap is None:
            return
        if privacy.unit != "record":
            self._refuse("privacy.unit", f"the experiment protects by {privacy.unit!r}")
        if privacy.epsilon is None or privacy.epsilon > cap.epsilon:
            self._refuse("privacy.epsilon", f"the experiment's budget is {privacy.epsilon:g}")
        if privacy.delta != cap.delta:
            self._refuse("privacy.delta", f"the experiment's delta is {privacy.delta:g}")
        if privacy.secure_aggregation and not self.site.privacy.secure_aggregation:
            self._refuse(
                "privacy.secure_aggregation",
                "under the experiment's the site would add but a share of the noise",
            )

    def _refuse(self, key: str, why: str) -> None:
        raise PolicyError(self._text(key, why), key=key)

    def _text(self, key: str, why: str) -> str:
        value: Any = self.site
        for part in key.split("."):
            value = getattr(value, part)
        shown = list(value) if isinstance(value, tuple) else value
        return f"refused by {self.file.name}: {key} = {shown!r}, and {why}"


_SECONDS = "limits.seconds"


def _is_path(value: str) -> bool:
    return "/" in value or "\\" in value or value.startswith("~")


def _is_among(models: Collection[str], name: str) -> bool:
    """Whether a model is named, or its whole family is."""
    return name in models or f"{name.partition('/')[0]}/*" in models


def _strings(value: Any) -> Iterator[str]:
    """Every string in a table."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)


def run_name(text: str) -> str:
    """The name of a run as the server gives it, once it is sure that it names no path.

    Raises:
        ValueError: it is none.
    """
    if not _RUN.fullmatch(text):
        raise ValueError("Expected a run's name of 32 hexadecimal digits.")
    return text
