"""Rows in memory, in a file and of several columns are read alike, and never all at once."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fedkd import rows
from fedkd.config import Optimisation
from fedkd.data.holdout import hashes
from fedkd.data.types import Samples
from fedkd.errors import DataError
from fedkd.learning import evaluate, supervised
from fedkd.learning.ensemble import Ensemble
from fedkd.learning.loop import fit
from fedkd.models import call
from fedkd.privacy.ledger import fingerprint

SMALL = torch.arange(60.0).view(12, 5)


@dataclass
class Watched:
    """Rows that remember how many were read at once."""

    x: Tensor
    reads: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, places: Tensor) -> Tensor:
        self.reads.append(len(places))
        return self.x[places]


def mapped(x: Tensor = SMALL) -> rows.Mapped:
    return rows.Mapped(x.numpy(), lambda array: torch.from_numpy(array.copy()))


def table() -> rows.Table:
    return rows.Table({"image": mapped(), "age": SMALL[:, 0]})


@given(st.lists(st.integers(0, 11), max_size=8), st.lists(st.integers(0, 7), max_size=5))
def test_a_view_of_a_view_is_what_a_tensor_gives(some: list[int], others: list[int]) -> None:
    first = torch.tensor(some, dtype=torch.long)
    second = torch.tensor([n for n in others if n < len(some)], dtype=torch.long)
    for source in (SMALL, mapped(), Watched(SMALL)):
        view = rows.take(rows.take(source, first), second)
        assert len(view) == len(second)
        assert torch.equal(rows.whole(view), SMALL[first][second])


@pytest.mark.parametrize("source", [SMALL, mapped(), rows.take(mapped(), torch.arange(12))])
def test_rows_are_the_same_wherever_they_are(source: rows.Rows) -> None:
    assert rows.shape_of(source) == (5,)
    assert torch.equal(torch.cat(list(map(rows.one, rows.batches(source, 5)))), SMALL)
    assert [len(batch) for batch in rows.batches(source, 5)] == [5, 5, 2]
    assert torch.equal(rows.whole(rows.columns_of(source, [3, 1])), SMALL[:, [3, 1]])
    assert torch.equal(rows.whole(rows.first(source, 3)), SMALL[:3])
    empty = rows.first(source, 0)
    assert [len(batch) for batch in rows.batches(empty, 5)] == [0]
    both = rows.concat([rows.first(source, 2), rows.take(source, torch.tensor([7]))])
    assert torch.equal(rows.whole(both), SMALL[[0, 1, 7]])


def test_views_of_one_file_stay_a_view_when_joined() -> None:
    source = mapped()
    parts = [rows.take(source, torch.tensor(places)) for places in ([0, 3], [5], [2, 1])]
    joined = rows.concat(parts)
    assert isinstance(joined, rows.View)
    assert joined.source is source


def test_a_table_gives_its_columns_by_name() -> None:
    records = rows.take(table(), torch.tensor([4, 2]))
    assert rows.shapes_of(records) == {"image": (5,), "age": ()}
    batch = records[torch.tensor([1])]
    assert isinstance(batch, dict)
    assert batch["image"].tolist() == [SMALL[2].tolist()]
    assert batch["age"].tolist() == [10.0]
    twice = rows.concat([records, records])
    assert len(twice) == 4
    with pytest.raises(DataError, match="columns image, age"):
        rows.whole(records)
    with pytest.raises(DataError, match="unlike columns: expected image, age"):
        rows.concat([records, rows.Table({"age": SMALL[:, 0]})])


def test_a_table_has_columns_of_one_length() -> None:
    for columns in ({}, {"a": SMALL, "b": SMALL[:3]}, {"a": table()}):
        with pytest.raises(ValueError, match="columns of one length"):
            rows.Table(columns)


def test_records_have_one_fingerprint_and_one_hash_wherever_they_are() -> None:
    y, names = torch.arange(12) % 3, [str(n) for n in range(12)]
    for source in (mapped(), Watched(SMALL)):
        assert fingerprint(source, y) == fingerprint(SMALL, y)
        assert (
            hashes(source, names, seed=1, purpose="a") == hashes(SMALL, names, seed=1, purpose="a")
        ).all()
    in_memory = rows.Table({"age": SMALL[:, 0], "image": SMALL})
    assert fingerprint(table(), y) == fingerprint(in_memory, y)
    other = rows.Table({"image": SMALL, "age": SMALL[:, 1]})
    assert fingerprint(table(), y) != fingerprint(other, y)


def learner() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))


HOW = Optimisation(epochs=2, batch_size=8, learning_rate=0.1)


def test_no_more_than_a_batch_is_read_and_the_bits_are_those_of_a_tensor() -> None:
    x = torch.randn(50, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    y = torch.arange(50) % 3
    watched, models = Watched(x), []
    for source in (x, watched):
        models.append(learner())
        own = Samples(source, y).subset(torch.arange(1, 50))
        supervised.train(models[-1], own, HOW, torch.Generator().manual_seed(2))
    assert all(
        torch.equal(a, b)
        for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True)
    )
    assert max(watched.reads) == HOW.batch_size
    alike = [evaluate.answers(models[0], source, batch_size=7) for source in (x, watched)]
    assert torch.equal(*alike)
    assert max(watched.reads) == HOW.batch_size


def test_large_records_are_looked_at_a_few_at_a_time() -> None:
    side = 1000
    watched = Watched(torch.zeros(1, 1).expand(40, side * side))
    assert sum(len(batch) for batch in rows.batches(watched, 512)) == 40
    assert max(watched.reads) * side * side * 4 <= 32_000_000


def test_an_ensemble_answers_rows_as_it_answers_a_tensor() -> None:
    x = torch.randn(9, 12, generator=torch.Generator().manual_seed(1))
    with Ensemble([learner(), learner()]) as ensemble:
        assert torch.equal(ensemble.logits(Watched(x)), ensemble.logits(x))


class ByName(nn.Module):
    """Takes columns by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 2)

    def forward(self, image: Tensor, age: Tensor) -> Tensor:
        answer: Tensor = self.layer(torch.cat([image, age[:, None]], dim=1))
        return answer


def test_a_model_learns_from_columns_by_name() -> None:
    torch.manual_seed(0)
    model, y = ByName(), (SMALL[:, 0] > 25).long()
    scaled = rows.Table({"image": SMALL / 60, "age": SMALL[:, 0] / 60})
    how = Optimisation(epochs=60, batch_size=6, learning_rate=0.5)
    losses = supervised.train(model, Samples(scaled, y), how, torch.Generator().manual_seed(1))
    assert losses[-1] < losses[0] / 2
    assert evaluate.accuracy(model, Samples(scaled, y)) == 1


def test_a_loss_of_ones_own_is_given_a_mapping() -> None:
    def loss(model: nn.Module, x: dict[str, Tensor]) -> Tensor:
        assert sorted(x) == ["age", "image"]
        return call.answer(model, x).square().mean()

    fit(ByName(), (table(),), loss, HOW, torch.Generator().manual_seed(0))


def test_an_array_is_let_go_of_after_each_read() -> None:
    released: list[None] = []
    source = rows.Mapped(
        np.zeros((4, 2), np.float32), torch.from_numpy, lambda: released.append(None)
    )
    rows.whole(source)
    assert released
