"""Forms of knowledge by name: what a distillation passes on. `BUILT_IN` is the whole list.

The weight of a form is the published one unless given; docs/distil.md has them all.
"""

from collections.abc import Iterable

from fedkd.config import Knowledge, validate
from fedkd.errors import ConfigError
from fedkd.learning.forms import (
    boxes,
    feature,
    label,
    logits,
    one_for_all,
    ranking,
    relation,
    review,
    structure,
    tokens,
    transport,
    writing,
)
from fedkd.learning.forms.base import Form, Weighted
from fedkd.names import unknown
from fedkd.tasks import Task

__all__ = ["BUILT_IN", "Form", "find", "fitting", "parameters"]

BUILT_IN: dict[str, Form] = {
    **label.FORMS,
    **feature.FORMS,
    **structure.FORMS,
    **relation.FORMS,
    **boxes.FORMS,
    **ranking.FORMS,
    **tokens.FORMS,
    **writing.FORMS,
    **logits.FORMS,
    **review.FORMS,
    **one_for_all.FORMS,
    **transport.FORMS,
}


def find(name: str) -> Form:
    """A form by name.

    Raises:
        ConfigError: there is none.
    """
    if name not in BUILT_IN:
        raise ConfigError(unknown("form of knowledge", name, BUILT_IN))
    return BUILT_IN[name]


def fitting(task: Task, names: Iterable[str] = BUILT_IN) -> list[str]:
    """Those of these forms that suit a task."""
    return [name for name in names if task.offers.issuperset(BUILT_IN[name].asks)]


def parameters(knowledge: Knowledge, number: int) -> Weighted:
    """The form's parameters, complete.

    Args:
        knowledge: what the configuration says.
        number: which of the `[[knowledge]]` it is, from 0.

    Raises:
        ConfigError: the form, a key or a value is wrong.
    """
    form = find(knowledge.name)
    return validate(form.Params, knowledge.parameters, prefix=f"knowledge[{number}].")
