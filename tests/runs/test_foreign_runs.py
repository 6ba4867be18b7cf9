"""Run folders that somebody else made: what they name does not run because a student is asked."""

import shutil
import sys

import numpy as np
import pytest
import tiny
import tomli_w
from own_models import by_task

import fedkd
from fedkd import config
from fedkd.errors import DataError, FedkdError, RunFolderError
from fedkd.names import is_of_library
from fedkd.runs import student as students


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A run as it was made."""
    place = tmp_path_factory.mktemp("honest")
    table = tiny.table(tiny.write_rows(place / "rows.npz"))
    changes = {"rounds": 1, "clients.count": 2, "student.model": "own_models:by_task"}
    return fedkd.simulate(table, changes, out=place / "run", progress=False).path


@pytest.fixture
def doctored(honest, tmp_path):
    """Gives a copy of it whose `config.toml` says something else."""

    def changed(**values):
        shutil.copytree(honest, tmp_path / "run")
        table = config.read(
            honest / "config.toml", [(k.replace("__", "."), values[k]) for k in values]
        )
        (tmp_path / "run" / "config.toml").write_text(tomli_w.dumps(table))
        return tmp_path / "run"

    return changed


CALLS = [
    {"name": "subprocess:Popen", "args": [sys.executable, "-c", "open('ran', 'w')"]},
    {"name": "torch:load", "f": "ran.pt", "weights_only": False},
    {
        "name": "torch.fx.graph_module:reduce_graph_module",
        "body": {},
        "import_block": "open('ran')",
    },
    {"name": "fedkd.files:write_atomically", "path": "ran", "content": "x"},
    {"name": "os:abort"},
]


@pytest.mark.parametrize("model", CALLS, ids=lambda model: model["name"])
def test_no_call_of_a_library_is_a_model_of_a_run(doctored, here, model):
    run = doctored(student__model=model)
    with pytest.raises(RunFolderError, match=rf"model '{model['name']}', a call of a library"):
        fedkd.load(run).predict(np.zeros(10, np.float32))
    assert not (here / "ran").exists()


@pytest.mark.parametrize("changes", [{"student__model": "evil:net"}, {"task__name": "evil:KIND"}])
def test_no_code_of_the_folder_itself_runs(doctored, here, monkeypatch, changes):
    run = doctored(**changes)
    (run / "evil.py").write_text(f"open({str(here / 'ran')!r}, 'w')")
    monkeypatch.chdir(run)
    monkeypatch.syspath_prepend(run)
    with pytest.raises(RunFolderError, match="holds 'evil', which may be anybody's"):
        fedkd.load(".").predict(np.zeros(10, np.float32))
    assert not (here / "ran").exists()


def test_ones_own_code_is_called_as_ever(honest):
    assert not is_of_library(by_task)
    assert len(fedkd.load(honest).predict(np.zeros(10, np.float32))) == 1


def test_no_function_is_called_as_the_data_of_a_run(doctored, honest, monkeypatch):
    module = type(sys)("called_as_data")
    module.function = lambda: pytest.fail("was called")
    monkeypatch.setitem(sys.modules, "called_as_data", module)
    run = doctored(data__name="called_as_data:function")
    with pytest.raises(DataError, match="is code, and a run's folder may be anybody's"):
        students.tests(run, students.load(honest))
    (run / "summary.json").write_text("{}")  # an earlier fedkd's, whose data is needed
    with pytest.raises(FedkdError, match="none is called for it"):
        fedkd.load(run).predict(np.zeros(10, np.float32))
