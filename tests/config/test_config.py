"""What one TOML file says: read, written back, and refused in words that help."""

import json
import logging
import re
import string
import tomllib
from pathlib import Path
from typing import Any

import drawn
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fedkd import config, methods
from fedkd.config import (
    OPTIMISERS,
    Augmentation,
    Clients,
    Data,
    Dirichlet,
    Engine,
    Experiment,
    Frozen,
    Iid,
    MethodChoice,
    ModelSpec,
    Natural,
    Optimisation,
    PublicData,
    Shards,
    Student,
)
from fedkd.config.evaluation import FederationOutput
from fedkd.errors import ConfigError
from fedkd.learning.ways.prepare import prepare

CONFIGS = Path(__file__).parents[2] / "fedkd" / "configs"
MINIMAL: dict[str, Any] = {"name": "a", "clients": {"count": 2}, "method": {"name": "fedavg"}}

words = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=12)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
counts = st.integers(1, 10**12)
positive = st.floats(1e-12, 1e12)
shares = st.floats(1e-6, 1.0)
option_values = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
options = st.dictionaries(words.filter(lambda word: word != "name"), option_values, max_size=4)
model_specs = st.builds(lambda name, more: ModelSpec(name=name, **more), texts, options)
optimisations = st.builds(
    Optimisation,
    epochs=counts,
    batch_size=counts,
    optimiser=st.sampled_from(list(OPTIMISERS)),
    learning_rate=positive,
    momentum=st.floats(0, 0.999),
    weight_decay=st.floats(0, 1e3),
    schedule=st.sampled_from(["constant", "cosine"]),
    warmup=st.sampled_from([0.0, 0.5, 1.0]),
    clip_norm=st.none() | positive,
    augment=st.lists(
        st.builds(lambda name, more: Augmentation(name=name, **more), texts, options), max_size=2
    ).map(tuple),
)
dirichlets = st.builds(
    Dirichlet,
    scheme=st.sampled_from(["dirichlet", "dirichlet-balanced", "dirichlet-client"]),
    alpha=positive,
    min_size=counts,
)
experiments = st.builds(
    Experiment,
    name=st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,79}\Z"),
    seed=st.integers(0, 2**60),
    rounds=counts,
    data=st.builds(
        Data,
        name=texts,
        label=texts,
        client=st.none() | texts,
        test_share=st.floats(0.001, 0.999),
        public=st.none() | st.builds(PublicData, source=texts, size=counts),
        partition=dirichlets
        | st.builds(Iid)
        | st.builds(Natural, scheme=st.just("natural"))
        | st.builds(Shards, scheme=st.just("shards"), per_client=counts),
    ),
    clients=st.builds(
        Clients,
        count=counts,
        models=st.lists(model_specs, min_size=1, max_size=3).map(tuple),
        training=optimisations,
        participation=shares,
        quorum=shares,
        deadline=st.none() | positive,
    ),
    student=st.builds(Student, model=model_specs),
    method=st.builds(lambda name, more: MethodChoice(name=name, **more), texts, options),
    engine=st.builds(
        Engine, kind=st.sampled_from(["in-process", "processes", "ray"]), threads=st.integers(0, 99)
    ),
    output=st.builds(FederationOutput, folder=texts),
)


