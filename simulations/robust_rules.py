"""What each rule of `[robust]` saves when three of ten clients are hostile, and costs when none is.

    python simulations/robust_rules.py [--seeds 0 1 2] [--out FILE.jsonl]
    python simulations/robust_rules.py --table      # the table again, of what is done
    python simulations/robust_rules.py --quick      # does it all run? The figures mean nothing

The federations of `poisoning.py`, 3 to 6 seconds of CPU a run: rules for answers in fedmd, for
models in fedavg, each alone, beside no defence and screening alone. Bulyan is left out: it stands
one liar of ten. Every run is a line of FILE; a second call goes on after the last.
"""

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import poisoning

from fedkd.auditing.poisoning.outcomes import HONEST, Poisoned
from fedkd.config import Experiment, Robust
from fedkd.jobs.audit.poisoning import run

ATTACKS = {
    "fedmd": ("label-flip", "collusion", "sign-and-scale", "lma", "cpa"),
    "fedavg": ("label-flip", "collusion", "sign-and-scale", "alie", "inner-product"),
}
DEFENCES: dict[str, dict[str, Robust | None]] = {
    "fedmd": {
        "none": None,
        "screen": Robust(),
        **{
            rule: Robust(screen=False, answers=rule)
            for rule in ("median", "trimmed-mean", "geometric-median", "cronus", "expguard")
        },
    },
    "fedavg": {
        "none": None,
        "screen": Robust(),
        **{
            rule: Robust(screen=False, models=rule)
            for rule in (
                "median",
                "trimmed-mean",
                "geometric-median",
                "multi-krum",
                "centred-clipping",
            )
        },
        "neighbours, median": Robust(screen=False, models="median", neighbours=True),
    },
}


def cells(options: argparse.Namespace) -> Iterator[tuple[str, str, Experiment, Poisoned]]:
    """Method, defence, experiment and what is run."""
    for seed in options.seeds:
        for method, defences in DEFENCES.items():
            of = poisoning.experiment(method, seed, data=options.data, quick=options.quick)
            for attack in (HONEST, *(a for a in ATTACKS[method] if a in options.attacks)):
                share = 0.0 if attack == HONEST else 0.3
                for name, robust in defences.items():
                    cell = Poisoned(attack, share, defended=robust is not None, seed=seed)
                    yield method, name, of.model_copy(update={"robust": robust}), cell


def done(file: Path) -> list[dict[str, object]]:
    """The lines of the file."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [json.loads(line) for line in lines]


def study(options: argparse.Namespace) -> None:
    """Run what is not done yet."""
    keys = ("method", "defence", "attack", "seed")
    known = {tuple(each[key] for key in keys) for each in done(options.out)}
    for method, name, of, cell in cells(options):
        if (method, name, cell.attack, cell.seed) in known:
            continue
        came = {"method": method, "defence": name, **asdict(run(of, cell))}
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(came) + "\n")


def table(found: Sequence[dict[str, object]]) -> str:
    """Accuracy by method, defence and attack, a mean over seeds; a run that stopped counts as 0."""
    lines = []
    for method, defences in DEFENCES.items():
        attacks = (HONEST, *ATTACKS[method])
        lines += [f"| {method} | {' | '.join(attacks)} |", f"|---{'|---' * len(attacks)}|"]
        for name in defences:
            means = []
            for attack in attacks:
                scores = [
                    float(str(each["score"] or 0.0))
                    for each in found
                    if (each["method"], each["defence"], each["attack"]) == (method, name, attack)
                ]
                means.append(f"{100 * statistics.mean(scores):.1f}" if scores else "")
            lines.append(f"| {name} | {' | '.join(means)} |")
        lines.append("")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study, or print its table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    every = sorted({attack for attacks in ATTACKS.values() for attack in attacks})
    parser.add_argument("--attacks", nargs="+", choices=every, default=every)
    parser.add_argument("--out", type=Path, default=Path("robust_rules.jsonl"))
    parser.add_argument("--data", default=poisoning.SAMPLE)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args(arguments)
    if not options.table:
        study(options)
    print(table(done(options.out)))


if __name__ == "__main__":
    main()
