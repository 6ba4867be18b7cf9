"""Federated methods, by name or import path; one method, one file."""

from torch import Tensor

from fedkd.config import Experiment, Frozen, MethodChoice, Optimisation, validate
from fedkd.errors import ConfigError
from fedkd.exchange.coding.transform import MOST_COLUMNS
from fedkd.learning import augment
from fedkd.methods.core import combining
from fedkd.methods.core.base import Card, Method
from fedkd.methods.core.combining import Combined
from fedkd.methods.core.label_loss import suited
from fedkd.methods.core.pace import paced
from fedkd.methods.core.setting import Setting
from fedkd.names import imported, unknown
from fedkd.rows import Rows
from fedkd.tasks import Task

BUILT_IN = {
    "local": "fedkd.methods.local:Local",
    "centralised": "fedkd.methods.centralised:Centralised",
    "fedavg": "fedkd.methods.fedavg:FedAvg",
    "fedprox": "fedkd.methods.fedprox:FedProx",
    "scaffold": "fedkd.methods.equal.scaffold:Scaffold",
    "feddyn": "fedkd.methods.equal.feddyn:FedDyn",
    "moon": "fedkd.methods.equal.moon:MOON",
    "fedmd": "fedkd.methods.fedmd:FedMD",
    "dsfl": "fedkd.methods.dsfl:DSFL",
    "feddf": "fedkd.methods.feddf:FedDF",
    "sequence-kd": "fedkd.methods.sequence_kd:SequenceKD",
    "fedkt": "fedkd.methods.unlike.fedkt:FedKT",
    "selective-fd": "fedkd.methods.unlike.selective_fd:SelectiveFD",
    "fedmrl": "fedkd.methods.unlike.fedmrl:FedMRL",
    "dense": "fedkd.methods.data_free.dense:Dense",
    "dafl": "fedkd.methods.data_free.dafl:DAFL",
    "adi": "fedkd.methods.data_free.adi:ADI",
    "co_boosting": "fedkd.methods.data_free.co_boosting:CoBoosting",
    "fedftg": "fedkd.methods.data_free.fedftg:FedFTG",
    "fedgen": "fedkd.methods.data_free.fedgen:FedGen",
    "fedlwf": "fedkd.methods.fedlwf:FedLwF",
    "fedkd": "fedkd.methods.fedkd:FedKD",
    "fedproto": "fedkd.methods.fedproto:FedProto",
    "fedgkt": "fedkd.methods.fedgkt:FedGKT",
    "fedpair": "fedkd.methods.fedpair:FedPair",
    "fedpair_moments": "fedkd.methods.fedpair_moments:FedPairMoments",
    "analytic": "fedkd.methods.analytic:Analytic",
    "summed_steps": "fedkd.methods.summed_steps:SummedSteps",
    "fd": "fedkd.methods.unlike.fd:FD",
    "fml": "fedkd.methods.unlike.fml:FML",
    "lg-fedavg": "fedkd.methods.unlike.lg_fedavg:LGFedAvg",
    "fedgh": "fedkd.methods.unlike.fedgh:FedGH",
    "fedtgp": "fedkd.methods.unlike.fedtgp:FedTGP",
}


def find(name: str) -> type[Method]:
    """The class of a method: a built-in by name, or a user's own by import path.

    Raises:
        ConfigError: no such method, or what the path names is none.
    """
    path = BUILT_IN.get(name, name)
    if ":" not in path:
        also = ", or your own, 'package.module:Class'"
        raise ConfigError(unknown("method", name, BUILT_IN, also=also))
    found = imported(path, what="method")
    if not (isinstance(found, type) and issubclass(found, Method) and hasattr(found, "card")):
        raise ConfigError(
            f"method {name!r} is no method: expected a subclass of fedkd.methods.core.base.Method "
            "with a card"
        )
    return found


