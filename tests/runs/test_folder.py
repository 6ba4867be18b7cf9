import json
from dataclasses import replace

import pytest
import tiny
import torch
from safetensors.torch import load_file

from fedkd import config
from fedkd.data.types import Samples
from fedkd.errors import RunFolderError, StorageError
from fedkd.exchange.gate import Receipt
from fedkd.exchange.messages import Broadcast
from fedkd.federation.prepare import prepare
from fedkd.federation.server import Checkpoint
from fedkd.federation.store.state_store import StateStore
from fedkd.jobs.simulate import simulate
from fedkd.reports import report
from fedkd.runs.folder import RunFolder


@pytest.fixture
def prepared(rows):
    return prepare(tiny.experiment(rows))


@pytest.fixture
def folder(prepared, tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.open(prepared.experiment, prepared.data, resume=False)
    return folder


def checkpoint(round):
    weights = torch.randn(3, 2, generator=torch.Generator().manual_seed(round))
    return Checkpoint(
        round=round,
        student={"w": weights, "tied": weights},
        state={"group/mlp(hidden=[16])/w": weights.T},
        broadcast=Broadcast(
            common={"consensus": weights.half()},
            by_model={"mlp(hidden=[16])": {"model/w": weights}, "lenet5": {"model/w": weights * 2}},
            by_client={11: {"logits": weights * 3}, 1: {"logits": weights * 4}},
        ),
    )


def same(here, there):
    return here.keys() == there.keys() and all(torch.equal(here[k], there[k]) for k in here)


def test_a_checkpoint_comes_back_with_every_part(folder):
    kept = checkpoint(1)
    folder.resume()
    folder.keep({"round": 1}, kept, None)
    found = RunFolder(folder.path).resume()
    assert found.round == 1
    assert same(found.student, kept.student)
    assert same(found.state, kept.state)
    assert same(found.broadcast.common, kept.broadcast.common)
    assert list(found.broadcast.by_model) == list(kept.broadcast.by_model)
    for model, tensors in kept.broadcast.by_model.items():
        assert same(found.broadcast.to(model), {**kept.broadcast.common, **tensors})
    for client in (0, 1, 11):
        assert same(found.broadcast.to("lenet5", client), kept.broadcast.to("lenet5", client))


@pytest.mark.parametrize("rest", ['{"round": 3, "stud', '{"round": 3}\n', '{"round": 3}\n{"ro'])
def test_lines_beyond_the_checkpoint_are_dropped(folder, rest):
    folder.resume()
    for round in (1, 2):
        folder.keep({"round": round}, checkpoint(round), None)
    with (folder.path / "rounds.jsonl").open("a") as file:
        file.write(rest)
    again = RunFolder(folder.path)
    assert again.resume().round == 2
    assert again.records() == [{"round": 1}, {"round": 2}]


def test_lines_without_any_checkpoint_are_dropped(folder):
    (folder.path / "rounds.jsonl").write_text('{"round": 1}\n')
    assert folder.resume() is None
    assert folder.records() == []


def test_a_folder_that_exists_is_refused_and_left_alone(prepared, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(RunFolderError, match="--resume"):
        RunFolder(tmp_path / "mine").open(prepared.experiment, prepared.data, resume=False)
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_folder_under_a_file_is_refused(prepared, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/run.*Not a directory"):
        RunFolder(tmp_path / "file" / "run").open(prepared.experiment, prepared.data, resume=False)


def test_resume_where_nothing_is_names_what_is_near_and_makes_nothing(folder, prepared):
    mistyped = folder.path.with_name("rum")
    with pytest.raises(RunFolderError, match=r"rum' does not exist.*did you mean 'run'\?"):
        RunFolder(mistyped).open(prepared.experiment, prepared.data, resume=True)
    assert not mistyped.exists()


def test_a_run_that_was_killed_before_its_config_was_written_begins(prepared, tmp_path):
    (tmp_path / "new" / "checkpoints").mkdir(parents=True)
    (tmp_path / "new" / ".lock").touch()
    RunFolder(tmp_path / "new").open(prepared.experiment, prepared.data, resume=True)
    assert (tmp_path / "new" / "config.toml").exists()


@pytest.mark.parametrize("content", ["{}", "[]", "3", '{"started": 1}'])
def test_before_the_first_checkpoint_the_environment_is_one_all_the_same(folder, prepared, content):
    (folder.path / "environment.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"its environment\.json is damaged"):
        folder.open(prepared.experiment, prepared.data, resume=True)


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"seed": 8}, "seed"),
        ({"rounds": 3, "method": {"name": "fedmd", "temperature": 2.0}}, "rounds, method"),
        ({"clients.training.epochs": 2}, "clients"),
    ],
)
def test_another_experiment_is_not_resumed(folder, rows, changes, keys):
    other = prepare(tiny.experiment(rows, changes))
    with pytest.raises(RunFolderError, match=rf"differs in {keys}\)"):
        folder.open(other.experiment, other.data, resume=True)


