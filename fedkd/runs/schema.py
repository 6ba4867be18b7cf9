"""What a run folder says, as typed values: the run's summary, its rounds, its surroundings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fedkd.config import Experiment
from fedkd.runs.continual import ContinualScores, StageScores
from fedkd.runs.late import Asynchrony
from fedkd.runs.members import Members
from fedkd.runs.scores import ACCURACY_ALONE, Numbers, RunPart, Scores, ShownScore


class TestScores(Scores):
    """Scores on the test set, or on `records` of the `of` that it has."""

    records: int | None = None
    """None: all."""
    of: int | None = None


class TeacherScores(TestScores):
    """A client's own model."""

    model: str


class Teachers(Scores):
    """The clients' models of a round, by client; figures are means, `mean_accuracy`."""

    by_client: dict[int, TeacherScores] = Field(min_length=1)


class EnsembleScore(Scores):
    """The teachers taken together."""


class PersonalScores(Scores):
    """A client's own model on `rows` of its own that never trained, and the student on the same."""

    rows: int
    student: Scores | None


class Personal(Scores):
    """Personal scores by client; figures are `mean_...` of clients, `weighted_mean_...` of rows."""

    student: Scores | None
    by_client: dict[int, PersonalScores] = Field(min_length=1)


class Traffic(RunPart):
    """Bytes as encoded: up from the clients, down to them."""

    up: int
    down: int


class Seconds(RunPart):
    """Wall-clock seconds; `phases` are summed over the clients."""

    total: float
    clients: float
    """That the server waited for them; they may have been at work before."""
    server: float
    phases: dict[str, float]


class FailedClient(RunPart):
    """A client that did not answer, and why."""

    client: int
    reason: str


class ScreenedClients(RunPart):
    """What the server found of a round's clients: see `exchange.aggregation.agreement`."""

    agreement: Mapping[str, float]
    contradiction: Mapping[str, float] = Field(default_factory=dict)
    moves: Mapping[str, float] = Field(default_factory=dict)
    alone: Mapping[str, float] = Field(default_factory=dict)
    left_out: tuple[int, ...]
    drawn_nearer: Mapping[str, float]
    unheard: Mapping[str, float] = {}
    """Who called a class too often, and on what share of inputs it was not heard for that."""
    apart: Mapping[str, float] = {}
    """How far each was from what came of all, over the median client's; of what a rule or a bound
    on sums looked at."""


class Capped(RunPart):
    """A client that weighed less than it claimed; shares in [0, 1] of all samples that answered.

    In feddf of those of the clients with its architecture.
    """

    client: int
    claimed: float
    weighed: float


class StudentScores(TestScores):
    """The student's scores after a round, and on the way there; no figures: not scored."""

    curve: Numbers = ()
    """The headline score after each epoch of the server's work, where a method measures it."""


def _not_scored(value: Any) -> Any:
    return {} if value is None else value


class Spent(RunPart):
    """The largest epsilon so far over those who spend."""

    epsilon: float
    accountant: str


class Round(RunPart):
    """A line of `rounds.jsonl`."""

    round: int
    student: Annotated[StudentScores, BeforeValidator(_not_scored)]
    """Without figures after a round that was not scored."""
    teachers: Teachers | None
    """None where there are none, or none was scored."""
    ensemble: EnsembleScore | None
    personal: Personal | None = None
    stages: StageScores | None = None
    """Where data comes in stages."""
    losses: dict[str, float | None]
    bytes: Traffic
    seconds: Seconds
    privacy: Spent | None = None
    """None where nothing is protected."""
    participants: tuple[int, ...]
    failures: tuple[FailedClient, ...]
    capped: tuple[Capped, ...] = ()
    robust: ScreenedClients | None = None
    """None where clients are not screened."""
    asynchronous: Asynchrony | None = None
    """Where rounds are asynchronous."""

    @property
    def scored(self) -> bool:
        """Whether the student was scored."""
        return bool(self.student.figures)

    @property
    def asked(self) -> int:
        """How many clients were asked: participants, and failures where not among them."""
        return len({*self.participants, *(failure.client for failure in self.failures)})

    @property
    def answered(self) -> int:
        """How many clients answered."""
        return self.asked - len({failure.client for failure in self.failures})


