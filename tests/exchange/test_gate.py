"""The gate and the messages that pass it."""

from typing import Any

import pytest
import torch

from fedkd.errors import MessageError, UnpaidError
from fedkd.exchange.gate import Receipt, release
from fedkd.exchange.messages import (
    Broadcast,
    PostProcessing,
    Provenance,
    Public,
    Release,
    Upload,
    Value,
    group,
    prefixed,
    values,
)
from fedkd.privacy.events import Gaussian, Laplace, Protected, Unprotected

TRAINED = PostProcessing(of=Unprotected("teacher training"))
COUNTED = Release(Unprotected("example count"))


def test_receipts_say_field_by_field_what_left_and_why() -> None:
    model = {"conv.weight": torch.zeros(2, 3), "conv.bias": torch.zeros(2, dtype=torch.float16)}
    upload = Upload(values("model", model, TRAINED)).with_values(
        {
            "count": Value(torch.tensor(5), COUNTED),
            "seed": Value(torch.zeros(3, dtype=torch.uint8), Public()),
        }
    )
    assert release(upload) == (
        Receipt("model", "post-processing of teacher training, no DP", 2 * 3 * 4 + 2 * 2),
        Receipt("count", "release: example count, no DP", 8),
        Receipt("seed", "public", 3),
    )


def test_one_field_of_two_origins_has_two_receipts() -> None:
    upload = Upload(
        {
            "report/correct": Value(torch.zeros(10, dtype=torch.int64), TRAINED),
            "report/seconds": Value(torch.zeros(4, dtype=torch.float64), COUNTED),
        }
    )
    first, second = release(upload)
    assert (first.field, first.bytes, second.field, second.bytes) == ("report", 80, "report", 32)
    assert first.provenance != second.provenance
    assert sum(receipt.bytes for receipt in (first, second)) == sum(
        value.data.nbytes for value in upload.values.values()
    )


def test_nothing_that_leaves_has_no_receipt() -> None:
    assert release(Upload()) == ()


@pytest.mark.parametrize("bare", [torch.zeros(2), 5.0, None])
def test_a_bare_value_does_not_leave(bare: Any) -> None:
    upload = Upload({"count": Value(torch.tensor(5), COUNTED), "logits": bare})
    with pytest.raises(MessageError, match=f"field 'logits' is a bare {type(bare).__name__}: wrap"):
        release(upload)


DP_TRAINED = Gaussian("teacher training", 1.1, 0.01, 100)
DP_COUNTED = Laplace("example count", 10.0)


def nothing(event: Protected) -> bool:
    return False


def test_under_a_ledger_what_is_public_or_paid_for_leaves() -> None:
    upload = Upload(
        {
            "logits": Value(torch.zeros(2), PostProcessing(of=DP_TRAINED)),
            "count": Value(torch.tensor(5), Release(DP_COUNTED)),
            "seed": Value(torch.zeros(3), Public()),
        }
    )
    receipts = release(upload, {DP_TRAINED, DP_COUNTED}.__contains__)
    assert [receipt.provenance for receipt in receipts] == [
        "post-processing of teacher training, Gaussian noise 1.1, rate 0.01, 100 steps",
        "release: example count, Laplace noise 10",
        "public",
    ]


@pytest.mark.parametrize("provenance", [TRAINED, COUNTED])
def test_under_a_ledger_nothing_unprotected_leaves(provenance: Provenance) -> None:
    upload = Upload({"class means": Value(torch.zeros(2), provenance)})
    with pytest.raises(UnpaidError, match="field 'class means' comes from private data unprotect"):
        release(upload, lambda event: True)


@pytest.mark.parametrize(
    "provenance",
    [
        PostProcessing(of=DP_TRAINED),
        Release(DP_COUNTED),
        Release(Gaussian("votes", 20.0, unit="client")),
    ],
)
def test_under_a_ledger_nothing_leaves_on_an_event_that_it_does_not_hold(
    provenance: Provenance,
) -> None:
    with pytest.raises(UnpaidError, match="ledger does not hold"):
        release(Upload({"x": Value(torch.zeros(2), provenance)}), nothing)


def test_an_event_of_another_unit_pays_for_nothing() -> None:
    votes = Release(Gaussian("votes", 20.0, unit="client"))
    with pytest.raises(UnpaidError, match="ledger does not hold"):
        release(Upload({"x": Value(torch.zeros(2), votes)}), lambda event: True)


def test_more_values_leave_the_upload_as_it_was() -> None:
    first = Upload({"a": Value(torch.tensor(1), Public())})
    both = first.with_values({"b": Value(torch.tensor(2), Public())})
    assert list(first.values) == ["a"]
    assert list(both.values) == ["a", "b"]


def test_prefixes_come_off_as_they_went_on() -> None:
    tensors = {"a": torch.tensor(1), "b/c": torch.tensor(2)}
    mixed = {**prefixed("model", tensors), "models/x": torch.tensor(3), "model": torch.tensor(4)}
    assert group("model", mixed) == tensors
    assert group("none", mixed) == {}


def test_a_client_receives_its_architecture_and_what_is_common() -> None:
    common, mine, other = torch.tensor(1), torch.tensor(2), torch.tensor(3)
    broadcast = Broadcast({"c": common}, {"mlp": {"m": mine}, "mlp(hidden=[4])": {"m": other}})
    assert broadcast.to("mlp") == {"c": common, "m": mine}
    assert broadcast.to("mlp(hidden=[4])") == {"c": common, "m": other}
    assert broadcast.to("lenet5") == {"c": common}
    alone = Broadcast({"c": common}, {"mlp": {"m": mine}}, {1: {"a": other}})
    assert alone.to("mlp", 1) == {"c": common, "m": mine, "a": other}
    assert alone.to("mlp", 2) == alone.to("mlp") == {"c": common, "m": mine}
    assert Broadcast().to("mlp") == {}
