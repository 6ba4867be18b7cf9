"""Everything that an experiment names, built and checked: data, models, method."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path

import torch

from fedkd import config, data, devices, methods, tasks
from fedkd.config import Experiment
from fedkd.data import stream as streaming
from fedkd.data import views
from fedkd.data.personal import keep_out
from fedkd.data.texts import tokenizer
from fedkd.data.types import FederatedData, Samples
from fedkd.data.views import Sight
from fedkd.errors import ConfigError, DataError
from fedkd.exchange.codec import Expected
from fedkd.exchange.coding.forms import AnswerForms
from fedkd.federation import personal, report
from fedkd.federation.scoring import Scoring
from fedkd.federation.secure import messages
from fedkd.learning import alignment, augment
from fedkd.methods.core import accounting, lateness, protection
from fedkd.methods.core.base import Method, Setting
from fedkd.methods.core.forecast import Forecast, forecast_plan
from fedkd.methods.core.signal import of_records
from fedkd.models.weights import identified
from fedkd.privacy.events import Protected
from fedkd.privacy.ledger import fingerprint
from fedkd.privacy.size import warn_of_sizes

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedExperiment:
    """An experiment ready to run."""

    experiment: Experiment
    method: Method
    data: FederatedData
    setting: Setting

    def own(self, client: int, round: int) -> Samples:
        """A client's training data in a round: of its stage, where data comes in stages.

        Raises:
            DataError: it has none there, and nothing hides how much it has.
        """
        samples = self.data.clients[client]
        if (stages := self.setting.stages) is None:
            return samples
        found = stages.at(round)
        if not len(samples := samples.of_stage(found)) and self.experiment.privacy.unit == "none":
            raise DataError(f"client {client} has no training records of stage {found + 1}")
        return samples

    def earlier(self, client: int, round: int, sight: Sight | None) -> Samples | None:
        """A client's training data of stages before a round's; None where it may not be kept."""
        samples, stages = self.data.clients[client], self.setting.stages
        if stages is None or samples.stage is None or self.experiment.privacy.unit != "none":
            return None
        return samples.subset((samples.stage < stages.at(round)).nonzero()[:, 0]).seen_by(sight)

    def expects(self, client: int, round: int) -> Expected:
        """What this client's answer must hold, exactly: the method's part and the report's."""
        plain = self.method.expects(self.setting, client)
        teachers, scoring = self.method.card.has_teachers, self.scoring
        return {
            **(messages.expected(plain) if self.setting.securely else plain),
            **report.expected(self.setting, scored=teachers and scoring.of(client, round)),
            **(personal.expected(self.setting) if teachers and scoring.personal(round) else {}),
        }

    @cached_property
    def scoring(self) -> Scoring:
        """Who is scored when, and on what."""
        return Scoring(self.setting, self.data.test)

    @cached_property
    def forms(self) -> AnswerForms | None:
        """How answers are written on the wire; None: as they are."""
        how = self.experiment.exchange
        return None if how is None else AnswerForms(how, self.method.answers(self.setting))

    def on_the_wire(self, client: int, round: int) -> Expected:
        """What this client's answer to a round looks like when it comes in."""
        plain = self.expects(client, round)
        return plain if self.forms is None else self.forms.expected(plain)

    @cached_property
    def deal(self) -> str:
        """Which records each client holds, as one digest: see `privacy.ledger.Part`."""
        nobodys = bytes(32)
        parts = (
            fingerprint(each.x, each.y) if len(each) else nobodys for each in self.data.clients
        )
        return sha256(b"".join(parts)).hexdigest()

    @cached_property
    def in_students_view(self) -> "PreparedExperiment":
        """The experiment in the student's view, by which it is measured and audited.

        Where the student sees all of a record it is this one.
        """
        if self.setting.seen is None:
            return self
        seen = self.data.seen_by(self.setting.seen)
        return replace(self, data=seen, setting=self.setting.student)


def prepare(
    experiment: Experiment, federated: FederatedData | None = None, *, device: str | None = None
) -> PreparedExperiment:
    """Build and check all that the experiment names, before anything runs or is written.

    Args:
        experiment: what will run.
        federated: the data as one party of a deployment sees it; None loads and splits what
            `[data]` names.
        device: where a site's models learn, by its own word; None: where `[engine]` says.

    Raises:
        ConfigError: an unknown method, model or parameter, parts that do not fit each other, or a
            device that is not here.
        DataError: a data set that is missing, corrupt or does not fit.
        BudgetError: the experiment as planned costs more than the budget that it names.
    """
    simulated = federated is None
    method, federated, setting = _assemble(experiment, federated, device)
    setting = protection.resolve(method, setting)
    if simulated:
        _warn(method, setting, federated)
    return PreparedExperiment(setting.experiment, method, federated, setting)


def forecast(experiment: Experiment, *, spent: Sequence[Protected] = ()) -> Forecast:
    """What an experiment will cost in privacy, before anything runs.

    Args:
        experiment: what would run.
        spent: what was spent before of the same data.

    Raises:
        ConfigError: as `prepare`, or nothing in the experiment is protected.
        DataError: as `prepare`.
    """
    method, federated, setting = _assemble(experiment)
    planned = forecast_plan(method, setting, spent)
    _warn(method, accounting.with_noise(setting, planned.noise_multiplier), federated)
    return planned


