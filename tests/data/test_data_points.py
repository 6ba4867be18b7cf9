"""Points: of drawn figures, which are the same from the same seed, and of a user's own arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedkd import config, data
from fedkd.data.readers import figures
from fedkd.errors import ConfigError, DataError
from fedkd.tasks import find

KEYPOINTS = find("keypoints")
SIDE = 12


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few figures, drawn anew."""
    monkeypatch.setattr(figures, "TRAIN", 12)
    monkeypatch.setattr(figures, "TEST", 5)
    figures.draw.cache_clear()


def test_figures_are_the_seed_s_and_in_the_image() -> None:
    first, again, other = (figures.draw.__wrapped__(seed) for seed in (0, 0, 1))
    assert torch.equal(first.train.x, again.train.x)
    assert torch.equal(first.test.y, again.test.y)
    assert not torch.equal(first.train.x, other.train.x)
    x, y = first.train.x, first.train.y
    sites, joints = len(figures.SITES), len(figures.JOINTS)
    assert x.shape == (12 * sites, 3, figures.SIDE, figures.SIDE)
    assert y.shape == (12 * sites, joints, 3)
    assert first.test.y.shape == (5 * sites, joints, 3)
    assert 0 <= x.min() <= x.max() <= 1
    visible = y[..., 2] > 0
    assert 0.5 < visible.float().mean() < 1  # a board hides some
    assert (y[visible][:, :2] > 0).all()
    assert (y[visible][:, :2] < figures.SIDE).all()
    assert not y[~visible].any()


def test_a_joint_is_where_it_is_painted() -> None:
    """The head is a disc of skin: its middle is unlike what lies a head's width beside it."""
    drawn = figures.draw(0).train
    seen = drawn.y[:, 0, 2] > 0
    places = drawn.y[seen, 0, :2].long()
    rows = torch.arange(int(seen.sum()))
    skin = drawn.x[seen][rows, :, places[:, 1], places[:, 0]]
    away = (skin - torch.tensor(figures._SKIN)).norm(dim=1)
    assert (away < 0.45).float().mean() > 0.9


def test_each_site_is_a_natural_client_with_a_look_of_its_own() -> None:
    section = config.Data(name="drawn-figures", partition=config.Natural(scheme="natural"))
    found = data.federate(section, clients=None, seed=0, task=KEYPOINTS)
    assert len(found.clients) == len(figures.SITES)
    assert found.class_names == figures.JOINTS
    brightness = [client.x[:].mean().item() for client in found.clients]
    assert max(brightness) - min(brightness) > 0.3
    visible = found.clients[1].y[..., 2].sum(dim=0)
    assert torch.equal(found.counts()[1], visible.long())


def test_figures_are_for_keypoints_alone() -> None:
    with pytest.raises(ConfigError, match=r"whose targets are points, .* choose task 'keypoints'"):
        data.load(config.Data(name="drawn-figures"), seed=0)
    with pytest.raises(ConfigError, match=r"targets are classes, and the task asks for points"):
        data.load(config.Data(), seed=0, targets="points")


def write(path: Path, **changed: Any) -> Path:
    draws = np.random.default_rng(0)
    parts = {}
    for part, count in (("train", 6), ("test", 4)):
        parts[f"x_{part}"] = draws.uniform(size=(count, 3, SIDE, SIDE)).astype(np.float32)
        places = draws.uniform(0, SIDE, size=(count, 2, 2))
        parts[f"y_{part}"] = np.concatenate([places, np.ones((count, 2, 1))], axis=2)
    np.savez(path, **{**parts, **changed})
    return path


def load(path: Path) -> data.Dataset:
    return data.load(config.Data(name=str(path)), seed=0, targets="points")


def test_arrays_hold_points(tmp_path: Path) -> None:
    hidden = np.full((6, 2, 3), 5.0)
    hidden[..., 2] = 1
    hidden[3, 1] = (-1, 99, 0)  # nobody asks where it is
    found = load(write(tmp_path / "points.npz", y_train=hidden))
    assert found.train.y.dtype == torch.float32
    assert found.train.y.tolist() == hidden.tolist()
    assert found.class_names == ("0", "1")


def moved(at: tuple[int, int, int], value: float) -> np.ndarray:
    points = np.ones((6, 2, 3))
    points[at] = value
    return points


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"y_train": moved((4, 1, 0), 12.5)},
            r"y_train is \(12.5, 1\) at index \(4, 1\); expected",
        ),
        ({"y_train": moved((0, 0, 1), -0.1)}, r"\(1, -0.1\) .* within the image, 12 pixels wide"),
        ({"y_train": moved((2, 0, 1), np.nan)}, r"y_train is nan at index \(2, 0, 1\); expected"),
        ({"y_train": moved((2, 1, 2), 0.5)}, r"0.5 at index \(2, 1, 2\); expected 1 where a point"),
        ({"y_train": np.ones((6, 2, 2))}, r"shape \(6, 2, 2\); expected \(6, points, 3\)"),
        ({"y_train": np.ones((6, 2))}, r"shape \(6, 2\); expected \(6, points, 3\)"),
        ({"y_train": np.ones((5, 2, 3))}, r"shape \(5, 2, 3\); expected \(6, points, 3\)"),
        ({"y_test": np.ones((4, 3, 3))}, r"y_test has 3 values a sample; expected 2, as y_train"),
        ({"x_train": np.ones((6, 7)), "x_test": np.ones((4, 7))}, r"expected images \(C, H, W\)"),
    ],
)
def test_points_that_cannot_be_are_refused_in_one_line(
    tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words) as found:
        load(write(tmp_path / "points.npz", **changed))
    assert len(str(found.value).splitlines()) == 1


def test_a_table_of_cells_holds_no_points(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("x,label\n" + "1,2\n" * 20)
    with pytest.raises(ConfigError, match=r"asks for points: name an .npz file"):
        load(path)
