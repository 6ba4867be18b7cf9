"""The bundle: no code, no path, and an experiment that comes out as it went in."""

import tomllib

import pytest
import tiny

from fedkd import config
from fedkd.errors import ConfigError
from fedkd.federation.compat import control as flower
from fedkd.federation.deploy import bundle


def test_the_bundle_is_one_file_that_points_at_the_library(rows):
    text = bundle.for_wire(tiny.experiment(rows), 4)
    table = tomllib.loads(bundle.pyproject("Tiny", text, "ab" * 32))
    app = table["tool"]["flwr"]["app"]
    assert app["components"] == {
        "serverapp": "fedkd.jobs.serverapp:app",
        "clientapp": "fedkd.federation.deploy.siteapp:app",
    }
    assert app["config"] == {"experiment": text, "shared": "ab" * 32, "fedkd": "0.1.0", "run": ""}
    assert bundle.fingerprint(text) in table["project"]["description"]
    assert table["project"]["dependencies"] == ["fedkd==0.1.0"]


# flwr 1.41 uses what pathspec 1.1 calls deprecated.
@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
def test_flower_takes_it_and_finds_both_apps(rows, tmp_path):
    from flwr.cli.config_utils import load_and_validate

    text = bundle.for_wire(tiny.experiment(rows), 4)
    project = bundle.pyproject("tiny", text, "ab" * 32)
    (tmp_path / "pyproject.toml").write_text(project)
    read, warnings = load_and_validate(tmp_path / "pyproject.toml")
    assert warnings == []
    assert read["tool"]["flwr"]["app"]["config"]["experiment"] == text
    request = flower.start_request({"pyproject.toml": project.encode()}, {"run": "x"})
    assert len(request.fab.content) < 20_000
    assert request.override_config["run"].string == "x"


def test_who_is_scored_when_travels_and_where_runs_go_does_not(rows):
    how = {"every": 3, "clients": 2, "test_size": 5}
    scored = tiny.experiment(rows, {"output.evaluate": how, "output.folder": "kept/here"})
    found = config.parse_json(bundle.for_wire(scored, 4)).output
    assert found.evaluate == scored.output.evaluate
    assert found.folder != scored.output.folder
    assert '"output":{"folder":"runs"}' in bundle.for_wire(tiny.experiment(rows), 4)


def test_what_travels_names_no_place_of_the_machine_that_it_comes_from(rows):
    changes = {
        "data.public": {"source": "/home/coordinator/public.npz", "size": 3},
        "privacy": {"epsilon": 3.0, "ledger": "/home/coordinator/ledgers"},
    }
    experiment = tiny.experiment(rows, changes)
    text = bundle.for_wire(experiment, 4)
    assert "/" not in text
    weights = {"file": "/home/coordinator/start.safetensors", "sha256": "ab" * 32}
    models = [{"name": "mlp", "weights": weights}, {"name": "hf//home/coordinator/bert"}]
    changes |= {"clients.models": models, "method.features": models[0]}
    told = bundle.for_wire(tiny.experiment(rows, changes), 4)
    assert "coordinator" not in told
    mlp, bert = config.parse_json(told).clients.models
    assert (mlp.weights.file, mlp.weights.sha256) == ("start.safetensors", "ab" * 32)
    assert bert.name == "hf/bert"
    back = config.parse_json(text)
    assert back.data.name == rows.name
    same = {"data", "privacy", "engine", "output"}
    assert back.model_dump(exclude=same) == experiment.model_dump(exclude=same)
    assert back.data.partition == experiment.data.partition
    assert back.privacy.epsilon == 3.0


def test_another_number_of_clients_is_refused(rows):
    with pytest.raises(ConfigError, match=r"clients\.count is 4 and 3 clients take part"):
        bundle.for_wire(tiny.experiment(rows), 3)
    natural = tiny.experiment(rows, {"clients.count": None, "data.partition.scheme": "natural"})
    assert config.parse_json(bundle.for_wire(natural, 3)).clients.count == 3


def test_the_fingerprint_is_of_every_value(rows):
    one, other = (
        bundle.fingerprint(bundle.for_wire(tiny.experiment(rows, {"seed": seed}), 4))
        for seed in (0, 1)
    )
    assert one != other
    assert len(one) == 64


def test_no_path_of_the_machine_that_an_experiment_comes_from_travels(rows):
    changes = {"data.test": "/home/ada/test.csv", "data.interactions": {"items": "/home/ada/i.txt"}}
    text = bundle.for_wire(tiny.experiment(rows, changes), 4)
    assert "/home/ada" not in text
    found = config.parse_json(text).data
    assert (found.test, found.interactions.items) == ("test.csv", "i.txt")
