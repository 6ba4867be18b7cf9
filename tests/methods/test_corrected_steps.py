"""SCAFFOLD and FedDyn: whole rounds against the papers' formulas, and what corrects a step."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from federations import STILL, Federation, federation, paying, snapshot, tensors

from fedkd.config import Privacy
from fedkd.exchange.messages import PostProcessing, group, prefixed

STEPS, RATE = 3, 0.2
WHOLE = {"epochs": STEPS, "batch_size": 64, "learning_rate": RATE, "momentum": 0.0}
"""One step an epoch, on all records."""
COHORTS = ([0, 1], [1], [0, 1])
Weights = np.ndarray


def linear(method: dict[str, Any] | str, **changes: Any) -> Federation:
    """Two clients with softmax regression, which can be learned by hand."""
    model = {"name": "mlp", "hidden": []}
    how = {"training": WHOLE, "rounds": len(COHORTS), **changes}
    sizes = (12, 12) if how.pop("even", False) else (12, 7)
    return federation(method, sizes=sizes, models=[model], student=model, count=2, **how)


def flat(state: dict[str, torch.Tensor]) -> Weights:
    """Weights (C, F) and bias (C,) as one float64 array (C, F + 1)."""
    bias = state["classifier.bias"].double().numpy()[:, None]
    return np.hstack([state["classifier.weight"].double().numpy(), bias])


def gradient(fed: Federation, client: int, w: Weights) -> Weights:
    """Of the mean cross-entropy of softmax regression on a client's records."""
    x, y = fed.data[client].x.double().numpy(), fed.data[client].y.numpy()
    x = np.hstack([x, np.ones((len(x), 1))])
    logits = x @ w.T
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return p.T @ x / len(y)


def rounds(fed: Federation) -> None:
    broadcast = fed.begin()
    for number, cohort in enumerate(COHORTS, start=1):
        broadcast, _ = fed.round(number, broadcast, cohort)


def close(found: dict[str, torch.Tensor], expected: Weights) -> None:
    np.testing.assert_allclose(flat(found), expected, rtol=1e-4, atol=1e-6)


def test_rounds_of_scaffold_are_the_papers_with_option_two() -> None:
    fed = linear("scaffold")
    x = flat(snapshot(fed.student))
    c, own = np.zeros_like(x), [np.zeros_like(x), np.zeros_like(x)]
    for cohort in COHORTS:
        models, changes = [], []
        for i in cohort:
            y = x.copy()
            for _ in range(STEPS):
                y -= RATE * (gradient(fed, i, y) - own[i] + c)
            new = own[i] - c + (x - y) / (STEPS * RATE)
            models.append(y - x)
            changes.append(new - own[i])
            own[i] = new
        x = x + np.mean(models, axis=0)
        c = c + len(cohort) / 2 * np.mean(changes, axis=0)
    rounds(fed)
    close(snapshot(fed.student), x)
    close(group("control", fed.server_state), c)
    for i in (0, 1):
        close(group("control", fed.states[i]), own[i])


def test_rounds_of_feddyn_are_the_papers() -> None:
    alpha = 0.3
    fed = linear({"name": "feddyn", "alpha": alpha})
    start = flat(snapshot(fed.student))
    h, gradients = np.zeros_like(start), [np.zeros_like(start), np.zeros_like(start)]
    for cohort in COHORTS:
        models = []
        for k in cohort:
            w = start.copy()
            for _ in range(STEPS):
                w -= RATE * (gradient(fed, k, w) - gradients[k] + alpha * (w - start))
            gradients[k] = gradients[k] - alpha * (w - start)
            models.append(w)
        h = h - alpha / 2 * sum(w - start for w in models)
        average = np.mean(models, axis=0)
        start = average - h / alpha
    rounds(fed)
    close(snapshot(fed.student), average)
    close(group("start", fed.server_state), start)
    for k in (0, 1):
        close(group("drift", fed.states[k]), -gradients[k] / alpha)


@pytest.mark.parametrize("how", [{"momentum": 0.9}, {"optimiser": "adam"}], ids=str)
def test_a_control_variate_is_the_mean_gradient_whatever_the_optimiser_makes_of_it(
    how: dict[str, Any],
) -> None:
    fed = linear("scaffold", training={**STILL, **how, "epochs": 5, "batch_size": 64})
    sent = tensors(fed.ask(0, 1, fed.begin()))
    close(group("control", sent), gradient(fed, 0, flat(snapshot(fed.student))))


