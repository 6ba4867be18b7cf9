"""A run's folder in Python: its figures, its report, and its student."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedkd import config as configuration
from fedkd.api import rows
from fedkd.api.rows import Row
from fedkd.config import Distillation, Experiment
from fedkd.reports import notebook
from fedkd.runs import student as students
from fedkd.runs.student import FinishedStudent

if TYPE_CHECKING:
    from fedkd.jobs.export import Exported, Format
    from fedkd.jobs.predicting.prediction import Prediction


@dataclass(frozen=True)
class ReportPage:
    """A report as a file; a notebook shows the page itself.

    Attributes:
        path: of the page, which needs nothing but itself.
    """

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str:
        page = escape(self.path.read_text(encoding="utf-8"))
        # In a frame of its own, where it can neither run a script nor reach the notebook.
        return f'<iframe sandbox srcdoc="{page}" style="width:100%;height:40em;border:0"></iframe>'


@dataclass(frozen=True)
class Run:
    """A finished run's folder. What is asked for is read when it is asked for, and kept.

    Nothing here reads the data that the run learned from.

    Attributes:
        path: of the folder.
    """

    path: Path

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The figures that a run is compared by, as in `summary.json`; shares are of 1."""
        from fedkd.runs import reading

        return reading.summary(self.path)

    @cached_property
    def config(self) -> Experiment | Distillation:
        """What was run, complete and resolved."""
        read = configuration.load_distillation if self._distils else configuration.load
        return read(self.path / "config.toml")

    @cached_property
    def rounds(self) -> list[Row]:
        """A row for each round, or for each epoch of a distillation, for `pandas.DataFrame`.

        The student's scores by name, the teachers' and the ensemble's headline score, bytes,
        seconds, and the largest epsilon so far; None is what was not scored, or does not apply.

        Raises:
            RunFolderError: a file is missing or corrupt.
        """
        from fedkd.runs import distil_schema, reading

        if self._distils:
            return rows.of_distillation(distil_schema.read(self.path))
        return rows.of_federation(reading.read(self.path))

    @property
    def report(self) -> ReportPage:
        """The run's page, which is written if it is not there.

        Raises:
            RunFolderError: a file is missing or corrupt.
        """
        page = self.path / "report.html"
        if not page.is_file():
            from fedkd.reports import distil_report, report

            (distil_report if self._distils else report).write(self.path)
        return ReportPage(page)

    @cached_property
    def student(self) -> FinishedStudent:
        """The student: a model of torch in evaluation mode, and what it takes and answers.

        Raises:
            RunFolderError: a file is missing or corrupt.
            DataError: the run is of an earlier fedkd that kept nothing of its inputs, and its data
                is not here.
        """
        return students.load(self.path)

    def predict(
        self,
        given: Any,
        *,
        cut: bool = False,
        among: str | Path | None = None,
        most: int | None = None,
    ) -> "list[Prediction]":
        """What the student says of records; see `fedkd.jobs.predict.predict`.

        Args:
            given: an array or a tensor of one record or of several, values as the data had them; a
                mapping from columns to values, or several, or a data frame; texts, or pairs of
                them; of a recommender the names of the items that each user has; or a file or
                several: pictures, a folder of pictures, a table, `.npy` or `.npz`.
            cut: whether texts that are too long are cut.
            among: of a retrieval a table of the texts to choose from.
            most: of a student that writes the most tokens that it adds.

        Returns:
            A prediction for each record, one record too.

        Raises:
            UsageError: the student takes something else.
            DataError: a file cannot be read, or a value does not fit.
        """
        from fedkd.jobs.predict import predict as ask

        there = None if among is None else Path(among)
        return ask(self.student, given, cut=cut, among=there, most=most)

    def export(self, format: "Format", out: str | Path | None = None) -> "Exported":
        """Write the student for other programs, checked against the original.

        Args:
            format: `onnx` or `torchscript`.
            out: the file; None: `student.onnx` or `student.pt` in the run's folder.

        Raises:
            UsageError: packages are missing, or the student decides by the values of a batch.
            ExportError: the file does not say what the student says.
        """
        from fedkd.jobs.export import export

        return export(self.path, format, None if out is None else Path(out))

    @cached_property
    def _distils(self) -> bool:
        return students.is_distillation(self.path)

    def _repr_html_(self) -> str:
        from fedkd.reports import tables

        table = tables.distilled if self._distils else tables.summary
        return notebook.html(table(self.summary))


@dataclass(frozen=True)
class Comparison:
    """Several methods, or forms of answers, on the same experiment and seeds.

    Attributes:
        path: of the folder that holds all runs.
        runs: in the order in which they ran.
    """

    path: Path
    runs: tuple[Run, ...]

    @property
    def report(self) -> ReportPage:
        """The page that shows all of them."""
        return ReportPage(self.path / "report.html")

    @cached_property
    def rows(self) -> list[Row]:
        """A row for each method over its seeds, the best first, for `pandas.DataFrame`."""
        from fedkd.reports.comparison import comparison_table

        return rows.of_comparison(comparison_table(self._folders))

    @property
    def _folders(self) -> Sequence[Path]:
        return [run.path for run in self.runs]

    def _repr_html_(self) -> str:
        from fedkd.reports import tables
        from fedkd.reports.comparison import comparison_table

        return notebook.html(tables.comparison(comparison_table(self._folders)))


def load(run: str | Path) -> Run:
    """A run that ended before, of a federation or of one party.

        fedkd.load("runs/demo").predict(image)

    Raises:
        RunFolderError: it is no run folder, or the run is unfinished.
    """
    found = Run(Path(run).expanduser())
    _ = found.summary  # which an unfinished run has not
    return found
