"""A client that fails is left out of its round, named with a reason, and comes back."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import faulty
import pytest
import tiny
import torch

from fedkd.errors import QuorumError
from fedkd.federation import engines
from fedkd.federation.client import ClientParty, client_app
from fedkd.federation.cohort import LOCAL, Connections
from fedkd.federation.disk_state import DiskState
from fedkd.federation.inprocess import InProcessGrid
from fedkd.federation.prepare import prepare
from fedkd.federation.rounds import federate
from fedkd.federation.state import MemoryState
from fedkd.jobs.simulate import simulate
from fedkd.reports import report
from fedkd.runs.folder import RunFolder
from fedkd.runs.summary import summarise

DEADLINE = 3000.0
REASONS = {
    "raises": "RuntimeError while training",
    "exits": "its app crashed",
    "hangs": f"no answer within {DEADLINE:g} s",
    "sends NaN": "field 'logits' holds NaN or infinity",
    "sends a wrong shape": "field 'logits': shape is not (40, 3)",
    "sends a wrong dtype": "field 'logits': dtype is not torch.float16",
    "sends a dtype without code": "MessageError",
    "sends far too much": "message is larger than the {most} bytes that were agreed",
    "sends nothing": "field 'logits' is missing",
    "sends an extra field": "message has other fields than the 3 that were agreed",
    "sends a bare tensor": "MessageError",
    "answers with an error": "its app raised an exception",
    "answers with garbage": "message is not valid safetensors",
    "answers with half": "message is not valid safetensors",
    "answers with no call": "answer is not a fedkd message",
    "answers with another stype": "answer is not a fedkd message",
    "answers with words for numbers": "answer is not a fedkd message",
    "answers to another round": "answer to another call",
    "answers for another client": "answer to another call",
    "fails in words of its own": "Exception",
    "claims more than all right": ("field 'report/correct' counts more than the test samples"),
    "claims fewer than none": "field 'report/correct' is not within [0, inf]",
    "claims an age": "field 'report/seconds' is not within [0, 1e+07]",
    "claims a negative time": "field 'report/seconds' is not within [0, 1e+07]",
}
FAULTS = list(REASONS)
HONEST = [len(FAULTS), len(FAULTS) + 1]


class Release(tiny.Quiet):
    """Ends round 2 once all but the client that hangs have answered, and lets that one go then.

    So it is no matter how long an answer takes on this machine.
    """

    waiting = 0

    def round_begins(self, round, cohort):
        self.waiting = len(cohort) - 1 if round == 2 else 0

    def client_ends(self, client, failure):
        self.waiting -= 1
        if self.waiting == 0:
            faulty.leap()

    def round_ends(self, record):
        if record["round"] == 2:
            faulty.RELEASE.set()


@pytest.fixture(scope="module")
def run(tmp_path_factory, rows):
    """Four rounds, in the second of which every client but two is at fault."""
    folder = tmp_path_factory.mktemp("faults")
    prepared = prepare(
        tiny.experiment(
            rows,
            {
                "rounds": 4,
                "clients.count": len(FAULTS) + len(HONEST),
                "clients.quorum": 0.05,
                "clients.deadline": DEADLINE,
                "method": {"name": "faulty:Faulty", "faults": FAULTS},
            },
        )
    )
    run = opened(folder / "run", prepared)
    states = {
        client: DiskState(run.states / str(client)) for client in range(prepared.setting.clients)
    }
    app = client_app(lambda context, call: ClientParty(prepared, states[call.client]))
    faulty.RELEASE.clear()
    faults = faulty.FaultyApp(app, prepared.method.params)
    with (
        pytest.MonkeyPatch.context() as patch,
        InProcessGrid(faults, nodes=len(FAULTS) + 2, threads=3) as grid,
    ):
        for module in (faulty.cohort, faulty.inprocess):
            patch.setattr(module, "time", module.time)  # so that it is put back
        student = federate(grid, prepared, run, Release(), threads=1)
    run.finish(student.state_dict(), summarise(prepared, student, run.records(), run.released()))
    report.write(run.path)
    return run.path


def opened(path, prepared):
    folder = RunFolder(path)
    folder.open(prepared.experiment, prepared.data, resume=False)
    return folder


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_without_quoting_what_came(run, fault):
    reasons = {(round, client): reason for round, client, reason in tiny.failures(run)}
    reason = reasons[2, FAULTS.index(fault)]
    if "{most}" in REASONS[fault]:
        before, after = REASONS[fault].split("{most}")
        assert reason.startswith(before)
        assert reason.endswith(after)
        assert int(reason[len(before) : -len(after)]) < 20_000
    else:
        assert reason == REASONS[fault]


def test_only_the_others_are_used_and_the_run_goes_on(run):
    first, second, third, fourth = tiny.rounds(run)
    everybody = list(range(len(FAULTS) + len(HONEST)))
    assert first["participants"] == everybody
    assert second["participants"] == HONEST
    assert sorted(second["teachers"]["by_client"]) == sorted(map(str, HONEST))
    # The one that hung may still be busy when the third round begins, the others take part again.
    assert set(everybody) - set(third["participants"]) <= {FAULTS.index("hangs")}
    assert fourth["participants"] == everybody


def test_no_secret_is_written_anywhere(run):
    files = [path for path in run.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if faulty.SECRET.encode() in path.read_bytes()] == []


def test_a_client_at_fault_weighs_nothing_whatever_it_sent(rows, tmp_path):
    students = []
    for fault in ("raises", "sends NaN"):
        changes = {
            "clients.training.epochs": 2,
            "method": {"name": "faulty:Faulty", "faults": [fault], "faulty_rounds": [1, 2]},
        }
        prepared = prepare(tiny.experiment(rows, changes))
        student = engines.simulate(
            prepared,
            opened(tmp_path / fault, prepared),
            tiny.Quiet(),
            states=tmp_path / f"s {fault}",
        )
        students.append(torch.cat([tensor.flatten() for tensor in student.state_dict().values()]))
        assert [(r, c) for r, c, _ in tiny.failures(tmp_path / fault)] == [(1, 0), (2, 0)]
    assert torch.equal(*students)


def test_below_the_quorum_the_round_fails_with_numbers_and_kinds(rows, tmp_path):
    faults = ["raises", "sends NaN", "raises"]
    prepared = prepare(
        tiny.experiment(
            rows,
            {"rounds": 3, "method": {"name": "faulty:Faulty", "faults": faults}},
        )
    )
    run = opened(tmp_path / "run", prepared)
    with pytest.raises(QuorumError) as caught:
        engines.simulate(prepared, run, tiny.Quiet(), states=run.states)
    assert str(caught.value) == (
        "round 2: 1 of 4 clients answered and clients.quorum = 0.5 asks for 2: "
        "RuntimeError while training: Patient4711Error: ('Patient4711', {'Patient4711': "
        "'Patient4711'}) (2), field 'logits' holds NaN or infinity (1)"
    )
    assert [record["round"] for record in run.records()] == [1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"clients.training.learning_rate": 1e12, "method.name": "fedavg"},
            "FederationError while training: training diverged: the loss is nan in epoch 1, "
            "expected a finite number; lower the learning rate (now 1000000000000.0)",
        ),
        (
            {"clients.training.batch_size": 1, "method.name": "local"},
            "ValueError while training: Expected more than 1 value per channel when training, got "
            "input size torch.Size([1, 8])",
        ),
    ],
)
def test_a_simulation_in_which_every_client_fails_says_why(rows, tmp_path, changes, said):
    model = {"clients.models": ["faulty:Normed"], "student.model": "faulty:Normed"}
    experiment = tiny.experiment(rows, {**model, **changes})
    with pytest.raises(QuorumError) as caught:
        simulate(experiment, tmp_path / "run", tiny.Quiet())
    assert str(caught.value).endswith(f"0.5 asks for 2: {said} (4)")


def test_a_site_tells_its_exceptions_words_to_nobody_and_a_server_asks_for_none(rows):
    experiment = tiny.experiment(
        rows,
        {"method": {"name": "faulty:Faulty", "faults": ["raises"], "faulty_rounds": [1]}},
    )
    prepared = prepare(experiment)
    reasons = []
    for simulated, connections in ((False, LOCAL), (True, Connections(nodes=(2, 3, 4, 5)))):
        states = [MemoryState() for _ in range(4)]
        find = partial(of_memory, prepared, states)
        keeper = Keeping()
        with InProcessGrid(client_app(find, simulated=simulated), nodes=4, threads=1) as grid:
            federate(grid, prepared, keeper, tiny.Quiet(), threads=1, connections=connections)
        [failure] = keeper.records[0]["failures"]
        reasons.append(failure["reason"])
    assert reasons == ["RuntimeError while training"] * 2


def test_under_privacy_the_run_folder_quotes_no_librarys_words(rows, tmp_path):
    changes = {
        "method": {"name": "faulty:Faulty", "faults": ["raises"], "faulty_rounds": [1]},
        "privacy": {"unit": "record", "epsilon": 50.0, "noise_multiplier": 4.0},
        "clients.count": 2,
        "rounds": 1,
    }
    prepared = prepare(tiny.experiment(rows, changes))
    run = opened(tmp_path / "run", prepared)
    engines.simulate(prepared, run, tiny.Quiet(), states=run.states)
    reason = "RuntimeError while training: Patient4711Error"  # the class is code, and no record's
    assert tiny.failures(tmp_path / "run") == [(1, 0, reason)]
    record = (run.path / "rounds.jsonl").read_text()
    assert faulty.SECRET not in record.replace(reason, "")


def of_memory(prepared, states, context, call):
    return ClientParty(prepared, states[call.client])


class Keeping:
    """A keeper that remembers the records, and that is all."""

    def __init__(self):
        self.records = []

    def resume(self):
        return None

    def keep(self, record, checkpoint, generated):
        self.records.append(record)


def test_the_quorum_is_met_at_its_very_share(rows, tmp_path):
    prepared = prepare(
        tiny.experiment(
            rows,
            {"method": {"name": "faulty:Faulty", "faults": ["raises", "raises"]}},
        )
    )
    run = opened(tmp_path / "run", prepared)
    engines.simulate(prepared, run, tiny.Quiet(), states=run.states)
    assert [record["participants"] for record in run.records()] == [[0, 1, 2, 3], [2, 3]]


@pytest.mark.slow
def test_a_client_that_hangs_for_ever_neither_blocks_others_nor_the_end(rows, tmp_path):
    config = tiny.write_config(
        tmp_path / "hang.toml",
        rows,
        {
            "rounds": 3,
            "clients.count": 3,
            "clients.deadline": DEADLINE,
            "method.name": "faulty:Hanging",
        },
    )
    done = subprocess.run(
        [sys.executable, "-m", "fedkd", "simulate", str(config), "--out", str(tmp_path / "run")],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert [r["participants"] for r in tiny.rounds(tmp_path / "run")] == [[1, 2]] * 3
    assert tiny.failures(tmp_path / "run") == [
        (1, 0, f"no answer within {DEADLINE:g} s"),
        (2, 0, "its node was not available"),
        (3, 0, "its node was not available"),
    ]


def test_a_model_that_overflows_is_left_out_and_harms_nobody(rows, tmp_path):
    experiment = tiny.experiment(rows, {"method.name": "faulty:Poison"})
    summary = simulate(experiment, tmp_path / "run", tiny.Quiet())
    reason = "field 'model': its answers are NaN or infinity"
    assert tiny.failures(tmp_path / "run") == [(1, 0, reason), (2, 0, reason)]
    assert summary["student"]["accuracy"] > 0.6


@pytest.mark.slow
@pytest.mark.parametrize(("quorum", "status"), [(0.5, 0), (1.0, 1)])
def test_a_client_that_computes_on_does_not_crash_the_process(rows, tmp_path, quorum, status):
    changes = {
        "method.name": "faulty:Busy",
        "rounds": 1,
        "clients.deadline": DEADLINE,
        "clients.quorum": quorum,
    }
    path = tiny.write_config(tmp_path / "busy.toml", rows, changes)
    ended = subprocess.run(
        [sys.executable, "-m", "fedkd", "simulate", str(path), "--out", str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ended.returncode == status, ended.stderr
    assert "terminate called" not in ended.stderr
    assert ("report:" in ended.stdout) == (status == 0)
