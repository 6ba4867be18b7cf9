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
from typing import Any

from fedkd.config import (
    Experiment,
    Format,
    specs_in,
    validate,
)
from fedkd.errors import ConfigError, PolicyError
from fedkd.federation.deploy.bundle import fingerprint
from fedkd.federation.deploy.site_file import Site
from fedkd.privacy.budget import Budget

_RUN = re.compile(r"[0-9a-f]{32}")


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
            case ".csv" | ".tsv" | ".parquet":
                return "csv" if self.site.data.text is None else "text"
            case ".json" | ".jsonl":
                return "text"
        raise ConfigError(
            f"site {str(self.file)!r}: data.path = {self.site.data.path!r} ends in neither .npz "
            "nor .csv or .parquet, nor is it a table of texts: say data.format"
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

    def knows_nobody(self) -> PolicyError:
        """The complaint about secure aggregation with sites whose keys are not at hand."""
        why = "it holds no site's public key, by which secure aggregation knows who takes part"
        return PolicyError(self._text("clients", why), key="clients")

    def out_of_time(self) -> PolicyError:
        """The complaint about a round that takes too long."""
        return PolicyError(self._text("limits.seconds", "the round took longer"), key=_SECONDS)

    def _check_paths(self, experiment: Experiment) -> None:
        data, privacy = experiment.data, experiment.privacy
        public = data.public.source if data.public is not None else ""
        texts = [] if data.text is None else [*data.text.tokenizers.values(), data.text.texts or ""]
        for value in (
            data.name,
            *data.clients,
            data.test or "",
            public,
            privacy.ledger or "",
            *texts,
        ):
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
