from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedkd import config, data
from fedkd.data import FederatedData, Samples
from fedkd.errors import ConfigError, DataError
from fedkd.tasks import TaskKind
from fedkd.tasks.classification import KIND

# Rows that hold their own number are on no scale.


@pytest.fixture
def numbered(tmp_path: Path) -> str:
    """Twenty training rows that hold their own number, in four natural clients."""
    number = np.arange(20)
    np.savez(
        tmp_path / "numbered.npz",
        x_train=number[:, None].astype(float),
        y_train=number % 2,
        x_test=np.array([[100.0], [101.0]]),
        y_test=np.array([0, 1]),
        client_train=np.repeat([0, 1, 2, 3], [1, 5, 6, 8]),
    )
    return str(tmp_path / "numbered.npz")


def federate(
    name: str, *, scheme: str = "iid", clients: int | None = 3, seed: int = 0, **public: Any
) -> FederatedData:
    table: dict[str, Any] = {"name": name, "partition": {"scheme": scheme}}
    if public:
        table["public"] = public
    return data.federate(config.validate(config.Data, table), clients=clients, seed=seed)


def numbers(x: torch.Tensor) -> list[int]:
    return [int(value) for value in x[:, 0]]


def test_clients_share_out_the_training_set(numbered: str) -> None:
    split = federate(numbered)
    assert (split.name, split.shape, split.classes) == ("numbered.npz", (1,), 2)
    assert split.class_names == ("0", "1")
    assert split.public is None
    assert numbers(split.test.x) == [100, 101]
    assert sorted(n for client in split.clients for n in numbers(client.x)) == list(range(20))
    for client in split.clients:
        assert [n % 2 for n in numbers(client.x)] == client.y.tolist()


def test_counts_of_labels_are_of_each_label_and_of_numbers_of_all(numbered: str) -> None:
    split = federate(numbered)
    labels = [torch.tensor([[1, 0], [1, 1], [1, 0]]), torch.zeros(0, 2, dtype=torch.int64)]
    for targets, expected in (("binary", [[3, 1], [0, 0]]), ("numbers", [[3, 3], [0, 0]])):
        ys = labels if targets == "binary" else [each / 3 for each in labels]
        clients = tuple(Samples(torch.zeros(len(y), 1), y) for y in ys)
        told = replace(split, classes=2, clients=clients, targets=targets)
        assert told.counts().tolist() == expected


def by_strata(name: str, task: TaskKind) -> FederatedData:
    table = {"name": name, "partition": {"scheme": "shards", "per_client": 1}}
    return data.federate(config.validate(config.Data, table), clients=2, seed=0, task=task)


def test_a_partition_by_class_deals_by_the_strata_of_the_task(numbered: str) -> None:
    mirrored = replace(KIND, strata=lambda y: 1 - y)
    plain, other = (by_strata(numbered, task) for task in (KIND, mirrored))
    assert [sorted(set(client.y.tolist())) for client in plain.clients] in ([[0], [1]], [[1], [0]])
    # The other half comes first, so that the same draw deals it to the other client.
    assert other.clients[0].y.unique() == plain.clients[1].y.unique()


def test_a_task_without_strata_is_dealt_evenly_or_as_it_came(numbered: str) -> None:
    expected = r"data\.partition\.scheme is 'shards', which deals by class.*'iid' or 'natural'"
    with pytest.raises(ConfigError, match=expected):
        by_strata(numbered, replace(KIND, strata=None))


def test_counts_and_pool_agree_with_the_clients(numbered: str) -> None:
    split = federate(numbered)
    counts = split.counts()
    assert counts.dtype == torch.int64
    assert counts.tolist() == [
        [client.y.tolist().count(label) for label in (0, 1)] for client in split.clients
    ]
    pooled = split.pooled()
    assert len(pooled) == 20
    assert numbers(pooled.x) == [n for client in split.clients for n in numbers(client.x)]
    assert [n % 2 for n in numbers(pooled.x)] == pooled.y.tolist()


def test_a_subset_keeps_the_order_asked_for() -> None:
    samples = Samples(torch.arange(5.0)[:, None], torch.arange(5))
    subset = samples.subset(torch.tensor([3, 0]))
    assert (numbers(subset.x), subset.y.tolist(), len(subset)) == ([3, 0], [3, 0], 2)


def test_the_held_out_public_set_is_nobodys(numbered: str) -> None:
    split = federate(numbered, size=6)
    assert split.public is not None
    assert split.public.shape == (6, 1)
    private = numbers(split.pooled().x)
    assert sorted(private + numbers(split.public)) == list(range(20))


