"""What is a teacher worth who sees tests that the student never will? On four real hospitals.

    FEDKD_DATA=... python simulations/heart_hospitals.py [--repeats 5] [--out runs/heart]

UCI's heart disease data: each hospital is a client, its teacher learns from all 13 tests, the
global student from the 7 cheap ones. Four folds, stratified by hospital and diagnosis, are drawn
anew in each repeat; a model is measured on each hospital's test patients by the area under the ROC
curve.

A share of the training patients (a quarter, half, four fifths) is the proxy set: they had their
tests, and nobody uses their diagnoses, in no arm but `FedAvg, more labels`, whose hospitals train
on them too.

Nothing is tuned. All models are logistic regressions under the same training, fixed beforehand: ten
rounds of ten epochs, SGD 0.05 with momentum and cosine, batch 32, weight decay 0.01; of the
methods' own parameters the student's training alone is not the default. What is done already is not
run again.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy import stats
from torch import Tensor

from fedkd import config, data, rng
from fedkd.data import FederatedData, Samples
from fedkd.data.readers import heart
from fedkd.federation import engines
from fedkd.federation.prepare import PreparedExperiment, prepare
from fedkd.learning import evaluate

CHEAP = ("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg")
PRIVILEGED = tuple(test for test in heart.TESTS if test not in CHEAP)
FOLDS = 4
SHARES = {"a quarter": 0.25, "half": 0.5, "four fifths": 0.8}
"""Of the training patients that are the proxy set."""
LINEAR = {"name": "mlp", "hidden": []}
TRAINING = {
    "epochs": 10,
    "batch_size": 32,
    "learning_rate": 0.05,
    "weight_decay": 0.01,
    "schedule": "cosine",
}
STUDENT = {**TRAINING, "epochs": 20}
console = Console()


@dataclass(frozen=True)
class Split:
    """One fold of one repeat, with one share of proxy patients."""

    repeat: int
    fold: int
    share: str

    @property
    def seed(self) -> int:
        """Of all draws of this split's arms."""
        return FOLDS * self.repeat + self.fold


def hospitals() -> list[Samples]:
    """All patients, hospital by hospital."""
    folder = next(Path(at) for at, found in data.locations(heart.NAME) if found)
    return [heart.read(folder / file) for file in heart.FILES]


def folds(own: Samples, number: int, repeat: int) -> Tensor:
    """The fold of each patient of hospital `number`: equal shares of the ill and the healthy."""
    fold = torch.empty(len(own), dtype=torch.int64)
    for label in (0, 1):
        members = torch.nonzero(own.y == label)[:, 0]
        draws = rng.stream(repeat, purpose=f"folds {label}", client=number)
        turn = torch.randperm(len(members), generator=draws)
        # Labels start at opposite ends, so that the folds differ in size by one at most.
        fold[members] = turn % FOLDS if label else FOLDS - 1 - turn % FOLDS
    return fold


def federated(patients: list[Samples], split: Split) -> tuple[FederatedData, list[Samples]]:
    """The four hospitals without fold and proxy patients, and the proxy patients with labels."""
    private, proxy, test = [], [], []
    for number, own in enumerate(patients):
        fold = folds(own, number, split.repeat)
        learning = own.subset(torch.nonzero(fold != split.fold)[:, 0])
        draws = rng.stream(split.seed, purpose="proxy", client=number)
        order = torch.randperm(len(learning), generator=draws)
        size = round(SHARES[split.share] * len(learning))
        proxy.append(learning.subset(order[:size].sort().values))
        private.append(learning.subset(order[size:].sort().values))
        test.append(own.subset(torch.nonzero(fold == split.fold)[:, 0]))
    shared = FederatedData(
        name=heart.NAME,
        classes=2,
        class_names=heart.CLASS_NAMES,
        clients=tuple(private),
        public=torch.cat([each.x for each in proxy]),
        test=joined(test),
        features=heart.FEATURES,
    )
    return shared, proxy


def joined(parts: list[Samples]) -> Samples:
    """Several samples as one."""
    return Samples(torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts]))


def experiment(method: dict[str, Any], seed: int, *, privileged: bool) -> config.Experiment:
    """All arms' experiment but for method, data and what the student sees."""
    name, longer = method["name"], method.get("epochs", TRAINING["epochs"])
    method = {key: value for key, value in method.items() if key != "epochs"}
    clients: dict[str, Any] = {"models": [LINEAR], "training": {**TRAINING, "epochs": longer}}
    if privileged:
        clients["privileged"] = {"columns": PRIVILEGED}
    return config.parse(
        {
            "name": name,
            "seed": seed,
            "rounds": 10,
            "data": {
                "name": heart.NAME,
                "partition": {"scheme": "natural"},
                "public": {"size": 1},  # whatever it says, the proxy set is the split's
            },
            "clients": clients,
            "student": {"model": LINEAR},
            "method": method,
        }
    )


