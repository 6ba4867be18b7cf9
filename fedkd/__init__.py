"""Privacy-preserving federated and data-free knowledge distillation.

    run = fedkd.simulate("demo")
    run.predict(image)

What stands in `__all__` is the interface that other programs may rely on: docs/python.md says how
far. It is imported when it is asked for, so that `import fedkd` loads no torch.
"""

import importlib
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fedkd.deprecation import moved
from fedkd.version import __version__

if TYPE_CHECKING:
    from fedkd.api.audits import audit
    from fedkd.api.run import Comparison, ReportPage, Run, load
    from fedkd.api.running import compare, distil, simulate
    from fedkd.api.sweeping import Sweep, sweep
    from fedkd.errors import FedkdError
    from fedkd.jobs.predicting.prediction import FoundBox, FoundMask, FoundPoint, Prediction

__all__ = [
    "Comparison",
    "FedkdError",
    "FoundBox",
    "FoundMask",
    "FoundPoint",
    "Prediction",
    "ReportPage",
    "Run",
    "Sweep",
    "__version__",
    "audit",
    "compare",
    "distil",
    "load",
    "simulate",
    "sweep",
]

_MODULES: Mapping[str, str] = {
    **dict.fromkeys(("compare", "distil", "simulate"), "fedkd.api.running"),
    **dict.fromkeys(("Comparison", "ReportPage", "Run", "load"), "fedkd.api.run"),
    **dict.fromkeys(
        ("FoundBox", "FoundMask", "FoundPoint", "Prediction"), "fedkd.jobs.predicting.prediction"
    ),
    **dict.fromkeys(("Sweep", "sweep"), "fedkd.api.sweeping"),
    "FedkdError": "fedkd.errors",
    "audit": "fedkd.api.audits",
}
"""Where each name is, PEP 562."""
_MOVED: Mapping[str, str] = {}
"""Names of before, and what they are called now."""

# A library speaks only to those who listen.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name in _MOVED:
        return __getattr__(moved(name, _MOVED[name]))
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
