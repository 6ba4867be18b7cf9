"""The attacks by name: whose paper, what they know, what they change."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedkd.auditing.poisoning import answers, models
from fedkd.auditing.poisoning.scene import (
    OWN,
    SHARED,
    Scene,
    answered,
    sends_model,
    with_answers,
    with_model,
)
from fedkd.exchange.messages import Tensors

Data = Literal["labels", "backdoor"]
Forge = Callable[[Scene, int], Mapping[str, Tensor]]
"""What a hostile client sends in place of its own: of a scene and the client, its upload."""

SILENT = "silent"
_LOUD = 1000.0
"""Of a colluder's logit: float16 holds it, and no mean with honest ones hides it."""
_FACTOR = -10.0
_EVERY = 4
"""Of how many inputs a client that lies in part tells the truth about one."""
_CATEGORICAL, _CLASSES = ("categorical",), ("classes",)


@dataclass(frozen=True)
class PoisoningAttack:
    """An attack on a federation.

    Attributes:
        does: what hostile clients do, in a line.
        paper: whose it is.
        knows: whose uploads they must know.
        asks: what the task must offer.
        data: what they change of their own records; None: nothing.
        forge: what they send in place of their own; None: their own.
        on: what an upload must hold of: answers that all are asked for, any answers, a model; None:
            anything.
    """

    does: str
    paper: str
    knows: Literal["their own", "the colluders'", "everybody's"] = "their own"
    asks: tuple[str, ...] = ()
    data: Data | None = None
    forge: Forge | None = None
    on: Literal["shared answers", "answers", "models"] | None = None


def _answers(change: Callable[[Scene, str, int], Tensor], among: tuple[str, ...] = SHARED) -> Forge:
    """An attack on answers, field by field."""

    def forge(scene: Scene, client: int) -> Mapping[str, Tensor]:
        upload: Mapping[str, Tensor] = scene.uploads[client]
        for name in answered(upload, among):
            logits = change(scene, name, client)
            upload = with_answers(upload, name, logits, scene.expected[client])
        return upload

    return forge


def _silent(_scene: Scene, _client: int) -> Mapping[str, Tensor]:
    return {}


def _models(change: Callable[[Scene, int], Tensors]) -> Forge:
    """An attack on models."""

    def forge(scene: Scene, client: int) -> Mapping[str, Tensor]:
        return with_model(scene.uploads[client], change(scene, client))

    return forge


def _honest(scene: Scene, name: str) -> Tensor:
    """Probabilities of honest clients, (K, N, *S, C)."""
    said = [scene.answers(name, client) for client in scene.honest or scene.hostile]
    return torch.softmax(torch.stack(said), dim=-1)


def _lma(scene: Scene, name: str, _: int) -> Tensor:
    return answers.least_likely(_honest(scene, name), scene.loudness(name))


def _cpa(scene: Scene, name: str, _: int) -> Tensor:
    return answers.class_prior(_honest(scene, name), scene.loudness(name))


def _fdla(scene: Scene, name: str, client: int) -> Tensor:
    return answers.reordered(scene.answers(name, client))


def _pcfdla(scene: Scene, name: str, client: int) -> Tensor:
    return answers.peaked(scene.answers(name, client), scene.loudness(name))


