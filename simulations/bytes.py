"""What answers in fewer bytes cost a student: the demo's own answers replayed, and whole runs.

    python simulations/bytes.py [--forms FORM ...] [--seed 0] [--answers FOLDER]
    python simulations/bytes.py --whole [--forms FORM ...] [--seeds 0 1 2]

Replayed are the answers that clients of demo.toml gave in its rounds, which are recorded
first, or read from where an earlier run recorded them. Each form writes and reads them as on the
wire; printed are the bytes of all rounds, headers left out, how far the mean of what was read is
from the mean of what was said (KL, in nats), and the accuracy of a student that the last round's
mean teaches. What a form does to the rounds after shows in whole runs alone, which are the demo's
with `[exchange]`; there bytes are of whole messages.
"""

import argparse
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from fedkd import config
from fedkd.config import Exchange, Experiment, Optimisation, validate
from fedkd.data.types import Samples
from fedkd.exchange.aggregation import mean
from fedkd.exchange.codec import half
from fedkd.exchange.coding.fields import Written
from fedkd.federation import engines
from fedkd.federation.answers import Record, Unwatched
from fedkd.federation.prepare import PreparedExperiment, prepare
from fedkd.federation.server import Checkpoint
from fedkd.jobs.audit.recording import MESSAGES, RecordingMethod, read_messages
from fedkd.knowledge import label
from fedkd.learning import evaluate, offline
from fedkd.rng import stream
from fedkd.threads import one_intra_op_thread

DEMO = Path(__file__).parents[1] / "fedkd" / "configs" / "demo.toml"
FORMS = (
    "float16", "int8", "int4", "int3", "int2", "int1", "top1", "float16+cache=2", "int4+entropy",
    "int2+delta", "top1+delta+entropy", "transform+step=1", "transform", "transform+step=4",
    "transform+delta+step=1", "transform+delta+step=1.5", "transform+delta",
    "transform+delta+step=4", "transform+delta+cache=2",
)  # fmt: skip
WHOLE = ("transform+delta+step=1.5",)

Rounds = Mapping[int, Mapping[int, Tensor]]
"""What clients answered, by round, then by client."""


class Records:
    """A keeper of what each round came to."""

    def __init__(self) -> None:
        self.kept: list[Record] = []

    def resume(self) -> Checkpoint | None:
        """Nothing to go on from."""
        return None

    def keep(self, record: Record, checkpoint: Checkpoint, generated: Samples | None) -> None:
        """Keep the record."""
        self.kept.append(record)


def recorded(experiment: Experiment, folder: Path) -> Rounds:
    """What the demo's clients answer, from a run that writes it down."""
    if not folder.exists():
        prepared = prepare(experiment)
        recording = RecordingMethod(prepared.method, folder / MESSAGES)
        engines.simulate(replace(prepared, method=recording), Records(), Unwatched(), states=None)
    found = read_messages(folder)
    return {r: {c: each["logits"] for c, each in up.items()} for r, up in found.items()}


def replayed(how: Exchange, rounds: Rounds, prepared: PreparedExperiment) -> str:
    """A form's line: bytes up and down, distances up and down, and what a student learns."""
    spec = prepared.method.expects(prepared.setting, 0)["logits"]
    above, below = Written(how, spec, up=True), Written(how, spec, up=False)
    bases: dict[int, Tensor] = {}
    told: Tensor | None = None
    up = down = 0
    far: list[tuple[float, float]] = []
    together = torch.zeros(spec.shape)
    for round, said in rounds.items():
        plain = mean(torch.stack(list(said.values())))
        for client, answers in said.items():
            sent, bases[client] = above.write(answers, bases.get(client), round)
            up += len(sent)
        together = mean(torch.stack([bases[client] for client in said]))
        sent, told = below.write(half(together), told, round)
        down += len(sent) * len(said) * (round < len(rounds))
        far.append((_distance(plain, together), _distance(plain, told.float())))
    ups, downs = (statistics.mean(each) for each in zip(*far, strict=True))
    return (
        f"{how.name:28} {up / 1e3:7.0f} kB up {down / 1e3:7.0f} kB down   KL {ups:.4f} up "
        f"{downs:.4f} down   student {100 * taught(prepared, together):.1f}"
    )


def _distance(plain: Tensor, found: Tensor) -> float:
    return float(label.kd(found.float(), plain.float(), temperature=1.0).mean())


def taught(prepared: PreparedExperiment, answers: Tensor) -> float:
    """How good a fresh student is that learns these answers to the proxy set as in the demo."""
    setting = prepared.setting.student
    student = setting.build(prepared.experiment.student.model, purpose="student")
    how = Optimisation.model_validate(prepared.experiment.method.parameters["student"])
    draws = stream(prepared.experiment.seed, purpose="distillation", round=0)
    with one_intra_op_thread():
        loss = partial(label.kd, temperature=1.0)
        offline.distil(student, setting.proxy, answers.float(), loss, how, draws)
        test, headline = prepared.data.test, setting.task.headline
        return float(evaluate.score(student, test, [headline])[headline.figure] or 0)


def whole(form: str, seed: int) -> tuple[float, float, float]:
    """A demo's accuracy, and megabytes up and down, with answers in a form."""
    table = config.read(DEMO) | {"seed": seed, "exchange": Exchange.table(form)}
    records = Records()
    engines.simulate(prepare(validate(Experiment, table)), records, Unwatched(), states=None)
    traffic = [record["bytes"] for record in records.kept]
    up, down = (sum(each[way] for each in traffic) / 1e6 for way in ("up", "down"))
    return records.kept[-1]["student"]["accuracy"], up, down


def main() -> None:
    """Run the study and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forms", nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--answers", type=Path)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked = parser.parse_args()
    if asked.whole:
        for form in asked.forms or WHOLE:
            found = [whole(form, seed) for seed in asked.seeds]
            for seed, (accuracy, up, down) in zip(asked.seeds, found, strict=True):
                print(f"{form} seed {seed}: {100 * accuracy:.2f}, {up:.3f} MB up, "
                      f"{down:.3f} down", flush=True)  # fmt: skip
            average = statistics.mean(accuracy for accuracy, _, _ in found)
            print(f"{form}: {100 * average:.2f} on average", flush=True)
        return
    experiment = config.load(DEMO, (f"seed={asked.seed}",))
    with tempfile.TemporaryDirectory() as temporary:
        rounds = recorded(experiment, asked.answers or Path(temporary) / "demo")
        prepared = prepare(experiment)
        for form in asked.forms or FORMS:
            how = validate(Exchange, Exchange.table(form), prefix="exchange.")
            print(replayed(how, rounds, prepared), flush=True)


if __name__ == "__main__":
    main()