def refusal(table: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        config.parse(table)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def at(path: str, value: Any) -> dict[str, Any]:
    """The minimal experiment with `value` at a dotted path."""
    table = {**MINIMAL}
    here = table
    *sections, last = path.split(".")
    for section in sections:
        here[section] = dict(here.get(section, {}))
        here = here[section]
    here[last] = value
    return table


@settings(max_examples=60, deadline=None)
@given(experiment=experiments)
def test_every_experiment_reads_back_from_toml_and_json(experiment: Experiment) -> None:
    assert config.parse(tomllib.loads(experiment.to_toml())) == experiment
    assert config.parse_json(experiment.to_json()) == experiment


@settings(max_examples=20, deadline=None)
@given(experiment=experiments)
def test_what_is_written_is_complete(experiment: Experiment) -> None:
    written = tomllib.loads(experiment.to_toml())
    assert set(written) == set(Experiment.model_fields) - {"task", "robust", "exchange"}  # left out
    first = {key for key, field in Optimisation.model_fields.items() if field.exclude_if is None}
    assert first <= set(written["clients"]["training"]) <= set(Optimisation.model_fields)
    assert set(written["data"]["partition"]) == set(type(experiment.data.partition).model_fields)


def test_the_defaults() -> None:
    experiment = config.parse(MINIMAL)
    assert (experiment.seed, experiment.rounds) == (0, 1)
    assert experiment.data.name == "fashion-mnist-sample"
    assert experiment.data.partition == Dirichlet(scheme="dirichlet", alpha=0.5, min_size=10)
    assert experiment.data.public is None
    assert [str(model) for model in experiment.clients.models] == ["lenet5"]
    assert experiment.clients.training == Optimisation(
        epochs=5, batch_size=64, learning_rate=0.01, momentum=0.9
    )
    assert experiment.privacy.unit == "none"
    assert experiment.engine.kind == "in-process"


def test_what_is_read_cannot_be_changed() -> None:
    experiment = config.parse(at("clients.models", [{"name": "mlp", "hidden": [4]}]))
    for part, key in [(experiment, "seed"), (experiment.clients, "count"), (experiment.data, "x")]:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, key, 5)
    experiment.clients.models[0].options["hidden"] = None
    assert experiment.clients.models[0].options == {"hidden": [4]}


def test_a_model_is_a_word_or_a_table_and_is_dealt_in_turn() -> None:
    models = ["mlp", {"name": "resnet8", "norm": "group", "width": 8}, {"name": "lenet5"}]
    experiment = config.parse({**at("clients.models", models), "student": {"model": "mlp"}})
    dealt = [str(experiment.client_model(client)) for client in range(5)]
    assert dealt == ["mlp", "resnet8(norm=group, width=8)", "lenet5", "mlp", dealt[1]]
    assert experiment.student.model == experiment.client_model(0)
    written = tomllib.loads(experiment.to_toml())
    assert written["clients"]["models"] == ["mlp", models[1], "lenet5"]


@pytest.mark.parametrize(
    ("path", "wrong", "right"),
    [
        ("", "clientz", "clients"),
        ("", "round", "rounds"),
        ("data", "nmae", "name"),
        ("data.public", "sise", "size"),
        ("data.partition", "alfa", "alpha"),
        ("clients", "particpation", "participation"),
        ("clients.training", "learning-rate", "learning_rate"),
        ("student", "modle", "model"),
        ("privacy", "units", "unit"),
        ("engine", "thread", "threads"),
        ("output", "folders", "folder"),
    ],
)
def test_an_unknown_key_names_the_nearest_at_every_level(path: str, wrong: str, right: str) -> None:
    prefix = f"{path}." if path else ""
    table = at(f"{prefix}{wrong}", 1)
    if path == "data.partition":
        table["data"]["partition"]["scheme"] = "dirichlet-client"
    assert f"unknown key {prefix + wrong!r}: did you mean {prefix + right!r}?" in refusal(table)


def test_an_unknown_key_that_is_like_nothing_lists_what_is_valid() -> None:
    assert (
        refusal(at("engine.zzz", 1))
        == "unknown key 'engine.zzz': valid here: device, kind, precision, threads"
    )
    with pytest.raises(ConfigError, match=r"unknown key 'method\.zzz': valid here: none"):
        config.validate(Frozen, {"zzz": 1}, prefix="method.")


@pytest.mark.parametrize("tag", ["iid", "natural", "shards", "dirichlet"])
def test_a_key_that_is_called_like_a_partition_is_still_named(tag: str) -> None:
    assert refusal(at(tag, 1)).startswith(f"unknown key '{tag}': ")
    inside = at("data.partition", {"scheme": "dirichlet", tag: 0.3})
    assert refusal(inside).startswith(f"unknown key 'data.partition.{tag}': ")


def test_a_partition_takes_its_own_keys_only() -> None:
    found = refusal(at("data.partition", {"scheme": "shards", "alpha": 0.1}))
    assert found == "unknown key 'data.partition.alpha': valid here: per_client, scheme"


