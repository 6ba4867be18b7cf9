"""Teachers that are given: which model their weights are of, and the weights themselves."""

import hashlib
from pathlib import Path

from torch import nn

from fedkd import config
from fedkd.config import ModelSpec, Optimisation, Teacher, validate
from fedkd.errors import ConfigError
from fedkd.learning import ways
from fedkd.models.weights import fit, tensors


def resolve(teacher: Teacher, number: int) -> Teacher:
    """A teacher with its model said: a run folder knows its own.

    Args:
        teacher: as configured.
        number: which of the `[[teachers]]` it is, from 0.

    Raises:
        ConfigError: the weights are not there, or something does not go with given weights.
    """
    where = f"teachers[{number}]"
    if teacher.weights is None:
        if teacher.data == "public":
            raise ConfigError(
                f"{where}.data is 'public', and this teacher is trained here on [data]: expected "
                "weights, which somebody learned from public data"
            )
        return teacher
    if teacher.training != Optimisation():
        raise ConfigError(f"{where}.training would not be used: its weights are given")
    folder = Path(teacher.weights).expanduser()
    if not folder.is_dir():
        return teacher
    try:
        run = config.read(folder / "config.toml")
        table = run.get("student", {}).get("model", "lenet5")
        spec = validate(ModelSpec, {"name": table} if isinstance(table, str) else table)
    except ConfigError as error:
        raise ConfigError(
            f"{where}.weights is {teacher.weights!r}, no run folder that can be read ({error}): "
            "expected one, or a .safetensors file"
        ) from error
    name = run.get("way", {}).get("name")
    if name in ways.BUILT_IN and ways.BUILT_IN[name].remake is not None:
        raise ConfigError(
            f"{where}.weights is {teacher.weights!r}, whose way {name!r} made another network of "
            "its student's model: expected a run whose student is a model by name"
        )
    if "model" in teacher.model_fields_set and teacher.model != spec:
        raise ConfigError(
            f"{where}.model is {str(teacher.model)!r}, and the student of {teacher.weights!r} is "
            f"{str(spec)!r}: leave the model out, the run knows it"
        )
    return teacher.model_copy(update={"model": spec})


def load_weights(teacher: Teacher, model: nn.Module, number: int) -> str:
    """Give a fresh model the given weights.

    Args:
        teacher: resolved.
        model: of its architecture; ends frozen, in evaluation mode.
        number: which of the `[[teachers]]` it is, from 0.

    Returns:
        The file's SHA-256.

    Raises:
        ConfigError: the file is missing, no safetensors (a pickle is not opened), or of another
            model.
    """
    path = Path(teacher.weights or "").expanduser()
    file = path / "student.safetensors" if path.is_dir() else path
    where = f"teachers[{number}].weights"
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{where} is {str(file)!r}: {error.strerror}; expected a run folder or a .safetensors "
            "file"
        ) from error
    given = tensors(content, f"{where} is {str(file)!r}")
    fit(given, model, f"{where} is {str(file)!r}, which are no weights of {str(teacher.model)!r}")
    model.requires_grad_(requires_grad=False).eval()
    return hashlib.sha256(content).hexdigest()
