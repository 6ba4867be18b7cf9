"""What the folder of a distillation's run says, as typed values."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from fedkd.config import Distillation, load_distillation
from fedkd.errors import ConfigError, RunFolderError
from fedkd.learning.ways.continual import FINETUNED
from fedkd.runs.continual import ContinualScores
from fedkd.runs.reading import parse, text
from fedkd.runs.schema import Environment, PrivacySummary
from fedkd.runs.scores import ACCURACY_ALONE, Numbers, RunPart, Scores, ShownScore


class Epoch(Scores):
    """A line of `rounds.jsonl`; figures are on the test set."""

    stage: str
    epoch: int
    loss: float | None
    seconds: float
    stages: Numbers = ()
    """The headline score on each stage's test records, where data comes in stages."""


class Model(Scores):
    """A model as it ended: figures on the test set, size, and milliseconds by rows of a batch."""

    model: str
    parameters: int
    bytes: int
    latency: Mapping[int, float]


class DistilSummary(RunPart):
    """`summary.json` of a distillation."""

    name: str
    scores: tuple[ShownScore, ...] = Field(default=ACCURACY_ALONE, min_length=1)
    way: str
    knowledge: tuple[str, ...]
    dataset: str
    seed: int
    student: Model
    teachers: tuple[Model, ...]
    plain: float | None
    """The headline score of the student that learned alone."""
    gain: float | None
    """By how much the student is better than that; below 0, worse."""
    seconds: float
    privacy: PrivacySummary
    own_tokens: bool = False
    """Whether the headline is of tokens, and teachers have others: it cannot be compared."""
    continual: ContinualScores | None = None
    """Where data came in stages."""

    @property
    def headline(self) -> ShownScore:
        """The score of tables and charts."""
        return self.scores[0]


class DistilRun(RunPart):
    """A finished distillation, as its folder tells it."""

    path: Path
    distillation: Distillation
    environment: Environment
    summary: DistilSummary
    epochs: tuple[Epoch, ...]

    def stage(self, name: str) -> tuple[Epoch, ...]:
        """The epochs of one training, in order."""
        return tuple(each for each in self.epochs if each.stage == name)

    @property
    def lessons(self) -> tuple[str, ...]:
        """The trainings that are the way's own, in order; the student's is the last."""
        names = dict.fromkeys(each.stage for each in self.epochs)
        return tuple(n for n in names if n != PLAIN and not n.startswith((TEACHER, FINETUNED)))


PLAIN, TEACHER = "plain student", "teacher "
"""The stage of the student that learns alone, and how those of teachers begin."""


def read(path: Path) -> DistilRun:
    """Read a finished distillation's folder, its tensors apart.

    Raises:
        RunFolderError: it is no such folder, unfinished, or a file is missing or corrupt.
    """
    if not (path / "summary.json").is_file():
        raise RunFolderError(
            f"run folder {str(path)!r} has no summary.json: the run is unfinished; "
            "finish it with --resume"
        )
    try:
        distillation = load_distillation(path / "config.toml")
    except ConfigError as error:
        raise RunFolderError(f"run folder {str(path)!r}: {error}; run it again") from error
    rounds, summary, about = (
        path / name for name in ("rounds.jsonl", "summary.json", "environment.json")
    )
    lines = text(rounds).splitlines()
    return DistilRun(
        path=path,
        distillation=distillation,
        environment=parse(Environment, text(about), about),
        summary=parse(DistilSummary, text(summary), summary),
        epochs=tuple(parse(Epoch, line, rounds, n) for n, line in enumerate(lines, 1)),
    )