class StudentSummary(Scores):
    """The student after the last round; figures such as `accuracy` and `best_accuracy`."""

    model: str
    parameters: int


class TeachersSummary(Scores):
    """The clients' teachers, each as its own last round left it: `mean_accuracy` and such."""

    scored: int | None = None
    """Of how many clients, where others that took part were not scored then."""


class PrivacySummary(RunPart):
    """What was protected, and what it cost; with the unit `none` there is nothing more to say."""

    unit: Literal["none", "record", "client-votes", "client-logits"]
    epsilon: float | None = None
    """The largest over those who spent; None where nobody did."""
    delta: float | None = None
    adjacency: str | None = None
    accountant: str | None = None
    budget: float | None = None
    noise_multiplier: float | None = None
    signal_to_noise: float | None = None
    """Under the client units: a unanimous answer over the noise on it."""
    secure_aggregation: bool = False
    """Whether the server saw the sum of what clients sent and nothing else, so that what protects
    it protects the sum alone."""


class Released(RunPart):
    """A field that the clients sent: where its values come from, how often, how many bytes."""

    field: str
    provenance: str
    times: int
    bytes: int


class Summary(RunPart):
    """`summary.json`: the run in a few figures."""

    name: str
    scores: tuple[ShownScore, ...] = Field(default=ACCURACY_ALONE, min_length=1)
    method: str
    dataset: str
    seed: int
    rounds: int
    clients: int
    student: StudentSummary
    teachers: TeachersSummary | None
    ensemble: EnsembleScore | None
    personal: Personal | None = None
    bytes: Traffic
    seconds: float
    failures: int
    released: tuple[Released, ...] = ()
    """Empty where the receipts stayed with the clients, as in a deployment."""
    privacy: PrivacySummary
    continual: ContinualScores | None = None
    """Where data came in stages."""

    @property
    def headline(self) -> ShownScore:
        """The score of tables and charts."""
        return self.scores[0]

    @property
    def numbers(self) -> tuple[ShownScore, ...]:
        """The scores that are one number each."""
        return tuple(score for score in self.scores if score.number)


class Partition(RunPart):
    """`partition.json`: the samples that each client holds, by class; counts (clients, C).

    Where a sample may have several labels, or none, `sizes` has how many samples there are. Of a
    deployment no counts: nobody knows them.
    """

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...] | None = None


class Environment(RunPart):
    """`environment.json`: where the run was made. Every key is kept: all of them are shown."""

    model_config = ConfigDict(frozen=True, extra="allow")
    started: str
    device: str = "cpu"
    """Where models learnt, several apart by commas; older runs knew the CPU alone."""
    layout: int = 1
    """How the run folder is laid out; those that do not say are the first."""


class Generated(BaseModel):
    """`generated.safetensors`: images (n, C, H, W) in [0, 1] and their classes (n,)."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)
    x: NDArray[np.floating]
    y: NDArray[np.integer]


class FinishedRun(RunPart):
    """A finished run, as its folder tells it."""

    path: Path
    experiment: Experiment
    environment: Environment
    summary: Summary
    rounds: tuple[Round, ...]
    partition: Partition | None
    members: Members | None = None
    """Where the run was attacked."""

    @property
    def scored(self) -> tuple[Round, ...]:
        """The rounds after which the student was scored; the last one is among them."""
        return tuple(each for each in self.rounds if each.scored)

    @property
    def deployed(self) -> bool:
        """Whether clients were apart, so that nobody saw what each of them holds."""
        return self.partition is not None and not self.partition.counts
