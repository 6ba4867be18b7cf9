"""The study's own machinery: the grid, what it remembers, what it does when a cell fails."""

import importlib.util
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny
import torch

from fedkd import methods, models, rng
from fedkd.config import ModelSpec, Optimisation
from fedkd.data import partition
from fedkd.data.types import Samples
from fedkd.errors import RunFolderError
from fedkd.jobs.simulate import simulate
from fedkd.learning import optim, supervised
from fedkd.runs.reading import read

SCRIPT = Path(__file__).parents[2] / "simulations" / "one_shot.py"
TRAINING = Optimisation(epochs=2, batch_size=8, schedule="cosine")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return tiny.write_images(tmp_path_factory.mktemp("data") / "images.npz", side=28, samples=120)


@pytest.fixture
def study(images, monkeypatch):
    spec = importlib.util.spec_from_file_location("one_shot_study", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SAMPLE", str(images))
    return module


def quick(study, out, *more):
    return study.main(["--quick", "--seeds", "0", "--out", str(out), *more])


def dense(*rows):
    return ["--set-ups", "dense-0.1", "--methods", *rows]


def refuse(*_args, **_kwargs):
    raise AssertionError("a model is trained that is known")


class Call:
    """One call of `supervised.train`, its arguments fresh."""

    def __init__(self, *, batches=1, weights=1, label=0, rate=0.01, momentum=None):
        spec = ModelSpec(name="dense-cnn")
        built = {"shape": (1, 8, 8), "classes": 3, "generator": rng.stream(weights, purpose="w")}
        self.model = models.build(spec, **built)
        x = torch.rand(20, 1, 8, 8, generator=rng.stream(0, purpose="x"))
        self.samples = Samples(x, torch.tensor([label, *[0, 1, 2] * 6, 1]))
        self.how = TRAINING.model_copy(update={"learning_rate": rate})
        self.optimiser = optim.build(self.model.parameters(), self.how)
        if momentum is not None:
            optim.unpack(self.optimiser, {"0.momentum_buffer": torch.full((16, 1, 5, 5), momentum)})
        self.generator, self.seen = rng.stream(batches, purpose="b"), []

    def train(self, **more):
        more = {
            "optimiser": self.optimiser,
            "on_epoch": lambda *each: self.seen.append(each),
        } | more
        self.losses = supervised.train(self.model, self.samples, self.how, self.generator, **more)
        return self

    def left(self):
        tensors = {**self.model.state_dict(), **optim.pack(self.optimiser)}
        told = {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
        state = self.generator.get_state().numpy().tobytes()
        return told, state, self.losses, self.seen, self.model.training


def test_what_is_remembered_is_what_training_leaves(study, tmp_path, monkeypatch):
    alone = Call().train().left()
    memory = study.Memory(tmp_path / "teachers")
    with study.remembering(memory):
        first = Call().train().left()
        monkeypatch.setattr(supervised, "fit", refuse)
        second = Call().train().left()
    assert alone == first == second
    assert len(alone[3]) == 2
    assert memory.seconds[0] == memory.seconds[1] > 0
    with pytest.raises(AssertionError, match="that is known"):
        Call().train()  # nothing of it is left behind


CHANGES = [
    {"batches": 2}, {"weights": 2}, {"label": 1}, {"rate": 0.02}, {"momentum": 0.0},
    {"momentum": 1.0},
]  # fmt: skip


def test_whatever_enters_training_tells_models_apart(study, tmp_path):
    with study.remembering(study.Memory(tmp_path)):
        for change in [{}, *CHANGES]:
            Call(**change).train()
        frozen = Call()
        frozen.model.conv1.weight.requires_grad_(requires_grad=False)
        frozen.train()
        start = dict(Call().model.state_dict())
        Call().train(anchor=start)
        Call().train(anchor=start, proximal=0.1)
        Call().train(optimiser=None)
        known = len(list(tmp_path.glob("*.safetensors")))
        Call().train(anchor=dict(reversed(start.items())))
        assert known == len(list(tmp_path.glob("*.safetensors"))) == len(CHANGES) + 5


def test_two_at_a_time_train_once(study, tmp_path):
    memory = study.Memory(tmp_path)
    with study.remembering(memory), ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: Call().train().left(), range(2))
    assert one == two
    assert memory.seconds[0] == memory.seconds[1]
    names = {path.suffix for path in tmp_path.iterdir()}
    assert names <= {".safetensors", ".lock"}


def test_an_argument_that_has_no_key_is_refused(study, tmp_path):
    with study.remembering(study.Memory(tmp_path)), pytest.raises(TypeError, match="'object'"):
        Call().train(proximal=object())


def test_a_second_study_trains_nothing_and_gives_the_same_students(study, tmp_path, monkeypatch):
    rows = ["fedavg", "fedgen", "dense"]
    assert quick(study, tmp_path / "a", *dense(*rows)) == 0
    given = study.argparse.Namespace(quick=True, epochs=40, set=[])
    wanted = study.experiment(study.Cell("dense-0.1", "dense", 0), given)
    simulate(wanted, tmp_path / "plain", tiny.Quiet())
    shutil.copytree(tmp_path / "a" / "teachers", tmp_path / "b" / "teachers")
    monkeypatch.setattr(supervised, "fit", refuse)
    assert quick(study, tmp_path / "b", *dense(*rows)) == 0
    hashes = {
        row: {tiny.student_hash(tmp_path / out / "dense-0.1" / f"{row}-seed0") for out in "ab"}
        for row in rows
    }
    assert hashes["dense"] == {tiny.student_hash(tmp_path / "plain")}
    assert hashes["fedavg"] == hashes["fedgen"]  # one round of FedGen: its generator came too late
    assert all(len(each) == 1 for each in hashes.values())
    assert len(list((tmp_path / "b" / "teachers").glob("*.safetensors"))) == 2 * 5


def test_a_cell_that_fails_is_told_and_the_others_go_on(study, tmp_path, capsys, monkeypatch):
    blocked = tmp_path / "dense-0.1" / "fedavg-seed0"
    blocked.parent.mkdir()
    blocked.write_text("no folder")
    assert quick(study, tmp_path, *dense("fedavg", "analytic", "centralised")) == 1
    told = capsys.readouterr().out
    assert "failed: dense-0.1, fedavg, seed 0: " in told
    assert "| `analytic` |" in told
    assert "| `centralised` |" in told
    blocked.unlink()
    monkeypatch.setattr(study, "simulate", lambda *_args, **_kwargs: 1 / 0)
    assert quick(study, tmp_path, *dense("fedavg", "analytic")) == 1
    told = capsys.readouterr().out
    assert "ZeroDivisionError" in told
    assert "| `analytic` |" in told  # read, not run


def test_a_finished_cell_of_other_settings_is_refused(study, tmp_path, capsys, monkeypatch):
    assert quick(study, tmp_path, *dense("dense")) == 0
    monkeypatch.setitem(study.QUICK, "epochs", 2)
    assert quick(study, tmp_path, *dense("dense")) == 1
    assert "holds another experiment (it differs in method)" in capsys.readouterr().out


def test_a_private_cell_is_finished_though_its_noise_was_computed(study, tmp_path, monkeypatch):
    monkeypatch.setitem(study.SET_UPS, "private-8", study.SetUp(
        changes=(*study.FIXED, "privacy.epsilon=8.0", "privacy.delta=1e-4"),
        config="analytic", rows=("analytic",),
    ))  # fmt: skip
    private = ["--set-ups", "private-8", "--methods", "analytic"]
    assert quick(study, tmp_path, *private) == 0
    monkeypatch.setattr(study, "simulate", refuse)
    assert quick(study, tmp_path, *private) == 0


def test_the_table_holds_what_is_finished_beside_the_published(study, tmp_path, capsys):
    assert quick(study, tmp_path, *dense("dense"), "--seeds", "0", "1") == 0
    before = capsys.readouterr().out
    assert quick(study, tmp_path, "--table", "--set-ups", "dense", "--methods", "dense", "adi") == 0
    after = capsys.readouterr().out
    runs = [read(tmp_path / "dense-0.1" / f"dense-seed{seed}") for seed in (0, 1)]
    [row] = [line for line in before.splitlines() if line.startswith("| `dense`")]
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    last = torch.tensor([run.summary.student.number("accuracy") for run in runs]).double() * 100
    assert cells[1] == f"{last.mean():.2f} ± {last.std():.2f}"
    assert cells[3] == study.spread([run.summary.ensemble.number("accuracy") for run in runs])
    sent = sum(run.summary.bytes.up for run in runs) / 2 / 5
    assert cells[4] == study.wording.size(sent)
    assert cells[-2:] == ["0, 1", "50.29 [3P]"]
    assert f"| *ensemble*, mean of logits | {cells[3]} |" in before
    assert "67.71 [3P]" in before
    assert "| `dense` |" in after
    assert "`adi`" not in after
    assert "dense-0.3" not in after
    assert (tmp_path / "tables.md").read_text("utf-8") in after + "\n"
    assert "dense" in (tmp_path / "dense-0.1" / "report.html").read_text("utf-8")


def test_every_cell_is_an_experiment_and_all_clients_must_answer(study, tmp_path):
    given = study.argparse.Namespace(quick=False, epochs=7, local_epochs=3, set=[])
    scaled = {}
    for name, set_up in study.SET_UPS.items():
        for row in set_up.rows:
            if study.METHODS[row][0] not in methods.BUILT_IN:
                continue
            wanted = study.experiment(study.Cell(name, row, 3), given)
            assert (wanted.seed, wanted.rounds, wanted.clients.quorum) == (3, 1, 1.0)
            assert wanted.clients.training.epochs == 3
            if not name.startswith("private"):
                assert wanted.clients.training.batch_size == 128
                assert wanted.clients.training.momentum == 0.9
            method = wanted.method.parameters
            scaled[row] = method.get("epochs", method.get("generator", {}).get("batches"))
    rivals = ("feddf", "dafl", "adi", "dense", "co_boosting")
    assert {row for row, epochs in scaled.items() if epochs == 7} == set(rivals)


def test_rounds_by_an_option_are_told_one_by_one(study, tmp_path, capsys):
    changes = ("--set", "rounds=2", "method.images=100", "method.later.epochs=2")
    assert quick(study, tmp_path, *dense("fedpair"), *changes) == 0
    told = capsys.readouterr().out
    run = read(tmp_path / "dense-0.1" / "fedpair-seed0")
    assert run.experiment.method.parameters["images"] == 100
    assert run.experiment.method.parameters["later"]["epochs"] == 2
    students, ensembles = (
        [f"{100 * each.number('accuracy'):.2f}" for each in scores]
        for scores in ([r.student for r in run.rounds], [r.ensemble for r in run.rounds])
    )
    assert len(students) == len(ensembles) == 2
    assert run.experiment.output.evaluate.test_size == "all"
    line = "- `fedpair`, seed 0, by round: student {}, {}; ensemble {}, {}"
    assert line.format(*students, *ensembles) in told
    assert len(list((tmp_path / "teachers").glob("*.safetensors"))) == 2 * 5


def test_one_class_gives_each_client_one_class(study):
    given = study.argparse.Namespace(quick=False, epochs=1, local_epochs=10, set=[])
    wanted = study.experiment(study.Cell("one-class", "fedavg", 0), given)
    labels = torch.arange(600)[torch.randperm(600, generator=rng.stream(0, purpose="y"))] % 10
    parts = partition.split(
        wanted.data.partition,
        count=len(labels),
        strata=labels,
        groups=None,
        clients=wanted.clients.count,
        generator=rng.stream(0, purpose="partition"),
    )
    assert [len(part) for part in parts] == [60] * 10
    assert sorted(int(labels[part].unique()) for part in parts) == list(range(10))


def test_unreadable_cells_do_not_pass(study, tmp_path):
    with pytest.raises(RunFolderError):
        study.tell([study.Cell("mnist", "fedavg", 0)], tmp_path)