def test_an_unknown_partition_names_the_nearest() -> None:
    assert refusal(at("data.partition", {"scheme": "dirichl"})) == (
        "key 'data.partition.scheme' is \"dirichl\": did you mean 'dirichlet'? "
        "valid here: iid, shards, natural, dirichlet, dirichlet-balanced, dirichlet-client"
    )
    assert "key 'data.partition.scheme' is 5: valid here: iid" in refusal(
        at("data.partition", {"scheme": 5})
    )
    assert refusal(at("data.partition.alpha", 1.0)) == "key 'data.partition.scheme' is missing"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("seed", "5", """key 'seed' is "5": expected a valid integer"""),
        ("seed", True, "key 'seed' is true: expected a valid integer"),
        ("seed", 1.5, "key 'seed' is 1.5: expected a valid integer"),
        ("seed", 1.0, "key 'seed' is 1.0: expected a valid integer"),
        ("seed", -1, "key 'seed' is -1: expected greater than or equal to 0"),
        ("rounds", 0, "key 'rounds' is 0: expected greater than or equal to 1"),
        ("name", 5, "key 'name' is 5: expected a valid string"),
        ("data.test_share", True, "key 'data.test_share' is true: expected a valid number"),
        ("data.test_share", 1, "key 'data.test_share' is 1: expected less than 1"),
        ("data.public", True, "key 'data.public' is true: expected an object"),
        ("data.public.size", "9", """key 'data.public.size' is "9": expected a valid integer"""),
        ("data.partition", "iid", """key 'data.partition' is "iid": expected an object"""),
        ("clients.quorum", float("nan"), "key 'clients.quorum' is NaN: expected a finite number"),
        ("clients.quorum", 1.1, "key 'clients.quorum' is 1.1: expected less than or equal to 1"),
        ("clients.participation", 0, "is 0: expected greater than 0"),
        ("clients.deadline", float("inf"), "is Infinity: expected a finite number"),
        ("clients.models", "mlp", """key 'clients.models' is "mlp": expected a list, ["mlp"]"""),
        ("clients.models", [], "key 'clients.models' is []: expected to have at least 1 item"),
        ("clients.training.optimiser", "sgdd", """is "sgdd": expected 'sgd', 'adam', 'adamw',"""),
        ("clients.training.optimiser", "lbfgs", "or 'radam'; LBFGS evaluates the loss several"),
        ("clients.training.clip_norm", 0, "is 0: expected greater than 0"),
        ("clients.training.warmup", 6, "warmup is 6 epochs, and epochs is 5: expected at most"),
        ("clients.training.momentum", 1, "is 1: expected less than 1"),
        ("student.model", 3, "key 'student.model' is 3: expected an object"),
        (
            "privacy.unit",
            "client",
            """key 'privacy.unit' is "client": expected 'none', 'record', 'client-votes' or """
            "'client-logits'",
        ),
        ("method", "fedavg", """key 'method' is "fedavg": expected an object"""),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(path: str, value: Any, message: str) -> None:
    assert message in refusal(at(path, value))


def test_keys_that_came_later_are_left_out_of_an_experiment_that_does_not_say_them() -> None:
    said = {"warmup": 1.0, "clip_norm": 2.0, "augment": ["flip"]}
    plain, full = (
        json.loads(config.parse(at("clients.training", each)).to_json())["clients"]["training"]
        for each in ({}, said)
    )
    assert full == {**plain, **said}
    assert not said.keys() & plain.keys()


def test_an_int_will_do_where_a_float_is_asked() -> None:
    assert config.parse(at("clients.training.learning_rate", 1)).clients.training.learning_rate == 1


def test_what_is_wrong_inside_a_value_is_said_once() -> None:
    assert refusal(at("clients.models", [3, {"nam": 1}])) == (
        "key 'clients.models[0]' is 3: expected an object; key 'clients.models[1].name' is missing"
    )


def test_an_experiment_is_a_table() -> None:
    with pytest.raises(ConfigError, match="expected an object"):
        config.parse_json("[]")


def test_every_wrong_key_is_named_at_once_and_long_values_are_cut() -> None:
    found = refusal({**at("clients.quorum", 2), "seed": "x" * 500, "nmae": 1})
    assert "'clients.quorum'" in found
    assert "'seed'" in found
    assert "'nmae'" in found
    assert len(found) < 400


@pytest.mark.parametrize("section", ["name", "clients", "method"])
def test_a_missing_section_is_named(section: str) -> None:
    table = {key: value for key, value in MINIMAL.items() if key != section}
    assert refusal(table) == f"key '{section}' is missing"


def test_the_number_of_clients_may_be_missing_only_where_the_data_knows_it() -> None:
    assert refusal({**MINIMAL, "clients": {}}).startswith("clients.count is missing")
    natural = {**at("data.partition.scheme", "natural"), "clients": {}}
    assert config.parse(natural).clients.count is None


