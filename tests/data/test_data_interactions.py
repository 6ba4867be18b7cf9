"""A CSV file of who took what: which items are shown, which are to be found, what is refused."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedkd import config, data
from fedkd.data import shared_file
from fedkd.data.readers import interactions
from fedkd.data.types import Dataset
from fedkd.errors import ConfigError, DataError
from fedkd.tasks.recommendation import KIND

ITEMS = ("alien", "brazil", "casablanca", "dune", "eraserhead")


def write(folder: Path, rows: str, *, header: str = "user,item") -> Path:
    (folder / "items.txt").write_text("\n".join(ITEMS) + "\n\n", encoding="utf-8")
    path = folder / "clicks.csv"
    path.write_text(f"{header}\n{rows}\n".replace(" ", ""), encoding="utf-8")
    return path


def load(path: Path, *, seed: int = 0, client: str | None = None, **changes: Any) -> Dataset:
    source = {key: changes.pop(key) for key in ("test", "test_share") if key in changes}
    how = {"items": str(path.parent / "items.txt"), **changes}
    asked = config.Source(name=str(path), client=client, interactions=how, **source)
    return data.load(asked, seed=seed, targets="items")


def items_of(row: torch.Tensor) -> list[str]:
    return [ITEMS[n] for n in row.nonzero()[:, 0].tolist()]


def test_the_latest_items_of_a_test_user_are_to_be_found(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "a,dune,5,3\na,alien,5,1.5\na,brazil,2,9\na,casablanca,4,2",
        header="user,item,rating,time",
    )
    asked = {"time": "time", "rating": "rating", "threshold": 4, "held": 0.4}
    found = load(path, test=str(shown(tmp_path)), **asked)
    # A training user's history is inputs and targets alike; what was rated low is no item of it.
    assert items_of(found.train.x[0]) == ["alien", "casablanca", "dune"]
    assert torch.equal(found.train.y, found.train.x.long())
    assert (found.targets, found.class_names, found.classes) == ("items", ITEMS, 5)
    # Of the test user's four, two fifths rounded are two: the latest, though taken before once.
    assert items_of(found.test.x[0]) == ["alien", "eraserhead"]
    assert found.test.y.tolist() == [[-100, 1, 0, 1, -100]]


def shown(folder: Path) -> Path:
    path = folder / "test.csv"
    rows = ("z,dune,4,0", "z,eraserhead,5,2", "z,brazil,5,3", "z,alien,4,1", "z,dune,4,9")
    path.write_text("\n".join(["user,item,rating,time", *rows]))
    return path


def many(folder: Path, users: int = 60) -> Path:
    rows = [
        f"u{user},{ITEMS[(user * step + user // 7) % 5]},{'north' if user % 3 else 'south'}"
        for user in range(users)
        for step in range(1, 4)
    ]
    return write(folder, "\n".join(rows), header="user,item,shop")


def test_a_user_s_side_and_items_do_not_depend_on_other_users(tmp_path: Path) -> None:
    few, all = tmp_path / "few", tmp_path / "all"
    few.mkdir()
    all.mkdir()
    less, more = load(many(few, 40)), load(many(all, 60))
    for part in ("train", "test"):
        rows = [[x.tolist(), y.tolist()] for x, y in pairs(getattr(less, part))]
        assert rows
        others = [[x.tolist(), y.tolist()] for x, y in pairs(getattr(more, part))]
        assert all_in(rows, others)
    assert not torch.equal(load(many(few, 40), seed=1).test.x, less.test.x)
    # Each test user is shown something, finds something, and nothing twice.
    assert (less.test.x.sum(dim=1) >= 1).all()
    assert ((less.test.y == 1).sum(dim=1) >= 1).all()
    assert torch.equal(less.test.y == -100, less.test.x == 1)


def pairs(samples: Any) -> list[Any]:
    return list(zip(samples.x, samples.y, strict=True))


def all_in(rows: list[Any], others: list[Any]) -> bool:
    return all(row in others for row in rows)


def test_clients_are_groups_of_users(tmp_path: Path) -> None:
    found = load(many(tmp_path), client="shop")
    assert found.groups is not None
    assert len(found.groups) == len(found.train)
    assert set(found.groups.tolist()) == {0, 1}
    asked = config.Data(
        name=str(tmp_path / "clicks.csv"),
        client="shop",
        interactions=config.Interactions(items=str(tmp_path / "items.txt")),
        partition=config.Natural(scheme="natural"),
    )
    parts = data.federate(asked, clients=None, seed=0, task=KIND)
    assert [len(client) for client in parts.clients] == torch.bincount(found.groups).tolist()
    assert torch.equal(parts.counts().sum(dim=0), found.train.x.sum(dim=0).long())


def test_a_party_s_own_users_all_are_for_training(tmp_path: Path) -> None:
    path = write(tmp_path, "a,dune\nb,alien\nb,unknown\nb,brazil")
    own = interactions.load_rows(path, config.Interactions(), items=ITEMS)
    assert [items_of(x) for x in own.x] == [["dune"], ["alien", "brazil"]]


def test_a_site_reads_its_users_by_the_parties_catalogue(tmp_path: Path) -> None:
    known = load(many(tmp_path))
    agreed = replace(
        data.FederatedData("clicks.csv", 5, ITEMS, (), None, known.test), targets="items"
    )
    shared = shared_file.parse_shared(shared_file.to_bytes(agreed))
    own = tmp_path / "own.csv"
    own.write_text("who,item\na,dune\na,alien\nb,brazil\n")
    columns = config.Interactions(user="who")
    read = shared_file.read_own(own, "csv", label="", shared=shared, columns_of_users=columns)
    assert [items_of(x) for x in read.x] == [["alien", "dune"], ["brazil"]]
    assert torch.equal(read.y, read.x.long())
    with pytest.raises(DataError, match=r"own.csv: no column 'user' \(data.interactions.user\)"):
        shared_file.read_own(own, "csv", label="", shared=shared)


def test_items_outside_the_catalogue_are_left_out_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, "a,dune\nb,alien\nb,zardoz\nb,brazil")
    found = load(path, test=str(write_test(tmp_path, "t,dune\nt,alien")))
    assert found.train.x.sum() == 3
    assert "1 of 4 rows are of items outside the catalogue, such as 'zardoz'" in caplog.text


def write_test(folder: Path, rows: str) -> Path:
    path = folder / "test.csv"
    path.write_text(f"user,item\n{rows}")
    return path


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ("a,dune\nb,zardoz\nb,zed", {}, r"line 3: user 'b' has no item that counts, of the catal"),
        ("a,zardoz\nb,zed", {}, r"no row's item stands in the catalogue, such as 'zardoz': .*begi"),
        ("a,dune\na,alien", {"item": "film"}, r"no column 'film' \(data.interactions.item\): .*it"),
        ("a,dune\na,alien", {"time": "when"}, r"no column 'when' \(data.interactions.time\)"),
        ("a,dune\na,alien", {"time": "item"}, r"line 2, column 'item': 'dune' is no finite number"),
        ("a,dune\nb,alien", {}, r"data.test_share = 0.2 of 2 users leaves none for testing; raise"),
    ],
)
def test_what_is_refused(tmp_path: Path, rows: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(write(tmp_path, rows), **changes)


def test_a_user_whose_ratings_are_all_low_has_no_items(tmp_path: Path) -> None:
    path = write(tmp_path, "a,dune,5\nb,alien,1", header="user,item,rating")
    with pytest.raises(DataError, match=r"user 'b' has no item .* and rated 4 or more; drop the"):
        load(path, rating="rating", threshold=4)
    with pytest.raises(ValueError, match=r"expected both, a column and the least that counts"):
        config.Interactions(threshold=4)


def test_a_user_of_two_clients_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a,dune,north\na,alien,south", header="user,item,shop")
    with pytest.raises(DataError, match=r"line 3, .*user 'a' is of 'south' here and of 'north' be"):
        load(path, client="shop")


def test_a_test_user_needs_two_items(tmp_path: Path) -> None:
    path = write(tmp_path, "a,dune\na,alien")
    with pytest.raises(DataError, match=r"test.csv: user 't' has 1 item; expected 2 or more"):
        load(path, test=str(write_test(tmp_path, "t,dune")))


def test_the_catalogue_must_be_named_and_sound(tmp_path: Path) -> None:
    path = write(tmp_path, "a,dune\na,alien")
    with pytest.raises(ConfigError, match=r"data.interactions.items is missing: .* must be public"):
        data.load(config.Source(name=str(path)), seed=0, targets="items")
    with pytest.raises(DataError, match=re.escape("no.txt: ") + r".*expected a catalogue"):
        load(path, items=str(tmp_path / "no.txt"))
    (tmp_path / "items.txt").write_text("dune\nalien\ndune")
    with pytest.raises(DataError, match=r"item 'dune' stands there twice"):
        load(path)


def test_it_is_for_recommenders_alone(tmp_path: Path) -> None:
    path = write(tmp_path, "a,dune\na,alien")
    asked = config.Source(name=str(path), interactions=config.Interactions())
    with pytest.raises(ConfigError, match=r"data.interactions is for a table of who took what"):
        data.load(asked, seed=0)


def test_histories_and_items_as_arrays(tmp_path: Path) -> None:
    path = tmp_path / "clicks.npz"
    x = np.array([[1, 0, 1], [0, 1, 0]], np.float32)
    y = np.array([[-100, 1, -100], [0, -100, 1]])
    np.savez(path, x_train=x, y_train=x.astype(int), x_test=x, y_test=y)
    found = data.load(config.Source(name=str(path)), seed=0, targets="items")
    assert (found.test.y.tolist(), found.classes) == (y.tolist(), 3)
    for wrong, message in (
        (np.ones((2, 2), int), r"y_test has 2 items a user, and an input has shape \(3,\)"),
        (np.array([[0, 1, 0], [0, 0, -100]]), r"y_test has a user without items at index 1; drop"),
        (np.array([[0, 1, 0], [0, 2, 1]]), r"y_test is 2 at index \(1, 1\); expected 1 \(taken\)"),
    ):
        np.savez(path, x_train=x, y_train=x.astype(int), x_test=x, y_test=wrong)
        with pytest.raises(DataError, match=message):
            data.load(config.Source(name=str(path)), seed=0, targets="items")
