"""What hostile clients do to a federation, and what the default defence saves, over seeds.

    python simulations/poisoning.py [--methods fedmd fedavg] [--seeds 0 1 2] [--out FILE.jsonl]
    python simulations/poisoning.py --parts 0       # 3 of 10 hostile, defended; 1: 4 of 10; 2: bare
    python simulations/poisoning.py --every         # one hostile client in every method
    python simulations/poisoning.py --table         # the tables again, of what is done
    python simulations/poisoning.py --quick         # does it all run? The figures mean nothing

Packaged sample of Fashion-MNIST, 10 clients, Dirichlet 0.3, small networks of one hidden layer,
short runs: 2 to 6 seconds of CPU each. Three or four clients are hostile. A defended server has the
default of deployments, `Robust()`. The default was chosen on label flips, collusion, signs, FDLA
and backdoors alone; the other attacks are HELD OUT, and have a table of their own. Every run is a
line of FILE, written when it ends; a second call goes on after the last.
"""

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from fedkd import config
from fedkd.auditing.poisoning.attacks import ATTACKS, SILENT
from fedkd.auditing.poisoning.outcomes import HONEST, Poisoned
from fedkd.config import Experiment
from fedkd.federation.prepare import prepare
from fedkd.jobs.audit.hostile import why_unfit
from fedkd.jobs.audit.poisoning import run

SAMPLE = "fashion-mnist-sample"
HELD_OUT = ("lma", "cpa", "pcfdla", "top-k", "alie", "inner-product")
"""Attacks that nobody looked at when the default defence was chosen."""
EASY = ("collusion", "sign-and-scale")
"""What one hostile client tries in every method."""
ONE = 0.1
PARTS = ((0.3, True), (0.4, True), (0.3, False))
"""Shares of hostile clients, and whether the server defends itself: what matters most first."""
NET = {"name": "mlp", "hidden": [64]}
UNLIKE = [NET, {"name": "mlp", "hidden": [48]}, {"name": "mlp", "hidden": [32, 32]}]
METHODS: dict[str, dict[str, Any]] = {
    "fedmd": {"clients.models": UNLIKE, "data.public": {"size": 1000}},
    "dsfl": {
        "clients.models": UNLIKE,
        "data.public": {"size": 1000},
        "method.public_per_round": 500,
    },
    "feddf": {
        "data.public": {"size": 1000},
        "method.student": {
            "epochs": 5,
            "batch_size": 128,
            "optimiser": "adam",
            "learning_rate": 1e-3,
        },
    },
    "fedavg": {},
    "fedpair": {"rounds": 1, "clients.training.epochs": 5, "method.images": 10_000},
}
_SYNTHESIS = {"epochs": 30, "steps": 5, "batch_size": 64, "latent": 32, "width": 8}
_ONE_SHOT: dict[str, Any] = {"rounds": 1, "clients.training.epochs": 5}
OTHERS: dict[str, dict[str, Any]] = {
    "local": {},
    "fedprox": {},
    "fedkd": {"rounds": 6},
    "fedproto": {"data.public": {"size": 1000}},
    "fedgen": {"method.steps": 20},
    "fedftg": {"method.iterations": 2, "method.width": 8},
    "fedgkt": {"method.layer": "relu1"},
    "analytic": {"rounds": 1, "student.model": "random-filters"},
    "fedpair_moments": {**_ONE_SHOT, "method.images": 10_000},
    **{
        name: {**_ONE_SHOT, **{f"method.{key}": value for key, value in _SYNTHESIS.items()}}
        for name in ("dense", "co_boosting", "dafl")
    },
    "adi": {**_ONE_SHOT, "method.epochs": 30, "method.steps": 5, "method.batch_size": 64},
}
"""The other methods, as short as they can be and still learn; `fedlwf` is fedavg in stages, and
`sequence-kd` is for texts."""


def experiment(method: str, seed: int, *, data: str = SAMPLE, quick: bool = False) -> Experiment:
    """A method's short run."""
    table: dict[str, Any] = {
        "name": f"poisoned-{method}",
        "seed": seed,
        "rounds": 4,
        "data": {"name": data, "partition": {"scheme": "dirichlet", "alpha": 0.3}},
        "clients": {
            "count": 10,
            "models": [NET],
            "training": {"epochs": 2, "batch_size": 64, "learning_rate": 0.05},
        },
        "student": {"model": NET},
        "method": {"name": method},
    }
    changes = {**METHODS, **OTHERS}[method]
    if quick:
        changes = {**changes, "rounds": 1, "clients.training.epochs": 1}
    for key, value in changes.items():
        *sections, last = key.split(".")
        place = table
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return config.parse(table)


def cells(part: int, seed: int, attacks: Sequence[str]) -> Iterator[Poisoned]:
    """A method's runs of a seed: nobody hostile first, then one of `PARTS`."""
    for defended in (False, True):
        yield Poisoned(HONEST, 0.0, defended, seed)
    share, defended = PARTS[part]
    for attack in attacks:
        yield Poisoned(attack, share, defended, seed)


