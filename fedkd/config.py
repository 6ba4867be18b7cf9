"""An experiment: what one TOML file says, validated to the last key.

A file is a federation (`Experiment`) or one party's distillation (`Distillation`). `load` reads the
one, `load_distillation` the other, `to_toml` writes it back complete and resolved. The parameters
of a method, a way or a form of knowledge stay a plain table here; who owns them validates them
(`fedkd.methods.resolve`, `fedkd.learning.ways.resolve`), so this file does not grow with them.
"""

import json
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import tomli_w
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from fedkd import overrides as overriding
from fedkd.errors import ConfigError
from fedkd.explain import explain

M = TypeVar("M", bound=BaseModel)
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What an experiment may be called: it names a folder."""


class Frozen(BaseModel):
    """A part of the configuration: immutable, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Format = Literal["npz", "csv"]
"""The forms of a party's own data."""


class ModelSpec(Frozen):
    """A model by name, with its options: `"mlp"` or `{ name = "resnet8", norm = "group" }`.

    The name is a built-in or an import path, `"package.module:Class"`.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_serializer(mode="wrap")
    def _to_string(self, handler: SerializerFunctionWrapHandler) -> Any:
        return handler(self) if self.options else self.name

    @property
    def options(self) -> dict[str, Any]:
        """What is passed to the model's factory beside shape and classes."""
        return dict(self.model_extra or {})

    def __str__(self) -> str:
        options = ", ".join(f"{key}={value}" for key, value in sorted(self.options.items()))
        return f"{self.name}({options})" if options else self.name


