"""Write an experiment for a user's own file: look, guess, check that it runs, write."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from fedkd import config
from fedkd.data import looking
from fedkd.data.looking import Guess, Looked, Wished
from fedkd.data.looking.toml import comment, written
from fedkd.errors import ConfigError, UsageError
from fedkd.federation.prepare import prepare
from fedkd.jobs.init.plan import plan

_ENDINGS = (".csv", ".tsv", ".npz", ".parquet", ".jsonl")
_BESIDE = ("_public", "_test", "test")
_HEAD = "# Guessed by 'fedkd init' from the data that it names: each comment says why."
_TAIL = """
# [privacy]      # with these two lines each client's teacher learns by DP-SGD, and no more is spent
# epsilon = 8    # of what one record may ever cost: 'fedkd audit plan' says what that comes to
"""


@dataclass(frozen=True)
class GuessedExperiment:
    """An experiment that was written.

    Attributes:
        file: where it stands.
        looked: what its data holds.
        guesses: its lines, each with a reason where there is one.
    """

    file: Path
    looked: Looked
    guesses: tuple[Guess, ...]


def init(data: Path | None, file: Path | None, wished: Wished) -> GuessedExperiment:
    """Write a commented experiment that `simulate` runs as it is.

    Args:
        data: of the user's own; None: the only one in the folder where the command is run.
        file: where it goes; None: NAME.toml where the command is run.
        wished: what is known already; what it leaves open is guessed.

    Raises:
        UsageError: nothing was written: the file is there already, the data is missing, damaged or
            of no known form, or something that no guess can stand for is missing.
    """
    data = _only_one(Path()) if data is None else data
    if file is not None:
        _check_free(file)
    wished = looking.with_neighbours(data, wished)
    looked = looking.look(data, wished)
    try:
        if looked.missing:
            raise ConfigError(looked.missing)
        public = 0 if wished.public is None else looking.count(Path(wished.public))
        guesses = plan(looked, wished, public)
    except ConfigError as error:
        raise ConfigError(f"{data}: {error}") from error
    file = file or Path(f"{guesses[0].value}.toml")
    _check_free(file)
    head = f"{_HEAD}\n{comment(f'fedkd simulate {file}')}\n\n"
    text = head + written(guesses) + _TAIL
    try:
        prepare(config.parse(tomllib.loads(text)))
    except UsageError as error:
        raise ConfigError(f"{data}: no experiment was written, since {error}") from error
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("x", encoding="utf-8") as stream:
        stream.write(text)
    return GuessedExperiment(file, looked, guesses)


def _check_free(file: Path) -> None:
    if file.exists():
        raise UsageError(f"{file}: is there already, and is left as it is: name another by --out")


def _only_one(folder: Path) -> Path:
    """The only file of data in a folder."""
    found = [
        each
        for each in sorted(folder.iterdir())
        if each.suffix.lower() in _ENDINGS and not each.stem.lower().endswith(_BESIDE)
    ]
    if len(found) != 1:
        names = ", ".join(each.name for each in found) or "none"
        raise UsageError(
            f"--data is missing: expected a file or a folder of data; here are: {names}"
        )
    return found[0]
