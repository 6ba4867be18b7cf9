"""LG-FedAvg: two clients' round by hand, what is kept and what is shared, and under DP."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from federations import ROWS, SMALL, STILL, WIDE, Federation, equal, federation, snapshot, tensors

from fedkd.config import Privacy
from fedkd.errors import ConfigError
from fedkd.exchange.messages import group
from fedkd.methods.core import protection

ALIKE = {"name": "mlp", "hidden": [7, 12]}


def built(**changes: Any) -> Federation:
    """Two clients of unlike models whose features are equally wide."""
    method = {"name": "lg-fedavg", "student": {"epochs": 1}}
    changes = {"models": [SMALL, ALIKE], "count": 2, "rounds": 2, **changes}
    return federation(method, ROWS, (20, 12), **changes)


def test_a_round_of_two_clients_by_hand() -> None:
    fed = built()
    broadcast = fed.begin()
    uploads = {c: fed.wire(c, fed.ask(c, 1, broadcast)) for c in (0, 1)}
    returned = fed.method.server(fed.server_context(), uploads).common
    for name in ("head/weight", "head/bias"):
        first, second = (uploads[c][name].double() for c in (0, 1))
        torch.testing.assert_close(returned[name], ((20 * first + 12 * second) / 32).float())
    for client, models in ((0, "hidden1.weight"), (1, "hidden2.weight")):
        assert models in group("teacher", fed.states[client])
        assert {n for n in uploads[client] if "hidden" in n} == set()  # features stay at home


def test_a_client_takes_the_layer_and_keeps_the_rest() -> None:
    fed = built(training=STILL)
    before = snapshot(fed.client_context(1).teacher)
    sent = tensors(fed.ask(1, 1, fed.begin()))
    after = group("teacher", fed.states[1])
    shared = fed.begin().common
    assert torch.allclose(sent["head/weight"], shared["head/weight"])
    assert not torch.allclose(before["classifier.weight"], shared["head/weight"])
    for name in before:
        given = (
            shared[f"head/{name.removeprefix('classifier.')}"]
            if "classifier" in name
            else before[name]
        )
        torch.testing.assert_close(after[name], given)


def test_all_begin_with_one_layer_whoever_asks() -> None:
    first, second = built().begin().common, built(models=[SMALL, SMALL]).begin().common
    assert equal(dict(first), dict(second))
    assert not equal(dict(first), dict(built(seed=2).begin().common))


def test_layers_of_unlike_shapes_are_refused_by_name() -> None:
    fed = built(models=[SMALL, WIDE])
    with pytest.raises(ConfigError) as caught:
        fed.method.check(fed.setting)
    shown = "(mlp(hidden=[12]): weight (3, 12), bias (3,); mlp(hidden=[16]): weight (3, 16), bias"
    assert shown in str(caught.value)
    built().method.check(built().setting)


def test_it_runs_under_dp_and_nothing_leaves_that_was_not_paid_for() -> None:
    fed = built()
    privacy = Privacy(unit="record", epsilon=8.0, noise_multiplier=1.0)
    experiment = fed.setting.experiment.model_copy(update={"privacy": privacy})
    fed.setting = replace(fed.setting, experiment=experiment)
    protection.check(fed.method, fed.setting)
    ctx = fed.client_context(0)
    paid: list[str] = []

    class Free:
        def spend(self, event, **_):
            paid.append(event.what)

    ctx.allowance = Free()
    upload = fed.method.client(ctx, fed.begin().common)
    assert paid == ["teacher training", "example count"]
    assert {str(v.provenance).split(":")[0] for n, v in upload.values.items() if n != "count"} == {
        str(upload.values["logits"].provenance).split(":")[0]
    }
    assert "no DP" not in " ".join(str(v.provenance) for v in upload.values.values())


def test_a_layer_that_is_flung_away_does_not_pass_the_door() -> None:
    fed = built()
    spec = fed.method.expects(fed.setting, 0)["head/weight"]
    assert (spec.low, spec.high) == (-1e4, 1e4)
