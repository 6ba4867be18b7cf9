"""Reading a run folder again and again while its run writes it: what is new, and if it is alive."""

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

from fedkd.config import Experiment, load
from fedkd.errors import ConfigError, RunFolderError
from fedkd.files import storing
from fedkd.runs.folder import DEPLOYMENT
from fedkd.runs.reading import parse, text
from fedkd.runs.schema import FailedClient, Round
from fedkd.runs.scores import ACCURACY_ALONE, RunPart, Scores, ShownScore
from fedkd.runs.under_way.live import FILE, Live, read_live

_GONE_AFTER, _SILENT_AFTER = 3.0, 15.0
"""Seconds without a sign after which a process that is not there counts as gone, and a run whose
process cannot be looked for as silent."""


@dataclass(frozen=True)
class RoundOver:
    """What is shown of a round that is over; scores are None where it was not scored."""

    round: int
    student: float | None
    teachers: float | None
    asked: int
    answered: int
    failures: tuple[FailedClient, ...]
    seconds: float
    up: int
    down: int
    epsilon: float | None


@dataclass(frozen=True)
class RunNow:
    """A run as its folder has it at one moment."""

    experiment: Experiment
    live: Live | None
    """None where it does not say: of an earlier fedkd, or not begun."""
    rounds: tuple[RoundOver, ...]
    names: tuple[str, ...]
    """Of a deployment's clients; empty in a simulation, where clients have numbers."""
    score: ShownScore
    last_sign: float | None
    """When it last wrote that it is alive, in seconds since 1970."""
    alive: bool | None
    """Whether its process runs; None: it has not written for long, and nobody can tell."""
    finished: bool
    """Whether it has come to its end and its summary."""
    report: bool

    @property
    def deployed(self) -> bool:
        """Whether the clients are apart."""
        return bool(self.names)


class _Clients(RunPart):
    """Of `deployment.json`: the clients' nodes by name."""

    clients: dict[str, int]


class Following:
    """Reads a run folder, each line of it once, unless the run goes back on resume.

    Args:
        folder: the run folder; it need not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: tuple[int, int] | None = None
        """Which file of rounds was read, and how far."""
        self._rounds: list[RoundOver] = []
        self._beat: tuple[int, int] | None = None
        self._heard = 0.0

    def look(self) -> RunNow | None:
        """The run now; None where none has begun in this folder.

        Raises:
            RunFolderError: what is there is no run of a federation, or is damaged.
        """
        if not (self.folder / "config.toml").is_file():
            _check_empty(self.folder)
            return None
        try:
            experiment = load(self.folder / "config.toml")
        except ConfigError as error:
            raise RunFolderError(
                f"run folder {str(self.folder)!r} holds no experiment of a federation ({error}): "
                "name the folder of a simulation or a deployment"
            ) from error
        live = read_live(self.folder)
        score = live.score if live is not None else ACCURACY_ALONE[0]
        self._read_rounds(score)
        sign, alive = self._sign_of_life(live)
        return RunNow(
            experiment=experiment,
            live=live,
            rounds=tuple(self._rounds),
            names=_names(self.folder),
            score=score,
            last_sign=sign,
            alive=alive,
            finished=(self.folder / "summary.json").is_file(),
            report=(self.folder / "report.html").is_file(),
        )

    def _read_rounds(self, score: ShownScore) -> None:
        """Read what was added since the last look; all again where a resume has written anew."""
        path, known = self.folder / "rounds.jsonl", self._rounds
        if not path.is_file():
            self._file, self._rounds = None, []
            return
        with storing(path), path.open("rb") as file:
            about = os.fstat(file.fileno())
            inode, at = self._file or (about.st_ino, 0)
            if inode != about.st_ino or about.st_size < at:
                at, known = 0, []
            file.seek(at)
            # Half of a line is read when it is whole.
            lines = [line for line in file if line.endswith(b"\n")]
        read = [
            _over(parse(Round, line.decode("utf-8", errors="replace"), path, number), score)
            for number, line in enumerate(lines, len(known) + 1)
        ]
        self._file, self._rounds = (about.st_ino, at + sum(map(len, lines))), [*known, *read]

    def _sign_of_life(self, live: Live | None) -> tuple[float | None, bool | None]:
        """When a run last said that it is alive, and whether it is."""
        if live is None:
            return None, None
        sign, now = (self.folder / FILE).stat().st_mtime, time.monotonic()
        if self._beat is None:  # its first look: how old the file is, by the wall's clock
            self._heard = now - max(0.0, time.time() - sign)
        elif self._beat != (live.pid, live.beat):
            self._heard = now
        self._beat = live.pid, live.beat
        if live.state != "running":
            return sign, False
        silent, here = now - self._heard, live.host == platform.node()
        there = here and _exists(live.pid)
        if silent > _GONE_AFTER and here and not there:
            return sign, False
        begins = live.round is None and there  # it writes again and again from its first round on
        return sign, True if begins or silent < _SILENT_AFTER else None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _check_empty(folder: Path) -> None:
    """Refuse to wait for a run in what is no folder for one.

    Raises:
        RunFolderError: names what is there.
    """
    if folder.is_dir():
        held = sorted(each.name for each in folder.iterdir())
        if held and "checkpoints" not in held:  # which a run makes before its config.toml
            inner = [name for name in held if (folder / name / "config.toml").is_file()]
            remedy = f"name one run in it, such as {inner[0]!r}" if inner else "name a run folder"
            raise RunFolderError(
                f"folder {str(folder)!r} is no run folder, it holds {held[0]!r} and no "
                f"config.toml: {remedy}"
            )
    elif folder.exists():
        raise RunFolderError(f"{str(folder)!r} is a file: name a run folder")


def _names(folder: Path) -> tuple[str, ...]:
    if not (folder / DEPLOYMENT).is_file():
        return ()
    return tuple(parse(_Clients, text(folder / DEPLOYMENT), folder / DEPLOYMENT).clients)


def _over(read: Round, score: ShownScore) -> RoundOver:
    return RoundOver(
        round=read.round,
        student=_number(read.student, score.figure),
        teachers=_number(read.teachers, score.mean),
        asked=read.asked,
        answered=read.answered,
        failures=read.failures,
        seconds=read.seconds.total,
        up=read.bytes.up,
        down=read.bytes.down,
        epsilon=None if read.privacy is None else read.privacy.epsilon,
    )


def _number(scores: Scores | None, figure: str) -> float | None:
    """A figure that is one number; None where there is none, or it is not defined."""
    found = None if scores is None else scores.figures.get(figure)
    return found if isinstance(found, float) else None
