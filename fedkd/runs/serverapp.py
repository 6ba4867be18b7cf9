"""What runs on a deployment's server: the rounds, into the run folder that `submit` opened."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from fedkd import config
from fedkd.data.parties import read_shared, seen_from
from fedkd.errors import FedkdError
from fedkd.federation.processes import hold
from fedkd.federation.serving import Submission, server_app
from fedkd.federation.world import prepare
from fedkd.runs import report
from fedkd.runs.folder import RunFolder
from fedkd.runs.progress import Recorder
from fedkd.runs.summary import summarise


def _main(submission: Submission, federate: Callable[..., nn.Module]) -> None:
    folder = Path(submission.folder)
    recorder, run = Recorder(folder), RunFolder(folder)
    try:
        lock = hold(folder, "the server")
        experiment = config.load(folder / "config.toml")
        shared = read_shared(Path(submission.shared))
        world = prepare(experiment, seen_from(shared, len(submission.nodes), own={}))
        student = federate(world, run, recorder)
        summary = summarise(world, student, run.records(), run.released())
        run.finish(student.state_dict(), summary)
        report.write(folder)
        lock.release()
    except FedkdError as error:
        recorder.fails(str(error), error.exit_status)
        raise
    except Exception as error:
        recorder.fails(f"{type(error).__name__}: {error}", 1)
        raise


app = server_app(_main)
