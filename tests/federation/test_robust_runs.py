"""Rules of `[robust]` in whole runs: from a file to a record and a word."""

import pytest
import tiny
from test_screening import TEN, far, loud

from fedkd import config
from fedkd.errors import ConfigError
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate_world
from fedkd.reports.display import round_in_words


def run(rows, folder, changes, tamper=None):
    simulate_world(prepare(tiny.experiment(rows, changes)), folder, tamper=tamper)
    [record] = tiny.rounds(folder)
    return record


@pytest.mark.parametrize("rule", ["median", "trimmed-mean", "geometric-median", "cronus"])
def test_a_rule_alone_withstands_three_of_ten_that_collude(rows, tmp_path, rule):
    spoilt = run(rows, tmp_path / "spoilt", TEN, loud)
    alone = {**TEN, "robust": {"screen": False, "answers": rule}}
    record = run(rows, tmp_path / "ruled", alone, loud)
    assert record["student"]["accuracy"] > spoilt["student"]["accuracy"] + 0.3
    apart = {int(client): far for client, far in record["robust"]["apart"].items()}
    assert min(apart[client] for client in range(3)) > max(apart[c] for c in range(3, 10))
    assert record["robust"]["left_out"] == []


def test_a_rule_for_models_says_who_was_far_away(rows, tmp_path):
    models = {"clients.models": [{"name": "mlp", "hidden": [16]}], "method": {"name": "fedavg"}}
    rule = {"robust": {"screen": False, "models": "geometric-median", "neighbours": True}}
    record = run(rows, tmp_path / "run", {**TEN, **models, **rule}, far)
    assert max(record["robust"]["apart"], key=record["robust"]["apart"].get) == "0"
    assert "more than 3 times as far from the rest as most: client 0" in round_in_words(record)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Distance at most" in page
    away = record["robust"]["apart"]["0"]
    assert f"<td>{away:.3g} times</td>" in page


def test_a_rule_is_written_to_the_runs_own_file_and_read_from_it(rows, tmp_path):
    run(rows, tmp_path / "run", {**TEN, "robust": {"answers": "cronus", "hostile": 0.2}})
    read = config.load(tmp_path / "run" / "config.toml")
    assert (read.robust.answers, read.robust.hostile) == ("cronus", 0.2)


def test_a_rule_that_the_method_has_no_use_for_is_refused_before_anything_runs(rows):
    with pytest.raises(ConfigError, match="combines no models that a rule could take: leave it"):
        prepare(tiny.experiment(rows, {**TEN, "robust": {"models": "median"}}))
    sums = {"method": {"name": "analytic"}, "privacy.secure_aggregation": True, "robust": {}}
    with pytest.raises(ConfigError, match="shows the server their sum alone"):
        prepare(tiny.experiment(rows, {**TEN, **sums, "clients.quorum": 1.0}))


def test_threads_change_no_bit_of_a_ruled_student(rows, tmp_path):
    rule = {**TEN, "robust": {"answers": "geometric-median"}}
    for threads in (1, 2):
        run(rows, tmp_path / str(threads), {**rule, "engine.threads": threads})
    assert tiny.student_hash(tmp_path / "1") == tiny.student_hash(tmp_path / "2")
