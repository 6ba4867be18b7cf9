"""Large cohorts' models are averaged as they come in: the same student, and few models held."""

import weakref

import pytest
import tiny
import torch

from fedkd.exchange.messages import group
from fedkd.federation import engines
from fedkd.federation.prepare import prepare
from fedkd.methods.fedavg import FedAvg

CLIENTS = 70


class Spied(FedAvg):
    """FedAvg with client 3 lost; it notes what its server part's uploads hold of models."""

    def __init__(self, params):
        super().__init__(params)
        self.held = []
        self.averages = []
        self.gone = None

    def client(self, ctx, broadcast):
        if ctx.client == 3:
            raise RuntimeError("lost")
        if ctx.round == 2 and ctx.client == 0:
            self.gone = [average() is None for average in self.averages]
        return super().client(ctx, broadcast)

    def begin(self, ctx):
        self.held.append(ctx.running is None)
        if ctx.running is not None:
            self.averages.append(weakref.ref(ctx.running))
        return super().begin(ctx)


class Reading(FedAvg):
    """A method that reads models itself, and has FedAvg's card."""

    def server(self, ctx, uploads):
        assert all(group("model", upload) for upload in uploads.values())
        return super().server(ctx, uploads)


class Forget:
    def resume(self):
        return None

    def keep(self, record, checkpoint, generated):
        self.record = record


@pytest.fixture
def run(tmp_path):
    rows = tiny.write_rows(tmp_path / "rows.npz", samples=280, features=4)

    def run(method="Spied", threads=2, **changes):
        table = {
            "method": {"name": f"{__name__}:{method}"},
            "clients.models": [{"name": "mlp", "hidden": [4]}],
            "clients.count": CLIENTS,
            "student.model": {"name": "mlp", "hidden": [4]},
            "data.public": None,
            "engine.threads": threads,
        }
        prepared, keeper = prepare(tiny.experiment(rows, table | changes)), Forget()
        student = engines.simulate(prepared, keeper, tiny.Quiet(), states=None).state_dict()
        return prepared.method, keeper.record, student

    return run


def test_the_student_is_that_of_all_models_at_once_on_any_threads(run):
    running, record, student = run()
    assert running.held == [True, False, False]  # before the first round there is none
    assert running.gone == [True]  # a round's models are let go before the next ones come
    assert len(record["participants"]) == CLIENTS - 1
    _, _, on_one = run(threads=1)
    assert all(torch.equal(student[name], each) for name, each in on_one.items())
    at_once, _, expected = run(**{"clients.max_weight": 1.0})
    assert at_once.held == [True] * 3
    assert all(torch.allclose(student[n], each, atol=1e-6) for n, each in expected.items())


@pytest.mark.parametrize(
    "changes", [{"clients.participation": 0.9}, {"robust.models": "median", "robust.screen": False}]
)
def test_small_cohorts_and_rules_have_all_models(run, changes):
    method, _, _ = run(**changes)
    assert method.held == [True] * 3


def test_a_server_part_of_ones_own_has_all_models(run):
    run("Reading")