def resolve(
    experiment: Experiment, rows: int | None = None, task: Task | None = None
) -> tuple[Method, Experiment]:
    """The experiment's method, and the experiment with the method's parameters complete.

    Args:
        experiment: what will run.
        rows: of its proxy set, where they are known: on few, defaults have more epochs.
        task: where it is known: without classes, a default loss is the task's own divergence.

    Raises:
        ConfigError: an unknown method or parameter, or an experiment that the method cannot run.
    """
    kind = find(experiment.method.name)
    params = validate(kind.Params, experiment.method.parameters, prefix="method.")
    if rows is not None:
        params = paced(params, experiment.method.parameters, rows)
    if task is not None:
        params = suited(params, experiment.method.parameters, task)
    method = kind(params)
    _check_card(method, experiment)
    _check_augment(params, experiment)
    complete = params.model_dump(mode="json", exclude_none=True)
    choice = MethodChoice.model_validate({"name": experiment.method.name, **complete})
    return method, experiment.model_copy(update={"method": choice})


def check_task(method: Method, name: str, task: Task) -> None:
    """Refuse a task that does not offer what a method asks.

    Raises:
        ConfigError: names what is missing, and the methods that fit.
    """
    missing = [ask for ask in method.card.asks if ask not in task.offers]
    if missing:
        fit = [each for each in BUILT_IN if task.offers.issuperset(find(each).card.asks)]
        raise ConfigError(
            f"method {name!r} asks for {', '.join(missing)}, which task {task.name!r} on inputs of "
            f"shape {task.inputs} does not offer: choose one of {', '.join(fit)}"
        )


def check_written(method: Method, name: str, task: Task, public: Rows | None) -> None:
    """Refuse a proxy set of texts without what was written of them, where answers are compared.

    A model that writes is asked for each token after those before it.

    Raises:
        ConfigError: names the methods that fit.
    """
    words = task.vocabulary
    if words is None or not (method.card.aligns and task.targets == "tokens"):
        return
    if isinstance(public, Tensor) and bool(
        (public[:, 1 - task.answer[0] :] == words.padding).all()
    ):
        fit = [each for each in BUILT_IN if not (set(find(each).card.asks) - task.offers)]
        fit = [each for each in fit if not find(each).card.aligns]
        raise ConfigError(
            f"method {name!r} compares what models say of each token after those before it, and "
            f"the proxy set (data.public.source) has no column of what is written, data.label: add "
            f"it, take 'held-out', or choose one of {', '.join(fit)}"
        )


def check_rules(method: Method, setting: Setting) -> None:
    """Refuse what `[robust]` would do for nothing: rules that do not fit, and nothing to compare.

    So is a form of `[exchange]` for what it does not send.

    Raises:
        ConfigError: as `combining.check`, or says why, and which methods fit.
    """
    _check_exchange(method, setting)

    def fit(what: Combined) -> str:
        return ", ".join(each for each in BUILT_IN if what in find(each).card.combines)

    combining.check(setting, method.card.combines, fit)
    robust, kind = setting.experiment.robust, type(method)
    own = (kind.said, kind.probe) != (Method.said, Method.probe)
    if robust is None or not robust.screen or own:
        return
    if not any(field.startswith("model/") for field in method.expects(setting, 0)):
        raise ConfigError(
            "robust.screen compares what clients answer, or their models, and clients of method "
            f"{setting.experiment.method.name!r} send neither: leave [robust] out"
        )


