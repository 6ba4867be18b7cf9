"""Weights that a model starts from: which file they are, and how they get into the model."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path, PurePath

from safetensors import SafetensorError
from safetensors.torch import load as parse
from torch import Tensor, nn

from fedkd.config import ModelSpec, Weights
from fedkd.errors import ConfigError
from fedkd.models import heads, hub
from fedkd.models.hub import huggingface

_SUFFIX, _STUDENT, _CONFIG = ".safetensors", "student.safetensors", "config.json"
_RANDOM = "random"
_PICKLES = (b"PK\x03\x04", b"\x80")
"""How a zip archive begins, which torch.save writes, and a pickle, which it wrote before 2020."""


def identified(spec: ModelSpec) -> ModelSpec:
    """A specification that says which weights it means: where they lie, and their SHA-256.

    A Hugging Face folder's own weights are named too. The path is absolute, so that all processes
    of a run read the same file.

    Raises:
        ConfigError: there are no such weights, or their SHA-256 is not the one that is named.
    """
    spec = hub.with_own_weights(spec)
    if spec.weights is None or spec.weights.file == _RANDOM:
        return spec
    where = str(Path(spec.weights.file).expanduser().resolve())
    weights = spec.weights.model_copy(update={"file": where})
    weights = weights.model_copy(update={"sha256": _digest(weights, _contents(weights))})
    return spec.model_copy(update={"weights": weights})


def random(spec: ModelSpec) -> ModelSpec:
    """The same model with random weights, for whoever puts others into it."""
    return spec.model_copy(update={"weights": Weights(file=_RANDOM)})


def load(spec: ModelSpec, model: nn.Module) -> None:
    """Give a fresh model the weights that its specification names, BatchNorm statistics included.

    Args:
        spec: names none where the model is to stay as it is.
        model: of its architecture; its head stays as it is where `head` is `"new"`.

    Raises:
        ConfigError: they are missing, no safetensors, others than the SHA-256 says, or of another
            model: the first name that differs is said, with both shapes.
    """
    weights = hub.with_own_weights(spec).weights
    if weights is None or weights.file == _RANDOM:
        return
    given, state = _given(spec, weights, model), model.state_dict()
    kept = _unasked(model, given, new_head=weights.head == "new")
    given = {**given, **{name: state[name] for name in kept}}
    if names := _differing(given, state):
        head = _head_of(model)
        alone = head is not None and all(name.startswith(head) for name in names)
        remedy = (
            "; only its last layer differs, which weights = { file = "
            f"{Path(weights.file).name!r}, head = 'new' }} lets start fresh"
        )
        raise ConfigError(
            f"weights {weights.file!r} do not fit model {spec.name!r}: "
            f"{_difference(names[0], given, state)}{remedy if alone else ''}"
        )
    model.load_state_dict(given)


def _given(spec: ModelSpec, weights: Weights, model: nn.Module) -> dict[str, Tensor]:
    """What the files hold, by the model's names."""
    contents = _contents(weights)
    _digest(weights, contents)
    folder, path = hub.folder(spec), Path(weights.file).expanduser()
    if folder is not None and folder.resolve() == path.resolve():
        return huggingface.weights_of(path, model)
    given: dict[str, Tensor] = {}
    for file, content in contents.items():
        if file.endswith(_SUFFIX):
            given |= tensors(content, f"weights of model {spec.name!r} are", file)
    return given


def _unasked(model: nn.Module, given: Mapping[str, Tensor], *, new_head: bool) -> set[str]:
    """The names of a model's tensors that stay as they are, whatever the files say."""
    state = model.state_dict()
    # Counts batches for averages that BatchNorm seldom takes; older files do not have it.
    kept = {name for name in state if name.endswith(".num_batches_tracked") and name not in given}
    if not new_head:
        return kept
    head = _head_of(model)
    if head is None:
        raise ConfigError(
            f"model {type(model).__name__!r} has no last linear layer, so weights.head = 'new' "
            "means nothing: leave it out"
        )
    # What else a block of this name holds is a part of the head where the weights do not have it.
    block = f"{head.partition('.')[0]}."
    own = {name for name in state if name.startswith(head)}
    if block.rstrip(".") in heads.CALLED:
        own |= {name for name in state if name.startswith(block) and name not in given}
    return kept | own


def tensors(content: bytes, what: str, file: str) -> dict[str, Tensor]:
    """What a safetensors file holds.

    Args:
        content: of the file.
        what: is to be said of it, such as `"teachers[0].weights is"`.
        file: its path.

    Raises:
        ConfigError: it is something else; a pickle is not opened.
    """
    try:
        return parse(content)
    except SafetensorError as error:
        if content.startswith(_PICKLES):  # asked last: a safetensors file may begin so too
            raise ConfigError(
                f"{what} {file!r}, a file of torch.save, which can run code when it is "
                "read: expected safetensors; write one from weights that you trust: safetensors."
                "torch.save_file(torch.load('IN.pt', weights_only=True), 'OUT.safetensors')"
            ) from error
        raise ConfigError(f"{what} {file!r}, no safetensors file: {error}") from error


def _difference(name: str, given: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """How a name differs, with both shapes."""
    if name not in given:
        return f"{name!r} is missing, which is {tuple(state[name].shape)} in the model"
    if name not in state:
        return f"{name!r}, {tuple(given[name].shape)}, is nothing in the model"
    return f"{name!r} is {tuple(given[name].shape)}, and {tuple(state[name].shape)} in the model"


def _differing(given: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """In the model's order, then what the model does not have."""
    names = [name for name in state if name not in given or given[name].shape != state[name].shape]
    return names + [name for name in given if name not in state]


def _head_of(model: nn.Module) -> str | None:
    """What the names of the head's tensors begin with; None where there is no head."""
    layer = heads.find_head(model)
    names = [name for name, each in model.named_modules() if layer is not None and each is layer]
    return (f"{names[0]}." if names[0] else "") if names else None


def _digest(weights: Weights, contents: Mapping[str, bytes]) -> str:
    """The SHA-256 of the one file, or of all by name.

    Raises:
        ConfigError: it is not the one that is named.
    """
    each = {PurePath(file).name: sha256(content) for file, content in contents.items()}
    found = next(iter(each.values())).hexdigest()
    if len(each) > 1:
        lines = "".join(f"{digest.hexdigest()}  {name}\n" for name, digest in each.items())
        found = sha256(lines.encode()).hexdigest()
    if weights.sha256 not in (None, found):
        raise ConfigError(
            f"weights {weights.file!r}: their SHA-256 is {found[:16]}..., and the experiment was "
            f"made for {str(weights.sha256)[:16]}...: all parties need the same initial weights"
        )
    return found


def _contents(weights: Weights) -> dict[str, bytes]:
    """The files of weights by path.

    Raises:
        ConfigError: there are none.
    """
    path = Path(weights.file).expanduser()
    files = [path]
    if path.is_dir():
        files = sorted(path.glob(f"*{_SUFFIX}"))
        if not files:
            raise ConfigError(f"weights {weights.file!r}: the folder has no {_SUFFIX} file")
        if path / _STUDENT in files:
            files = [path / _STUDENT]
        elif (path / _CONFIG).is_file():
            files = [path / _CONFIG, *files]
    try:
        return {str(file): file.read_bytes() for file in files}
    except OSError as error:
        raise ConfigError(
            f"weights {weights.file!r}: {error.strerror}; expected a .safetensors file, a run "
            "folder or a local Hugging Face folder; nothing is downloaded"
        ) from error
