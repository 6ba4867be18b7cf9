"""Weights that a model starts from: which file they are, and how they get into the model."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path, PurePath

from safetensors import SafetensorError
from safetensors.torch import load as parse
from torch import Tensor, nn

from fedkd.config import RANDOM, ModelSpec, Weights
from fedkd.errors import ConfigError
from fedkd.models import heads, hub
from fedkd.models.hub import huggingface

_SUFFIX, _STUDENT, _CONFIG = ".safetensors", "student.safetensors", "config.json"
_COUNT = ".num_batches_tracked"
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
    if spec.weights is None or spec.weights.file == RANDOM:
        return spec
    where = str(Path(spec.weights.file).expanduser().resolve())
    weights = spec.weights.model_copy(update={"file": where})
    weights = weights.model_copy(update={"sha256": _digest(weights, _contents(weights))})
    return spec.model_copy(update={"weights": weights})


def random(spec: ModelSpec) -> ModelSpec:
    """The same model with random weights, for whoever puts others into it."""
    return spec.model_copy(update={"weights": Weights(file=RANDOM)})


def fixed(spec: ModelSpec, model: nn.Module) -> frozenset[str]:
    """The parameters of a model that are and stay as weights have them that all parties hold.

    Args:
        spec: whose weights are `identified`, and so the same for all; of others there are none.
        model: as it was built.
    """
    if spec.weights is None or spec.weights.file == RANDOM:
        return frozenset()
    return frozenset(name for name, each in model.named_parameters() if not each.requires_grad)


def complete(model: nn.Module, given: Mapping[str, Tensor]) -> None:
    """Give a model what a message has of it; what does not train may be left out, and stays."""
    still = {name: each for name, each in model.named_parameters() if not each.requires_grad}
    model.load_state_dict({**still, **given})


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
    if weights is None or weights.file == RANDOM:
        return
    given, state, head = _given(spec, weights, model), model.state_dict(), _head_of(model)
    if weights.head == "new":
        given = _without_head(given, state, head)
    # It counts batches, for averages that BatchNorm seldom takes; older files do not have it.
    given |= {n: t for n, t in state.items() if n.endswith(_COUNT) and n not in given}
    alone = head is not None and all(name.startswith(head) for name in _differing(given, state))
    remedy = (
        "; only its last layer differs, which weights = { file = "
        f"{Path(weights.file).name!r}, head = 'new' }} lets start fresh"
    )
    what = f"weights {weights.file!r} do not fit model {spec.name!r}"
    fit(given, model, what, remedy=remedy if alone else "")


def fit(given: Mapping[str, Tensor], model: nn.Module, what: str, *, remedy: str = "") -> None:
    """Put tensors into a model that has just these names and shapes.

    Args:
        given: by name.
        model: changed in place.
        what: is said of a misfit, before the first name that differs.
        remedy: is said after it.

    Raises:
        ConfigError: they do not fit.
    """
    state = model.state_dict()
    if names := _differing(given, state):
        raise ConfigError(f"{what}: {_difference(names[0], given, state)}{remedy}")
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
            given |= tensors(content, f"weights of model {spec.name!r} are {file!r}")
    return given


def _without_head(
    given: Mapping[str, Tensor], state: Mapping[str, Tensor], head: str | None
) -> dict[str, Tensor]:
    """Weights with a model's own tensors in place of its head's."""
    if head is None:
        raise ConfigError(
            "weights.head is 'new', and the model has no last linear layer: leave it out"
        )
    rest = {name: value for name, value in given.items() if not name.startswith(head)}
    rest |= {name: value for name, value in state.items() if name.startswith(head)}
    # What else is in a block of such a name belongs to the head, where the weights do not have it.
    block, dot, _ = head.partition(".")
    if dot and block in heads.CALLED:
        inside = {name for name in state if name.startswith(f"{block}.")}
        rest |= {name: state[name] for name in inside - rest.keys()}
    return rest


def tensors(content: bytes, what: str) -> dict[str, Tensor]:
    """What a safetensors file holds.

    Args:
        content: of the file.
        what: is to be said of it, such as `"teachers[0].weights is 'PATH'"`.

    Raises:
        ConfigError: it is something else; a pickle is not opened.
    """
    try:
        return parse(content)
    except SafetensorError as error:
        if content.startswith(_PICKLES):  # asked last: a safetensors file may begin so too
            raise ConfigError(
                f"{what}, a file of torch.save, which can run code when it is "
                "read: expected safetensors; write one from weights that you trust: safetensors."
                "torch.save_file(torch.load('IN.pt', weights_only=True), 'OUT.safetensors')"
            ) from error
        raise ConfigError(f"{what}, no safetensors file: {error}") from error


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
