"""Learning from several teachers at once, which need not be alike."""

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial, reduce
from types import TracebackType
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fedkd import devices
from fedkd.config import Optimisation
from fedkd.learning import consensus, offline
from fedkd.learning.consensus import Average
from fedkd.learning.loop import OnEpoch
from fedkd.learning.teacher_statistics import Observation, observe
from fedkd.models import call
from fedkd.rows import Rows, batches, one

R = TypeVar("R")

_MICRO_BATCH = 64  # small enough for a core's cache; fixed, as rounding may depend on it
_MICRO_BATCH_ELSEWHERE = 1024  # an accelerator has no such cache, and small work leaves it idle


class Ensemble:
    """K frozen copies of teachers in evaluation mode, worked by a pool of threads.

    Each thread computes on one core, and results do not depend on their number, bit for bit. The
    teachers given are left as they are, and their copies are on the same device. Use it as a
    context manager, or `close` it.

    Args:
        teachers: K of them, not necessarily alike.
        threads: how many work at a time.
        average: how the ensemble's answer comes of theirs: a name, see `consensus.average`, or a
            function of answers (K, N, *A), such as `consensus.by_class` with its counts bound.
    """

    def __init__(
        self,
        teachers: Sequence[nn.Module],
        *,
        threads: int = 1,
        average: Average | Callable[[Tensor], Tensor] = "logits",
    ) -> None:
        if not teachers or threads < 1:
            raise ValueError(
                f"{len(teachers)} teachers on {threads} threads: expected 1 or more of both"
            )
        self._teachers = [_frozen(teacher) for teacher in teachers]
        self.average: Callable[[Tensor], Tensor] = (
            partial(consensus.average, of=average) if isinstance(average, str) else average
        )
        """Answers (K, N, *A) to the ensemble's answer (N, *A)."""
        # PyTorch gives a thread that it meets for the first time the number that another set last,
        # so it has to meet this one before the workers set theirs.
        torch.get_num_threads()
        self._pool = ThreadPoolExecutor(
            threads, "ensemble", initializer=torch.set_num_threads, initargs=(1,)
        )

    def __len__(self) -> int:
        return len(self._teachers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the threads; the ensemble answers no more."""
        self._pool.shutdown()

    def logits(self, x: Rows) -> Tensor:
        """N inputs -> answers (K, N, *A), without gradient, where the inputs are."""
        if not isinstance(x, Tensor):  # a file is read a part at a time
            return torch.cat([self.logits(one(batch)) for batch in batches(x)], dim=1)
        on_cpu = devices.of(self._teachers[0]) == devices.CPU
        size = _MICRO_BATCH if on_cpu else _MICRO_BATCH_ELSEWHERE
        parts = torch.split(x.detach(), size)
        # One input says what an answer looks like; a whole batch would hold up all the others.
        alone = self._pool.submit(_as_here(_answer), self._teachers[0], x[:1].detach()).result()
        # Thousands of small answers kept apart would pin the memory of the activations around them.
        logits = alone.new_empty(len(self), len(x), *alone.shape[1:], device=x.device)
        jobs = [
            self._pool.submit(_as_here(_answer_into), rows, teacher, batch)
            for teacher, own in zip(self._teachers, logits, strict=True)
            for rows, batch in zip(torch.split(own, size), parts, strict=True)
        ]
        for job in jobs:
            job.result()
        return logits

    def answer(self, x: Rows) -> Tensor:
        """N inputs -> the ensemble's answer (N, *A), without gradient, where the inputs are."""
        return self.average(self.logits(x))

    def observe(self, x: Tensor) -> Observation:
        """What each teacher shows of one batch, with gradients to the inputs.

        Inputs (N, *shape) -> logits (K, N, C), BatchNorm distances (K,), activations (K, N). The
        inputs and all teachers are on one device.
        """
        shown = _Observe.apply(x, self._teachers, self._pool)  # type: ignore[no-untyped-call]
        return Observation(*shown)


class _Observe(torch.autograd.Function):
    """`observe` for many teachers at a time, forwards and backwards.

    Autograd alone would walk back through one teacher after another. Here each teacher has a graph
    of its own, from a copy of the inputs, and the gradients are summed in the teachers' order.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        teachers: list[nn.Module],
        pool: ThreadPoolExecutor,
    ) -> tuple[Tensor, ...]:
        parts = list(pool.map(_as_here(partial(_observe_copy, x.detach())), teachers))
        ctx.parts, ctx.pool = parts, pool
        ctx.set_materialize_grads(False)
        return tuple(
            torch.stack(each).detach() for each in zip(*(o for _, o in parts), strict=True)
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor, None, None]:
        rows = [[None if g is None else g[k] for g in grads] for k in range(len(ctx.parts))]
        gradients = ctx.pool.map(_gradient, ctx.parts, rows)
        return reduce(torch.add, gradients), None, None


def _observe_copy(x: Tensor, teacher: nn.Module) -> tuple[Tensor, Observation]:
    """A leaf equal to `x`, and what the teacher shows of it, with the graph between them."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        return leaf, observe(teacher, leaf)


def _gradient(part: tuple[Tensor, Observation], grads: list[Tensor | None]) -> Tensor:
    leaf, observation = part
    pairs = [
        (output, grad)
        for output, grad in zip(observation, grads, strict=True)
        if grad is not None and output.requires_grad
    ]
    if not pairs:
        return torch.zeros_like(leaf)
    outputs, seeds = zip(*pairs, strict=True)
    # An accelerator has one thread of autograd, and that thread waits for this one: see `backward`.
    with torch.autograd.set_multithreading_enabled(False):
        return torch.autograd.grad(outputs, leaf, seeds)[0]


def _answer(teacher: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return call.answer(teacher, x)


def _answer_into(rows: Tensor, teacher: nn.Module, x: Tensor) -> None:
    rows.copy_(_answer(teacher, x))


def _as_here(function: Callable[..., R]) -> Callable[..., R]:
    """A function that runs in a worker's thread in the precision of the thread that asks."""
    precision = devices.precision()

    def run(*arguments: Any) -> R:
        with devices.computing(precision):
            return function(*arguments)

    return run


def _frozen(teacher: nn.Module) -> nn.Module:
    return copy.deepcopy(teacher).eval().requires_grad_(requires_grad=False)


def distil(
    student: nn.Module,
    ensemble: Ensemble,
    x: Rows,
    loss: offline.Loss,
    optimisation: Optimisation,
    generator: torch.Generator,
    *,
    optimiser: torch.optim.Optimizer | None = None,
    on_epoch: OnEpoch | None = None,
) -> list[float]:
    """Fit the student to the ensemble's answers on `x`, computed once.

    Arguments, result and errors are those of `offline.distil`, with the ensemble for the targets.
    """
    return offline.distil(
        student,
        x,
        ensemble.answer(x),
        loss,
        optimisation,
        generator,
        optimiser=optimiser,
        on_epoch=on_epoch,
    )
