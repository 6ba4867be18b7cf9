"""Trackers, read back by the libraries themselves from what a run left in its folder."""

import json
import os
import socket
import struct
from pathlib import Path

import pytest
import tiny

from fedkd import config
from fedkd.errors import ConfigError
from fedkd.jobs.distil import distil
from fedkd.jobs.simulate import simulate
from fedkd.tracking import following, told
from fedkd.tracking.base import TrackedRun
from fedkd.tracking.of_mlflow import MlflowRun, without_secrets

EVERY = ["mlflow", "tensorboard", "wandb"]
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries, in our thread
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]


def experiment(rows, **changes):
    method = {"name": "fedmd", "student": {"epochs": 5}}
    return tiny.experiment(rows, {"rounds": 1, "method": method, **changes})


@pytest.fixture(scope="module")
def followed(rows, tmp_path_factory):
    """One round by itself; the second told to all trackers; the third after a resume."""
    pytest.importorskip("mlflow")
    pytest.importorskip("tensorboard")
    pytest.importorskip("wandb")
    folder = tmp_path_factory.mktemp("tracked") / "mine"
    simulate(experiment(rows), folder)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "WANDB_PROJECT"):
            patch.delenv(name, raising=False)
        patch.setattr(following, "_PATIENCE", 3600)  # for machines that do much else
        for rounds in (2, 3):
            more = {"rounds": rounds, "output.track": EVERY}
            simulate(experiment(rows, **more), folder, resume=True)
    return folder


def accuracies(folder):
    return {each["round"]: each["student"]["accuracy"] for each in tiny.rounds(folder)}


def test_mlflow_has_one_run_with_every_round_once(followed):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{followed}/tracking/mlflow/mlflow.db")
    [found] = client.search_experiments(filter_string="name = 'tiny'")
    [run] = client.search_runs([found.experiment_id])
    history = client.get_metric_history(run.info.run_id, "student.accuracy")
    assert sorted((each.step, each.value) for each in history) == sorted(
        accuracies(followed).items()
    )
    assert (run.info.run_name, run.info.status) == ("mine", "FINISHED")
    assert run.data.params["method.name"] == "fedmd"
    assert run.data.params["rounds"] == "2"
    assert run.data.tags["resumed.rounds"] == "3"
    summary = json.loads((followed / "summary.json").read_text())
    assert run.data.metrics["final.student.accuracy"] == summary["student"]["accuracy"]
    assert run.data.metrics["participants"] == 4
    paths = {each.path for each in client.list_artifacts(run.info.run_id)}
    assert paths == {"config.toml", "summary.json", "report.html"}
    assert not {"mlflow.user", "mlflow.source.name"} & run.data.tags.keys()


def test_tensorboard_shows_every_round_once(followed):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(followed / "tracking" / "tensorboard")).Reload()
    shown = {each.step: each.value for each in events.Scalars("student/accuracy")}
    assert len(events.Scalars("student/accuracy")) == 3
    assert shown == pytest.approx(accuracies(followed))
    assert "final/student.accuracy" in events.Tags()["scalars"]
    assert "_hparams_/experiment" in events.summary_metadata


def wandb_records(content):
    """The records of a .wandb file: seven bytes, then a log as LevelDB writes it."""
    place, record = 7, b""
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in {1, 4}:  # whole, or the last part
            yield record
            record = b""