@pytest.mark.parametrize("name", ["", "-x", ".x", "a/b", "a b", "ä", "a\n", "a" * 81])
def test_a_name_is_fit_for_a_folder(name: str) -> None:
    assert "key 'name' is " in refusal({**MINIMAL, "name": name})


def test_tables_in_a_users_own_parameters_are_explained_too() -> None:
    class Nested(Frozen):
        inner: Optimisation | Iid = Iid()
        many: tuple[Optimisation, ...] = ()

    with pytest.raises(ConfigError, match=r"'method\.many\[0\]\.epoch': did you mean 'method\.m"):
        config.validate(Nested, {"many": [{"epoch": 1}]}, prefix="method.")
    with pytest.raises(ConfigError, match="unknown key"):
        config.validate(Nested, {"inner": {"epoch": 1}}, prefix="method.")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "experiment.toml"
    path.write_text(config.parse(MINIMAL).to_toml(), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("seed=7", lambda e: e.seed == 7),
        (" seed = 7 ", lambda e: e.seed == 7),
        ("name=other-name", lambda e: e.name == "other-name"),
        ('name="quoted"', lambda e: e.name == "quoted"),
        ("method.name=dsfl", lambda e: e.method.name == "dsfl"),
        ("method.mu=0.5", lambda e: e.method.parameters == {"mu": 0.5}),
        ("method.mu=-.5", lambda e: e.method.parameters == {"mu": -0.5}),
        ("method.flag=true", lambda e: e.method.parameters == {"flag": True}),
        ("data.public.size=9", lambda e: e.data.public == PublicData(size=9)),
        ('clients.models=["mlp", "lenet5"]', lambda e: str(e.client_model(1)) == "lenet5"),
        ('data.partition={scheme="iid"}', lambda e: e.data.partition == Iid()),
        ("data.name=/data/a=b.npz", lambda e: e.data.name == "/data/a=b.npz"),
    ],
)
def test_overrides_have_types(file: Path, override: str, found: Any) -> None:
    assert found(config.load(file, [override]))


OTHER = """
name = "other"
[data.partition]
scheme = "dirichlet"
alpha = 0.1
min_size = 3
[clients]
count = 2
models = [{ name = "resnet8", norm = "group" }]
[student]
model = { name = "resnet8", norm = "group" }
[method]
name = "fedmd"
temperature = 3.0
[method.student]
epochs = 4
batch_size = 8
"""


@pytest.mark.parametrize(
    ("overrides", "found", "left_out"),
    [
        (["data.partition.scheme=iid"], lambda e: e.data.partition == Iid(), "alpha, min_size"),
        (
            ["data.partition.scheme=dirichlet-client"],  # which knows both
            lambda e: (e.data.partition.alpha, e.data.partition.min_size) == (0.1, 3),
            "",
        ),
        (
            ["data.partition.per_client=4", "data.partition.scheme=shards"],
            lambda e: e.data.partition == Shards(scheme="shards", per_client=4),
            "alpha, min_size",
        ),
        (["method.name=dsfl"], lambda e: e.method.parameters == {}, "temperature, student"),
        (
            ["method.student.epochs=9", "method.name=dsfl", "method.temperature=0.5"],
            lambda e: e.method.parameters == {"student": {"epochs": 9}, "temperature": 0.5},
            "temperature",
        ),
        (
            ["method.name=fedmd"],  # as it was
            lambda e: e.method.parameters["student"] == {"epochs": 4, "batch_size": 8},
            "",
        ),
        (
            ["method.mu=1.0", "method.name=fedprox", "method.name=dsfl"],
            lambda e: (e.method.name, e.method.parameters) == ("dsfl", {"mu": 1.0}),
            "temperature, student",
        ),
        (
            ["clients.models.0.name=mlp", "student.model.name=lenet5"],
            lambda e: (str(e.client_model(0)), str(e.student.model)) == ("mlp", "lenet5"),
            "norm",
        ),
        (["name=again", "data.name=mnist"], lambda e: e.data.partition.alpha == 0.1, ""),
        (  # of an earlier whole table all else stays
            ['method={name="fedavg", mu=2.0}', "method.name=dsfl"],
            lambda e: (e.method.name, e.method.parameters) == ("dsfl", {"mu": 2.0}),
            "",
        ),
        (
            ['data.partition={scheme="iid"}', "data.partition.scheme=natural"],
            lambda e: e.data.partition == Natural(scheme="natural"),
            "",
        ),
        (
            ["method.mu=1.0", 'method={name="fedprox"}', "method.name=dsfl"],
            lambda e: (e.method.name, e.method.parameters) == ("dsfl", {}),
            "",
        ),
    ],
)
def test_another_choice_drops_the_first_ones_keys_with_a_warning(
    tmp_path: Path, caplog: Any, overrides: list[str], found: Any, left_out: str
) -> None:
    path = tmp_path / "other.toml"
    path.write_text(OTHER)
    with caplog.at_level(logging.WARNING, "fedkd"):
        assert found(config.load(path, overrides))
    assert all(
        line.endswith(f"leaves out what stood beside it: {left_out}") for line in caplog.messages
    )
    assert bool(caplog.messages) == bool(left_out)


