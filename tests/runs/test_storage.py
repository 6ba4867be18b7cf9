"""A disk that takes nothing any more ends a run, and says so; it is no client's failure."""

import errno
import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny

from fedkd.errors import RunFolderError, StorageError, UsageError
from fedkd.federation.deploy.serving import Submission
from fedkd.federation.deploy.superlink import READY
from fedkd.federation.prepare import prepare
from fedkd.jobs import serverapp, submit
from fedkd.jobs.local import local
from fedkd.jobs.simulate import simulate, simulate_world
from fedkd.jobs.submit import Deployment
from fedkd.reports import report
from fedkd.runs import checkpoint
from fedkd.runs.common import locked
from fedkd.runs.folder import DEPLOYMENT
from fedkd.runs.under_way.progress import Follower

CHANGES = {
    "clients.count": 2,
    "clients.models": [{"name": "mlp", "hidden": [4]}],
    "student.model": {"name": "mlp", "hidden": [4]},
    "method": {"name": "fedmd", "student": {"epochs": 1}},
}


@pytest.fixture
def no_report(monkeypatch):
    monkeypatch.setattr(report, "write", lambda folder: None)


@pytest.fixture
def disk(monkeypatch):
    """A disk that takes a number of files, then no more."""

    class Disk:
        room, used = 10**9, 0

    disk, sync = Disk(), os.fsync

    def fsync(descriptor):
        if disk.used >= disk.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        disk.used += 1
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return disk


@pytest.fixture(scope="module")
def prepared(rows):
    return prepare(tiny.experiment(rows, CHANGES))


def test_a_full_disk_ends_the_run_wherever_it_fills_and_more_room_mends_it(
    prepared, tmp_path, disk, no_report
):
    whole = tmp_path / "whole"
    simulate_world(prepared, whole, tiny.Quiet())
    needed = disk.used
    assert needed > 20
    for room in range(0, needed, 4):
        run = tmp_path / f"run-{room}"
        disk.room, disk.used = room, 0
        with pytest.raises(StorageError, match="No space left on device") as full:
            simulate_world(prepared, run, tiny.Quiet())
        assert f"run-{room}" in str(full.value)
        assert "make room on its disk" in str(full.value)
        assert ("go on with --resume from what" in str(full.value)) == run.exists()
        assert full.value.exit_status == 2
        disk.room = 10**9
        simulate_world(prepared, run, tiny.Quiet(), resume=run.exists())
        assert tiny.student_hash(run) == tiny.student_hash(whole)
        assert tiny.failures(run) == []
        assert [record["round"] for record in tiny.rounds(run)] == [1, 2]


def test_what_a_checkpoint_names_is_on_the_disk_before_it(
    prepared, tmp_path, monkeypatch, no_report
):
    synced, before, sync = [], [], os.fsync

    def fsync(descriptor):
        file = Path(f"/proc/self/fd/{descriptor}").readlink()
        if file.name == ".server.safetensors.tmp":
            before.append(set(synced))
        synced.append(file)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    run = tmp_path / "run"
    simulate_world(prepared, run, tiny.Quiet())
    kept = checkpoint.read(run / "checkpoints" / "server.safetensors", run)
    named = {run / name for name in kept.files}
    store = run / "checkpoints" / "clients" / "store"
    assert {file.name for file in named} > {"rounds.jsonl", "partition.json"}
    assert before[-1] >= named | {store, store / "000001.bin"}  # SQLite sees to its own


def test_a_clients_disk_ends_a_simulation_and_nothing_of_the_round_is_kept(
    prepared, tmp_path, monkeypatch
):
    """One client of two cannot keep its state, in round 2."""
    opened, appended = Path.open, []

    def full(path, mode="r", *arguments, **options):
        if path.name == "000001.bin" and "a" in mode:
            appended.append(path)
            if len(appended) == 4:
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return opened(path, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StorageError, match=r"store.000001\.bin': Disk quota"):
        simulate_world(prepared, tmp_path / "run", tiny.Quiet())
    assert [record["round"] for record in tiny.rounds(tmp_path / "run")] == [1]


def test_a_state_that_is_damaged_while_a_run_goes_on_ends_it(prepared, tmp_path):
    class Damaging(tiny.Quiet):
        def round_ends(self, record):
            [contents] = (tmp_path / "run").rglob("000001.bin")
            contents.write_bytes(b"junk")

    with pytest.raises(StorageError, match=r"what client \d kept before round \d is damaged"):
        simulate_world(prepared, tmp_path / "run", Damaging())


