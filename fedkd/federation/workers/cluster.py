"""Whole runs side by side on Ray: a cluster's workers, or this machine's."""

import importlib.util
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedkd.errors import ConfigError
from fedkd.threads import cores


@dataclass(frozen=True)
class ClusterTask:
    """What one worker does."""

    call: Callable[[], str]
    """Gives why it failed, or nothing; whatever it holds must pickle."""
    cores: int
    accelerator: bool = False
    """Whether it takes one."""


def check() -> None:
    """Refuse Ray that is not installed.

    Raises:
        ConfigError: with the remedy.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("--on is 'ray', which is not installed: pip install 'fedkd[ray]'")


def each(tasks: Sequence[ClusterTask]) -> Iterator[tuple[int, str]]:
    """Run tasks on the cluster that `RAY_ADDRESS` names, or on this machine.

    None is run twice: one whose worker is lost has failed.

    Args:
        tasks: as many at a time as there are cores for; relative paths are seen from the folder
            that this process is in.

    Yields:
        A task's number and why it failed, nothing if it did not, as they end.
    """
    if not tasks:
        return
    import ray

    address = os.environ.get("RAY_ADDRESS")
    beside = {key: os.environ[key] for key in ("FEDKD_BESIDE", "FEDKD_DATA") if key in os.environ}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of accelerators, where there are none
        ray.init(
            # Ray refuses a number of CPUs for a cluster, which has its own.
            num_cpus=None if address else max(cores(), *(task.cores for task in tasks)),
            runtime_env={"env_vars": beside},
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    try:
        asked = {
            ray.remote(_in_folder)
            .options(num_cpus=task.cores, num_gpus=1 if task.accelerator else 0, max_retries=0)
            .remote(task.call, Path.cwd()): number
            for number, task in enumerate(tasks)
        }
        while asked:
            [done], _ = ray.wait(list(asked), num_returns=1)
            number = asked.pop(done)
            try:
                yield number, ray.get(done)
            except ray.exceptions.RayError as error:
                yield number, f"its worker was lost: {type(error).__name__}"
    finally:
        ray.shutdown()


def _in_folder(call: Callable[[], str], folder: Path) -> str:
    os.chdir(folder)
    return call()
