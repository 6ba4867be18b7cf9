"""Data that comes in stages: which record comes when, who has what, and what is refused."""

from pathlib import Path

import pytest
import torch

from fedkd import config, data
from fedkd.config import Data, Distillation, Experiment, Source, Stream
from fedkd.data.stream import of_party
from fedkd.errors import ConfigError, DataError
from fedkd.learning import ways


def stream(**keys) -> Stream:
    return config.validate(Source, {"stream": {"by": "classes", "stages": 2, **keys}}).stream


def federated(path: Path, **keys):
    told = {"name": str(path), "stream": {"by": "classes", "stages": [[2], [0, 1]]}, **keys}
    return data.federate(config.validate(Data, told), clients=3, seed=1)


@pytest.mark.parametrize("scheme", ["iid", "dirichlet", "shards"])
def test_each_stage_is_dealt_by_itself_and_every_record_once(rows, scheme):
    parts = federated(rows, partition={"scheme": scheme}).clients
    whole = data.load(config.validate(Source, {"name": str(rows)}), seed=1).train
    for part in parts:
        assert torch.equal(part.stage, torch.tensor([1, 1, 0])[part.y])
        assert all(len(part.of_stage(stage)) for stage in (0, 1))
    dealt = torch.cat([part.x for part in parts])
    assert torch.equal(dealt[:, 0].sort().values, whole.x[:, 0].sort().values)


def test_test_records_come_in_the_same_stages(rows):
    test = federated(rows).test
    assert set(test.of_stage(0).y.tolist()) == {2}
    assert set(test.of_stage(1).y.tolist()) == {0, 1}


def test_a_party_of_a_deployment_finds_the_same_stages(rows):
    found = federated(rows)
    bare = config.validate(Data, {"name": str(rows)})
    alone = data.federate(bare, clients=3, seed=1)
    staged = of_party(alone, stream(stages=[[2], [0, 1]]))
    assert torch.equal(staged.test.stage, found.test.stage)
    assert all(torch.equal(p.stage, torch.tensor([1, 1, 0])[p.y]) for p in staged.clients)


def test_a_party_of_a_deployment_has_stages_of_classes_alone(rows):
    for keys in ({"by": "time"}, {"by": "domains", "stages": [["a"], ["b"]]}):
        with pytest.raises(ConfigError, match="a record's stage follows from its class alone"):
            of_party(data.federate(config.Data(name=str(rows)), clients=2, seed=1), stream(**keys))


def visits(path: Path) -> Path:
    rows = (f"{n % 3},{(7 * n) % 60},{n / 60 + n % 2},{n % 2}" for n in range(60))
    path.write_text("\n".join(["site,day,value,label", *rows]) + "\n")
    return path


def loaded(path: Path, **keys):
    return data.load(config.validate(Source, {"name": str(path), "stream": keys}), seed=0)


def test_domains_are_of_a_column_which_is_no_feature(tmp_path):
    file = visits(tmp_path / "visits.csv")
    found = loaded(file, by="domains", column="site", stages=[[2], [0, 1]])
    assert found.features == ("day", "value")
    assert 0 < len(found.train.of_stage(0)) < len(found.train.of_stage(1))


