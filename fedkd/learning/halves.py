"""Batches learned from in two halves at a time, to the same bits on one thread as on two.

Each half has a graph and gradients of its own, which are added in a fixed order. What depends on
the whole batch is worked out for all of it: BatchNorm's mean and variance, and on the way back what
its slope has of them (Ioffe & Szegedy 2015, arXiv:1502.03167), as where a batch is spread over
devices.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fedkd import devices

_LEAST = 64
"""Rows of a half; of fewer, a step is hardly faster, and costs half as much again."""
_KINDS = (
    nn.Sequential, nn.Linear, nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, nn.Identity,
    nn.ReLU, nn.GELU, nn.Tanh, nn.Flatten, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
)  # fmt: skip
"""Of these each row has its own answer, nothing is drawn and nothing kept, but for BatchNorm."""
_aten = torch.ops.aten

RowLoss = Callable[..., Tensor]
"""Of a model and a batch of each of the rows: (N,), each row's own."""


@contextmanager
def halves(model: nn.Module, threads: int | None) -> Iterator["Halves | None"]:
    """Have a model learn from halves of batches as long as the context lasts.

    Args:
        model: in training mode, on the device where it learns.
        threads: how many may work at a time; None: batches are to stay whole.

    Yields:
        None where they stay whole: as asked, elsewhere than on the CPU, or for layers that draw,
        that keep something, or of which nothing is known.
    """
    if threads is None or devices.of(model) != devices.CPU or not _may_be_halved(model):
        yield None
        return
    working = Halves(model, threads)
    normed = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in normed:
        module.forward = partial(working.normalise, module, module.forward)  # type: ignore[method-assign]
    try:
        yield working
    finally:
        for module in normed:
            del module.forward
        working.close()


def _may_be_halved(model: nn.Module) -> bool:
    plain = all(
        type(module) in _KINDS or type(module).__module__.startswith("fedkd.models.")
        for module in model.modules()
    )
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    return plain and all(n.affine and n.track_running_stats and n.momentum for n in norms)


