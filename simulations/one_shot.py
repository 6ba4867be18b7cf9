"""One shot, no data: what each method's student is worth, by set-up and seed, beside the published.

    python simulations/one_shot.py [--set-ups dense mnist] [--methods dense fedavg] [--seeds 0 1 2]
    python simulations/one_shot.py --table            # the tables again, of what is finished
    python simulations/one_shot.py --quick            # does it all run? The figures mean nothing

What a run costs, in CPU seconds of a busy core (two share the work): clients 340 once a set-up and
seed for each start that methods train from (four, and the pooled data); servers, for each of
--epochs and five clients: dense 41, co_boosting 41, adi 68, feddf 90, dafl 178. The others take
seconds. So at 20 epochs a seed of a set-up takes some three hours of CPU, dafl one of them.

Rivals have the parameters of their configs in fedkd/configs/, and as many epochs on the server as
--epochs says; clients train 10 epochs, or as many as --local-epochs says (the papers': 100). A
trained teacher is kept in OUT/teachers, and whoever would train the same again (same start,
records, order and settings) gets it from there; DENSE, DAFL, ADI and Co-Boosting have theirs in
common. Every cell is a run folder, OUT/SET-UP/METHOD-seedN: a finished one is only read, an
unfinished one goes on. Two scripts at a time may share OUT if they run other cells.
docs/one_shot.md says how to read the tables.
"""

import argparse
import hashlib
import inspect
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from pydantic import BaseModel
from rich.console import Console
from torch import Tensor, nn

from fedkd import config, methods
from fedkd.config import Experiment
from fedkd.data.types import Samples
from fedkd.errors import FedkdError
from fedkd.exchange.codec import decode, encode
from fedkd.exchange.messages import group, prefixed
from fedkd.files import write_atomically
from fedkd.jobs.simulate import simulate
from fedkd.learning import loop, optim, supervised
from fedkd.models import classifiers
from fedkd.reports import report, wording
from fedkd.reports.display import Display
from fedkd.runs.common import check_same, write_json
from fedkd.runs.reading import read
from fedkd.runs.schema import FinishedRun
from fedkd.tasks import Likelihood
from fedkd.tasks.bounded import Bounded

CONFIGS = Path(__file__).parents[1] / "fedkd" / "configs"
METHODS: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "fedavg": ("fedavg", None, {}),
    "feddf": ("feddf", "feddf_data_free_fashion_mnist", {}),
    "dafl": ("dafl", "dafl_fashion_mnist", {"batch_size": 256}),
    "adi": ("adi", "adi_fashion_mnist", {"steps": 100}),
    "dense": ("dense", "dense_fashion_mnist", {}),
    "co_boosting": ("co_boosting", "co_boosting_fashion_mnist", {}),
    "fedftg": ("fedftg", "fedftg_fashion_mnist", {}),
    "fedgen": ("fedgen", "fedgen_mnist", {}),
    "analytic": ("analytic", "analytic_fashion_mnist", {}),
    "fedpair": ("fedpair", None, {"student_learning_rate": 0.005}),
    "fedpair_moments": ("fedpair_moments", None, {}),
    "centralised": ("centralised", None, {}),
}
"""By row: the method, the config whose parameters it has (None: defaults), and changes to them.

Those of DAFL and ADI are their configs' own for less time; only --epochs changes otherwise."""
SAMPLE = "fashion-mnist-sample"
ENSEMBLE = "dense"
"""Whose teachers' mean of logits is the ensemble that the papers list."""
QUICK: dict[str, Any] = {"epochs": 1, "steps": 1, "batch_size": 32, "width": 8, "images": 200}
QUICK |= {"student": {"epochs": 1}, "generator": {**QUICK, "batches": 1}}
QUICK["generator"].pop("epochs")
"""With --quick in place of a method's own parameters, where it has them."""


@dataclass(frozen=True)
class SetUp:
    """A config, changes to it, and what was published, in percent, at the best test epoch."""

    changes: tuple[str, ...] = ()
    config: str = "dense_fashion_mnist"
    published: tuple[float, ...] = ()
    """By `LISTED`; transcribed by another paper, [3P]."""
    beside: str = ""
    """What was published of methods that have no row here."""
    rows: tuple[str, ...] = tuple(METHODS)


