"""Generated features that carry what many clients know: the losses of FedGen.

Zhu et al. 2021, arXiv:2105.10056.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedkd.knowledge import label, synthetic
from fedkd.learning.data_free.synthesis import draw_labels
from fedkd.models import Head, call
from fedkd.models import head as head_of
from fedkd.models.generators import FeatureGenerator
from fedkd.models.heads import logits_of


def generator_loss(
    generator: FeatureGenerator,
    heads: Sequence[Head],
    z: Tensor,
    y: Tensor,
    weights: Tensor,
    diversity: float,
) -> Tensor:
    """Mean of sum_k w_k cross-entropy of head k with y, plus weighted diversity; in nats.

    Args:
        generator: makes features (N, F).
        heads: those of K clients' models.
        z: noise (N, L).
        y: labels (N,).
        weights: what each client's word weighs for each of them, (K, N).
        diversity: the weight of `synthetic.diversity`.
    """
    features = generator(z, y)
    each = [F.cross_entropy(logits_of(head, features), y, reduction="none") for head in heads]
    right = (weights * torch.stack(each)).sum(dim=0).mean()
    return right + diversity * synthetic.diversity(z, features)


def client_loss(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    generator: FeatureGenerator,
    counts: Tensor,
    classification: float,
    distillation: float,
    rng: torch.Generator,
) -> Tensor:
    """Cross-entropy on data + on generated features + KL between what the model says of both.

    Args:
        model: the client's.
        x: its records (N, *shape).
        y: their labels (N,).
        generator: in evaluation mode, on the model's device; it gets no gradient.
        counts: of all clients' samples by class, (C,): labels of features are drawn by it.
        classification: the weight of cross-entropy on as many features of drawn labels.
        distillation: the weight of KL(features of y || x), a mean over records; what the model says
            of the features is a constant there.
        rng: the source of noise, which is normal, and of labels.

    Returns:
        A scalar, in nats.
    """
    head, logits = head_of(model), call.answer(model, x)
    drawn = draw_labels(counts, len(y), rng).to(y.device)
    z = torch.randn(2 * len(y), generator.latent, generator=rng).to(y.device)
    with torch.no_grad():
        same, others = generator(z, torch.cat([y, drawn])).split(len(y))
        told = logits_of(head, same)
    return (
        F.cross_entropy(logits, y)
        + classification * F.cross_entropy(logits_of(head, others), drawn)
        + distillation * label.kd(logits, told, temperature=1.0).mean()
    )
