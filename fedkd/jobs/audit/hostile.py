"""Hostile clients of a prepared experiment: who they are, what they learn from, what they send."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from fedkd import rng
from fedkd.auditing.poisoning import records
from fedkd.auditing.poisoning.attacks import ATTACKS, Forge
from fedkd.auditing.poisoning.records import Trigger
from fedkd.auditing.poisoning.scene import SHARED, Scene, answered, fitted, sends_model
from fedkd.exchange.messages import Broadcast, Tensors, group
from fedkd.federation.prepare import PreparedExperiment
from fedkd.federation.tampering import Tamper
from fedkd.models.heads import find_head
from fedkd.rows import whole

TARGET = 0
"""The class that colluders call, and that backdoors mean."""


@dataclass(frozen=True)
class Hostile:
    """Some clients and their attack.

    Attributes:
        attack: its name, one of `ATTACKS`.
        clients: in ascending order.
    """

    attack: str
    clients: tuple[int, ...]


def drawn(prepared: PreparedExperiment, share: float) -> tuple[int, ...]:
    """Which clients are hostile: a share of all, to the nearest, drawn by the experiment's seed.

    A larger share has all clients of a smaller one.
    """
    count = math.floor(share * prepared.setting.clients + 0.5)
    draws = rng.stream(prepared.experiment.seed, purpose="hostile clients")
    order = torch.randperm(prepared.setting.clients, generator=draws)
    return tuple(sorted(order[:count].tolist()))


def why_unfit(prepared: PreparedExperiment, name: str) -> str:
    """Why an attack does not apply to an experiment; nothing where it does."""
    attack, task = ATTACKS[name], prepared.setting.task
    fields = prepared.method.expects(prepared.setting, 0)
    missing = [ask for ask in attack.asks if ask not in task.offers]
    if missing:
        return f"it needs {' and '.join(missing)}, which task {task.name!r} has not"
    if attack.data == "backdoor" and not {"image", "features"} & task.offers:
        return f"its trigger is for images and rows of features, and task {task.name!r} has neither"
    there = {
        "shared answers": answered(fields, SHARED),
        "answers": answered(fields),
        "models": sends_model(fields),
    }
    if attack.on is not None and not there[attack.on]:
        what = "models" if attack.on == "models" else "answers on shared inputs"
        return f"it forges {what}, and clients send none"
    if name == "replacement" and prepared.method.card.one_shot:
        return "it replaces the mean of later rounds, and there is one round alone"
    return ""


def trigger_of(prepared: PreparedExperiment) -> Trigger | None:
    """The trigger of a backdoor; None where records have no place for one."""
    task = prepared.setting.task
    if "classes" not in task.offers or not {"image", "features"} & task.offers:
        return None
    return records.trigger(whole(prepared.data.test.x))


def infiltrated(prepared: PreparedExperiment, hostile: Hostile) -> PreparedExperiment:
    """The experiment with hostile clients' own records changed, where their attack does that."""
    kind = ATTACKS[hostile.attack].data
    if kind is None:
        return prepared
    clients, seed = list(prepared.data.clients), prepared.experiment.seed
    mark = trigger_of(prepared)
    for client in hostile.clients:
        if kind == "labels":
            clients[client] = records.flipped(clients[client], prepared.data.classes)
        elif mark is not None:
            draws = rng.stream(seed, purpose="backdoored records", client=client)
            clients[client] = records.backdoored(clients[client], mark, TARGET, draws)
    return replace(prepared, data=replace(prepared.data, clients=tuple(clients)))


def forging(prepared: PreparedExperiment, hostile: Hostile) -> Tamper | None:
    """What hostile clients send in place of their own; None where they send their own."""
    forge = ATTACKS[hostile.attack].forge
    if forge is None:
        return None
    return partial(_forged, prepared, hostile, forge, _last_biases(prepared, hostile.clients))


def _forged(
    prepared: PreparedExperiment,
    hostile: Hostile,
    forge: Forge,
    biases: Mapping[int, str],
    round: int,
    broadcast: Broadcast,
    uploads: Mapping[int, Tensors],
) -> dict[int, dict[str, Tensor]]:
    here = tuple(client for client in hostile.clients if client in uploads)
    expected = {client: prepared.expects(client, round) for client in here}
    model_of = prepared.experiment.client_model
    scene = Scene(
        uploads=uploads,
        hostile=here,
        starts={c: group("model", broadcast.to(str(model_of(c)), c)) for c in here},
        expected=expected,
        biases=biases,
        classes=prepared.setting.task.classes,
        target=TARGET,
    )
    return {client: fitted(forge(scene, client), expected[client]) for client in here}


def _last_biases(prepared: PreparedExperiment, clients: Sequence[int]) -> dict[int, str]:
    """The field that holds the bias of a client's last layer, where it sends one."""
    found: dict[int, str] = {}
    for client in clients:
        fields = prepared.method.expects(prepared.setting, client)
        own = prepared.setting.of_client(client), prepared.experiment.client_model(client)
        shared = prepared.setting.student, prepared.experiment.student.model
        for prefix, (setting, spec) in (("model", own), ("whole", shared)):
            model = setting.build(spec, purpose="specification")
            head = find_head(model)
            layers = [name for name, each in model.named_modules() if each is head]
            if layers and (bias := f"{prefix}/{layers[0]}.bias") in fields:
                found[client] = bias
    return found
