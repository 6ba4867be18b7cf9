import tiny

from fedkd.federation import engines
from fedkd.federation.prepare import prepare
from fedkd.runs.folder import RunFolder


class Diary(tiny.Quiet):
    def __init__(self):
        self.lines = []

    def round_begins(self, round, cohort):
        self.lines.append(("begins", round, tuple(cohort)))

    def client_does(self, client, phase, done, total):
        self.lines.append(("client", client, phase, done, total))

    def client_ends(self, client, failure):
        self.lines.append(("ends", client, failure))

    def server_does(self, phase, done, total):
        self.lines.append(("server", phase, done, total))

    def round_ends(self, record):
        self.lines.append(("over", record["round"]))


def test_an_observer_hears_of_every_round_client_and_phase(rows, tmp_path):
    changes = {"clients.training.epochs": 2, "engine.threads": 1, "method.name": "feddf"}
    prepared = prepare(tiny.experiment(rows, changes))
    run = RunFolder(tmp_path / "run")
    run.open(prepared.experiment, prepared.data, resume=False)
    diary = Diary()
    engines.simulate(prepared, run, diary, states=run.states)

    rounds = [line for line in diary.lines if line[0] in ("begins", "over")]
    everybody = (0, 1, 2, 3)
    assert rounds == [("begins", 1, everybody), ("over", 1), ("begins", 2, everybody), ("over", 2)]
    first = diary.lines[: diary.lines.index(("over", 1))]
    assert sorted(line[1:] for line in first if line[0] == "ends") == [(c, None) for c in everybody]
    for client in everybody:
        steps = [line[2:] for line in first if line[:2] == ("client", client)]
        assert steps[:3] == [("train", 0, 2), ("train", 1, 2), ("train", 2, 2)]
        assert ("evaluate", 0, 1) in steps
    assert ("server", "distil", 160, 160) in first
