"""What runs on a deployment's server: the rounds, into the run folder that `submit` opened."""

import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from torch import nn

from fedkd import config
from fedkd.data.shared_file import read_shared, seen_from
from fedkd.errors import FederationError, FedkdError, StorageError
from fedkd.federation.answers import Together
from fedkd.federation.deploy.serving import Submission, server_app
from fedkd.federation.prepare import prepare
from fedkd.files import storing
from fedkd.locks import hold
from fedkd.runs import tokenizers
from fedkd.runs.folder import RunFolder
from fedkd.runs.summary import summarise
from fedkd.runs.under_way.live import LiveWriter
from fedkd.runs.under_way.progress import ProgressWriter


def _main(submission: Submission, federate: Callable[..., nn.Module]) -> None:
    folder = Path(submission.folder)
    recorder, run = ProgressWriter(folder), RunFolder(folder)
    try:
        with storing(folder):
            lock = hold(folder, "the server")
        experiment = config.load(folder / "config.toml")
        shared = read_shared(Path(submission.shared))
        prepared = prepare(experiment, seen_from(shared, len(submission.nodes), samples={}))
        run.open(prepared.experiment, prepared.data, resume=True, devices=prepared.setting.devices)
        with LiveWriter(folder, prepared.setting.task.headline) as live:
            student = federate(prepared, run, Together(recorder, live))
            summary = summarise(prepared, student, run.records(), run.released())
            tokenizers.keep(run.path, prepared.in_students_view.data.tokenizers)
            run.finish(student.state_dict(), summary)
            from fedkd.reports import report

            report.write(folder)
        lock.release()
    except FedkdError as error:
        with suppress(StorageError):  # which may be what failed
            recorder.fails(str(error), error.exit_status)
        raise
    except Exception as error:  # noqa: BLE001 - it is raised again, in our words
        # Not in its own words, which Flower would write down too: a client may have chosen them.
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__} in {Path(where.filename).name}, line {where.lineno}"
        recorder.fails(text, FederationError.exit_status)
        raise FederationError(text) from None


app = server_app(_main)