def test_a_key_of_another_choice_is_a_mistake_where_the_file_says_it(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(OTHER.replace('"dirichlet"', '"iid"'))
    with pytest.raises(ConfigError, match=r"unknown key 'data\.partition\.alpha'"):
        config.load(path, ["seed=1"])
    with pytest.raises(ConfigError, match=r"unknown key 'data\.partition\.alpha'"):
        config.load(path, ["data.partition.scheme=iid"])
    with pytest.raises(ConfigError, match=r"unknown key 'data\.partition\.per_client'"):
        config.load(path, ["data.partition.scheme=natural", "data.partition.per_client=1"])


def test_the_last_override_wins(file: Path) -> None:
    assert config.load(file, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "override 'seed': expected key.path=value, such as seed=1"),
        ("=1", "override '=1': expected key.path=value"),
        ("a b=1", "override 'a b=1': expected key.path=value"),
        ("seed.x=1", "override 'seed.x=1': 'seed' is a value, not a section"),
        ("seed=x", """key 'seed' is "x": expected a valid integer"""),
        ("seed=", """key 'seed' is "": expected a valid integer"""),
        ("data.ignore=bp", """key 'data.ignore' is "bp": expected a list, ["bp"]"""),
        ("clients.cuont=3", "unknown key 'clients.cuont': did you mean 'clients.count'?"),
    ],
)
def test_overrides_that_will_not_do_are_named(file: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        config.load(file, [override])


def test_files_that_are_none(tmp_path: Path) -> None:
    broken, latin = tmp_path / "broken.toml", tmp_path / "latin.toml"
    broken.write_text("name = ")
    latin.write_bytes('name = "\xe4"'.encode("latin-1"))
    for path, message in [
        (tmp_path / "missing.toml", "No such file or directory; expected the path of a TOML file"),
        (tmp_path, "Is a directory; expected the path of a TOML file"),
        (broken, "is not valid TOML"),
        (latin, "is not valid TOML"),
    ]:
        with pytest.raises(ConfigError, match=re.escape(message)) as caught:
            config.load(path)
        assert repr(str(path)) in str(caught.value)


DISTILLATIONS = [path for path in sorted(CONFIGS.glob("*.toml")) if "way" in config.read(path)]
FEDERATIONS = [path for path in sorted(CONFIGS.glob("*.toml")) if path not in DISTILLATIONS]


@pytest.mark.parametrize("path", FEDERATIONS, ids=lambda path: path.stem)
def test_the_experiments_that_ship_are_valid(path: Path) -> None:
    _, complete = methods.resolve(config.load(path))
    assert config.parse(tomllib.loads(complete.to_toml())) == complete
    assert methods.resolve(complete)[1] == complete


@pytest.mark.parametrize("path", DISTILLATIONS, ids=lambda path: path.stem)
def test_the_distillations_that_ship_are_valid(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path.stem == "pedestrians":  # whose teacher is OpenCV's
        pytest.importorskip("cv2")
    monkeypatch.syspath_prepend(drawn.ROOT / "simulations")  # where a teacher of our own is
    monkeypatch.chdir(tmp_path)
    data = Path(config.load_distillation(path).data.name)
    if data.parts[0] in drawn.FILES:
        drawn.FILES[data.parts[0]](Path(data.parts[0]))
    complete = prepare(config.load_distillation(path)).distillation
    (tmp_path / "config.toml").write_text(complete.to_toml(), encoding="utf-8")
    again = config.load_distillation(tmp_path / "config.toml")
    assert again == complete
    assert prepare(again).distillation == complete
