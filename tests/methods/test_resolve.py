"""From a name and a table to a method that may run."""

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from federations import SMALL, WIDE, federation, table
from pydantic import Field

from fedkd import config, methods
from fedkd.config import Frozen
from fedkd.errors import ConfigError
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Broadcast, Tensors, Upload
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads


class SilenceParams(Frozen):
    volume: int = Field(default=0, ge=0)


class Silence(Method):
    card = Card(paper="-", sends="nothing", needs="nothing", returns="nothing", has_teachers=False)
    Params = SilenceParams

    def expects(self, setting: Setting, client: int) -> Expected:
        return {}

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        return Upload()

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        return Broadcast()


@pytest.fixture
def mine() -> Iterator[str]:
    """A module of the user's."""
    module = ModuleType("my_methods")
    vars(module).update(Silence=Silence, function=len, number=3)
    sys.modules[module.__name__] = module
    yield module.__name__
    del sys.modules[module.__name__]


def refusal(method: dict[str, Any] | str, **changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        methods.resolve(config.parse(table(method, **changes)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_users_own_method_is_found_and_has_parameters(mine: str) -> None:
    name = f"{mine}:Silence"
    fed = federation({"name": name, "volume": 2})
    assert isinstance(fed.method, Silence)
    assert fed.method.params == SilenceParams(volume=2)
    assert federation(name).setting.experiment.method.parameters == {"volume": 0}
    assert fed.round(1, fed.begin())[0] == Broadcast()
    expected = "key 'method.volume' is -1: expected greater than or equal to 0"
    assert refusal({"name": name, "volume": -1}) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fedagv", "unknown method 'fedagv': did you mean 'fedavg'? valid here: local, "),
        (
            "zzz",
            "unknown method 'zzz': valid here: local, centralised, fedavg, fedprox, scaffold, ",
        ),
        ("my_methods.Silence", "or your own, 'package.module:Class'"),
        ("no_such_module:X", "imported: ModuleNotFoundError: No module named 'no_such_module'"),
        ("my_methods:Missing", "method 'my_methods:Missing' cannot be imported"),
        (":Silence", "method ':Silence' cannot be imported"),
        (".relative:X", "method '.relative:X' cannot be imported"),
        (
            "my_methods:function",
            "expected a subclass of fedkd.methods.core.base.Method with a card",
        ),
        ("my_methods:number", "method 'my_methods:number' is no method"),
        ("fedkd.config:Iid", "method 'fedkd.config:Iid' is no method"),
        (
            "fedkd.methods.core.base:Method",
            "expected a subclass of fedkd.methods.core.base.Method with a",
        ),
    ],
)
def test_names_that_lead_to_no_method_are_explained(mine: str, name: str, message: str) -> None:
    assert message in refusal(name)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"name": "fedprox", "mü": 1.0}, "unknown key 'method.mü': "),
        ({"name": "fedprox", "muu": 1.0}, "unknown key 'method.muu': did you mean 'method.mu'?"),
        ({"name": "fedavg", "mu": 1.0}, "unknown key 'method.mu': valid here: private"),
        ({"name": "fedavg", "nam": "dsfl"}, "unknown key 'method.nam': did you mean 'method.name'"),
        ({"name": "fedprox", "mu": -1.0}, "key 'method.mu' is -1.0: expected greater than or"),
        ({"name": "fedprox", "mu": "1"}, "key 'method.mu' is \"1\": expected a valid number"),
        ({"name": "fedprox", "mu": float("nan")}, "key 'method.mu' is NaN: expected a finite"),
        ({"name": "dsfl", "temperature": 0}, "key 'method.temperature' is 0: expected greater"),
        (
            {"name": "fedmd", "digest": {"epoch": 1}},
            "unknown key 'method.digest.epoch': did you mean 'method.digest.epochs'?",
        ),
        ({"name": "dense", "batch_size": 1}, "key 'method.batch_size' is 1: expected greater"),
    ],
)
def test_parameters_are_the_methods_own(method: dict[str, Any], message: str) -> None:
    assert message in refusal(method)


@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
@pytest.mark.parametrize(("models", "student"), [([SMALL, WIDE], SMALL), ([SMALL], WIDE)])
def test_what_averages_models_refuses_unlike_ones(
    name: str, models: list[dict[str, Any]], student: dict[str, Any]
) -> None:
    found = refusal(name, models=models, student=student)
    assert f"method '{name}' averages models and cannot take unlike ones" in found
    assert "(mlp(hidden=[12]), mlp(hidden=[16]))" in found


@pytest.mark.parametrize("name", ["fedmd", "dsfl", "fedproto"])
def test_what_needs_a_proxy_set_says_how_to_add_one(name: str) -> None:
    message = f"method '{name}' needs a proxy set: add a section [data.public]"
    assert message in refusal(name, public=None)


def test_one_shot_is_one_round() -> None:
    expected = "key 'rounds' is 2: method 'dense' is one-shot, set 1"
    assert refusal("dense", rounds=2) == expected


def test_the_resolved_experiment_keeps_all_but_the_methods_parameters() -> None:
    experiment = config.parse(table("fedmd"))
    method, complete = methods.resolve(experiment)
    assert complete.model_copy(update={"method": experiment.method}) == experiment
    assert type(method) is methods.find("fedmd") is methods.find(methods.BUILT_IN["fedmd"])


def test_a_table_that_is_given_in_part_keeps_the_rest_of_the_methods_default() -> None:
    part = {"name": "feddf", "student": {"epochs": 3}}
    student = methods.resolve(config.parse(table(part)))[1].method.parameters["student"]
    whole = methods.resolve(config.parse(table("feddf")))[1].method.parameters["student"]
    assert whole["optimiser"] == "adam"
    assert student == {**whole, "epochs": 3}
