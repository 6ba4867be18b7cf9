"""Whether an experiment runs follows from its configuration, not from how many records are held."""

import json
import logging
import re

import pytest
import tiny
import torch

from fedkd.data import shared_file
from fedkd.data.types import Samples
from fedkd.errors import ConfigError
from fedkd.federation.prepare import prepare

DP = {"privacy.epsilon": 8.0, "privacy.sample_rate": 0.5, "privacy.noise_multiplier": 1.5}
MANY = 200
"""More records than the data of the tests has a client."""


@pytest.fixture(scope="module")
def shared(rows):
    """What all parties of a deployment hold."""
    from fedkd import data

    experiment = tiny.experiment(rows)
    return shared_file.parse_shared(shared_file.to_bytes(data.shared(experiment.data, seed=0)))


def at_a_site(rows, shared, held, changes):
    """The complaint of a site with so many records; empty where it takes part."""
    own = Samples(torch.zeros(held, 10), torch.zeros(held, dtype=torch.int64))
    try:
        prepare(
            tiny.experiment(rows, {**DP, **changes}),
            shared_file.seen_from(shared, 4, samples={0: own}),
        )
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"privacy.delta": 0.01}, "privacy.delta is 0.01, above 1 / 10,000"),
        ({"privacy.delta": 1e-3, "privacy.most_records": 1001}, "is 0.001, above 1 / 1,001"),
        ({"privacy.delta": 1e-3, "privacy.most_records": 1000}, ""),
        ({"privacy.delta": 1e-4}, ""),
        ({"privacy.delta": 2e-3, "privacy.most_records": 1}, "0.002: .* expected at most 0.001"),
        ({"privacy.delta": 0.9, "privacy.most_records": 1}, "0.9: .* expected at most 0.001"),
        ({"privacy.delta": 2e-3, "privacy.unit": "client-votes"}, "expected at most 0.001"),
    ],
)
def test_a_site_takes_part_or_not_whatever_it_holds(rows, shared, changes, refusal):
    complaints = {at_a_site(rows, shared, held, changes) for held in (0, 1, 99, 100, 101, 20_000)}
    [complaint] = complaints
    assert bool(complaint) == bool(refusal)
    assert re.search(refusal, complaint)


def test_noise_on_counts_that_cannot_be_drawn_is_refused_before_it_is_paid_for(run, rows, here):
    same = {"clients.models": ["mlp"], "student.model": "mlp", "method.name": "fedavg"}
    config = tiny.write_config(here / "tiny.toml", rows, {**DP, **same, "privacy.count_noise": 1e9})
    said = {run(*command, config) for command in (("simulate",), ("audit", "plan"))}
    [(status, out, complaint)] = said
    assert (status, out) == (2, "")
    assert (
        "privacy.count_noise is 1e+09: expected at most 1.67772e+07 for example count" in complaint
    )
    assert not (here / "runs").exists()


def test_who_holds_all_the_data_is_warned_and_not_refused(rows, caplog):
    changes = {**DP, "privacy.delta": 1e-3, "privacy.most_records": 50}
    with caplog.at_level(logging.WARNING, "fedkd"):
        prepare(tiny.experiment(rows, changes))  # 50 records a client
        [line] = caplog.messages
        caplog.clear()
        prepare(tiny.experiment(rows, {**DP, "privacy.delta": 1e-5}))
    assert line.startswith("privacy.most_records is 50, and a data set holds 50 records")
    assert caplog.messages == []


def test_too_few_records_for_the_noise_are_warned_of(rows, caplog):
    changes = {**DP, "privacy.noise_multiplier": 15.0, "clients.training.batch_size": 100}
    few = {**changes, "privacy.sample_rate": 0.02, "clients.training.epochs": 1, "rounds": 1}
    with caplog.at_level(logging.WARNING, "fedkd"):
        prepare(tiny.experiment(rows, few))
    [line] = caplog.messages
    assert line.startswith("clients hold 50 records on average, too few for the noise")


def test_a_new_key_at_its_default_changes_no_experiments_digest(rows):
    assert "most_records" not in tiny.experiment(rows, DP).to_json()


COMMANDS = [("simulate",), ("audit", "plan"), ("audit", "plan", "--json"), ("deploy", "local")]


@pytest.mark.parametrize("delta", [0.01, 0.9])
def test_all_commands_refuse_a_delta_in_the_same_words(run, rows, here, delta):
    config = tiny.write_config(here / "tiny.toml", rows, {**DP, "privacy.delta": delta})
    said = {run(*command, config) for command in COMMANDS}
    [(status, out, complaint)] = said
    assert (status, out) == (2, "")
    assert f"privacy.delta is {delta:g}, above 1 / 10,000" in complaint
    assert not (here / "runs").exists()


def test_a_hopeless_plan_is_called_so_with_the_epsilon_that_is_not(run, rows, here):
    config = tiny.write_config(
        here / "tiny.toml", rows, {"privacy.epsilon": 0.001, "privacy.sample_rate": 0.5}
    )
    status, table, complaint = run("audit", "plan", config)
    assert status == 2
    assert "teacher training" in table
    assert "privacy.epsilon = 0.001 is hopeless here: all records pulling one way" in complaint
    assert run("simulate", config)[::2] == (2, complaint)
    assert not (here / "runs").exists()
    enough = float(re.search(r"takes epsilon (\S+) or more", complaint)[1])
    status, plan, complaint = run(
        "audit", "plan", config, "--set", f"privacy.epsilon={enough}", "--json"
    )
    told = json.loads(plan)["signal"]
    assert (status, complaint) == (0, "")
    # The least, and not just any that is enough: two digits and the noise's precision are all.
    assert told["least"] <= told["ratio"] <= 1.12 * told["least"]


def test_sums_are_held_to_the_same(run, rows, here):
    changes = {
        "privacy": {"epsilon": 1.0, "noise_multiplier": 5e4, "most_records": 100},
        "rounds": 1,
        "method.name": "analytic",
        "data.public": None,
    }
    config = tiny.write_config(here / "tiny.toml", rows, changes)
    status, _, complaint = run("audit", "plan", config)
    assert (status, "is hopeless here" in complaint) == (2, True)
    assert run("simulate", config)[::2] == (2, complaint)