LISTED = ("fedavg", "feddf", "dafl", "adi", "dense", "ensemble", "co_boosting")
CLOSED = {"config": "analytic", "rows": ("analytic",)}
ALPHA = "data.partition.alpha"
FIXED = ("data.name=fashion-mnist", f"{ALPHA}=0.01", "student.model=scattering")
SECURELY = "privacy.secure_aggregation=true"
# fmt: off
SET_UPS = {
    "dense-0.1": SetUp(
        changes=(f"{ALPHA}=0.1",), published=(41.69, 43.58, 47.14, 48.49, 50.29, 67.71),
        beside="FuseFL, two rounds and a ResNet-18: 83.15 [3P]",
    ),
    "dense-0.3": SetUp(
        changes=(f"{ALPHA}=0.3",), published=(82.96, 80.67, 80.59, 81.15, 83.96, 87.25),
        beside="FuseFL, two rounds and a ResNet-18: 89.94 [3P]",
    ),
    "dense-0.5": SetUp(
        changes=(f"{ALPHA}=0.5",), published=(83.72, 84.67, 84.02, 84.19, 85.94, 89.42),
        beside="FuseFL, two rounds and a ResNet-18: 89.47 [3P]",
    ),
    "mnist": SetUp(
        changes=(f"{ALPHA}=0.1", "data.name=mnist"),
        published=(48.24, 60.15, 64.38, 64.13, 66.61, 86.81),
        beside="FuseFL, two rounds and a ResNet-18: 97.02 [3P]",
    ),
    "co_boosting": SetUp(
        config="co_boosting_fashion_mnist",
        published=(20.07, 44.73, 41.66, 42.25, 44.77, 66.19, 50.62), beside="FuseFL: 83.65 [3P]",
    ),
    "one-class": SetUp(
        changes=('data.partition={scheme="shards",per_client=1}', "clients.count=10"),
        beside="Selective-FD, many rounds and a proxy set: 75.31 [3P]",
    ),
    "private-1": SetUp(
        changes=(*FIXED, "privacy.epsilon=1.0"), **CLOSED,
        beside="FedDiff, one shot, alpha 0.01, epsilon 1: 65.5",
    ),
    "private-8": SetUp(
        changes=(*FIXED, "privacy.epsilon=8.0"), **CLOSED,
        beside="FedDiff, one shot, alpha 0.01, epsilon 10: 73.4",
    ),
    "private-summed-1": SetUp(changes=(*FIXED, "privacy.epsilon=1.0", SECURELY), **CLOSED),
    "private-summed-8": SetUp(changes=(*FIXED, "privacy.epsilon=8.0", SECURELY), **CLOSED),
}
# fmt: on
SET = "change every cell, such as rounds=4 method.images=60000; give it a folder --out of its own"
console = Console()


@dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    set_up: str
    row: str
    seed: int

    def folder(self, out: Path) -> Path:
        """Its run folder."""
        return out / self.set_up / f"{self.row}-seed{self.seed}"


def experiment(cell: Cell, given: argparse.Namespace) -> Experiment:
    """What a cell runs, complete."""
    set_up, (name, source, changes) = SET_UPS[cell.set_up], METHODS[cell.row]
    own = {"method": {}} if source is None else config.read(CONFIGS / f"{source}.toml")
    table = config.read(CONFIGS / f"{set_up.config}.toml", set_up.changes)
    table |= {"name": f"{cell.set_up}-{cell.row}", "seed": cell.seed, "rounds": 1}
    table["clients"]["quorum"] = 1.0  # a student of some of the clients is another experiment
    table["output"] = {"evaluate": {"test_size": "all"}}  # after each of several rounds
    table["clients"].setdefault("training", {})["epochs"] = 1 if given.quick else given.local_epochs
    if cell.row == "analytic" and set_up.config != "analytic":
        table["student"] = {"model": "random-filters"} if given.quick else own["student"]
    method = table["method"] = {**own["method"], "name": name, **changes}
    fields = methods.find(name).Params.model_fields
    if source is not None and "epochs" in fields:
        method["epochs"] = given.epochs
    if "generator" in fields:
        method["generator"] = {**method["generator"], "batches": given.epochs}
    if given.quick:
        table["data"]["name"] = SAMPLE
        method |= {key: value for key, value in QUICK.items() if key in fields}
    table = config.read(table, given.set)
    return methods.resolve(config.parse(table))[1]


@dataclass(frozen=True)
class Memory:
    """Trained models on disk, by all that enters training; several scripts may share them."""

    folder: Path
    seconds: list[float] = field(default_factory=list)
    """CPU seconds of each training that was asked for: those of the time when it was done."""


@contextmanager
def remembering(memory: Memory) -> Iterator[None]:
    """Let training by labels look into `memory` first, in all threads, until the block ends.

    Under differential privacy training draws from the system's entropy, and is never remembered.
    """
    train = supervised.train
    supervised.train = partial(_recall, train, memory)
    try:
        yield
    finally:
        supervised.train = train


