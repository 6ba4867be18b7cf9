"""FML: gradients by the paper's two losses, FedAvg as its limit, and what stays at home."""

from typing import Any

import torch
import torch.nn.functional as F
from federations import ROWS, SMALL, WIDE, Federation, equal, federation, snapshot, tensors
from torch import Tensor, nn

from fedkd.exchange.messages import group, prefixed
from fedkd.methods.unlike.fml import mutual_loss
from fedkd.tasks.likelihoods.categorical import CATEGORICAL

MEME = {"name": "mlp", "hidden": [9]}


def built(**changes: Any) -> Federation:
    """Two clients."""
    method = {"name": "fml", **changes.pop("method", {})}
    changes = {"models": [SMALL, WIDE], "student": MEME, "count": 2, "rounds": 2, **changes}
    return federation(method, ROWS, (20, 12), **changes)


def test_gradients_are_those_of_two_losses_with_a_constant_partner() -> None:
    torch.manual_seed(0)
    own, meme = nn.Linear(5, 3), nn.Linear(5, 3)
    x, y = torch.randn(6, 5), torch.tensor([0, 1, 2, 0, 1, 2])

    def oracle(learner: nn.Module, partner: nn.Module, share: float) -> list[Tensor]:
        """share * cross-entropy + (1 - share) * KL(partner || learner), summed over classes."""
        with torch.no_grad():
            p = partner(x).softmax(1)
        q = learner(x).softmax(1)
        kl = (p * (p.log() - q.log())).sum() / len(x)
        total = share * F.cross_entropy(learner(x), y) + (1 - share) * kl
        return list(torch.autograd.grad(total, list(learner.parameters())))

    loss = mutual_loss(own(x), meme(x), y, alpha=0.3, beta=0.8, likelihood=CATEGORICAL)
    for learner, partner, share in ((own, meme, 0.3), (meme, own, 0.8)):
        found = torch.autograd.grad(loss, list(learner.parameters()), retain_graph=True)
        torch.testing.assert_close(list(found), oracle(learner, partner, share))


def test_a_meme_that_learns_from_labels_alone_is_fedavgs_model() -> None:
    """Two rounds of two clients, by a method that shares no line of the client part."""
    own = built(method={"beta": 1.0})
    plain = federation("fedavg", ROWS, (20, 12), models=[MEME], student=MEME, count=2, rounds=2)
    for fed in (own, plain):
        broadcast = fed.begin()
        for number in (1, 2):
            broadcast, _ = fed.round(number, broadcast)
    for name, weight in snapshot(plain.student).items():
        torch.testing.assert_close(own.student.state_dict()[name], weight)


def test_the_student_is_the_mean_of_memes_by_count_and_goes_back() -> None:
    fed = built()
    broadcast = fed.begin()
    uploads = {c: fed.wire(c, fed.ask(c, 1, broadcast)) for c in (0, 1)}
    returned = fed.method.server(fed.server_context(), uploads)
    for name, weight in snapshot(fed.student).items():
        first, second = (uploads[c][f"model/{name}"].double() for c in (0, 1))
        torch.testing.assert_close(weight, ((20 * first + 12 * second) / 32).float())
    assert equal(dict(returned.common), prefixed("model", snapshot(fed.student)))


def test_the_own_model_stays_at_home_and_goes_on_from_where_it_was() -> None:
    fed = built()
    before = snapshot(fed.client_context(1).teacher)
    broadcast = fed.begin()
    sent = tensors(fed.ask(1, 1, broadcast))
    student = fed.setting.build(fed.setting.experiment.student.model, purpose="specification")
    assert set(sent) == {"count", *prefixed("model", student.state_dict())}
    kept = group("teacher", fed.states[1])
    assert not equal(kept, before)
    assert equal(snapshot(fed.client_context(1, round=2).teacher), kept)


def test_models_teach_each_other() -> None:
    """The more, the less labels count: their answers come together."""

    def apart(share: float) -> float:
        fed = built(
            method={"alpha": share, "beta": share}, training={"epochs": 30, "learning_rate": 0.05}
        )
        meme = fed.wire(0, fed.ask(0, 1, fed.begin()))
        fed.student.load_state_dict(group("model", meme))
        x = fed.data[0].x
        with torch.no_grad():
            said = [each(x).softmax(1) for each in (fed.student, fed.client_context(0).teacher)]
        return float((said[0] - said[1]).abs().mean())

    assert apart(0.3) < 0.8 * apart(1.0)