def _check_exchange(method: Method, setting: Setting) -> None:
    """Refuse to write answers in few bits where there are none of which it can be said how."""
    if (how := setting.experiment.exchange) is None:
        return
    name, task = setting.experiment.method.name, setting.task
    said = f"exchange.answers = {how.answers!r}"
    if "categorical" not in task.offers:
        raise ConfigError(
            f"{said} writes a row of answers in steps of one size, and what task {task.name!r} "
            "answers are not logits of one another, so that no size fits all: leave [exchange] out"
        )
    if getattr(method.params, "top", None) is not None:
        raise ConfigError(
            f"{said} and method.top both say how answers are written: leave one of the two out"
        )
    fields = method.answers(setting)
    if not fields:
        fit = [each for each in BUILT_IN if find(each).answers is not Method.answers]
        raise ConfigError(
            f"{said} writes answers, and method {name!r} sends none: choose one of "
            f"{', '.join(fit)}, or leave [exchange] out"
        )
    if how.remembers and not all(each.lasting for each in fields.values()):
        raise ConfigError(
            f"{how.memory} goes on from the last round's answers, and method {name!r} asks about "
            "other inputs in every round: let method.public_per_round be all of the proxy set, if "
            "there is such a key, or leave it out"
        )
    rows = min(each.spec.count // each.spec.shape[-1] for each in fields.values())
    if how.cache is not None and how.cache > rows:
        raise ConfigError(
            f"{how.memory} sends a part of all rows in each of so many rounds, and answers have "
            f"{rows}: set it to at most that, or leave it out"
        )
    most = max(each.spec.shape[-1] for each in fields.values())
    if how.answers == "transform" and most > MOST_COLUMNS:
        raise ConfigError(
            f"{said} sends directions among at most {MOST_COLUMNS} classes, and answers have "
            f"{most}: choose 'int4', or leave it out and set method.top"
        )


def _check_augment(params: Frozen, experiment: Experiment) -> None:
    augment.build(experiment.clients.training.augment, key="clients.training.augment")
    for key in type(params).model_fields:
        value = getattr(params, key)
        if isinstance(value, Optimisation) and value.augment:
            raise ConfigError(
                f"method.{key}.augment changes inputs, and a method learns from answers to them as "
                "they are: leave it out; [clients.training] may have it"
            )


def _check_align(card: Card, experiment: Experiment) -> None:
    if (align := experiment.clients.align) is None:
        return
    if not card.aligns:
        fit = ", ".join(each for each in BUILT_IN if find(each).card.aligns)
        raise ConfigError(
            f"clients.align brings teachers near to the proxy set, on which method "
            f"{experiment.method.name!r} does not ask them: choose one of {fit}, or leave it out"
        )
    if experiment.data.public is None:
        raise ConfigError(
            "clients.align needs a proxy set of the other domain: add a section [data.public]"
        )
    if experiment.privacy.unit == "record":
        raise ConfigError(
            f"clients.align = {align.name!r} cannot run under privacy.unit = "
            "'record': 'coral' compares the records of a batch with each other, and 'batch-norm' "
            "needs BatchNorm, which couples them too; leave it out"
        )


def _check_card(method: Method, experiment: Experiment) -> None:
    card, name = method.card, experiment.method.name
    models = {str(model) for model in experiment.clients.models} | {str(experiment.student.model)}
    if not card.unlike_models and len(models) > 1:
        raise ConfigError(
            f"method {name!r} averages models and cannot take unlike ones "
            f"({', '.join(sorted(models))}): "
            "set clients.models and student.model to one and the same, "
            "or choose a method that exchanges logits"
        )
    if experiment.clients.privileged is not None and not card.privileged:
        fit = ", ".join(each for each in BUILT_IN if find(each).card.privileged)
        raise ConfigError(
            f"method {name!r} cannot hide [clients.privileged] from the student, which it does not "
            f"distil from answers of teachers who see more: choose one of {fit}, or leave it out"
        )
    if experiment.clients.privileged is None and experiment.unlike_views and not card.privileged:
        fit = ", ".join(each for each in BUILT_IN if find(each).card.privileged)
        raise ConfigError(
            f"method {name!r} needs all models to see the same, and clients.views and "
            f"student.views differ: choose one of {fit}, or give all the same views"
        )
    _check_align(card, experiment)
    if experiment.privacy.secure_aggregation and not card.summable:
        fit = ", ".join(each for each in BUILT_IN if find(each).card.summable)
        raise ConfigError(
            f"method {name!r} cannot run under privacy.secure_aggregation: its server part needs "
            f"each client's answer, not only their sum; choose one of {fit}, or leave it out"
        )
    if experiment.clients.asynchronous is not None and not card.asynchronous:
        fit = ", ".join(each for each in BUILT_IN if find(each).card.asynchronous)
        raise ConfigError(
            f"method {name!r} cannot run with clients.asynchronous: its server part needs all "
            f"answers of a round; choose one of {fit}, or leave it out"
        )
    if card.needs_public and experiment.data.public is None:
        raise ConfigError(
            f"method {name!r} needs a proxy set: add a section [data.public], "
            "such as source = 'held-out', size = 1000"
        )
    if card.one_shot and experiment.rounds != 1:
        raise ConfigError(
            f"key 'rounds' is {experiment.rounds}: method {name!r} is one-shot, set 1"
        )