def by_one(seed: int, fit: Sequence[str]) -> Iterator[Poisoned]:
    """A method's runs with one hostile client."""
    yield Poisoned(HONEST, 0.0, defended=True, seed=seed)
    for attack in EASY:
        if attack in fit:
            yield Poisoned(attack, ONE, defended=True, seed=seed)


def applying(of: Experiment) -> list[str]:
    """The attacks that apply."""
    prepared = prepare(of)
    return [name for name in ATTACKS if not why_unfit(prepared, name)]


def done(file: Path) -> list[tuple[str, Poisoned]]:
    """What the file holds: methods and their runs."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    found = []
    for line in lines:
        each = json.loads(line)
        method = each.pop("method")
        found.append((method, Poisoned(**{**each, "hostile": tuple(each["hostile"])})))
    return found


def study(options: argparse.Namespace) -> None:
    """Run what is not done yet."""
    known = {(method, each.cell) for method, each in done(options.out)}
    names = options.methods or ((*METHODS, *OTHERS) if options.every else tuple(METHODS))
    for part, seed, method in product(options.parts, options.seeds, names):
        of = experiment(method, seed, data=options.data, quick=options.quick)
        fit = applying(of)
        for cell in by_one(seed, fit) if options.every else cells(part, seed, fit):
            if (method, cell.cell) not in known:
                known.add((method, cell.cell))
                line = json.dumps({"method": method, **asdict(run(of, cell))})
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")


def tables(found: Sequence[tuple[str, Poisoned]]) -> str:
    """Accuracy lost to each attack, in points, by method: mean over seeds, and the worst seed."""
    parts = []
    for (share, defended), held_out in product(((ONE, True), *PARTS), (False, True)):
        if rows := _rows(found, share, defended=defended, held_out=held_out):
            what = "with" if defended else "without"
            which = "held out" if held_out else "seen"
            title = f"{share:.0%} hostile, {what} the default defence, attacks {which}"
            parts.append("\n".join([title, *rows]))
    return "\n\n".join([*parts, "\n".join(_honest(found))])


def _rows(
    found: Sequence[tuple[str, Poisoned]], share: float, *, defended: bool, held_out: bool
) -> list[str]:
    lines = []
    for method in dict.fromkeys(name for name, _ in found):
        honest = _scores(found, method, HONEST, 0.0, defended=False)
        for attack in ATTACKS:
            scores = _scores(found, method, attack, share, defended=defended)
            start = honest or _scores(found, method, HONEST, 0.0, defended=True)
            lost = [100 * (start[seed] - scores[seed]) for seed in scores if seed in start]
            if not lost or (attack in HELD_OUT) != held_out:
                continue
            opened = [
                each.success
                for name, each in found
                if (name, each.attack, each.share, each.defended)
                == (method, attack, share, defended)
                and each.success is not None
            ]
            left = 100 * statistics.mean(scores.values())
            gone = _scores(found, method, SILENT, share, defended=True)
            more = [100 * (gone[seed] - scores[seed]) for seed in scores if seed in gone]
            lines.append(
                f"{method:16} {attack:15} {left:5.1f}  lost {statistics.mean(lost):5.1f} "
                f"(worst {max(lost):5.1f}; {_mean(more)} more than by silence), "
                f"success {100 * statistics.mean(opened or [0]):5.1f}, seeds {len(lost)}"
            )
    return lines


def _mean(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.1f}" if values else "?"


def _honest(found: Sequence[tuple[str, Poisoned]]) -> list[str]:
    lines = ["nobody hostile: accuracy without and with the default defence, success of a trigger"]
    for method in dict.fromkeys(name for name, _ in found):
        bare, defended = (
            _scores(found, method, HONEST, 0.0, defended=each) for each in (False, True)
        )
        both = [seed for seed in bare if seed in defended]
        if not both:
            continue
        opened = [e.success or 0.0 for m, e in found if (m, e.attack) == (method, HONEST)]
        lines.append(
            f"{method:16} {100 * statistics.mean(bare[s] for s in both):5.1f} "
            f"{100 * statistics.mean(defended[s] for s in both):5.1f}, worst seed loses "
            f"{100 * max(bare[s] - defended[s] for s in both):4.1f}; "
            f"{100 * statistics.mean(opened):4.1f}, seeds {len(both)}"
        )
    return lines


def _scores(
    found: Sequence[tuple[str, Poisoned]],
    method: str,
    attack: str,
    share: float,
    *,
    defended: bool,
) -> dict[int, float]:
    """By seed; a run that stopped has none, which counts as 0."""
    return {
        each.seed: each.score or 0.0
        for name, each in found
        if (name, each.attack, each.share, each.defended) == (method, attack, share, defended)
    }


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, *OTHERS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--parts", nargs="+", type=int, default=[0, 1, 2], choices=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("poisoning.jsonl"))
    parser.add_argument("--data", default=SAMPLE)
    parser.add_argument("--every", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study, or print its tables."""
    options = parsed(arguments)
    if not options.table:
        study(options)
    print(tables(done(options.out)))


if __name__ == "__main__":
    main()
