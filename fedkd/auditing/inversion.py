"""Inversion of paired logits: images of what a client knows and the others do not.

Takahashi et al. 2023, arXiv:2304.11436: on public images the server sees what a client answers and
what all answer together, so it can learn the way back from the pair to the image, and then ask for
an image of which the client alone is sure.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedkd.data.types import Samples
from fedkd.devices import CPU
from fedkd.learning import optim
from fedkd.rng import torch_default
from fedkd.rows import whole

_STEPS, _BATCH, _HIDDEN, _RATE = 600, 128, 256, 2e-3
_SUREST = 5
"""Public answers of a class whose mean is the question: those of which the client is surest."""


@dataclass(frozen=True, eq=False)
class Inversion:
    """One client's images, as an attacker draws them, beside its own.

    Attributes:
        client: whose.
        classes: of each image (K,).
        drawn: by the attacker, (K, *shape).
        originals: the client's own record that is nearest to each, (K, *shape).
        distances: root mean square, of a pixel's range, of each drawn image to the mean of the
            client's records of that class, (K,).
        blind: the same for the mean public image that all call that class, which takes no attack.
        nearer: the share of drawn images that are nearer to a record of the client's than to any of
            equally many of the same class that nobody learnt: 0.5 is chance.
    """

    client: int
    classes: tuple[int, ...]
    drawn: Tensor
    originals: Tensor
    distances: tuple[float, ...]
    blind: tuple[float, ...]
    nearer: float


def invert(
    client: int,
    public: Tensor,
    answers: Tensor,
    consensus: Tensor,
    records: Samples,
    others: Samples,
    *,
    generator: torch.Generator,
    device: torch.device = CPU,
) -> Inversion | None:
    """Try to draw a client's records, class by class.

    Args:
        client: whose.
        public: images (N, *shape) in [0, 1].
        answers: the client's logits on them (N, C).
        consensus: what all answer together, logits (N, C).
        records: the client's records, to compare with.
        others: records that nobody learnt, to compare with.
        generator: of the decoder and its batches.
        device: where the decoder learns.

    Returns:
        None where no class has a record of the client's, one of nobody's and a public image.
    """
    decoder = _decoder(public, answers, consensus, generator, device)
    pair = _pairs(answers, consensus)
    says, all_say = answers.argmax(dim=-1), consensus.argmax(dim=-1)
    gap = answers.softmax(dim=-1) - consensus.softmax(dim=-1)
    drawings = []
    for label in range(answers.shape[1]):
        images, foreign = (whole(each.x)[each.y == label] for each in (records, others))
        asked = (says == label).nonzero().flatten()
        prior = public[all_say == label]
        if min(len(images), len(foreign), len(asked), len(prior)) < 2:
            continue
        surest = asked[gap[asked, label].topk(min(_SUREST, len(asked))).indices]
        with torch.no_grad():
            asking = pair[surest].mean(dim=0, keepdim=True).to(device)
            drawn = decoder(asking).cpu().reshape(public.shape[1:])
        drawings.append((label, drawn, images, foreign, prior))
    if not drawings:
        return None
    nearest = [images[_distances(drawn, images).argmin()] for _, drawn, images, _, _ in drawings]
    nearer = [_is_nearer(drawn, images, foreign) for _, drawn, images, foreign, _ in drawings]
    return Inversion(
        client,
        tuple(label for label, *_ in drawings),
        torch.stack([drawn for _, drawn, *_ in drawings]),
        torch.stack(nearest),
        tuple(_rms(drawn, images.mean(dim=0)) for _, drawn, images, _, _ in drawings),
        tuple(_rms(prior.mean(dim=0), images.mean(dim=0)) for _, _, images, _, prior in drawings),
        sum(nearer) / len(nearer),
    )


def _decoder(
    public: Tensor,
    answers: Tensor,
    consensus: Tensor,
    generator: torch.Generator,
    device: torch.device,
) -> nn.Module:
    """A network from pairs of answers to images, fitted to the public ones."""
    pairs, flat = _pairs(answers, consensus), public.flatten(1)
    with torch_default(generator):
        decoder = nn.Sequential(
            nn.Linear(pairs.shape[1], _HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, flat.shape[1]),
            nn.Sigmoid(),
        ).to(device)
    optimiser = optim.eager(torch.optim.Adam)(decoder.parameters(), lr=_RATE)
    for _ in range(_STEPS):
        rows = torch.randint(len(flat), (_BATCH,), generator=generator)
        loss = F.mse_loss(decoder(pairs[rows].to(device)), flat[rows].to(device))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return decoder.eval()


def _pairs(answers: Tensor, consensus: Tensor) -> Tensor:
    return torch.cat([answers.float(), consensus.float()], dim=1).clamp(-30, 30) / 10


def _distances(image: Tensor, images: Tensor) -> Tensor:
    return (images - image).flatten(1).square().mean(dim=1).sqrt()


def _rms(one: Tensor, other: Tensor) -> float:
    return float((one - other).square().mean().sqrt())


def _is_nearer(image: Tensor, images: Tensor, foreign: Tensor) -> float:
    """1 if one of the client's is the nearest, of equally many of each."""
    size = min(len(images), len(foreign))
    ours, theirs = (float(_distances(image, each[:size]).min()) for each in (images, foreign))
    return float(ours < theirs)
