"""Libraries that only some need: imported late, with the remedy where one is missing."""

import importlib
import importlib.util
import sys
from typing import Any

from fedkd.errors import ConfigError

_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def load(module: str, *, extra: str) -> Any:
    """A module of an optional library.

    Args:
        module: such as `"timm"`.
        extra: of fedkd, which installs it.

    Raises:
        ConfigError: it is not installed, or does not work beside what is.
    """
    try:
        ready_torchvision()
        return importlib.import_module(module)
    except Exception as error:  # a library that does not suit another raises anything
        root = module.partition(".")[0]
        missing = isinstance(error, ModuleNotFoundError) and error.name == root
        why = "is not installed" if missing else f"fails, {type(error).__name__}: {error}"
        raise ConfigError(f"library {root!r} {why}: pip install 'fedkd[{extra}]'") from error


def ready_torchvision() -> None:
    """Let torchvision be imported beside a build of torch that it was not compiled for.

    PyPI's torchvision is compiled for torch with CUDA. Beside a CPU build its operators are
    missing, and its import fails, and so does that of timm, transformers and torchmetrics, which
    import it where it is installed. Models need none of its operators: declared, they are enough.
    """
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        import torch

        for name in _OPERATORS:
            torch.library.define(f"torchvision::{name}", _SCHEMA)
        importlib.import_module("torchvision")
