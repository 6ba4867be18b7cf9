"""A distillation under differential privacy: what it costs, and that it can be protected at all."""

from torch import nn

from fedkd import rng
from fedkd.config import Distillation, RecordPrivacy
from fedkd.data.types import Dataset
from fedkd.errors import BudgetError, ConfigError
from fedkd.learning.dp import distil, sgd
from fedkd.learning.dp.checks import blaming, check_model, check_task, check_training
from fedkd.learning.forms import terms
from fedkd.models.layers import inspect_layers
from fedkd.privacy import accountant
from fedkd.privacy.budget import Budget
from fedkd.privacy.calibration import noise_for
from fedkd.privacy.events import Gaussian, Protected
from fedkd.privacy.signal import hopeless, of_steps
from fedkd.privacy.size import check_delta, in_a_step, warn_of_sizes
from fedkd.tasks import Task


def budget(privacy: RecordPrivacy) -> Budget:
    """The budget that a distillation names."""
    return Budget(privacy.epsilon, privacy.delta)


def noise(distillation: Distillation) -> sgd.Noise:
    """How each step is protected, where there is a section [privacy] that is resolved."""
    told = distillation.privacy
    if told is None or told.noise_multiplier is None:
        raise ValueError("Expected privacy.noise_multiplier, which `resolve` fills in.")
    size = told.batch_size or distillation.student.training.batch_size
    return sgd.Noise(told.noise_multiplier, told.clip, told.sample_rate, size, told.clipping)


def event(distillation: Distillation, noise_multiplier: float) -> Gaussian:
    """One training of the student."""
    rate = distillation.privacy.sample_rate if distillation.privacy else 1.0
    steps = sgd.steps(distillation.student.training.epochs, rate)
    return Gaussian("student training", noise_multiplier, rate, steps)


def plan(distillation: Distillation, noise_multiplier: float) -> list[Protected]:
    """All that a distillation costs: the student, and itself without a teacher if asked for."""
    return [event(distillation, noise_multiplier)] * (1 + distillation.plain)


def resolve(
    distillation: Distillation, privacy: RecordPrivacy, records: int, task: Task
) -> Distillation:
    """The distillation with the noise that its budget needs.

    Args:
        distillation: what would run.
        privacy: its section.
        records: how many training samples there are.
        task: what the student learns.

    Raises:
        ConfigError: a teacher may have seen the records, or the task, a form, the training or delta
            will not do.
        BudgetError: the plan costs more than the budget.
    """
    check_task(task)
    for number, teacher in enumerate(distillation.teachers):
        if teacher.weights is None or teacher.data != "public":
            raise ConfigError(
                f"teachers[{number}] may have learned from the records that [privacy] is to hide, "
                "and the student would pass on what it knows: give weights that were learned from "
                "public data and say data = 'public', or leave out [privacy]"
            )
    check_training(distillation.student.training, "student.training")
    distil.check_forms([each.name for each in distillation.knowledge])
    check_delta(privacy)
    warn_of_sizes(privacy, [records])
    allowed = budget(privacy)
    if privacy.noise_multiplier is None:
        needed = noise_for(allowed, lambda multiplier: plan(distillation, multiplier))
        told = privacy.model_copy(update={"noise_multiplier": needed})
        return distillation.model_copy(update={"privacy": told})
    cost = accountant.epsilon(plan(distillation, privacy.noise_multiplier), allowed.delta)
    if cost > allowed.epsilon:
        raise BudgetError(
            f"privacy.noise_multiplier = {privacy.noise_multiplier:g} makes the plan cost epsilon "
            f"{cost:.4g}: expected at most {allowed}; leave it out to have it computed, plan fewer "
            "epochs, or leave out the student without a teacher (plain = false)"
        )
    return distillation


def check_student(
    distillation: Distillation,
    student: nn.Module,
    teacher: nn.Module,
    dataset: Dataset,
    task: Task,
    shown: tuple[int, ...],
) -> None:
    """Refuse a student that DP-SGD cannot protect, with all that its terms look at.

    Args:
        distillation: complete.
        student: fresh; left as it is.
        teacher: of the right architecture.
        dataset: says the shape of an input, and has a test set, which nothing protects.
        task: what the student learns.
        shown: the shape of what the teacher sees of a record.

    Raises:
        ConfigError: see `protectable.check_model`; or nothing can be learned through the noise.
    """
    ours, theirs = inspect_layers(student, dataset.shape), inspect_layers(teacher, shown)
    draws = rng.stream(distillation.seed, purpose="trial")
    built = terms.build(
        distillation.knowledge, ours, theirs, draws, task.likelihood, task.vocabulary
    )
    with (
        blaming("student.model", distillation.student.model),
        distil.flat_answers(student, built) as model,
    ):
        check_model(model, dataset.shape, like=dataset.test.x)
        _check_signal(distillation, model)


def _check_signal(distillation: Distillation, model: nn.Module) -> None:
    """Refuse noise through which nothing can be learned."""
    told, protecting = distillation.privacy, noise(distillation)
    if told is None:
        return
    numbers = sum(each.numel() for each in model.parameters() if each.requires_grad)
    steps = event(distillation, protecting.noise_multiplier).steps
    signal = of_steps(
        protecting.noise_multiplier,
        records=in_a_step(told, protecting.batch_size),
        steps=steps,
        numbers=numbers,
    )
    if signal.hopeless:
        loudest = signal.loudest(protecting.noise_multiplier)
        epsilon = accountant.epsilon(plan(distillation, loudest), told.delta)
        raise hopeless(signal, epsilon, budget(told))