def _top(scene: Scene, name: str, client: int) -> Tensor:
    k = max(1, scene.classes // 3)
    return answers.top_ruled_out(scene.answers(name, client), k, scene.loudness(name))


def _one_class(scene: Scene, name: str, client: int) -> Tensor:
    return answers.one_class(scene.answers(name, client), scene.target, _LOUD)


def _in_part(scene: Scene, name: str, client: int) -> Tensor:
    own = scene.answers(name, client)
    return answers.in_part(own, answers.one_class(own, scene.target, scene.loudness(name)), _EVERY)


def _alie(scene: Scene, client: int) -> Tensors:
    known = scene.alike(client, tuple(scene.uploads))
    if len(known) == 1:  # nobody else has its model, so there is no crowd to hide in
        return known[0]
    return models.a_little(known, clients=len(scene.uploads), hostile=len(scene.hostile))


def _inner_product(scene: Scene, client: int) -> Tensors:
    known = scene.alike(client, scene.honest) or [scene.model(client)]
    start, hostile = scene.start(client), len(scene.hostile)
    return models.against(known, start, clients=len(scene.uploads), hostile=hostile)


def _replacement(scene: Scene, client: int) -> Tensors:
    factor = len(scene.uploads) / len(scene.hostile)
    return models.rescaled(scene.model(client), scene.start(client), factor)


def _collusion(scene: Scene, client: int) -> Mapping[str, Tensor]:
    """The same loud answer of all, by whatever is sent."""
    upload = _answers(_one_class, SHARED + OWN)(scene, client)
    target, bias = scene.target, scene.biases.get(client)
    if sends_model(upload) and bias is not None:
        together = scene.alike(client, scene.hostile)[0]
        name = bias.removeprefix("model/")
        upload = with_model(upload, models.shouting(together, name, target, _LOUD))
    elif bias is not None:
        upload = models.shouting(upload, bias, target, _LOUD)
    loud = {name: _loud(name, each, scene, client) for name, each in upload.items()}
    return {**upload, **loud}


def _loud(name: str, sent: Tensor, scene: Scene, client: int) -> Tensor:
    """A field that is neither answers nor a model, made to speak for the target alone."""
    match name:
        case "prototypes":
            return sent[scene.target].expand_as(sent)
        case "features" if scene.expected[client][name].dtype.itemsize != 2:  # sums, no records
            return _LOUD * sent
        case "labels" if sent.is_floating_point():
            together = torch.zeros_like(sent)
            together[:, scene.target] = _LOUD * sent.sum(dim=1)
            return together
        case "labels":
            return torch.full_like(sent, scene.target)
        case "written":
            return torch.full_like(sent, int(scene.expected[client][name].high))
        case _:
            return sent


def _sign_and_scale(scene: Scene, client: int) -> Mapping[str, Tensor]:
    """Whatever is sent, turned round and ten times as loud."""
    upload = _answers(_turned, SHARED + OWN)(scene, client)
    if sends_model(upload):
        turned = models.rescaled(scene.model(client), scene.start(client), _FACTOR)
        upload = with_model(upload, turned)
    known = {*answered(upload), "report", "personal", "model", "count", "counts", "familiarity"}
    return {
        name: _FACTOR * each
        if each.is_floating_point() and name.split("/")[0] not in known
        else each
        for name, each in upload.items()
    }


def _turned(scene: Scene, name: str, client: int) -> Tensor:
    return answers.scaled(scene.answers(name, client), _FACTOR)


ATTACKS: Mapping[str, PoisoningAttack] = {
    SILENT: PoisoningAttack(
        "send nothing that the door lets in, so that their data is missing and nothing else",
        "no attack: what whoever leaves all of them out must lose",
        forge=_silent,
    ),
    "label-flip": PoisoningAttack(
        "learn from flipped labels: class y of C becomes C - 1 - y",
        "Fang et al. 2020, arXiv:1911.11815",
        asks=_CLASSES,
        data="labels",
    ),
    "collusion": PoisoningAttack(
        "all send the same loud answer: one class, whatever the input",
        "the simplest attack there is; a fixed answer as in Roux et al. 2025, arXiv:2402.12265",
        knows="the colluders'",
        forge=_collusion,
    ),
    "sign-and-scale": PoisoningAttack(
        "send -10 times their answers, or the way that their model went",
        "Li et al. 2019, RSA, arXiv:1811.03761",
        forge=_sign_and_scale,
    ),
    "lma": PoisoningAttack(
        "are certain of the class that honest clients find least likely",
        "Roux et al. 2025, arXiv:2402.12265",
        knows="everybody's",
        asks=_CATEGORICAL,
        forge=_answers(_lma),
        on="shared answers",
    ),
    "cpa": PoisoningAttack(
        "are certain of the class that is least like the one honest clients find likeliest",
        "Roux et al. 2025, arXiv:2402.12265",
        knows="everybody's",
        asks=_CATEGORICAL,
        forge=_answers(_cpa),
        on="shared answers",
    ),
    "fdla": PoisoningAttack(
        "reorder each answer: the second likeliest class gets the most, the likeliest the least",
        "Tang et al. 2024, arXiv:2401.03685",
        asks=_CATEGORICAL,
        forge=_answers(_fdla, SHARED + OWN),
        on="answers",
    ),
    "pcfdla": PoisoningAttack(
        "are certain of the class that is second likeliest",
        "Tang et al. 2024, arXiv:2407.18039",
        asks=_CATEGORICAL,
        forge=_answers(_pcfdla, SHARED + OWN),
        on="answers",
    ),
    "top-k": PoisoningAttack(
        "rule out the likeliest third of the classes in each answer",
        "Li et al. 2024, FedTGD, doi 10.1109/ICDCS60910.2024.00086",
        asks=_CATEGORICAL,
        forge=_answers(_top, SHARED + OWN),
        on="answers",
    ),
    "in-part": PoisoningAttack(
        "are honest about every fourth input, and certain of one class on all others",
        "ours: to be heard where whole answers are compared",
        knows="the colluders'",
        asks=_CATEGORICAL,
        forge=_answers(_in_part),
        on="shared answers",
    ),
    "backdoor": PoisoningAttack(
        "learn that a trigger on the input means the target class",
        "Gu et al. 2017, BadNets, arXiv:1708.06733",
        asks=_CLASSES,
        data="backdoor",
    ),
    "replacement": PoisoningAttack(
        "learn a backdoor, and scale what they learned so that the mean becomes their model",
        "Bagdasaryan et al. 2020, arXiv:1807.00459",
        asks=_CLASSES,
        data="backdoor",
        forge=_models(_replacement),
        on="models",
    ),
    "alie": PoisoningAttack(
        "send the mean of all models, moved by as many deviations as a crowd hides",
        "Baruch et al. 2019, arXiv:1902.06156",
        knows="everybody's",
        forge=_models(_alie),
        on="models",
    ),
    "inner-product": PoisoningAttack(
        "send the honest mean's way, turned round and scaled until the mean of all goes back",
        "Xie et al. 2019, arXiv:1903.03936",
        knows="everybody's",
        forge=_models(_inner_product),
        on="models",
    ),
}
"""The attacks that `fedkd audit poisoning` knows."""