CENTRALISED = {"name": "centralised"}
FEDAVG = {"name": "fedavg"}
LONGER = {"name": "fedavg", "epochs": 50}
"""FedAvg's models part for longer before they are averaged."""
FEDMD = {"name": "fedmd", "student": STUDENT}
DSFL = {"name": "dsfl", "student": STUDENT}
FEDKD = {"name": "fedkd"}


class Forgetful:
    """A keeper that keeps nothing, and an observer that looks away."""

    def resume(self) -> None:
        """There is nothing to go on from."""

    def keep(self, *_: object) -> None:
        """Keep nothing."""

    round_begins = client_does = client_ends = server_does = round_ends = keep


def answers(method: dict[str, Any], given: FederatedData, seed: int, *, privileged: bool) -> Tensor:
    """The trained student's score of each test patient, (N,): the higher, the more surely ill."""
    prepared: PreparedExperiment = prepare(experiment(method, seed, privileged=privileged), given)
    student = engines.simulate(prepared, Forgetful(), Forgetful(), states=None)
    logits = evaluate.answers(student, prepared.in_students_view.data.test.x)
    return logits[:, 1] - logits[:, 0]


def cheap(given: FederatedData) -> FederatedData:
    """The same patients with the cheap tests alone."""
    return prepare(experiment(FEDMD, 0, privileged=True), given).in_students_view.data


def alone(given: FederatedData, seed: int) -> Tensor:
    """Each hospital's own model, asked about its own test patients."""
    by_hospital = [
        answers(CENTRALISED, replace(given, clients=(own,)), seed, privileged=False)
        for own in given.clients
    ]
    return torch.stack(by_hospital)


Arm = Callable[[FederatedData, list[Samples], int], Tensor]


def more_labels(given: FederatedData, proxy: list[Samples], seed: int) -> Tensor:
    """FedAvg where the proxy patients are their hospitals' own, with their diagnoses."""
    clients = tuple(joined([a, b]) for a, b in zip(given.clients, proxy, strict=True))
    return answers(FEDAVG, cheap(replace(given, clients=clients)), seed, privileged=False)


def seeing(method: dict[str, Any], *, tests: int) -> Arm:
    """A method whose models all see the 7 cheap tests, or all 13."""

    def arm(given: FederatedData, _proxy: list[Samples], seed: int) -> Tensor:
        return answers(method, given if tests == 13 else cheap(given), seed, privileged=False)

    return arm


def taught(method: dict[str, Any]) -> Arm:
    """A method whose teachers see all 13 tests and whose student sees the 7 cheap ones."""

    def arm(given: FederatedData, _proxy: list[Samples], seed: int) -> Tensor:
        return answers(method, given, seed, privileged=True)

    return arm


ARMS: dict[str, Arm] = {
    "alone (7)": lambda given, _proxy, seed: alone(cheap(given), seed),
    "FedAvg (7)": seeing(FEDAVG, tests=7),
    "FedAvg, 50 local epochs (7)": seeing(LONGER, tests=7),
    "pooled (7)": seeing(CENTRALISED, tests=7),
    "FedMD (7)": seeing(FEDMD, tests=7),
    "FedMD, privileged (13 -> 7)": taught(FEDMD),
    "DS-FL, privileged (13 -> 7)": taught(DSFL),
    "FedKD (7)": seeing(FEDKD, tests=7),
    "FedKD, privileged (13 -> 7)": taught(FEDKD),
    "FedAvg, more labels (7)": more_labels,
    "FedAvg (13)": seeing(FEDAVG, tests=13),
    "pooled (13)": seeing(CENTRALISED, tests=13),
}
BASELINE = "FedAvg (7)"


def auc(score: Tensor, y: Tensor) -> float:
    """The probability that an ill patient scores above a healthy one, ties half."""
    gap = score[y == 1][:, None].double() - score[y == 0][None, :].double()
    return float(((gap > 0).double() + (gap == 0).double() / 2).mean())


def measured(arm: str, patients: list[Samples], split: Split) -> list[float]:
    """An arm's AUC at each hospital."""
    given, proxy = federated(patients, split)
    score = ARMS[arm](given, proxy, split.seed)
    sizes = [
        int((folds(own, number, split.repeat) == split.fold).sum())
        for number, own in enumerate(patients)
    ]
    parts = score.split(sizes, dim=-1)
    own = [part if part.ndim == 1 else part[number] for number, part in enumerate(parts)]
    return [auc(part, y) for part, y in zip(own, given.test.y.split(sizes), strict=True)]


def splits(repeats: int) -> Iterator[Split]:
    """Repeat after repeat, so that a study that is cut short has whole ones."""
    for repeat in range(repeats):
        for fold in range(FOLDS):
            yield from (Split(repeat, fold, share) for share in SHARES)


