"""Each attack does what it says: oracles in a few numbers, and what hostile clients forge."""

import math

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.auditing.poisoning import answers, models, records
from fedkd.auditing.poisoning.attacks import ATTACKS, SILENT
from fedkd.data.types import Samples
from fedkd.exchange.codec import decode, encode
from fedkd.exchange.messages import Broadcast, group, prefixed
from fedkd.federation.prepare import prepare
from fedkd.jobs.audit import hostile
from fedkd.jobs.audit.hostile import TARGET, Hostile

ROWS = torch.tensor([[3.0, 1.0, -2.0], [0.0, 5.0, 4.0]])
SEEDS = st.integers(0, 2**32)


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_lma_is_certain_of_what_the_honest_mean_finds_least_likely():
    honest = torch.tensor([[[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]], [[0.2, 0.1, 0.7], [0.3, 0.2, 0.5]]])
    assert answers.least_likely(honest, 9.0).tolist() == [[0, 9, 0], [9, 0, 0]]


@settings(deadline=None, max_examples=30)
@given(SEEDS)
def test_no_certain_answer_raises_the_loss_of_the_honest_mean_more_than_lmas(seed):
    honest = torch.softmax(2 * drawn(seed, 3, 5, 4), dim=-1)
    together = honest.mean(dim=0)
    chosen = answers.least_likely(honest, 1.0).argmax(dim=-1)
    # -log of what the mean has for the class that is called, by class
    losses = -together.log()
    assert torch.equal(losses.gather(1, chosen[:, None])[:, 0], losses.amax(dim=1))


def test_cpa_calls_the_class_that_is_least_like_the_likeliest():
    # Classes 0 and 1 come and go together, and 2 where they do not.
    together = torch.tensor([[0.5, 0.4, 0.1], [0.4, 0.5, 0.1], [0.05, 0.05, 0.9]])
    said = answers.class_prior(together[None], 1.0).argmax(dim=-1)
    assert said[:2].tolist() == [2, 2]
    assert said[2].item() == 0  # as unlike as 1, and the first of both


@settings(deadline=None, max_examples=30)
@given(SEEDS)
def test_fdla_has_the_same_values_and_the_second_likeliest_class_first(seed):
    own = drawn(seed, 6, 5)
    sent = answers.reordered(own)
    assert torch.equal(sent.sort(dim=-1).values, own.sort(dim=-1).values)
    likeliest, second = own.topk(2, dim=-1).indices.T
    assert torch.equal(sent.argmax(dim=-1), second)
    assert torch.equal(sent.argmin(dim=-1), likeliest)


def test_pcfdla_has_a_peak_at_the_second_likeliest_class():
    assert answers.peaked(ROWS, 7.0).tolist() == [[0, 7, 0], [0, 0, 7]]


def test_top_k_rules_the_likeliest_classes_out_and_leaves_the_others():
    sent = answers.top_ruled_out(ROWS, 1, 6.0)
    torch.testing.assert_close(sent, torch.tensor([[2 / 3 - 6, 1, -2], [0, 3.0 - 6, 4]]))


def test_colluders_answers_are_one_class_and_turned_ones_the_negative():
    assert answers.one_class(ROWS, 2, 9.0).tolist() == [[0, 0, 9], [0, 0, 9]]
    assert answers.scaled(ROWS, -10).tolist() == (-10 * ROWS).tolist()


def test_a_shouting_model_has_one_class_in_its_last_bias():
    model = {"last.bias": torch.zeros(3), "last.weight": ROWS}
    sent = models.shouting(model, "last.bias", 1, 50.0)
    assert sent["last.bias"].tolist() == [0, 50, 0]
    assert sent["last.weight"] is ROWS
    assert model["last.bias"].tolist() == [0, 0, 0]


def test_replacement_makes_the_mean_the_attackers_model_where_others_rest():
    start = {"w": drawn(0, 4)}
    own = {"w": drawn(1, 4), "batches": torch.tensor(7)}
    sent = models.rescaled(own, {**start, "batches": torch.tensor(0)}, 10 / 2)
    assert sent["batches"].item() == 7
    mean = (8 * start["w"] + 2 * sent["w"]) / 10
    torch.testing.assert_close(mean, own["w"])


def test_alie_hides_within_the_deviations_of_its_rule():
    each = [{"w": drawn(seed, 5)} for seed in range(10)]
    stacked = torch.stack([model["w"] for model in each])
    # Baruch et al.: of 50 clients 24 hostile win over 2 of 26, so Phi(z) = 24 / 26
    assert models.alie_deviations(50, 24) == pytest.approx(1.4261, abs=1e-4)
    sent = models.a_little(each, clients=50, hostile=24)
    expected = stacked.mean(dim=0) - models.alie_deviations(50, 24) * stacked.std(dim=0)
    torch.testing.assert_close(sent["w"], expected)
    assert math.isfinite(models.alie_deviations(10, 9))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 4), SEEDS)
def test_inner_product_turns_the_mean_of_all_round_at_its_length(attackers, seed):
    start = {"w": drawn(seed, 6)}
    honest = [{"w": drawn(seed + 1 + i, 6)} for i in range(10 - attackers)]
    sent = models.against(honest, start, clients=10, hostile=attackers)
    everybody = [each["w"] for each in honest] + [sent["w"]] * attackers
    moved = torch.stack(everybody).mean(dim=0) - start["w"]
    was = torch.stack([each["w"] for each in honest]).mean(dim=0) - start["w"]
    torch.testing.assert_close(moved, -was * (10 - attackers) / 10, atol=1e-4, rtol=1e-4)


