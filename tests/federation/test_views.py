"""Views of a record: teachers see some, the student others, from a file to the run folder."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from fedkd import config
from fedkd.config import Experiment
from fedkd.errors import ConfigError, FedkdError
from fedkd.federation.prepare import prepare
from fedkd.jobs.export import export
from fedkd.jobs.simulate import simulate
from fedkd.methods import BUILT_IN, find
from fedkd.rows import Table
from fedkd.runs import student as finished

MLP = {"name": "mlp", "hidden": [16]}
FEW = {"epochs": 12, "batch_size": 16, "learning_rate": 0.1}


def arrays(samples: int, seed: int) -> dict[str, np.ndarray]:
    """`near` and `far` tell the class in other numbers, `dull` does not; `photo` is an image."""
    draw = np.random.default_rng(seed)
    y = np.arange(samples) % 3
    eye = np.eye(3)[y]
    noise = [draw.normal(size=(samples, width)) for width in (6, 4, 2)]
    near = np.concatenate([eye, -eye], axis=1) * 2 + 0.5 * noise[0]
    far = 300 * (np.eye(3, 4, 1)[y] + 0.1 * noise[1])
    photo = draw.uniform(size=(samples, 6, 6)) * 0.5
    photo[np.arange(samples), y * 2] += 0.5
    views = {"near": near, "far": far, "dull": noise[2], "photo": photo}
    return {"y": y, **{name: each.astype(np.float32) for name, each in views.items()}}


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("views") / "views.npz"
    parts = {}
    for part, size, seed in (("train", 180, 1), ("test", 90, 2)):
        made = arrays(size, seed)
        parts |= {f"x_{part}.{name}": each for name, each in made.items() if name != "y"}
        parts[f"y_{part}"] = made["y"]
    np.savez(path, **parts)
    return path


def experiment(path: Path, **changes: Any) -> Experiment:
    table = copy.deepcopy(tiny.BASE) | {"rounds": 1, "student": {"model": MLP}}
    table["data"] |= {"name": str(path), "scale": "public", **changes.pop("data", {})}
    table["clients"] |= {"count": 2, "models": [MLP], "training": FEW, **changes.pop("clients", {})}
    table["method"] = {"name": "fedmd", "student": FEW}
    return config.parse(table | changes)


def test_the_student_learns_one_view_of_teachers_who_see_others(
    views: Path, tmp_path: Path
) -> None:
    asked = experiment(
        views,
        clients={"views": [["near"], ["photo"]], "models": [MLP]},
        student={"model": MLP, "views": ["far"]},
    )
    prepared = prepare(asked)
    assert [prepared.setting.of_client(client).shape for client in (0, 1)] == [(6,), (1, 6, 6)]
    assert prepared.setting.student.shape == (4,)
    summary = simulate(asked, tmp_path / "run")
    assert summary["student"]["accuracy"] > 0.8  # chance is a third
    assert summary["inputs"]["shape"] == [4]
    # What a program scales by has the names that columns have to the student.
    assert sorted(summary["inputs"]["scale"]) == ["0", "1", "2", "3"]
    saved = finished.load(tmp_path / "run")
    export(tmp_path / "run", "torchscript")
    assert saved.shape == (4,)


def test_several_views_are_a_table_for_fusion(views: Path, tmp_path: Path) -> None:
    fusion = {"name": "fusion", "width": 8}
    asked = experiment(
        views,
        clients={"views": [["near", "photo"], ["far", "dull"]], "models": [fusion]},
        student={"model": fusion, "views": ["far", "photo"]},
    )
    assert isinstance(prepare(asked).setting.of_client(1).public, Table)
    summary = simulate(asked, tmp_path / "run")
    assert summary["student"]["accuracy"] > 0.8


@pytest.mark.parametrize("name", ["fedavg", "feddf", "fedproto", "fedkd", "analytic"])
def test_any_method_takes_one_view_that_all_see(views: Path, name: str) -> None:
    both = {"clients": {"views": ["near"]}, "student": {"model": MLP, "views": ["near"]}}
    prepared = prepare(experiment(views, **both, method={"name": name}))
    assert (prepared.setting.shape, prepared.setting.seen) == ((6,), None)
    assert "features" in prepared.setting.task.offers


@pytest.mark.parametrize("name", ["dsfl", "feddf", "fedproto"])
def test_other_methods_distil_across_views_too(views: Path, name: str) -> None:
    """What they train is checked with columns; here, that each side is given its own view."""
    across = {"clients": {"views": ["near"]}, "student": {"model": MLP, "views": ["far"]}}
    prepared = prepare(experiment(views, **across, method={"name": name}))
    shapes = [prepared.setting.of_client(1).shape, prepared.setting.student.shape]
    assert shapes == [(6,), (4,)]


def test_groups_of_columns_of_a_csv_file_are_views_too(tmp_path: Path) -> None:
    made = arrays(200, 3)
    header = ["label", *(f"near{n}" for n in range(6)), *(f"far{n}" for n in range(4))]
    rows = np.column_stack([made["y"], made["near"], made["far"]])
    lines = [",".join(map(str, [int(row[0]), *row[1:]])) for row in rows.tolist()]
    (tmp_path / "rows.csv").write_text("\n".join([",".join(header), *lines]))
    asked = experiment(
        tmp_path / "rows.csv",
        data={"views": {"near": ["near*"], "far": ["far0", "far[123]"]}},
        clients={"views": ["near"]},
        student={"model": MLP, "views": ["far"]},
    )
    setting = prepare(asked).setting
    assert (setting.of_client(0).shape, setting.student.shape) == ((6,), (4,))
    seen = prepare(asked).in_students_view.data
    assert seen.features == ("far0", "far1", "far2", "far3")
    assert set(seen.features) < set(seen.scale)


@pytest.mark.slow
def test_a_teacher_under_dp_sees_one_view_as_any_tensor(views: Path) -> None:
    prepared = prepare(
        experiment(
            views,
            clients={"views": ["near"]},
            student={"model": MLP, "views": ["far"]},
            privacy={"epsilon": 8.0, "sample_rate": 0.2},
        )
    )
    assert prepared.setting.training.noise_multiplier > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clients": {"views": ["neer"]}}, "views names view 'neer', which no client has: did"),
        (
            {"student": {"model": MLP, "views": ["sound"]}},
            "student.views names view 'sound', which no client has: the data has near, far",
        ),
        ({}, "takes records of one tensor, and what it sees has the columns near, far"),
        (
            {"clients": {"views": ["near"], "models": ["fusion"]}},
            "'fusion' takes several views of a record, and what it sees is one tensor",
        ),
        (
            {"clients": {"views": ["near"]}, "method": {"name": "fedavg"}},
            "method 'fedavg' needs all models to see the same, and clients.views and student.views",
        ),
        (
            {
                "clients": {"views": [["near"], ["far"]]},
                "student": {"model": MLP, "views": ["far"]},
                "method": {"name": "feddf"},
            },
            "method 'feddf' averages models of one architecture, and clients.views shows them",
        ),
        (
            {
                "clients": {"views": ["near"]},
                "student": {"model": MLP, "views": ["far"]},
                "method": {"name": "fedkd"},
            },
            "method 'fedkd' trains the student at each client",
        ),
        (
            {"clients": {"views": ["near"], "privileged": {"columns": ["a"]}}},
            "clients.privileged and views both say who sees what",
        ),
        ({"data": {"views": {"a": ["b"]}}, "clients": {"views": ["a"]}}, "has views of its own"),
        (
            {"data": {"views": {"a": ["b"]}}},
            "[data.views] names views that nobody sees",
        ),
        (
            {
                "clients": {"views": ["near", "far"], "models": ["fusion"], "align": "coral"},
                "student": {"model": MLP, "views": ["far"]},
            },
            "clients.align is 'coral', which compares records of one tensor",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    views: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare(experiment(views, **changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_records_of_one_tensor_have_no_views(tmp_path: Path) -> None:
    path = tiny.write_rows(tmp_path / "rows.npz")
    with pytest.raises(FedkdError, match=r"store arrays x_train.NAME .* by \[data.views\]"):
        prepare(experiment(path, data={"scale": None}, clients={"views": ["near"]}))
    grouped = {"scale": None, "views": {"near": ["x*"]}}
    with pytest.raises(FedkdError, match=r"data.views.near needs columns with names"):
        prepare(experiment(path, data=grouped, clients={"views": ["near"]}))


def test_without_views_an_experiment_is_written_as_before() -> None:
    assert "views" not in config.parse(copy.deepcopy(tiny.BASE)).to_json()
    assert {name for name in BUILT_IN if find(name).card.privileged} == {
        "fedmd", "dsfl", "feddf", "fedproto", "fedkd",
    }  # fmt: skip


def test_an_experiment_with_views_is_read_back_equal(views: Path) -> None:
    asked = experiment(views, clients={"views": ["near"]})
    assert asked.clients.views == (("near",),)
    assert config.parse_json(asked.to_json()) == asked


def test_fusion_looks_at_each_view(views: Path) -> None:
    fusion = {"name": "fusion", "width": 8}
    asked = experiment(views, clients={"models": [fusion]}, student={"model": fusion})
    prepared = prepare(asked)
    model = prepared.setting.build(asked.student.model, purpose="student").eval()
    x = dict(prepared.data.test.x[torch.arange(5)])
    before = model(**x)
    for name, value in x.items():
        after = model(**{**x, name: value + 1.0})
        assert not torch.allclose(before, after), name
