"""What a generator minimises, so that its samples teach: objectives of `data_free.synthesise`."""

import torch.nn.functional as F
from torch import Tensor

from fedkd.knowledge import synthetic
from fedkd.knowledge.label import kd
from fedkd.learning.data_free.synthesis import Views


def dense(views: Views, *, bn: float = 1.0, adversarial: float = 1.0) -> Tensor:
    """Cross-entropy + BatchNorm statistics + disagreement with the student, DENSE."""
    ensemble = views.ensemble
    return (
        F.cross_entropy(ensemble, views.y)
        + bn * views.teachers.bn.mean()
        + adversarial * synthetic.disagreement(views.student, ensemble).mean()
    )


def dafl(views: Views, *, activation: float = 0.1, entropy: float = 5.0) -> Tensor:
    """One-hot + activation + entropy losses, DAFL, arXiv:1904.01186; labels are unused."""
    ensemble = views.ensemble
    return (
        synthetic.one_hot(ensemble).mean()
        + activation * views.teachers.activation.mean()
        + entropy * synthetic.information_entropy(ensemble)
    )


def co_boosting(views: Views, *, adversarial: float = 1.0, temperature: float = 3.0) -> Tensor:
    """Cross-entropy of what is hard - KL(ensemble || student), Co-Boosting, arXiv:2402.15070."""
    ensemble = views.ensemble
    gap = kd(views.student, ensemble, temperature=temperature).mean()
    return synthetic.hard_cross_entropy(ensemble, views.y).mean() - adversarial * gap


def adi(
    views: Views,
    *,
    bn: float = 1.0,
    total_variation: float = 2.5e-5,
    l2: float = 3e-8,
    competition: float = 0.2,
) -> Tensor:
    """Cross-entropy + BatchNorm statistics + image priors + competition, ADI, arXiv:1912.08795."""
    ensemble = views.ensemble
    return (
        F.cross_entropy(ensemble, views.y)
        + bn * views.teachers.bn.mean()
        + total_variation * synthetic.total_variation(views.x).mean()
        + l2 * synthetic.l2(views.x).mean()
        + competition * synthetic.competition(views.student, ensemble).mean()
    )