def test_time_is_the_order_of_a_column_or_of_records(tmp_path):
    file = visits(tmp_path / "visits.csv")
    by_day = loaded(file, by="time", column="day", stages=3)
    assert by_day.features == ("site", "value")
    day = {round(row / 60 + row % 2, 4): (7 * row) % 60 for row in range(60)}
    for part in (by_day.train, by_day.test):
        days = torch.tensor([day[round(float(value), 4)] for value in part.x[:, 1]])
        assert torch.equal(part.stage, days * 3 // 60)
    in_order = loaded(file, by="time", stages=3).train
    assert torch.equal(in_order.stage, torch.arange(len(in_order)) * 3 // len(in_order))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"stages": 1}, "data.stream.stages is 1: expected at least 2"),
        ({"stages": [[0], []]}, r"stages\[1\] is empty: a stage without data teaches nothing"),
        ({"stages": [[0], [1, 0]]}, "has '0' twice: expected each name once"),
        ({"stages": True}, "expected a number of stages, or a list of names for each"),
        ({"column": "site"}, "column is 'site', and by = 'classes': leave it out"),
        ({"by": "domains"}, "by = 'domains' needs the domains' names: expected a list a stage"),
        ({"by": "time", "stages": [["a"], ["b"]]}, "by = 'time': expected a number"),
        (
            {"by": "time", "scenario": "task-incremental"},
            "by = 'time' has the same classes in each stage: leave it out",
        ),
    ],
)
def test_what_a_stream_cannot_be_is_refused_in_a_line(keys, words):
    with pytest.raises(ConfigError, match=words) as error:
        stream(**keys)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("keys", "error", "words"),
    [
        ({"stages": 4}, ConfigError, "stages is 4, and the data has 3 classes"),
        ({"stages": [[0], ["cat"]]}, ConfigError, "names class 'cat', which the data has not: it"),
        ({"stages": [[0], [1]]}, ConfigError, "leaves out class '2': put it into a stage"),
        (
            {"by": "time", "column": "day"},
            ConfigError,
            "by is 'time', by a column, and the records here have none: name a .csv file",
        ),
    ],
)
def test_stages_that_do_not_fit_the_data_are_refused_in_a_line(rows, keys, error, words):
    with pytest.raises(error, match=words) as found:
        loaded(rows, **{"by": "classes", "stages": 2, **keys})
    assert "\n" not in str(found.value)


def test_a_stage_without_data_is_refused_in_a_line(tmp_path):
    file = visits(tmp_path / "visits.csv")
    with pytest.raises(
        DataError, match=r"stage 2 \(9\) has no record for training in 'visits.csv'"
    ):
        loaded(file, by="domains", column="site", stages=[[0, 1, 2], [9]])
    with pytest.raises(DataError, match=r"'2' is in no stage of data.stream.stages: put it into"):
        loaded(file, by="domains", column="site", stages=[[0], [1]])


def test_every_stage_must_come():
    told = {
        "name": "x",
        "rounds": 3,
        "data": {"stream": {"by": "classes", "stages": 2, "rounds": 3}},
        "clients": {"count": 2},
        "method": {"name": "fedlwf"},
    }
    with pytest.raises(ConfigError, match="2 stages of 3 rounds: expected 6"):
        config.validate(Experiment, told)


def test_a_way_that_learns_from_all_at_once_takes_no_stream():
    told = {"name": "x", "data": {"stream": {"by": "classes", "stages": 2}}}
    with pytest.raises(ConfigError, match="way 'born-again' learns from all of it at once"):
        ways.resolve(config.validate(Distillation, told | {"way": {"name": "born-again"}}))
    with pytest.raises(ConfigError, match="way 'continual' learns what comes in stages: add a"):
        ways.resolve(config.validate(Distillation, {"name": "x", "way": {"name": "continual"}}))


@pytest.mark.parametrize("odd", ["soon", "nan"])
def test_what_has_no_place_in_time_is_refused_in_a_line(tmp_path, odd):
    file = visits(tmp_path / "visits.csv")
    header, first, *others = file.read_text().splitlines()
    site, _, *rest = first.split(",")
    file.write_text("\n".join([header, ",".join([site, odd, *rest]), *others]) + "\n")
    with pytest.raises(DataError, match=f"'{odd}' has no place among the others in time") as error:
        loaded(file, by="time", column="day", stages=3)
    assert "\n" not in str(error.value)


def test_test_records_of_another_domain_come_in_stages_too(rows):
    test = federated(rows, public={"source": str(rows), "size": 5, "test": True}).test
    assert set(test.of_stage(0).y.tolist()) == {2}