def test_labels_are_flipped_end_to_end():
    samples = Samples(torch.zeros(4, 2), torch.tensor([0, 1, 2, 9]))
    assert records.flipped(samples, 10).y.tolist() == [9, 8, 7, 0]


@pytest.mark.parametrize("shape", [(1, 14, 14), (6,)])
def test_a_backdoor_is_on_half_of_the_records_and_counts_those_of_other_classes(shape):
    samples = Samples(torch.rand(20, *shape, generator=torch.Generator()), torch.arange(20) % 4)
    mark = records.trigger(samples.x)
    draws = torch.Generator().manual_seed(1)
    learned = records.backdoored(samples, mark, 0, draws)
    changed = (learned.x != samples.x).flatten(1).any(dim=1)
    assert changed.sum() == 10
    assert learned.y[changed].tolist() == [0] * 10
    assert torch.equal(learned.y[~changed], samples.y[~changed])
    places = (learned.x != samples.x).flatten(1).any(dim=0).sum()
    assert places <= (4 if len(shape) == 3 else 1)
    shown = records.triggered(samples, mark, 0)
    assert (len(shown), set(shown.y.tolist())) == (15, {1, 2, 3})
    assert torch.equal(shown.x, mark.on(shown.x))
    logits = torch.zeros(15, 4)
    logits[:5, 0], logits[5:, 2] = 1.0, 1.0
    assert records.success(logits, 0) == pytest.approx(1 / 3)
    assert records.success(logits[:0], 0) is None


METHODS = {
    "fedmd": {"method": {"name": "fedmd"}},
    "fedmd, the likeliest": {"method": {"name": "fedmd", "top": 2}},
    "dsfl": {"method": {"name": "dsfl"}},
    "fedavg": {"method": {"name": "fedavg"}, "clients.models": [{"name": "mlp", "hidden": [16]}]},
    "feddf": {"method": {"name": "feddf"}},
    "fedproto": {"method": {"name": "fedproto"}, "clients.models": [{"name": "mlp"}]},
    "fedkd": {"method": {"name": "fedkd"}, "rounds": 2},
    "analytic": {"method": {"name": "analytic"}, "rounds": 1, "data.public": None},
}


def plausible(spec, seed):
    """A tensor that the door lets in, a few rows fewer where there may be."""
    if not spec.dtype.is_floating_point:
        return torch.ones(spec.shape, dtype=spec.dtype)
    low, high = max(spec.low, -3.0), min(spec.high, 3.0)
    unit = torch.rand(spec.shape, generator=torch.Generator().manual_seed(seed))
    return (low + (high - low) * unit).to(spec.dtype)


@pytest.mark.parametrize("method", METHODS)
def test_whatever_applies_to_a_method_passes_the_door_and_is_no_longer_the_clients_own(
    rows, method
):
    prepared = prepare(tiny.experiment(rows, METHODS[method]))
    expected = {client: prepared.expects(client, 1) for client in range(4)}
    uploads = {
        client: {name: plausible(spec, client) for name, spec in fields.items()}
        for client, fields in expected.items()
    }
    model = group("model", uploads[0])
    broadcast = Broadcast(common=prefixed("model", {n: 0 * each for n, each in model.items()}))
    forging = [
        name for name, each in ATTACKS.items()
        if each.forge and name != SILENT and not hostile.why_unfit(prepared, name)
    ]  # fmt: skip
    assert {"collusion", "sign-and-scale"} <= set(forging)
    for name in forging:
        tamper = hostile.forging(prepared, Hostile(name, (0, 2)))
        sent = tamper(1, broadcast, uploads)
        assert set(sent) == {0, 2}
        for client, upload in sent.items():
            decode(encode(upload), expected[client])
            same = [torch.equal(upload[field], uploads[client][field]) for field in upload]
            assert not all(same), f"{name}: client {client} sends what it would anyway"
            for field in upload:
                if field.startswith("report/") or field in ("count", "counts"):
                    assert torch.equal(upload[field], uploads[client][field])


def test_colluders_send_the_same_and_call_the_target(rows):
    prepared = prepare(tiny.experiment(rows, METHODS["dsfl"]))
    fields = {client: prepared.expects(client, 1) for client in range(4)}
    uploads = {
        client: {name: plausible(spec, client) for name, spec in each.items()}
        for client, each in fields.items()
    }
    sent = hostile.forging(prepared, Hostile("collusion", (1, 3)))(1, Broadcast(), uploads)
    assert torch.equal(sent[1]["probabilities"], sent[3]["probabilities"])
    assert sent[1]["probabilities"][:, TARGET].min() == 1


def test_the_silent_send_nothing_that_the_door_lets_in(rows):
    prepared = prepare(tiny.experiment(rows))
    silent = hostile.forging(prepared, Hostile("silent", (1, 2)))
    assert silent(1, Broadcast(), {0: {}, 1: {"logits": ROWS}}) == {1: {}}


def test_more_attackers_are_the_few_and_others_and_only_their_records_change(rows):
    prepared = prepare(tiny.experiment(rows))
    few, more = hostile.drawn(prepared, 0.25), hostile.drawn(prepared, 0.5)
    assert (len(few), len(more)) == (1, 2)
    assert set(few) < set(more)
    for attack in ("label-flip", "backdoor"):
        changed = hostile.infiltrated(prepared, Hostile(attack, more)).data.clients
        for client, (was, now) in enumerate(zip(prepared.data.clients, changed, strict=True)):
            assert torch.equal(was.y, now.y) == (client not in more)
