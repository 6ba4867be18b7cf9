"""Answers are looked at on the threads that made them, and come to the same."""

import threading

import pytest
import tiny

from fedkd.exchange.messages import Upload
from fedkd.federation import engines, inprocess
from fedkd.federation.prepare import prepare
from fedkd.methods.fedavg import FedAvg

CHANGES = {
    "method": {"name": f"{__name__}:Watched"},
    "clients.models": [{"name": "mlp", "hidden": [16]}],
    "data.public": None,
}


class Watched(FedAvg):
    """FedAvg that notes on which threads its door stands, and may be shut for good."""

    def __init__(self, params):
        super().__init__(params)
        self.threads = []

    def probe(self, setting, client, upload, x):
        self.threads.append(threading.current_thread().name)
        return super().probe(setting, client, upload, x)


class Broken(FedAvg):
    def probe(self, setting, client, upload, x):
        raise RuntimeError("a fault of the method's own")


class Forgetful(FedAvg):
    """Client 1 leaves its count out."""

    def client(self, ctx, broadcast):
        upload = super().client(ctx, broadcast)
        return Upload(dict(list(upload.values.items())[:-1])) if ctx.client == 1 else upload


class Keep:
    def __init__(self):
        self.records = []

    def resume(self):
        return None

    def keep(self, record, checkpoint, generated):
        self.records.append(record)


def run(tmp_path, method, threads=2):
    rows = tiny.write_rows(tmp_path / "rows.npz")
    changes = {**CHANGES, "method": {"name": method}, "engine": {"threads": threads}}
    prepared, keep = prepare(tiny.experiment(rows, changes)), Keep()
    student = engines.simulate(prepared, keep, tiny.Quiet(), states=None)
    return prepared, keep.records, student


def test_uploads_are_let_in_on_the_pools_threads_and_give_the_same_student(tmp_path):
    prepared, _, one = run(tmp_path, f"{__name__}:Watched", threads=2)
    assert prepared.method.threads == [inprocess.WORKER_NAME] * 8
    _, _, other = run(tmp_path, "fedavg", threads=1)
    assert all(one.state_dict()[k].equal(v) for k, v in other.state_dict().items())


def test_what_is_refused_there_is_a_failure_with_its_reason(tmp_path):
    _, records, _ = run(tmp_path, f"{__name__}:Forgetful")
    assert [record["participants"] for record in records] == [[0, 2, 3]] * 2
    assert {f["reason"] for r in records for f in r["failures"]} == {"field 'count' is missing"}
    assert records[0]["bytes"]["up"] > 0


def test_a_fault_of_the_methods_door_ends_the_run(tmp_path):
    with pytest.raises(RuntimeError, match="a fault of the method's own"):
        run(tmp_path, f"{__name__}:Broken")