def test_the_public_set_may_be_another_data_set(numbered: str, tmp_path: Path) -> None:
    np.savez(
        tmp_path / "other.npz",
        x_train=np.arange(500.0, 510.0)[:, None],
        y_train=np.zeros(10, int),
        x_test=np.zeros((1, 1)),
        y_test=np.zeros(1, int),
    )
    other = str(tmp_path / "other.npz")
    split = federate(numbered, source=other, size=4)
    assert split.public is not None
    assert len(set(numbers(split.public))) == 4
    assert set(numbers(split.public)) <= set(range(500, 510))
    assert sorted(numbers(split.pooled().x)) == list(range(20))
    whole = federate(numbered, source=other, size=10).public
    assert whole is not None
    assert sorted(numbers(whole)) == list(range(500, 510))


def test_the_seed_decides_public_set_and_split(numbered: str) -> None:
    one, same, other = (federate(numbered, size=5, seed=seed) for seed in (1, 1, 2))

    def drawn(split: FederatedData) -> list[list[int]]:
        assert split.public is not None
        return [numbers(split.public), *(numbers(client.x) for client in split.clients)]

    assert drawn(one) == drawn(same)
    assert all(a != b for a, b in zip(drawn(one), drawn(other), strict=True))


@pytest.mark.parametrize("clients", [None, 4])
def test_natural_clients_keep_their_rows(numbered: str, clients: int | None) -> None:
    split = federate(numbered, scheme="natural", clients=clients)
    assert [len(client) for client in split.clients] == [1, 5, 6, 8]
    assert numbers(split.clients[1].x) == [1, 2, 3, 4, 5]


def test_a_natural_client_must_not_vanish_into_the_public_set(numbered: str) -> None:
    with pytest.raises(ConfigError, match="all training samples of natural client 0; lower"):
        federate(numbered, scheme="natural", clients=None, size=19)


@pytest.mark.parametrize(
    ("public", "error", "complaint"),
    [
        ({"size": 20}, ConfigError, "data.public.size is 20; expected at most 19"),
        ({"source": "fashion-mnist-sample"}, DataError, r"shape \(1, 28, 28\); expected \(1,\)"),
        ({"source": "helt-out"}, DataError, "'helt-out', which is no data set"),
    ],
)
def test_a_public_set_that_does_not_fit_is_refused(
    numbered: str, public: dict[str, Any], error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        federate(numbered, **public)


def test_a_proxy_set_of_another_format_is_told_what_does_not_fit_itself(
    numbered: str, tmp_path: Path
) -> None:
    (tmp_path / "own.csv").write_text(
        "day,x,label\n" + "".join(f"1,{i},{i % 2}\n" for i in range(40))
    )
    table = {
        "name": str(tmp_path / "own.csv"),
        "ignore": ["day"],
        "public": {"source": numbered, "size": 4},
    }
    told = config.validate(config.Data, table | {"partition": {"scheme": "iid"}})
    with pytest.raises(DataError, match=r"numbered\.npz' has the columns without names; expected"):
        data.federate(told, clients=2, seed=0)


def test_where_clients_are_natural_a_private_row_more_changes_nothing_else(tmp_path: Path) -> None:
    def split(rows: list[int]) -> tuple[list[int], list[list[int]]]:
        lines = [f"{i},{i % 4},{i % 2}\n" for i in rows]
        (tmp_path / "sites.csv").write_text("x,site,label\n" + "".join(lines))
        table = {
            "name": str(tmp_path / "sites.csv"),
            "client": "site",
            "partition": {"scheme": "natural"},
            "public": {"size": 15},
        }
        told = data.federate(config.validate(config.Data, table), clients=4, seed=0)
        assert told.public is not None
        return numbers(told.public), [numbers(own.x) for own in told.clients]

    rows = list(range(100))
    public, private = split(rows)
    assert len(public) == 15
    for extra in range(100, 110):
        now, others = split([extra, *rows])
        # A public row is nobody's secret, so that what its arrival moves is no matter of epsilon.
        if extra not in now:
            assert now == public
            assert [[n for n in own if n != extra] for own in others] == private


def test_more_public_samples_than_the_other_set_has_are_refused(numbered: str) -> None:
    with pytest.raises(ConfigError, match=r"data.public.size is 21; expected at most 20"):
        federate(numbered, source=numbered, size=21)


def test_the_default_experiment_splits_the_packaged_sample() -> None:
    split = data.federate(config.Data(), clients=10, seed=0)
    assert split.shape == (1, 28, 28)
    assert split.counts().sum(0).tolist() == [1000] * 10
    assert (split.counts().sum(1) >= 10).all()