class Optimisation(Frozen):
    """How one model is fitted: epochs, batches and optimiser."""

    epochs: int = Field(default=5, ge=1)
    batch_size: int = Field(default=64, ge=1)
    optimiser: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = Field(default=0.01, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"


class PublicData(Frozen):
    """The proxy set: unlabelled inputs that every party holds."""

    source: str = "held-out"
    """`"held-out"` from the training set before it is split, or another set's name or path."""
    size: int = Field(default=1000, ge=1)
    """How many samples."""


class Iid(Frozen):
    """Equal random shares."""

    scheme: Literal["iid"] = "iid"


class Shards(Frozen):
    """Sort by label, cut into equal shards, deal each client some of them (arXiv:1602.05629)."""

    scheme: Literal["shards"]
    per_client: int = Field(default=2, ge=1)


class Natural(Frozen):
    """The split that the data brings: `client_train` in an .npz, the client column in a CSV."""

    scheme: Literal["natural"]


class Dirichlet(Frozen):
    """One of the three draws that papers all call Dirichlet.

    `dirichlet`: per class, shares over clients from Dir(alpha). `dirichlet-balanced`: the same, but
    a client that holds its fair share already gets nothing more (DENSE, arXiv:2112.12371).
    `dirichlet-client`: per client, a class prior from Dir(alpha); equal sizes (Co-Boosting).
    """

    scheme: Literal["dirichlet", "dirichlet-balanced", "dirichlet-client"]
    alpha: float = Field(default=0.5, gt=0)
    min_size: int = Field(default=10, ge=1)
    """The fewest samples that a client may end with."""


Partition = Annotated[Iid | Shards | Natural | Dirichlet, Field(discriminator="scheme")]


def _absent(value: object) -> bool:
    """Whether a key that came later says nothing, so that an experiment keeps its SHA-256."""
    return not value


def _is_point(value: object) -> bool:
    return value == "."


class Source(Frozen):
    """Where data comes from, and what is held out for testing."""

    name: str = "fashion-mnist-sample"
    """A known name, such as `fashion-mnist-sample`, or the path of an .npz or .csv file."""
    label: str = "label"
    """CSV: the column of labels."""
    client: str | None = None
    """CSV: the column that says whose row it is; left out of the features."""
    ignore: tuple[str, ...] = Field(default=(), exclude_if=_absent)
    """CSV: columns that are left out, such as dates and identifiers."""
    decimal: Literal[".", ","] = Field(default=".", exclude_if=_is_point)
    """CSV: what stands in front of a number's decimals."""
    missing: Literal["refuse", "indicate"] = "refuse"
    """CSV: of cells without a value; `indicate`: 0, and a column `X?` more for each column `X`."""
    limits: dict[str, tuple[float, float]] = Field(default={}, exclude_if=_absent)
    """Rows of features: what becomes -1 and 1 of a column, by its name; others stay as they are."""
    test_share: float = Field(default=0.2, gt=0, lt=1)
    """CSV and hospitals: the share of rows held out for testing, each by a hash of itself."""
    test: str | None = Field(default=None, min_length=1)
    """CSV: a file of its own whose rows are for testing; then none is held out."""

    @model_validator(mode="after")
    def _needed_is_not_ignored(self) -> Self:
        for key, column in (("label", self.label), ("client", self.client)):
            if column in self.ignore:
                raise ValueError(
                    f"data.ignore names {column!r}, which is data.{key}: leave it out there"
                )
        return self


class Data(Source):
    """Where data comes from and how it is split among the clients."""

    scale: Literal["public"] | None = None
    """Rows of features: `public` scales columns without limits by the proxy set."""
    public: PublicData | None = None
    partition: Partition = Dirichlet(scheme="dirichlet")

    @model_validator(mode="after")
    def _scaled_by_something(self) -> Self:
        if self.scale and self.public is None:
            raise ValueError(
                "data.scale is 'public', and there is no [data.public]: add one, or give limits by "
                "data.limits"
            )
        return self


class Privileged(Frozen):
    """What the clients' teachers see, and the global student never does.

    Vapnik & Vashist 2009; as distillation, Lopez-Paz et al. 2016, arXiv:1511.03643.
    """

    columns: tuple[str, ...] = Field(min_length=1)
    """Names of tests, each with all the columns that it is encoded as, or of single columns."""


class Clients(Frozen):
    """The parties: how many, which models, how they train, how many must answer."""

    count: int | None = Field(default=None, ge=1)
    """How many; required unless the partition is `natural`, which knows."""
    models: tuple[ModelSpec, ...] = Field(default=(ModelSpec(name="lenet5"),), min_length=1)
    """Dealt in turn: client i gets models[i mod len]."""
    training: Optimisation = Optimisation()
    privileged: Privileged | None = None
    """What only the teachers see; None: the student sees what they see."""
    participation: float = Field(default=1.0, gt=0, le=1)
    """The share of clients sampled each round: the cohort."""
    quorum: float = Field(default=0.5, gt=0, le=1)
    """The share of the cohort that must answer for a round to count."""
    max_weight: float | None = Field(default=None, gt=0, le=1)
    """The largest share of all samples that one client is believed to hold, whatever it claims; of
    n clients (1 + 1/n) / 2 unless given, which is most of them. 1 takes every claim as it comes.
    Of a single class a client may hold more, and methods without counts have no such bound."""
    deadline: float | None = Field(default=None, gt=0)
    """Seconds after which a round goes on without those who have not answered."""


class Student(Frozen):
    """The one global model that comes out."""

    model: ModelSpec = ModelSpec(name="lenet5")


class Choice(Frozen):
    """Something by name; every other key is its own parameter."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str = Field(min_length=1)

    @property
    def parameters(self) -> dict[str, Any]:
        """Its own parameters, validated by whoever has the name."""
        return dict(self.model_extra or {})


class MethodChoice(Choice):
    """A federated method by name or import path; every other key is the method's own parameter."""


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
    sample_rate: float = Field(default=0.05, gt=0, le=1)
    """`record`: the probability with which a step takes each record; public, equal for all."""
    batch_size: int | None = Field(default=None, ge=1)
    """`record`: what a step's noisy sum is divided by; public; that of training unless given."""
    ledger: str | None = Field(default=None, min_length=1)
    """A folder for the ledgers, so that all runs share one budget; the run's own unless given."""


class Privacy(DPSGD):
    """What is protected, how much of it may be spent, and how. Only `none` protects nothing.

    `record`: each client's teacher learns by DP-SGD, so that whatever comes from it hides any one
    record. `client-votes`, `client-logits`: the server, which is trusted, adds noise to what it
    combines, so that the student hides any one client.
    """

    unit: Literal["none", "record", "client-votes", "client-logits"] = "none"
    epsilon: float | None = Field(default=None, gt=0)
    """The budget: the most that one data set may ever cost. Naming one makes the unit `record`."""
    count_noise: float = Field(default=10.0, gt=0)
    """`record`: the scale of the Laplace noise on a count, in records; each count is sent once."""
    secure_aggregation: bool = False
    """The server sees the sum of what clients send and no client's own part; under `record` noise
    is added to that sum once, a share by each client. For methods that need only the sum."""
    spare_rounds: int = Field(default=0, ge=0)
    """Rounds paid for beyond those planned: one is used up where a crash cuts off a training."""

    @model_validator(mode="before")
    @classmethod
    def _budget_means_record(cls, value: Any) -> Any:
        named = isinstance(value, Mapping) and "epsilon" in value and "unit" not in value
        return {**value, "unit": "record"} if named else value

    @model_validator(mode="after")
    def _budget_is_named(self) -> Self:
        if self.unit != "none" and self.epsilon is None:
            raise ValueError(
                f"privacy.epsilon is missing: privacy.unit = {self.unit!r} needs a budget, "
                "such as epsilon = 8"
            )
        if self.secure_aggregation and self.unit.startswith("client"):
            raise ValueError(
                f"privacy.secure_aggregation hides the answers that the server protects by "
                f"privacy.unit = {self.unit!r}: leave it out, or take unit = 'record'"
            )
        defaults = {name: field.default for name, field in type(self).model_fields.items()}
        idle = [
            name for name, value in self if value != defaults[name] and name != "secure_aggregation"
        ]
        if self.unit == "none" and idle:
            raise ValueError(
                f"privacy.{idle[0]} is {getattr(self, idle[0])!r}, and with privacy.unit = 'none' "
                "it would protect nothing: name a budget, such as epsilon = 8, or leave it out"
            )
        return self


class Engine(Frozen):
    """Where clients run in a simulation."""

    kind: Literal["in-process", "ray"] = "in-process"
    threads: int = Field(default=0, ge=0)
    """Clients at a time; 0: one a core. The result does not depend on it."""


class Output(Frozen):
    """Where run folders go."""

    folder: str = "runs"


class Experiment(Frozen):
    """One experiment, complete."""

    name: str = Field(pattern=NAME, max_length=80)
    seed: int = Field(default=0, ge=0)
    rounds: int = Field(default=1, ge=1)
    data: Data = Data()
    clients: Clients
    student: Student = Student()
    method: MethodChoice
    privacy: Privacy = Privacy()
    engine: Engine = Engine()
    output: Output = Output()

    @model_validator(mode="after")
    def _count_is_known(self) -> Self:
        natural = isinstance(self.data.partition, Natural)
        if not natural and self.clients.count is None:
            raise ValueError("clients.count is missing: how many clients share the data?")
        return self

    def client_model(self, client: int) -> ModelSpec:
        """The model of client `client`."""
        return self.clients.models[client % len(self.clients.models)]

    def to_toml(self) -> str:
        """The complete experiment as TOML; `load` reads it back equal."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def to_json(self) -> str:
        """The complete experiment as one JSON string, for the wire."""
        return self.model_dump_json(exclude_none=True)


class Trained(Frozen):
    """A model and how it is trained."""

    model: ModelSpec = ModelSpec(name="lenet5")
    training: Optimisation = Optimisation()


class RecordPrivacy(DPSGD):
    """What may be spent so that a student hides any one record of its training data."""

    epsilon: float = Field(gt=0)
    """The budget: the most that one data set may ever cost."""


class Teacher(Trained):
    """A teacher, trained at the run's start or given."""

    weights: str | None = Field(default=None, min_length=1)
    """Given: a run folder, whose student it is, or a .safetensors file with weights of `model`."""
    data: Literal["private", "public"] = "private"
    """What given weights were learned from; under [privacy] it must have been public data."""


class WayChoice(Choice):
    """How the student learns, by name; every other key is the way's own parameter."""


class Knowledge(Choice):
    """A form of knowledge by name, and the layers it looks at; other keys are its parameters."""

    student: tuple[str, ...] = ()
    """The student's layers; the form's own default unless named."""
    teacher: tuple[str, ...] = ()
    """The teacher's layers, one for each of the student's."""

    @model_validator(mode="before")
    @classmethod
    def _one_layer(cls, value: Any) -> Any:
        """A single layer may stand without brackets."""
        if not isinstance(value, Mapping):
            return value
        sides = {key: value[key] for key in ("student", "teacher") if key in value}
        lists = {k: (v,) if isinstance(v, str) else v for k, v in sides.items()}
        return {**value, **{k: tuple(v) if isinstance(v, list) else v for k, v in lists.items()}}


class Distillation(Frozen):
    """One party's distillation, complete."""

    name: str = Field(pattern=NAME, max_length=80)
    seed: int = Field(default=0, ge=0)
    plain: bool = True
    """Whether the student is trained on labels alone as well, to be compared with."""
    data: Source = Source()
    teachers: tuple[Teacher, ...] = ()
    student: Trained = Trained()
    way: WayChoice = WayChoice(name="offline")
    knowledge: tuple[Knowledge, ...] = ()
    privacy: RecordPrivacy | None = None
    output: Output = Output()

    def to_toml(self) -> str:
        """The complete distillation as TOML; `load_distillation` reads it back equal."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def load(path: Path | str, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment from a TOML file, with `key.path=value` overrides on top.

    Raises:
        ConfigError: the file is missing or no TOML, or a key or value in it is wrong.
    """
    table = read(path, overrides)
    if {"way", "teachers", "knowledge"} & table.keys():
        raise ConfigError(
            f"experiment {str(path)!r} is one party's distillation, no federation: run it with "
            "fedkd distil"
        )
    return parse(table)


def load_distillation(path: Path | str, overrides: Sequence[str] = ()) -> Distillation:
    """As `load`, of one party's distillation.

    Raises:
        ConfigError: as `load`.
    """
    table = read(path, overrides)
    if {"clients", "method", "rounds"} & table.keys():
        raise ConfigError(
            f"experiment {str(path)!r} is a federation, no distillation for one party: run it with "
            "fedkd simulate"
        )
    return validate(Distillation, table)


def read(path: Path | str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The table that a TOML file holds, with `key.path=value` overrides on top.

    Raises:
        ConfigError: the file is missing or no TOML, or an override is not understood.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        own = path / "config.toml"
        hint = f"; did you mean {str(own)!r}?" if own.exists() else ""
        raise ConfigError(
            f"experiment {str(path)!r}: {error.strerror}; expected the path of a TOML file{hint}"
        ) from error
    except ValueError as error:
        raise ConfigError(f"experiment {str(path)!r} is not valid TOML: {error}") from error
    overriding.apply(table, overrides, _stays)
    return table


def parse(table: Mapping[str, Any]) -> Experiment:
    """Validate a table as an experiment.

    Raises:
        ConfigError: names the key, its value, what was expected and the nearest valid key.
    """
    return validate(Experiment, table)


def parse_json(text: str) -> Experiment:
    """Read an experiment that `Experiment.to_json` wrote."""
    return validate(Experiment, json.loads(text))


def validate(model: type[M], table: Any, *, prefix: str = "") -> M:
    """Validate `table` as `model`, turning pydantic's complaints into one clear line.

    Args:
        model: the frozen pydantic model.
        table: the values.
        prefix: where the table stands in the experiment, such as `"method."`.

    Raises:
        ConfigError: with every wrong key named.
    """
    try:
        # Strict, but by way of JSON: a TOML array may be a tuple, a string may not be a number.
        text = json.dumps(_over_defaults(model, table), default=str)
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise ConfigError(explain(model, error, prefix=prefix)) from error


def _over_defaults(model: type[BaseModel], table: Any) -> Any:
    """Let a table that says part of an `Optimisation` keep the rest of the field's own default.

    Or else `[method.student] epochs = 3` would quietly change the method's learning rate as well.
    """
    if not isinstance(table, Mapping):
        return table
    defaults = {key: field.default for key, field in model.model_fields.items()}
    return {
        key: {**defaults[key].model_dump(), **value}
        if isinstance(defaults.get(key), Optimisation) and isinstance(value, Mapping)
        else value
        for key, value in table.items()
    }


def _stays(keys: Sequence[str], value: Any) -> Collection[str] | None:
    """Which keys of a table stay when `keys` chooses anew; None where it is no choice.

    A partition's keys are known here. Those of a method, a model, a way or a form are not: another
    one starts from its own defaults. `data.name` is no such choice, nor the experiment's name.
    """
    *table, key = keys
    if table == ["data", "partition"] and key == "scheme":
        kinds = (Iid, Shards, Natural, Dirichlet)
        return {
            field
            for kind in kinds
            if value in get_args(kind.model_fields[key].annotation)
            for field in kind.model_fields
        }
    return () if key == "name" and table and table != ["data"] else None
