"""Methods that average, under secure aggregation: the same student, and the sum alone crosses."""

import pytest
import tiny
import torch
from safetensors.torch import load_file

from fedkd import methods
from fedkd.errors import ConfigError
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate
from fedkd.methods.core import accounting
from fedkd.methods.core.sums import mean_of_parts, part_of_mean

ONE = {"clients.models": [{"name": "mlp", "hidden": [16]}], "rounds": 2}
UNLIKE = {"clients.models": [{"name": "mlp", "hidden": [16]}, {"name": "mlp", "hidden": [8, 16]}]}
SECURELY = {"privacy.secure_aggregation": True}
SKEWED = {"data.partition": {"scheme": "dirichlet", "alpha": 0.5}}


def run(rows, folder, changes):
    simulate(tiny.experiment(rows, changes), folder, tiny.Quiet())
    return load_file(folder / "student.safetensors"), tiny.rounds(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"method.name": "fedavg", **ONE},
        {"method": {"name": "fedprox", "mu": 0.1}, **ONE},
        {"method.name": "scaffold", **ONE},
        {"method": {"name": "fedproto", "student": {"epochs": 2}}, **UNLIKE},
        {"method": {"name": "fml"}, **UNLIKE},
    ],
    ids=["fedavg", "fedprox", "scaffold", "fedproto", "fml"],
)
def test_the_student_is_that_of_the_same_mean_without_masks(rows, tmp_path, changes):
    # Nobody's count is bounded where none can be seen.
    changes = {**changes, **SKEWED, "clients.max_weight": 1.0}
    plain, shown = run(rows, tmp_path / "plain", changes)
    hidden, lines = run(rows, tmp_path / "hidden", changes | SECURELY)
    for name, weight in plain.items():
        torch.testing.assert_close(hidden[name], weight, rtol=1e-3, atol=2e-4)
    assert lines[-1]["participants"] == [0, 1, 2, 3]
    assert shown[-1]["teachers"] is not None
    assert lines[-1]["teachers"] is None  # a teacher's score is its client's own


def test_summed_steps_are_the_same_under_masks(rows, tmp_path):
    own = {"method": {"name": "summed_steps", "records": 120}, "rounds": 4, **SKEWED}
    plain, _ = run(rows, tmp_path / "plain", own)
    hidden, lines = run(rows, tmp_path / "hidden", own | SECURELY)
    for name, weight in plain.items():
        torch.testing.assert_close(hidden[name], weight, rtol=1e-4, atol=1e-5)
    assert lines[-1]["participants"] == [0, 1, 2, 3]


def test_averages_are_paid_for_as_ever_by_each_client_alone(rows):
    budget = {"epsilon": 50.0, "sample_rate": 0.5, "batch_size": 20, "noise_multiplier": 2.0}
    private = {"method.name": "fedavg", **ONE, "privacy": budget}
    plain, hidden = (prepare(tiny.experiment(rows, private | more)) for more in ({}, SECURELY))
    plans = [accounting.plan(each.method, each.setting) for each in (plain, hidden)]
    assert plans[0] == plans[1]


def test_a_server_that_takes_answers_one_by_one_sees_no_sum(rows):
    late = {"clients.asynchronous": {"buffer": 2}}
    with pytest.raises(ConfigError, match="asynchronous takes answers one by one, and privacy"):
        tiny.experiment(rows, {"method.name": "fedavg", **ONE, **SECURELY, **late})


def test_only_methods_that_a_sum_is_enough_for_are_run(rows):
    names = [name for name in methods.BUILT_IN if methods.find(name).card.summable]
    assert set(names) == {
        "analytic",
        "fedavg",
        "feddyn",
        "fedmrl",
        "fedprox",
        "fedproto",
        "fml",
        "moon",
        "scaffold",
        "summed_steps",
    }
    summed = tiny.experiment(rows, {"method.name": "fedavg", **ONE, **SECURELY})
    expected = prepare(summed).expects(0, 1)
    assert {spec.dtype for n, spec in expected.items() if n != "report/seconds"} == {torch.int64}


def test_parts_of_a_mean_add_up_to_it():
    draws = torch.Generator().manual_seed(0)
    values = torch.randn(3, 4, 5, generator=draws)
    counts = torch.tensor([[8, 0, 3, 1], [0, 0, 5, 2], [4, 0, 900, 7]])
    parts = sum(part_of_mean(v, c) for v, c in zip(values, counts, strict=True))
    found = mean_of_parts(parts, counts.sum(dim=0))
    weights = counts.double() / counts.sum(dim=0).clamp(min=1)
    torch.testing.assert_close(found, (values.double() * weights[:, :, None]).sum(dim=0))
    assert not found[1].any()