def test_engine_and_output_may_change_on_resume(folder, rows):
    other = prepare(tiny.experiment(rows, {"engine.threads": 1, "output.folder": "elsewhere"}))
    folder.open(other.experiment, other.data, resume=True)
    assert "threads = 2" in (folder.path / "config.toml").read_text()


def test_a_config_that_is_no_experiment_cannot_be_resumed(folder, prepared):
    (folder.path / "config.toml").write_text("seed = 'x'")
    with pytest.raises(RunFolderError, match="cannot be resumed"):
        folder.open(prepared.experiment, prepared.data, resume=True)


def test_the_folder_says_what_was_run_on_what_and_where(folder, prepared):
    counts = json.loads((folder.path / "partition.json").read_text())
    assert counts == {"classes": ["0", "1", "2"], "counts": prepared.data.counts().tolist()}
    environment = json.loads((folder.path / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert {"fedkd", "python", "flwr", "platform", "cores", "started"} <= environment.keys()


def test_the_last_ten_generated_images_of_a_class_are_kept(folder):
    x = torch.arange(40.0).reshape(40, 1, 1, 1)
    y = torch.tensor([2] * 25 + [0] * 12 + [5] * 3)
    folder.keep({"round": 1}, checkpoint(1), Samples(x, y))
    kept = load_file(folder.path / "generated.safetensors")
    assert torch.bincount(kept["y"]).tolist() == [10, 0, 10, 0, 0, 3]
    # The last ones: a generator is at its best when its student is.
    assert kept["x"].flatten().tolist() == [*range(27, 37), *range(15, 25), 37, 38, 39]


def test_a_kill_between_the_images_and_the_checkpoint_costs_a_round_and_no_more(
    folder, monkeypatch
):
    """Whichever file of round 2 was written last, the run goes on from round 1."""
    folder.resume()
    images = [Samples(torch.full((3, 1, 2, 2), r / 4), torch.arange(3)) for r in range(3)]
    folder.keep({"round": 1}, checkpoint(1), images[1])
    for step in ("append_json", "checkpoints.write"):

        def dies(*_):
            raise KilledError

        with monkeypatch.context() as killed:
            killed.setattr(f"fedkd.runs.folder.{step}", dies)
            with pytest.raises(KilledError):
                folder.keep({"round": 2}, checkpoint(2), images[2])
        folder = RunFolder(folder.path)
        assert same(folder.resume().student, checkpoint(1).student)
        assert folder.records() == [{"round": 1}]
    folder.keep({"round": 2}, checkpoint(2), images[2])
    assert same(RunFolder(folder.path).resume().student, checkpoint(2).student)
    kept = load_file(folder.path / "generated.safetensors")
    assert torch.equal(kept["x"], images[2].x)


def test_receipts_add_up_by_field_and_provenance(folder):
    with StateStore(folder.states) as store:
        for client, fields in enumerate([["logits", "report"], ["logits"]]):
            receipts = [Receipt(field, "public", 5) for field in fields]
            for round in (1, 2):
                store.save(client, b"", receipts, round=round, answer=None)
    assert folder.released() == [
        {"field": "logits", "provenance": "public", "times": 4, "bytes": 20},
        {"field": "report", "provenance": "public", "times": 2, "bytes": 10},
    ]


def test_a_finished_run_that_is_resumed_stays_as_it_is(rows, tmp_path):
    run = tmp_path / "run"
    first = simulate(tiny.experiment(rows), run, tiny.Quiet())
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    again = simulate(tiny.experiment(rows, {"engine.threads": 1}), run, tiny.Quiet(), resume=True)
    assert again == first
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert before.keys() == after.keys()
    assert [path.name for path in before if before[path] != after[path]] in ([], ["report.html"])


def test_the_summary_is_the_last_round_and_the_sum_of_all(rows, tmp_path):
    changes = {"rounds": 3, "clients.participation": 0.5, "method.name": "feddf"}
    summary = simulate(tiny.experiment(rows, changes), tmp_path / "run", tiny.Quiet())
    records = tiny.rounds(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary
    assert summary["student"]["accuracy"] == records[-1]["student"]["accuracy"]
    reached = [record["student"]["accuracy"] for record in records]
    assert summary["student"]["best_accuracy"] == max(reached)
    latest = {}  # the last round has half of the clients only
    for record in records:
        for client, teacher in record["teachers"]["by_client"].items():
            latest[client] = teacher["accuracy"]
    assert len(latest) > 2
    assert summary["teachers"] == {
        "mean_accuracy": pytest.approx(sum(latest.values()) / len(latest)),
        "best_accuracy": max(latest.values()),
    }
    for way in ("up", "down"):
        assert summary["bytes"][way] == sum(record["bytes"][way] for record in records)
    assert summary["seconds"] == pytest.approx(sum(r["seconds"]["total"] for r in records))
    student = load_file(tmp_path / "run" / "student.safetensors")
    assert summary["student"]["parameters"] == sum(t.numel() for t in student.values())
    assert summary["ensemble"] == records[-1]["ensemble"]
    assert summary["privacy"] == {"unit": "none"}
    sent = {entry["field"]: entry["times"] for entry in summary["released"]}
    assert sent["model"] == 3 * 2
    assert sent["count"] == 3 * 2


def test_resuming_into_somebody_elses_folder_is_refused(prepared, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("precious")
    with pytest.raises(RunFolderError, match=r"it holds 'thesis.txt' and no config.toml"):
        RunFolder(tmp_path / "home").open(prepared.experiment, prepared.data, resume=True)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 64])
def test_a_damaged_checkpoint_is_one_clear_error(folder, content):
    folder.resume()
    folder.keep({"round": 1}, checkpoint(1), None)
    (folder.path / "checkpoints" / "server.safetensors").write_bytes(content)
    with pytest.raises(
        RunFolderError, match=r"its checkpoints/server.safetensors is damaged; .* another --out"
    ):
        RunFolder(folder.path).resume()


def test_rounds_that_are_gone_are_one_clear_error(folder):
    folder.resume()
    for round in (1, 2):
        folder.keep({"round": round}, checkpoint(round), None)
    (folder.path / "rounds.jsonl").write_text('{"round": 1}\n')
    with pytest.raises(RunFolderError, match=r"its rounds\.jsonl is not the one"):
        RunFolder(folder.path).resume()


def test_resuming_on_other_data_is_refused(prepared, folder):
    other = replace(prepared.data, clients=prepared.data.clients[:-1])
    with pytest.raises(RunFolderError, match="begun on other data"):
        RunFolder(folder.path).open(prepared.experiment, other, resume=True)


@pytest.fixture
def no_report(monkeypatch):
    monkeypatch.setattr(report, "write", lambda folder: None)


def more(rows, rounds, changes=None):
    return tiny.experiment(rows, {"rounds": rounds, **(changes or {})})


class KilledError(Exception):
    """The process dies here."""


class Dying(tiny.Quiet):
    def round_ends(self, record):
        raise KilledError


def test_a_finished_run_goes_on_for_more_rounds_as_if_they_had_been_planned(
    rows, tmp_path, no_report
):
    run, planned = tmp_path / "run", tmp_path / "planned"
    simulate(more(rows, 1), run, tiny.Quiet())
    with pytest.raises(KilledError):  # after round 2, which none of the first summary is about
        simulate(more(rows, 3), run, Dying(), resume=True)
    assert not (run / "summary.json").exists()
    assert config.load(run / "config.toml").rounds == 3
    summary = simulate(more(rows, 3), run, tiny.Quiet(), resume=True)
    assert summary["rounds"] == 3
    simulate(more(rows, 3), planned, tiny.Quiet())
    assert tiny.student_hash(run) == tiny.student_hash(planned)
    assert [record["round"] for record in tiny.rounds(run)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"method": {"name": "fedkd"}},
            "plans the share of an update that is kept over all rounds",
        ),
        (
            {"privacy.epsilon": 8.0, "privacy.noise_multiplier": 3.0, "privacy.sample_rate": 0.5},
            "the noise and the ledgers' plan are for all rounds together",
        ),
    ],
)
def test_more_rounds_that_would_have_changed_the_first_are_refused(
    rows, tmp_path, no_report, changes, why
):
    run = tmp_path / "run"
    simulate(more(rows, 1, changes), run, tiny.Quiet())
    before = (run / "config.toml").read_text()
    with pytest.raises(RunFolderError, match=why):
        simulate(more(rows, 2, changes), run, tiny.Quiet(), resume=True)
    assert (run / "config.toml").read_text() == before
    assert (run / "summary.json").exists()


def test_an_unfinished_run_is_finished_before_it_gets_more_rounds(rows, tmp_path, no_report):
    with pytest.raises(KilledError):
        simulate(more(rows, 2), tmp_path / "run", Dying())
    with pytest.raises(RunFolderError, match="holds 1 of 2 rounds: finish it with rounds = 2"):
        simulate(more(rows, 3), tmp_path / "run", tiny.Quiet(), resume=True)
    with pytest.raises(RunFolderError, match=r"differs in rounds\)"):
        simulate(more(rows, 1), tmp_path / "run", tiny.Quiet(), resume=True)