def test_one_process_at_a_time_has_a_run_folder(prepared, tmp_path, no_report):
    run = tmp_path / "run"
    simulate_world(prepared, run, tiny.Quiet())
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with locked(run), pytest.raises(UsageError, match="run' is in use: another process runs"):
        simulate_world(prepared, run, tiny.Quiet(), resume=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    simulate_world(prepared, run, tiny.Quiet(), resume=True)


@pytest.fixture(scope="module")
def finished(rows, tmp_path_factory):
    place = tmp_path_factory.mktemp("finished")
    simulate(tiny.experiment(rows, CHANGES), place / "run", tiny.Quiet())
    tiny.write_config(place / "tiny.toml", rows, CHANGES)
    shutil.copytree(place / "run", place / "twin")
    for name, old, new in (("config.toml", "seed = 7", "seed = 8"), ("summary.json", ": 7", ": 8")):
        file = place / "twin" / name
        file.write_text(file.read_text().replace(old, new, 1))
    return place


@pytest.mark.parametrize(
    "command",
    [
        ["simulate", "tiny.toml", "--resume", "--out", "run"],
        ["report", "run"],
        ["report", "run", "twin", "--out", "new/comparison.html"],
        ["export", "run", "--format", "torchscript"],
    ],
)
def test_on_a_read_only_disk_a_command_ends_in_one_line(finished, run, monkeypatch, command):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    opened = Path.open

    def read(path, mode="r", *arguments, **options):
        return refuse() if set(mode) & set("wax+") else opened(path, mode, *arguments, **options)

    monkeypatch.chdir(finished)
    monkeypatch.setattr(Path, "open", read)
    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    status, _, complaint = run(*command)
    assert status == 2
    assert "Read-only file system; see to its permissions" in complaint
    assert ("--resume" in complaint) == ("--resume" in command)
    assert complaint.count("\n") == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"run": "a"}', "\udcff"])
def test_a_deployments_files_that_are_damaged_are_named(tmp_path, content):
    for name in (DEPLOYMENT, f"runs/{'a' * 32}.json"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(RunFolderError, match=r"its deployment\.json is damaged"):
        Deployment.read(tmp_path)
    with pytest.raises(StorageError, match=r"runs.a{32}\.json' is damaged"):
        Submission.read(tmp_path, "a" * 32)


class Control:
    """A server's control that starts runs, and is asked for another while it starts one."""

    def __init__(self):
        self.started, self.meanwhile = [], lambda: None

    def nodes(self):
        return [SimpleNamespace(name=f"client-{i}", id=i + 10) for i in range(2)]

    def run(self, flower):
        return SimpleNamespace(over=False)

    def start(self, files, config):
        self.started.append(config)
        self.meanwhile()
        return len(self.started)


def test_one_process_at_a_time_submits_a_run_folder(rows, tmp_path):
    control = Control()
    (tmp_path / "server" / "runs").mkdir(parents=True)
    server = SimpleNamespace(
        folder=tmp_path / "server", start="now", control=lambda: nullcontext(control)
    )

    def submit_it(resume):
        return submit.submit(
            tiny.experiment(rows, CHANGES),
            server,
            tmp_path / "run",
            tiny.Quiet(),
            resume=resume,
            detach=True,
        )

    refused = []

    def meanwhile():
        with pytest.raises(UsageError, match="checkpoints' is in use") as error:
            submit_it(resume=True)
        refused.append(error.value)

    control.meanwhile = meanwhile
    submit_it(resume=False)
    server.start = "later"  # which the run did not outlive, so that it starts again
    submit_it(resume=True)
    submit_it(resume=True)  # it runs still
    assert len(refused) == len(control.started) == 2
    assert Deployment.read(tmp_path / "run").flower == 2


def test_a_trial_that_runs_is_not_taken_down_by_another(rows, tmp_path):
    place = tmp_path / "run-federation"
    ready = place / "server" / READY
    ready.parent.mkdir(parents=True)
    ready.touch()
    (place / "port").write_text("1")
    with locked(place), pytest.raises(UsageError, match="run-federation' is in use"):
        local(tiny.experiment(rows, CHANGES), tmp_path / "run", tiny.Quiet(), resume=True)
    assert ready.exists()


def test_a_server_whose_run_folder_another_has_says_so(tmp_path):
    (tmp_path / "run").mkdir()
    submission = Submission(str(tmp_path / "run"), "shared.safetensors", {})
    with locked(tmp_path / "run"), pytest.raises(UsageError, match="run' is in use"):
        serverapp._main(submission, None)
    follower = Follower(tmp_path / "run")
    follower.pass_on(tiny.Quiet())
    text, status = follower.failure
    assert "run' is in use: the server runs with it" in text
    assert status == 2
