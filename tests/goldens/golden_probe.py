"""What the arithmetic of this machine gives, by digests that know nothing of fedkd.

Sums in another order, another library or another vector unit end in other bits. Where the probe
differs from the recorded one, the goldens say nothing; where it agrees, other bits are fedkd's.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.special
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def digest(values: Iterator[Any]) -> str:
    """SHA-256 of tensors, arrays and numbers, by shape, type and bytes."""
    sha = hashlib.sha256()
    for value in values:
        array = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
        sha.update(f"{array.shape}{array.dtype}".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def _numbers(*shape: int, seed: int = 1, double: bool = False) -> Tensor:
    """Between -2 and 2 and the same everywhere: whole numbers, scaled by a power of two."""
    count = math.prod(shape)
    ranks = np.arange(count, dtype=np.uint64) * np.uint64(6364136223846793005) + np.uint64(seed)
    ranks ^= ranks >> np.uint64(29)
    ranks *= np.uint64(0xBF58476D1CE4E5B9)
    whole = (ranks >> np.uint64(42)).astype(np.float64) / 2**20 - 2
    drawn = torch.from_numpy(whole).reshape(shape)
    return drawn if double else drawn.float()


def matmul() -> Iterator[Any]:
    for n, k, m in ((1, 5, 3), (16, 64, 16), (12, 144, 8), (33, 257, 65), (240, 100, 120)):
        for double in (False, True):
            a, b = _numbers(n, k, double=double), _numbers(k, m, seed=2, double=double)
            yield a @ b
            yield b.T @ a.T
            yield a @ a.T
            yield F.linear(a, b.T, _numbers(m, seed=3, double=double))
            yield a @ b[:, 0]
    yield torch.bmm(_numbers(4, 9, 17), _numbers(4, 17, 6, seed=2))
    yield torch.einsum("nci,ncj->nij", _numbers(5, 6, 7), _numbers(5, 6, 8, seed=2))
    yield torch.cdist(_numbers(40, 12), _numbers(30, 12, seed=2))


def convolution() -> Iterator[Any]:
    for channels, filters, size, side in ((1, 6, 5, 12), (3, 8, 3, 8), (8, 16, 3, 4), (4, 4, 1, 6)):
        for stride, padding in ((1, size // 2), (2, 1)):
            x = _numbers(16, channels, side, side).requires_grad_()
            w = _numbers(filters, channels, size, size, seed=2).requires_grad_()
            b = _numbers(filters, seed=3).requires_grad_()
            y = F.conv2d(x, w, b, stride=stride, padding=padding)
            y.square().mean().backward()
            yield from (y, x.grad, w.grad, b.grad)
    x = _numbers(4, 8, 5, 5).requires_grad_()
    w = _numbers(8, 3, 4, 4, seed=2).requires_grad_()
    y = F.conv_transpose2d(x, w, stride=2, padding=1)
    y.square().mean().backward()
    yield from (y, x.grad, w.grad)
    yield F.conv2d(_numbers(2, 6, 7, 7), _numbers(6, 1, 3, 3, seed=2), groups=6)


def layers() -> Iterator[Any]:
    for layer in (
        nn.BatchNorm2d(6),
        nn.GroupNorm(2, 6),
        nn.MaxPool2d(2),
        nn.AvgPool2d(3, 2),
        nn.AdaptiveAvgPool2d(3),
        nn.Upsample(scale_factor=2),
        nn.Upsample(size=5, mode="bilinear"),
        nn.Upsample(size=5, mode="bilinear", align_corners=True),
    ):
        x = _numbers(7, 6, 8, 8).requires_grad_()
        y = layer(x)
        (y * _numbers(*y.shape, seed=2)).sum().backward()
        yield from (y, x.grad)
        yield from (each.grad for each in layer.parameters())
        yield from layer.buffers()
    x = _numbers(31, 10)
    yield from (F.layer_norm(x, (10,)), F.normalize(x), F.interpolate(x[None, None], size=(9, 4)))


def functions() -> Iterator[Any]:
    for size in (3, 1000, 40_000):
        for double in (False, True):
            x = _numbers(size, double=double)
            for of_any in (torch.exp, torch.tanh, torch.sigmoid, torch.erf, torch.sin, torch.cos):
                yield of_any(x)
            yield from (F.gelu(x), F.softplus(x), F.elu(x), torch.expm1(x), F.leaky_relu(x))
            for of_positive in (torch.log, torch.sqrt, torch.rsqrt, torch.log1p, torch.lgamma):
                yield of_positive(x.abs() + 0.01)
            yield (x.abs() + 0.01) ** 0.3
    for rows, columns in ((7, 3), (100, 10), (20, 100)):
        x, y = 4 * _numbers(rows, columns), 4 * _numbers(rows, columns, seed=2)
        yield from (x.softmax(1), x.log_softmax(1), x.logsumexp(1), x.softmax(0))
        yield F.cross_entropy(x, torch.arange(rows) % columns)
        yield F.kl_div(x.log_softmax(1), y.softmax(1), reduction="batchmean")
        yield F.cosine_similarity(x, y)


def sums() -> Iterator[Any]:
    for shape in ((7,), (1001,), (33, 65), (16, 6, 8, 8)):
        for double in (False, True):
            x = _numbers(*shape, double=double)
            yield from (x.sum(), x.mean(), x.var(), x.std(), x.norm(), x.abs().amax(), x.cumsum(0))
            yield from (x.sum(0), x.mean(-1), x.flatten().dot(x.flatten()), x.sum(-1).prod())
    x = _numbers(50, 4)
    yield torch.zeros(5, 4).index_add(0, torch.arange(50) % 5, x)
    yield torch.zeros(5, 4).scatter_add(0, (torch.arange(200) % 5).view(50, 4), x)
    yield from (x.sort(0).values, x.topk(3, dim=0).values, x.median(0).values)
    yield torch.stack([torch.quantile(x, q) for q in (0.1, 0.5, 0.9)])


def training() -> Iterator[Any]:
    for make in (
        lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=1e-3),
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3),
        lambda p: torch.optim.SGD(p, lr=0.05),
    ):
        sizes = (10, 16, 8, 3)
        parts: list[nn.Module] = []
        for seed, (into, out) in enumerate(pairwise(sizes)):
            linear = nn.Linear(into, out)
            with torch.no_grad():
                linear.weight.copy_(_numbers(out, into, seed=seed) / 4)
                linear.bias.zero_()
            parts += [linear, nn.ReLU()]
        model = nn.Sequential(*parts[:-1])
        optimiser = make(model.parameters())
        for step in range(5):
            optimiser.zero_grad()
            loss = F.cross_entropy(model(_numbers(16, 10, seed=step)), torch.arange(16) % 3)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            yield loss
        yield from model.parameters()


def algebra() -> Iterator[Any]:
    for n in (3, 21, 64):
        a, b = _numbers(2 * n, n, double=True), _numbers(2 * n, 3, seed=2, double=True)
        square = a.T @ a + torch.eye(n, dtype=torch.float64)
        yield torch.linalg.lstsq(
            a, b, driver="gelsd"
        ).solution  # gelsy, the default, varies by itself
        yield torch.linalg.solve(square, b[:n])
        yield from torch.linalg.eigh(square)
        yield from torch.linalg.svd(a, full_matrices=False)
        yield from torch.linalg.svd(a.float(), full_matrices=False)
        yield from torch.linalg.qr(a)
        yield from (torch.linalg.cholesky(square), torch.linalg.inv(square), torch.logdet(square))
    yield torch.fft.rfft2(_numbers(3, 8, 12)).abs()


def draws() -> Iterator[Any]:
    for seed in (0, 1):
        given = torch.Generator().manual_seed(seed)
        for size in (3, 15, 16, 1000):
            yield from (torch.randn(size, generator=given), torch.rand(size, generator=given))
            yield torch.randn(size, generator=given, dtype=torch.float64)
            yield from (torch.randperm(size, generator=given), torch.empty(size).uniform_(-1, 1))
            yield torch.randint(9, (size,), generator=given)
            yield torch.bernoulli(torch.full((size,), 0.3), generator=given)
            yield torch.multinomial(torch.arange(1.0, 9), size, replacement=True, generator=given)
            yield torch.empty(size).exponential_(generator=given)
            yield torch.normal(0.5, 2.0, (size,), generator=given)
        torch.manual_seed(seed)
        conv, linear = nn.Conv2d(3, 4, 3), nn.Linear(30, 7)
        yield from (conv.weight, conv.bias, linear.weight, linear.bias, F.dropout(torch.ones(99)))


def numpy() -> Iterator[Any]:
    draw = np.random.default_rng([5, 240, 12])
    yield from (draw.normal(size=500), draw.normal(size=(3, 10)), draw.uniform(0, 0.5, size=100))
    yield from (draw.dirichlet([0.3] * 8, size=9), draw.gamma(0.3, size=50), draw.permutation(77))
    yield from (draw.exponential(size=50), draw.integers(99, size=9), draw.choice(9, size=5))
    x = _numbers(1000, double=True).numpy()
    for value in (x, x.astype(np.float32)):
        yield from (np.exp(value), np.log(np.abs(value) + 1), np.tanh(value), np.sin(value))
        yield from (value.sum(), value.mean(), value.std(), np.sqrt(np.abs(value)), value @ value)
        yield value.reshape(20, 50) @ value.reshape(50, 20)
    yield np.linalg.eigvalsh(x[:400].reshape(20, 20))
    yield np.linalg.svd(x[:600].reshape(20, 30))[1]
    yield from (scipy.special.erf(x), scipy.special.ndtri(np.abs(x) / 2.1 + 0.01))
    for function in (math.exp, math.sin, math.erf, math.tanh, math.lgamma):
        yield [function(value) for value in (np.abs(x[:200]) + 0.1).tolist()]
    yield [value**0.3 for value in (np.abs(x[:200]) + 0.1).tolist()]


PARTS: tuple[Callable[[], Iterator[Any]], ...] = (
    matmul,
    convolution,
    layers,
    functions,
    sums,
    training,
    algebra,
    draws,
    numpy,
)


def probe() -> dict[str, str]:
    """The digest of each part, by its name; torch's global generator is left where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {part.__name__: digest(part()) for part in PARTS}