def test_wandb_has_every_round_once_under_one_id_and_no_machine(followed):
    from wandb.proto.wandb_internal_pb2 import Record

    files = sorted((followed / "tracking" / "wandb").glob("offline-run-*/run-*.wandb"))
    rounds, ids, finals = {}, set(), []
    for file in files:
        for data in wandb_records(file.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            ids |= {record.run.run_id} - {""}
            row = {
                item.key or ".".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            if "step" in row:
                assert row["step"] not in rounds
                rounds[row["step"]] = row["student.accuracy"]
            finals += [u.key or ".".join(u.nested_key) for u in record.summary.update]
        assert socket.gethostname().encode() not in file.read_bytes()
    assert len(files) == 2
    assert len(ids) == 1
    assert rounds == accuracies(followed)
    assert "final.student.accuracy" in finals
    copies = {path.name for path in files[-1].parent.glob("files/*")}
    assert {"config.toml", "summary.json", "report.html"} <= copies


def test_what_is_told_has_no_figure_of_a_client():
    record = {
        "round": 2, "participants": [0, 1], "failures": [{"client": 1, "reason": "x"}],
        "student": {"accuracy": 0.5, "accuracy_by_class": [0.1, 0.9], "records": None},
        "teachers": {"mean_accuracy": 0.4, "by_client": {"0": {"accuracy": 0.4}}},
        "robust": {"agreement": {"0": 0.5}}, "bytes": {"up": 3, "down": 4}, "losses": {"kd": None},
        "personal": {"by_client": {"1": {"rows": 9}}, "student": {"mean_accuracy": 0.1}},
    }  # fmt: skip
    assert told.of_line(record) == ("", 2, {
        "student.accuracy": 0.5, "teachers.mean_accuracy": 0.4, "bytes.up": 3.0, "bytes.down": 4.0,
        "personal.student.mean_accuracy": 0.1, "participants": 2, "failures": 1,
    })  # fmt: skip


def test_a_private_runs_report_stays_in_its_folder_where_the_store_is_elsewhere(tmp_path):
    class Client:
        def __init__(self):
            self.sent = []

        def log_batch(self, *_, **__): ...

        def log_artifact(self, _id, file):
            self.sent.append(Path(file).name)

        def set_terminated(self, *_): ...

    class Opened:
        class info:  # noqa: N801
            run_id = "1"

        class data:  # noqa: N801
            metrics = {}  # noqa: RUF012

    files = [tmp_path / name for name in ("config.toml", "summary.json", "report.html")]
    sent = {}
    for local, private in ((False, True), (True, True), (False, False)):
        MlflowRun(client := Client(), Opened(), local=local, private=private).end(
            {}, files, failed=False
        )
        sent[local, private] = client.sent
    assert sent[False, True] == ["config.toml"]
    assert len(sent[True, True]) == len(sent[False, False]) == 3


class Broken:
    def __init__(self, where):
        self.where, self.asked = where, []

    def start(self, run):
        if self.where == "start":
            raise RuntimeError("no\nserver")
        return self

    def log(self, stage, step, figures):
        self.asked.append(step)
        if self.where == "log":
            raise ConnectionError("gone")

    def end(self, figures, files, *, failed):
        self.asked.append("failed" if failed else "end")
        if self.where == "end":
            raise OSError("full")


@pytest.mark.parametrize("where", ["start", "log", "end"])
def test_a_tracker_that_fails_is_a_warning_and_the_last_that_it_is_asked(
    rows, tmp_path, monkeypatch, warned, where
):
    broken, well = Broken(where), Broken("")
    monkeypatch.setattr(following, "OPEN", {"mlflow": broken.start, "wandb": well.start})
    monkeypatch.setattr(following, "check", lambda _: None)
    own = experiment(rows, **{"output.track": ["mlflow", "wandb"], "rounds": 2})
    simulate(own, tmp_path / "run")
    [said] = [each for each in warned if each.startswith("tracker")]
    assert said.startswith("tracker mlflow: ")
    assert "the run goes on without it" in said
    assert "\n" not in said
    assert broken.asked == {"start": [], "log": [1], "end": [1, 2, "end"]}[where]
    assert well.asked == [1, 2, "end"]


def test_a_run_that_fails_is_told_so(rows, tmp_path, monkeypatch):
    well = Broken("")
    monkeypatch.setattr(following, "OPEN", {"wandb": well.start})
    own = experiment(rows, **{"output.track": ["wandb"], "clients.training.learning_rate": 1e30})
    with pytest.raises(Exception, match="clients answered"):
        simulate(own, tmp_path / "run")
    assert well.asked == ["failed"]


def test_nobody_waits_for_ever_for_a_tracker(rows, tmp_path, monkeypatch, warned):
    from threading import Event

    over, slow = Event(), Broken("")
    monkeypatch.setattr(slow, "log", lambda *_: over.wait())
    monkeypatch.setattr(following, "OPEN", {"wandb": slow.start})
    monkeypatch.setattr(following, "_PATIENCE", 0.01)
    simulate(experiment(rows, **{"output.track": ["wandb"]}), tmp_path / "run")
    over.set()
    assert "trackers have not taken all of the run" in warned[-1]


def test_epochs_of_a_distillation_are_told_stage_by_stage(rows, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained = {"model": {"name": "mlp", "hidden": [4]}, "training": {"epochs": 2}}
    table = {"name": "d", "data": {"name": str(rows)}, "teachers": [trained], "student": trained}
    table |= {"knowledge": [{"name": "kd"}], "output": {"track": ["tensorboard"]}}
    own, folder = config.validate(config.Distillation, table), tmp_path / "run"

    def killed(stage, done, _total):
        if stage == "student" and done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distil(own, folder, killed)
    distil(own, folder, resume=True)
    events = EventAccumulator(str(folder / "tracking" / "tensorboard")).Reload()
    for stage in ("teacher 0", "plain student", "student"):
        kept = {r["epoch"]: r["accuracy"] for r in tiny.rounds(folder) if r["stage"] == stage}
        shown = events.Scalars(f"{stage}/accuracy")
        assert [each.step for each in shown] == [1, 2]
        assert {each.step: each.value for each in shown} == pytest.approx(kept)


def test_what_is_tracked_is_no_part_of_an_experiment_that_names_none(rows):
    old, new = experiment(rows), experiment(rows, **{"output.track": ["tensorboard"]})
    assert "track" not in old.to_json()
    assert config.parse_json(new.to_json()) == new
    with pytest.raises(ConfigError, match=r"output\.track.*aim.*'mlflow'"):
        experiment(rows, **{"output.track": ["aim"]})


def test_a_tracker_that_is_not_installed_is_refused_before_anything_runs(
    rows, tmp_path, monkeypatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"'mlflow', which is not installed: pip install 'fedkd"):
        following.check(experiment(rows, **{"output.track": ["mlflow"]}))


def test_what_a_tracker_keeps_is_read_again(tmp_path):
    run = TrackedRun(tmp_path / "a", "name", {}, private=False)
    assert (run.kept("wandb"), run.title) == ({}, "a")
    run.keep("wandb", {"id": "1"})
    assert run.kept("wandb") == {"id": "1"}
    assert os.listdir(run.store) == ["wandb.json"]  # noqa: PTH208


@pytest.mark.parametrize(
    ("uri", "kept"),
    [
        ("https://ada:s3cret@ml.example.org:5000/x?key=s3cret", "https://ml.example.org:5000/x"),
        ("postgresql://ada:s3c@ret@db/runs", "postgresql://db/runs"),
        ("sqlite:////srv/mlflow.db", "sqlite:////srv/mlflow.db"),
        ("databricks", "databricks"),
    ],
)
def test_a_stores_address_is_kept_without_what_opens_it(uri, kept):
    assert without_secrets(uri) == kept