def _recall(
    train: Callable[..., list[float]], memory: Memory, *args: Any, **kwargs: Any
) -> list[float]:
    """`supervised.train`, or what it did to model, optimiser and generator when called so before.

    Raises:
        TypeError: an argument is of a kind that the key does not know.
    """
    call = inspect.signature(train).bind(*args, **kwargs)
    told = dict(call.arguments)
    on_epoch = told.pop("on_epoch", None)
    path = memory.folder / f"{_key(told)}.safetensors"
    model, optimiser, generator = told["model"], told.get("optimiser"), told["generator"]
    memory.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # whoever comes second need not train as well
        if not path.exists():
            since = time.thread_time()
            losses = train(*call.args, **call.kwargs)
            spent = {"losses": losses, "seconds": [time.thread_time() - since]}
            kept = {key: torch.tensor(each, dtype=torch.float64) for key, each in spent.items()}
            kept |= {"generator": generator.get_state(), **prefixed("model", model.state_dict())}
            kept |= prefixed("optimiser", {} if optimiser is None else optim.pack(optimiser))
            write_atomically(path, encode(kept))
            memory.seconds.append(float(kept["seconds"]))
            return losses
    kept = decode(path.read_bytes())
    model.load_state_dict(group("model", kept))
    model.eval()
    if optimiser is not None:
        optim.unpack(optimiser, group("optimiser", kept))
    generator.set_state(kept["generator"])
    losses = kept["losses"].tolist()
    for number, loss in enumerate(losses if on_epoch else (), start=1):
        on_epoch(number, loss)
    memory.seconds.append(float(kept["seconds"]))
    return losses


def _key(told: Mapping[str, Any]) -> str:
    """SHA-256 of all arguments of a training, of the code that trains, and of torch's version."""
    digest = hashlib.sha256(torch.__version__.encode())
    for module in (supervised, loop, optim, classifiers):
        digest.update(inspect.getsource(module).encode())
    for part in _parts(told):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    """A value as bytes that no other value has."""
    yield type(value).__name__.encode()
    plain = _plain(value)
    if isinstance(plain, Tensor):
        yield f"{plain.dtype} {tuple(plain.shape)}".encode()
        yield plain.detach().contiguous().numpy().tobytes()
    elif isinstance(plain, list | tuple):
        yield str(len(plain)).encode()
        for each in plain:
            yield from _parts(each)
    elif plain is None or isinstance(plain, int | float | str):
        yield repr(plain).encode()
    else:
        kind = type(value).__name__
        raise TypeError(f"a training is not remembered by a {kind!r}: say in `_plain` what it is")


def _plain(value: Any) -> Any:
    """What a value is made of, where it is made of others."""
    match value:
        case nn.Module():
            trained = {name: each.requires_grad for name, each in value.named_parameters()}
            plain: Any = [repr(value), trained, value.state_dict()]
        case torch.optim.Optimizer():
            settings = [{**each, "params": len(each["params"])} for each in value.param_groups]
            plain = [settings, optim.pack(value)]
        case torch.Generator():
            plain = value.get_state()
        case Samples():
            plain = [value.x, value.y]
        case BaseModel():
            plain = value.model_dump_json()
        case Likelihood() | Bounded():
            parts = [getattr(value, each.name) for each in fields(value)]
            plain = [
                f"{each.__module__}.{each.__qualname__}" if callable(each) else each
                for each in parts
            ]
        case Mapping():  # sorted, as what came by wire has another order each time
            plain = [each for key in sorted(value) for each in (key, value[key])]
        case _:
            plain = value
    return plain


def run(cell: Cell, given: argparse.Namespace) -> None:
    """Run a cell unless it is finished.

    Raises:
        FedkdError: it cannot be run, or its folder holds another experiment.
    """
    folder, wanted = cell.folder(given.out), experiment(cell, given)
    if finished(folder):
        check_same(folder, wanted, _planned(folder / "config.toml"), free={"engine", "output"})
        return
    memory, title = Memory(given.out / "teachers"), f"{cell.set_up}, {cell.row}, seed {cell.seed}"
    console.print(title, highlight=False)
    with remembering(memory), Display(console, title=title, rounds=wanted.rounds) as display:
        simulate(wanted, folder, display, resume=folder.exists())
    if memory.seconds:  # nothing is trained where a run goes on after its round
        write_json(folder / "training.json", {"cpu_seconds": sum(memory.seconds)})


def finished(folder: Path) -> bool:
    """Whether a run came to its end."""
    return (folder / "summary.json").exists()


def _planned(path: Path) -> Experiment:
    """A run's experiment before its noise was computed."""
    kept = config.load(path)
    privacy = kept.privacy.model_copy(update={"noise_multiplier": None})
    return kept.model_copy(update={"privacy": privacy})


def spread(values: Sequence[float]) -> str:
    """Percentages as mean and sample standard deviation."""
    mean = f"{100 * statistics.mean(values):.2f}"
    return mean + (f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else "")


HEADS = (
    *("method", "last epoch", "best epoch", "ensemble", "sent by a client"),
    *("training, CPU s", "server, s", "seeds", "published, best epoch"),
)


