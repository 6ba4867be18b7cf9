"""FedGH: two clients' round by hand, and a layer that goes on from round to round."""

from typing import Any

import torch
import torch.nn.functional as F
from federations import CLASSES, ROWS, SMALL, Federation, federation, samples

from fedkd.exchange.gate import release
from fedkd.learning.evaluate import evaluating
from fedkd.learning.teacher_statistics import with_features

ALIKE = {"name": "mlp", "hidden": [7, 12]}
ONE_STEP = {"epochs": 1, "batch_size": 100, "learning_rate": 0.3, "momentum": 0.0}


def built(classes: list[list[int]], head: dict[str, Any] = ONE_STEP, **changes: Any) -> Federation:
    """A client for each list; it keeps the samples of these classes."""
    method = {"name": "fedgh", "student": {"epochs": 1}, "head": head}
    changes = {"models": [SMALL, ALIKE], "count": len(classes), "rounds": 2, **changes}
    fed = federation(method, ROWS, (20,) * len(classes), **changes)
    for client, held in enumerate(classes):
        data = samples(30, ROWS, 10 + client)
        fed.data[client] = data.subset(torch.isin(data.y, torch.tensor(held)).nonzero().flatten())
    return fed


def test_a_round_of_two_clients_by_hand() -> None:
    fed = built([[0, 1], [1, 2]])
    first = fed.begin()
    broadcast, _ = fed.round(1, first)
    rows, labels = [], []
    for client in (0, 1):
        teacher, data = fed.client_context(client).teacher, fed.data[client]
        with evaluating(teacher), torch.no_grad():
            features = with_features(teacher, data.x)[1]
        for c in data.y.unique().tolist():
            rows.append(features[data.y == c].mean(dim=0))
            labels.append(c)
    assert labels == [0, 1, 1, 2]  # a row for each client's class, and none for one it has not
    weight = first.common["head/weight"].clone().requires_grad_()
    bias = first.common["head/bias"].clone().requires_grad_()
    loss = F.cross_entropy(torch.stack(rows) @ weight.T + bias, torch.tensor(labels))
    loss.backward()
    torch.testing.assert_close(broadcast.common["head/weight"], weight.detach() - 0.3 * weight.grad)
    torch.testing.assert_close(broadcast.common["head/bias"], bias.detach() - 0.3 * bias.grad)


def test_the_layer_goes_on_from_round_to_round() -> None:
    fed = built([[0, 1, 2]] * 2)
    begin = fed.begin()
    uploads = {client: fed.wire(client, fed.ask(client, 1, begin)) for client in (0, 1)}
    steps = [fed.method.server(fed.server_context(), uploads).common for _ in (1, 2)]
    moved = [(each["head/weight"] - begin.common["head/weight"]).norm() for each in steps]
    assert moved[1] > 1.3 * moved[0]  # of the same prototypes, one step more


def test_the_layer_learns_classes_that_a_client_has_never_seen() -> None:
    how = {"epochs": 200, "batch_size": 10, "learning_rate": 0.1, "momentum": 0.0}
    fed = built([[0, 1], [1, 2]], head=how, models=[SMALL])
    broadcast = fed.begin()
    for number in (1, 2):
        broadcast, _ = fed.round(number, broadcast)
    prototypes = fed.wire(1, fed.ask(1, 2, broadcast))["prototypes"]
    said = prototypes @ broadcast.common["head/weight"].T + broadcast.common["head/bias"]
    assert said[1:].argmax(dim=1).tolist() == [1, 2]


def test_who_says_it_holds_nothing_teaches_nothing() -> None:
    fed = built([[0, 1, 2]] * 2)
    begin = fed.begin()
    uploads = {c: fed.wire(c, fed.ask(c, 1, begin)) for c in (0, 1)}
    for upload in uploads.values():
        upload["held"] = torch.zeros(CLASSES, dtype=torch.bool)
    returned = fed.method.server(fed.server_context(), uploads).common
    assert torch.equal(returned["head/weight"], begin.common["head/weight"])


def test_the_receipts_say_what_prototypes_are() -> None:
    fed = built([[0, 1, 2]] * 2)
    receipts = {r.field: r.provenance for r in release(fed.ask(0, 1, fed.begin()))}
    words = "class prototypes, the mean features of its records, no DP"
    assert receipts["prototypes"] == receipts["held"] == f"release: {words}"
    assert receipts["logits"] == "post-processing of teacher training, no DP"