def test_a_feddyn_client_that_found_its_minimum_stays_there() -> None:
    """At its own minimum near the start h is the gradient, and the next round moves it no more."""
    how = {**WHOLE, "epochs": 150, "learning_rate": 1.0}
    fed = linear({"name": "feddyn", "alpha": 1.0}, training=how)
    found = group("model", tensors(fed.ask(0, 1, fed.begin())))
    h = -flat(group("drift", fed.states[0]))
    np.testing.assert_allclose(h, gradient(fed, 0, flat(found)), atol=1e-5)
    again = fed.ask(0, 2, type(fed.begin())(common=prefixed("model", found)))
    close(group("model", tensors(again)), flat(found))


def test_scaffold_with_one_step_and_all_clients_is_gradient_descent_on_the_mean_loss() -> None:
    """However far apart clients are: what corrects them cancels in the mean."""
    fed = linear("scaffold", training={**WHOLE, "epochs": 1}, rounds=4)
    w = flat(snapshot(fed.student))
    broadcast = fed.begin()
    for number in range(1, 5):
        w = w - RATE * np.mean([gradient(fed, i, w) for i in (0, 1)], axis=0)
        broadcast, _ = fed.round(number, broadcast)
    close(snapshot(fed.student), w)


def test_a_first_round_of_feddyn_at_next_to_no_alpha_is_fedavgs_for_equal_counts() -> None:
    students = []
    for method in ({"name": "feddyn", "alpha": 1e-9}, "fedavg"):
        fed = linear(method, even=True)
        fed.round(1, fed.begin())
        students.append(flat(snapshot(fed.student)))
    np.testing.assert_allclose(*students, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["scaffold", "feddyn"])
def test_under_dp_clients_learn_and_send_what_noisy_steps_made(name: str) -> None:
    """A control variate has the noise of the mean of so many steps, whatever the records are."""
    noise, clip, size, steps = 100.0, 0.5, 10, 6
    how = {"sample_rate": 0.5, "batch_size": size, "clip": clip, "noise_multiplier": noise}
    model = {"name": "mlp", "hidden": [64]}
    training = {**WHOLE, "learning_rate": 1e-3, "epochs": steps // 2}
    fed = federation(name, sizes=(12, 7), count=2, models=[model], student=model, training=training)
    ctx, allowance = paying(fed, Privacy(unit="record", epsilon=8.0, **how))
    upload = fed.method.client(ctx, fed.begin().common)
    assert allowance.spent == [ctx.setting.training]
    assert ctx.setting.training.steps == steps
    paid = PostProcessing(of=ctx.setting.training)
    assert {value.provenance for value in upload.values.values()} == {paid}
    if name == "scaffold":
        control = torch.cat([each.flatten() for each in group("control", ctx.state).values()])
        assert float(control.std()) == pytest.approx(noise * clip / size / steps**0.5, rel=0.15)


@pytest.mark.parametrize("name", ["scaffold", "feddyn"])
def test_of_a_sum_of_what_clients_send_the_server_makes_the_same(name: str) -> None:
    students = []
    for securely in (False, True):
        fed = linear(name)
        privacy = Privacy(unit="none", secure_aggregation=securely)
        experiment = fed.setting.experiment.model_copy(update={"privacy": privacy})
        fed.setting = replace(fed.setting, experiment=experiment)
        broadcast = fed.begin()
        uploads = {client: tensors(fed.ask(client, 1, broadcast)) for client in (0, 1)}
        ctx = fed.server_context()
        if securely:
            assert all(each.dtype == torch.float64 for each in uploads[0].values())
            total = {field: each + uploads[1][field] for field, each in uploads[0].items()}
            ctx, uploads = replace(ctx, summed=2), {0: total}
        told = fed.method.server(ctx, uploads).common
        students.append({**told, **snapshot(fed.student)})
    for field, each in students[0].items():
        torch.testing.assert_close(students[1][field], each)


def test_what_a_client_sends_comes_of_its_training_alone() -> None:
    fed = linear("scaffold")
    upload = fed.ask(0, 1, fed.begin())
    assert all(isinstance(v.provenance, PostProcessing) for v in upload.values.values())