def markdown(name: str, runs: Mapping[str, Sequence[FinishedRun]]) -> str:
    """A set-up's table."""
    set_up = SET_UPS[name]
    published = {row: f"{at:.2f} [3P]" for row, at in zip(LISTED, set_up.published, strict=False)}
    rows = [HEADS, ("---",) * len(HEADS)]
    rows += [(*_row(row, own), published.get(row, "")) for row, own in runs.items()]
    if answers := [run.summary.ensemble for run in runs.get(ENSEMBLE, ()) if run.summary.ensemble]:
        reached = spread([each.number("accuracy") for each in answers])
        rows.append(
            ("*ensemble*, mean of logits", reached, *[""] * 6, published.get("ensemble", ""))
        )
    lines = [f"| {' | '.join(row)} |" for row in rows]
    beside = ["", f"Published beside: {set_up.beside}."] if set_up.beside else []
    by_round = ["", *several] if (several := list(_by_round(runs))) else []
    return "\n".join([f"### {name}", "", *lines, *beside, *by_round])


def _by_round(runs: Mapping[str, Sequence[FinishedRun]]) -> Iterator[str]:
    """A line for each run of several rounds: how good student and ensemble were after each."""
    for row, own in runs.items():
        for run in own:
            if len(run.rounds) > 1:
                students = [each.student.number("accuracy") for each in run.scored]
                heard = [each.ensemble.number("accuracy") for each in run.scored if each.ensemble]
                yield (
                    f"- `{row}`, seed {run.summary.seed}, by round: student {_percent(students)}; "
                    f"ensemble {_percent(heard)}"
                )


def _percent(values: Sequence[float]) -> str:
    return ", ".join(f"{100 * each:.2f}" for each in values)


def _row(row: str, runs: Sequence[FinishedRun]) -> tuple[str, ...]:
    every = [run.summary for run in runs]
    known = [each.ensemble.number("accuracy") for each in every if each.ensemble is not None]
    trained = [at for run in runs if (at := run.path / "training.json").exists()]
    seconds = [json.loads(at.read_text("utf-8"))["cpu_seconds"] for at in trained]
    return (
        f"`{row}`",
        spread([each.student.number("accuracy") for each in every]),
        spread([each.student.number("best_accuracy") for each in every]),
        spread(known) if len(known) == len(runs) else "",
        wording.size(statistics.mean(each.bytes.up / each.clients for each in every)),
        f"{statistics.mean(seconds):.0f}" if len(seconds) == len(runs) else "",
        f"{statistics.mean(sum(e.seconds.server for e in run.rounds) for run in runs):.0f}",
        ", ".join(str(each.seed) for each in every),
    )


def chosen(given: argparse.Namespace) -> list[Cell]:
    """The grid, a seed of everything before the next, so that there are tables early."""
    return [
        Cell(name, row, seed)
        for seed in given.seeds
        for name, set_up in SET_UPS.items()
        for row in set_up.rows
        if row in given.methods and any(f"{name}-".startswith(f"{s}-") for s in given.set_ups)
    ]


def tell(cells: Sequence[Cell], out: Path) -> None:
    """Print the tables of finished cells; write them, and a page for each set-up, into `out`."""
    told: dict[str, dict[str, list[FinishedRun]]] = {}
    for cell in cells:
        told.setdefault(cell.set_up, {}).setdefault(cell.row, []).append(read(cell.folder(out)))
    for name, runs in told.items():
        paths = [run.path for own in runs.values() for run in own]
        report.write_comparison(paths, out / name / "report.html")
    if told:
        text = "\n\n".join(markdown(name, runs) for name, runs in told.items())
        write_atomically(out / "tables.md", text + "\n")
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and print the tables; 1 if a cell failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names, rows = [*SET_UPS, "dense", "private"], [*METHODS]
    parser.add_argument("--set-ups", nargs="+", choices=names, default=[*SET_UPS])
    parser.add_argument("--methods", nargs="+", choices=rows, default=rows)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20, help="of rivals' servers; published: 200")
    parser.add_argument("--local-epochs", type=int, default=10, help="of clients; published: 100")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help=SET)
    parser.add_argument("--quick", action="store_true", help="the packaged sample, an epoch of all")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path, help="default: runs/one-shot, with --quick -quick")
    given = parser.parse_args(arguments)
    given.out = given.out or Path(f"runs/one-shot{'-quick' if given.quick else ''}")
    failed, done = [], []
    for cell in chosen(given):
        if given.table and not finished(cell.folder(given.out)):
            continue
        try:
            run(cell, given)
            done.append(cell)
        except Exception as error:  # noqa: BLE001 - the others go on, and it is told at the end
            failed.append(f"failed: {cell.set_up}, {cell.row}, seed {cell.seed}: {error}")
            if not isinstance(error, FedkdError):
                console.print_exception()
    tell(done, given.out)
    for line in failed:
        console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