def _warn(method: Method, setting: Setting, federated: FederatedData) -> None:
    """Warn who holds all clients' data of what no party of a deployment may be told of."""
    personal.warn_of_withheld(setting.experiment)
    privacy = setting.experiment.privacy
    if privacy.unit != "record":
        return
    sizes = [len(client) for client in federated.clients]
    warn_of_sizes(privacy, sizes)
    mean = sum(sizes) / len(sizes)
    public, true = (of_records(method, setting, records) for records in (None, mean))
    if true.hopeless and not public.hopeless:
        _log.warning(
            "clients hold %.0f records on average, too few for the noise: %s is %.2g, expected at "
            "least %g; raise privacy.epsilon, or have more records or fewer steps",
            mean, true.what, true.ratio, true.least,
        )  # fmt: skip


def _assemble(
    experiment: Experiment, federated: FederatedData | None = None, device: str | None = None
) -> tuple[Method, FederatedData, Setting]:
    experiment = _settled(experiment)
    # A wrong key is said before data is looked for.
    kind = tasks.find(experiment.task.name)
    method, _ = methods.resolve(experiment)
    found = _devices(experiment, device)
    if federated is None:
        federated = data.federate(
            experiment.data,
            clients=experiment.clients.count,
            seed=experiment.seed,
            task=kind,
        )
    elif federated.targets != kind.targets:
        raise ConfigError(
            f"the shared data's targets are {federated.targets}, and task {experiment.task.name!r} "
            f"asks for {kind.targets}: make the file again by 'fedkd deploy share'"
        )
    else:
        federated = streaming.of_party(federated, experiment.data.stream)
    known = tokenizer.settled(experiment.data, federated.tokenizers)
    experiment = experiment.model_copy(update={"data": known})
    teachers_see, student_sees = _sights(experiment, federated)
    if not experiment.unlike_views:  # nobody has anything to do with the rest of a record
        federated = federated.seen_by(student_sees)
        teachers_see, student_sees = (), None
    share = experiment.clients.test_share
    if share is not None and not federated.held_out:
        federated = keep_out(federated, share, seed=experiment.seed)
    task = tasks.build(
        experiment.task,
        inputs=federated.shape,
        names=federated.class_names,
        vocabularies=federated.vocabularies,
        decode=federated.decode,
    )
    stages = streaming.stages(experiment.data.stream, federated.class_names, federated.targets)
    task = task if stages is None else stages.asked(task)
    stream, unit = experiment.data.stream, experiment.privacy.unit
    if stream is not None and stream.by == "time" and unit == "record":
        raise ConfigError(
            "data.stream.by is 'time', and under privacy.unit = 'record' a record more would move "
            "others to another stage: choose by = 'classes' or 'domains'"
        )
    methods.check_task(method, experiment.method.name, task)
    public = federated.public
    methods.check_written(method, experiment.method.name, task, public)
    method, experiment = methods.resolve(experiment, None if public is None else len(public), task)
    setting = Setting(
        experiment=experiment,
        task=task,
        clients=len(federated.clients),
        public=public,
        examples=federated.test.x if public is None else public,
        seen=student_sees,
        views=teachers_see,
        devices=found,
        stages=stages,
    )
    augments, follow = experiment.clients.training.augment, task.likelihood.moved is not None
    key = "clients.training.augment"
    for client in range(max(setting.clients, len(experiment.clients.models))):
        own = setting.of_client(client)
        augment.check(augments, own.shape, kind.targets, key=key, along=follow)
        own.model_specs(experiment.client_model(client))
    if (align := experiment.clients.align) is not None:
        for client in setting.first_clients:
            spec, own = experiment.client_model(client), setting.of_client(client)
            model = own.build(spec, purpose="specification")
            sizes = experiment.clients.training.batch_size, 0 if public is None else len(public)
            alignment.check(align, model, own.shape, *sizes, key="clients.align", spec=str(spec))
    setting.student.model_specs(experiment.student.model)
    method.check(setting)
    protection.check_secure(setting)
    lateness.check(setting)
    methods.check_rules(method, setting)
    for client in range(setting.clients):
        method.expects(setting, client)
    return method, federated, setting


def _devices(experiment: Experiment, own: str | None) -> tuple[torch.device, ...]:
    """Where models learn on this machine; a site is one client, and has one device.

    Raises:
        ConfigError: it is not here, or cannot protect records.
    """
    key = "engine.device" if own is None else "device"
    found = devices.resolve(experiment.engine.device if own is None else own, key=key)
    if experiment.privacy.unit == "record":
        devices.check_exact(found, experiment.engine.precision, key=key)
    return found if own is None else found[:1]


def _sights(
    experiment: Experiment, federated: FederatedData
) -> tuple[tuple[Sight | None, ...], Sight | None]:
    """What clients' teachers see, in turn, and what the student sees; None: all."""

    def find(names: Sequence[str], key: str) -> Sight | None:
        groups, x = experiment.data.views, federated.test.x
        return views.sight(names, x, federated.features, groups, key=key)

    return tuple(find(each, "clients.views") for each in experiment.clients.views), views.students(
        experiment, federated.test.x, federated.features
    )


def _settled(experiment: Experiment) -> Experiment:
    """The experiment with absolute paths, the same everywhere, and each weights' SHA-256."""
    experiment = config.with_specs(experiment, identified)
    if (folder := experiment.privacy.ledger) is None:
        return experiment
    absolute = str(Path(folder).expanduser().resolve())
    privacy = experiment.privacy.model_copy(update={"ledger": absolute})
    return experiment.model_copy(update={"privacy": privacy})


@lru_cache(maxsize=1)
def prepare_json(experiment: str) -> PreparedExperiment:
    """`prepare` from the wire's JSON string, once a process."""
    return prepare(config.parse_json(experiment))