class Halves:
    """Two halves of a batch at work; made by `halves`."""

    def __init__(self, model: nn.Module, threads: int) -> None:
        self._model = model
        self._learned = [each for each in model.parameters() if each.requires_grad]
        self._here = threading.local()
        self._barrier = threading.Barrier(2)
        self._shared: list[tuple[nn.Module, Sequence[Tensor]] | None] = [None, None]
        self._cores = threading.Semaphore(min(2, threads))
        torch.get_num_threads()  # see `Ensemble`
        self._pool = ThreadPoolExecutor(
            2, "halves", initializer=torch.set_num_threads, initargs=(1,)
        )

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def suit(self, batch: Sequence[Any]) -> bool:
        """Whether a batch of each of the rows is large enough, and tensors alone."""
        return all(isinstance(each, Tensor) and len(each) >= 2 * _LEAST for each in batch)

    def mean(self, loss: RowLoss, batch: Sequence[Tensor]) -> Tensor:
        """The mean loss of a batch, with a graph to the model's parameters.

        Raises:
            ValueError: the loss is not each row's own.
        """
        rows = len(batch[0])
        first, second = zip(*(each.tensor_split(2) for each in batch), strict=True)
        jobs = [
            self._pool.submit(copy_context().run, self._work, number, loss, part, rows)
            for number, part in enumerate((first, second))
        ]
        errors = [job.exception() for job in jobs]
        for error in sorted(filter(None, errors), key=_follows):
            raise error
        (one, slopes), (other, others) = (job.result() for job in jobs)
        added = [a + b for a, b in zip(slopes, others, strict=True)]
        return _Given.apply(one + other, added, *self._learned)  # type: ignore[no-any-return, no-untyped-call]

    def _work(
        self, number: int, loss: RowLoss, part: Sequence[Tensor], rows: int
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """A half's part of the mean loss, and of its gradients."""
        self._here.number = number
        with self._cores:
            try:
                values = loss(self._model, *part)
                if values.shape != (len(part[0]),):
                    raise ValueError(
                        f"cannot halve a loss of shape {tuple(values.shape)} for {len(part[0])} "
                        "rows: expected a value for each row"
                    )
                value = values.sum() / rows
                slopes = torch.autograd.grad(
                    value, self._learned, allow_unused=True, materialize_grads=True
                )
            except BaseException:
                self._barrier.abort()  # the other half waits for nobody
                raise
            finally:
                del self._here.number
        return value.detach(), slopes

    def normalise(
        self, module: nn.BatchNorm2d, alone: Callable[[Tensor], Tensor], x: Tensor
    ) -> Tensor:
        """What BatchNorm makes of a half, (n, C, H, W), by mean and variance of the whole batch."""
        if not module.training or not hasattr(self._here, "number"):
            return alone(x)
        return _Normalised.apply(x, module.weight, module.bias, module, self)  # type: ignore[no-any-return, no-untyped-call]

    @property
    def first(self) -> bool:
        """Whether this thread has the first half."""
        return bool(self._here.number == 0)

    def share(self, module: nn.Module, values: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """What both halves have of a layer, each value of the first and of the second."""
        self._shared[self._here.number] = module, values
        self._cores.release()
        try:
            self._barrier.wait()
            both = list(self._shared)
            self._barrier.wait()
        finally:
            self._cores.acquire()
        found = [each[1] for each in both if each is not None and each[0] is module]
        if len(found) < 2:
            raise RuntimeError("Expected both halves to be at the same layer.")
        return list(zip(*found, strict=True))


def _follows(error: BaseException | None) -> bool:
    """Whether an error only follows from the other half's."""
    return isinstance(error, threading.BrokenBarrierError)


class _Given(torch.autograd.Function):
    """A loss whose gradients are there already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, slopes: list[Tensor], *_learned: Tensor) -> Tensor:
        ctx.slopes = slopes
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(grad * each for each in ctx.slopes)


class _Normalised(torch.autograd.Function):
    """BatchNorm of a half by what the whole batch is like, forwards and backwards."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, module: nn.BatchNorm2d, both: Halves
    ) -> Tensor:
        own_mean, own_variance = _aten.batch_norm_update_stats(x, None, None, 0.0)
        places = torch.tensor(x.numel() // x.shape[1], dtype=torch.float64)
        counts, means, variances = both.share(module, (places, own_mean, own_variance))
        count = counts[0] + counts[1]
        shares = [each / count for each in counts]
        mean = shares[0] * means[0] + shares[1] * means[1]
        spreads = [v + (m - mean).square() for m, v in zip(means, variances, strict=True)]
        variance = shares[0] * spreads[0] + shares[1] * spreads[1]
        if both.first:
            _keep_running(module, mean, variance * (count / (count - 1)))
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.module, ctx.both, ctx.count = module, both, count
        return torch.batch_norm(x, weight, bias, mean, variance, False, 0.0, module.eps, False)  # noqa: FBT003

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        module, eps = ctx.module, ctx.module.eps
        training, wanted = False, [False, True, True]
        _, by_weight, by_bias = _aten.native_batch_norm_backward(
            grad, x, weight, mean, variance, None, None, training, eps, wanted
        )
        weights, biases = ctx.both.share(module, (by_weight, by_bias))
        of_x = (weights[0] + weights[1]) / ctx.count
        of_one = (biases[0] + biases[1]) / ctx.count
        inverse = (variance + eps).rsqrt()
        # weight * inverse * (grad - of_one - of_x * (x - mean) * inverse), as a + b * x + c * grad
        scale = weight * inverse
        slope = -scale * inverse * of_x
        offset = -scale * of_one - slope * mean
        a, b, c = (each[:, None, None] for each in (offset, slope, scale))
        return torch.addcmul(torch.addcmul(a, x, b), grad, c), by_weight, by_bias, None, None


@torch.no_grad()
def _keep_running(module: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    """Bring up to date what BatchNorm remembers of batches; `variance` is the unbiased one."""
    for kept, now in ((module.running_mean, mean), (module.running_var, variance)):
        if kept is not None and module.momentum is not None:
            kept.lerp_(now, module.momentum)
    if module.num_batches_tracked is not None:
        module.num_batches_tracked += 1
