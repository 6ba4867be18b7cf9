"""How fast models of texts learn: tokens a second, beside a plain torch loop.

    python simulations/text_speed.py

Texts are drawn, with the lengths of sentences. Both loops leave out what is padding in a whole
batch; fedkd's also has texts of like length in a batch. Seconds are of this process on one thread,
so that a busy machine changes little.
"""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from fedkd import models, tasks
from fedkd.config import ModelSpec, Optimisation, TaskChoice
from fedkd.data.types import Samples
from fedkd.learning import supervised
from fedkd.models import text
from fedkd.tasks import Task, Vocabulary

LENGTH, BATCH, COUNT, REPETITIONS = 100, 32, 2000, 5
WORDS = Vocabulary(size=4000, padding=0, start=2, end=3)
console = Console()


def drawn() -> Samples:
    """Texts of about 20 tokens, a few of them much longer."""
    draws = torch.Generator().manual_seed(0)
    lengths = torch.empty(COUNT, 1).log_normal_(3.0, 0.6, generator=draws).clamp(3, LENGTH)
    x = torch.randint(4, WORDS.size, (COUNT, LENGTH), generator=draws)
    x = x.masked_fill(torch.arange(LENGTH) >= lengths, WORDS.padding)
    return Samples(x, torch.randint(2, (COUNT,), generator=draws))


def model(name: str, task: Task) -> nn.Module:
    """The same fresh model at every call."""
    draws = torch.Generator().manual_seed(0)
    spec = ModelSpec(name=name)
    return models.build(spec, shape=task.inputs, classes=2, generator=draws, task=task)


def ours(fresh: nn.Module, samples: Samples) -> None:
    """An epoch by fedkd."""
    how = Optimisation(epochs=1, batch_size=BATCH, optimiser="adam", learning_rate=0.003)
    supervised.train(fresh, samples, how, torch.Generator().manual_seed(0))


def plain(fresh: nn.Module, samples: Samples) -> None:
    """An epoch as anybody writes it."""
    optimiser = torch.optim.Adam(fresh.parameters(), lr=0.003)
    fresh.train()
    for rows in torch.randperm(COUNT, generator=torch.Generator().manual_seed(0)).split(BATCH):
        x: Tensor = samples.x[rows]  # type: ignore[assignment]
        length = int((x != WORDS.padding).any(dim=0).nonzero().max()) + 1
        loss = F.cross_entropy(fresh(x[:, :length]), samples.y[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def seconds(learn: Callable[[nn.Module, Samples], None], fresh: nn.Module, data: Samples) -> float:
    """Of this process, for one epoch."""
    started = time.process_time()
    learn(fresh, data)
    return time.process_time() - started


def main() -> None:
    """Print a line a model: medians, interleaved, after a warm-up."""
    torch.set_num_threads(1)
    data = drawn()
    tokens = int((torch.as_tensor(data.x) != WORDS.padding).sum())
    task = tasks.build(
        TaskChoice(), inputs=(LENGTH,), names=("no", "yes"), vocabularies={"": WORDS}
    )
    names = [name for name, each in text.BUILT_IN.items() if "classes" in each.answers]
    for name in names:
        taken: dict[str, list[float]] = {"fedkd": [], "plain": []}
        for repetition in range(REPETITIONS + 1):
            for label, learn in (("fedkd", ours), ("plain", plain)):
                each = seconds(learn, model(name, task), data)
                if repetition:
                    taken[label].append(each)
        own, bare = (tokens / statistics.median(taken[label]) for label in ("fedkd", "plain"))
        console.print(
            f"{name}: {own:,.0f} tokens a second, a plain loop {bare:,.0f} ({own / bare:.2f})"
        )


if __name__ == "__main__":
    main()
