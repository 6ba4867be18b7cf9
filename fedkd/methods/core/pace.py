"""How long a student learns on a proxy set that is smaller than usual."""

import math
from collections.abc import Mapping
from typing import Any

from fedkd.config import Frozen, Optimisation, PublicData

_USUAL = PublicData.model_fields["size"].default
"""The rows for which default epochs are steps enough."""
_KEY = "student"
"""The parameter that says how a student learns on the proxy set."""


def paced(params: Frozen, said: Mapping[str, Any], rows: int) -> Frozen:
    """A method's parameters with as many steps on few rows as the default epochs are on 1,000.

    Args:
        params: validated.
        said: what the experiment itself says of them; epochs that it names stay.
        rows: of the proxy set.
    """
    how = getattr(params, _KEY, None)
    named = said.get(_KEY, {})
    if not isinstance(how, Optimisation) or "epochs" in named:
        return params
    rows = min(rows, getattr(params, "public_per_round", None) or rows)
    usual, fewer = (math.ceil(each / how.batch_size) for each in (_USUAL, rows))
    if rows >= _USUAL or fewer >= usual:
        return params
    epochs = math.ceil(how.epochs * usual / fewer)
    return params.model_copy(update={_KEY: how.model_copy(update={"epochs": epochs})})