def study(file: Path, repeats: int) -> dict[tuple[str, str], np.ndarray]:
    """AUC by share and arm, (splits, hospitals); what `file` holds already is not run again."""
    done = {}
    if file.exists():
        for line in file.read_text("utf-8").splitlines():
            told = json.loads(line)
            done[told["repeat"], told["fold"], told["share"], told["arm"]] = told["auc"]
    patients = hospitals()
    jobs = [(split, arm) for split in splits(repeats) for arm in ARMS]
    with Progress(console=console) as progress, file.open("a", encoding="utf-8") as out:
        for split, arm in progress.track(jobs, description="splits x arms"):
            key = (split.repeat, split.fold, split.share, arm)
            if key not in done:
                done[key] = measured(arm, patients, split)
                told = dict(zip(("repeat", "fold", "share", "arm"), key, strict=True))
                out.write(json.dumps({**told, "auc": done[key]}) + "\n")
                out.flush()
    return {
        (share, arm): np.array([done[s.repeat, s.fold, share, arm] for s in splits(repeats)
                                if s.share == share])
        for share in SHARES
        for arm in ARMS
    }  # fmt: skip


def interval(differences: np.ndarray) -> tuple[float, float]:
    """The mean of paired differences (J,) and half the width of its 95% interval.

    Repeated folds share patients, so the plain interval is too narrow: the variance is corrected as
    in Nadeau & Bengio 2003, doi:10.1023/A:1024068626366, by 1/J + test/training.
    """
    count = len(differences)
    variance = differences.var(ddof=1) * (1 / count + 1 / (FOLDS - 1))
    return float(differences.mean()), float(stats.t.ppf(0.975, count - 1) * math.sqrt(variance))


def price(tests: tuple[str, ...]) -> float:
    """What tests cost together, in Canadian dollars of 1995, with the discounts of their groups."""
    folder = next(Path(at) for at, found in data.locations(heart.NAME) if found) / "costs"
    full, discount, group = {}, {}, {}
    for line in (folder / "heart-disease.expense").read_text("ascii").splitlines():
        if ":" in line:
            test, prices = line.split(":")
            full[test], discount[test] = (float(each) for each in prices.split(","))
    for line in (folder / "heart-disease.group").read_text("ascii").splitlines():
        if ":" in line:
            test, letter = line.split(":")
            group[test] = letter.strip(" .\t")
    paid, seen = 0.0, set()
    for test in tests:
        paid += discount[test] if group.get(test) in seen else full[test]
        seen |= {group[test]} if test in group else set()
    return paid


def compared(values: np.ndarray, baseline: np.ndarray) -> str:
    """The gain of AUCs (splits, hospitals) in the hospitals' mean, with its 95% interval."""
    gain, half = interval(values.mean(axis=1) - baseline.mean(axis=1))
    return f"{gain:+.3f} [{gain - half:+.3f}, {gain + half:+.3f}]"


def show(found: dict[tuple[str, str], np.ndarray], share: str) -> None:
    """The table of one share."""
    headings = [name.capitalize() if len(name) > 2 else name.upper() for name in heart.HOSPITALS]
    table = Table(
        "arm (tests that the model sees)",
        *headings,
        "mean",
        f"to {BASELINE}",
        "... without Switzerland",
        title=f"AUC; of the training patients {share} are the proxy set",
    )
    others = [n for n, name in enumerate(heart.HOSPITALS) if name != "switzerland"]
    baseline = found[share, BASELINE]
    for arm in ARMS:
        values = found[share, arm]
        cells = [
            f"{mean:.3f} ± {spread:.3f}"
            for mean, spread in zip(values.mean(axis=0), values.std(axis=0, ddof=1), strict=True)
        ]
        told = compared(values, baseline), compared(values[:, others], baseline[:, others])
        gains = told if arm != BASELINE else ("", "")
        table.add_row(arm, *cells, f"{values.mean():.3f}", *gains)
    console.print(table)
    for method in ("FedMD", "FedKD"):
        with_them, without = (
            found[share, f"{method}{arm}"] for arm in (", privileged (13 -> 7)", " (7)")
        )
        console.print(f"What privileged tests add to {method}: {compared(with_them, without)}")


def main() -> None:
    """Run what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/heart"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    found = study(given.out / "splits.jsonl", given.repeats)
    for share in SHARES:
        show(found, share)
    spared = price(heart.TESTS) - price(CHEAP)
    console.print(
        f"All 13 tests cost {price(heart.TESTS):.2f} Canadian dollars (1995), the 7 cheap ones "
        f"{price(CHEAP):.2f}: whom the student serves is spared {spared:.2f}."
    )


if __name__ == "__main__":
    main()
