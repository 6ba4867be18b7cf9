"""Weights & Biases: a run in the run folder, offline unless `WANDB_MODE` says otherwise."""

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedkd.files import make_folder
from fedkd.optional import load
from fedkd.tracking.base import Figures, TrackedRun

_STEP = "step"


class WandbRun:
    """A run of Weights & Biases, open."""

    def __init__(self, run: TrackedRun, opened: Any, known: dict[str, Any], *, local: bool) -> None:
        self._run, self._opened, self._known = run, opened, known
        self._leaves = local or not run.private
        self._defined: set[str] = set()

    def log(self, stage: str, step: int, figures: Figures) -> None:
        """See `Tracker`."""
        told = self._known["told"]
        if step <= told.get(stage, 0):
            return
        prefix = f"{stage}." if stage else ""
        if stage not in self._defined:
            self._defined.add(stage)
            self._opened.define_metric(f"{prefix}*", step_metric=f"{prefix}{_STEP}")
        self._opened.log(
            {f"{prefix}{_STEP}": step, **{f"{prefix}{k}": v for k, v in figures.items()}}
        )
        told[stage] = step
        self._run.keep("wandb", self._known)

    def end(self, figures: Figures, files: Sequence[Path], /, *, failed: bool) -> None:
        """See `Tracker`."""
        self._opened.summary.update(dict(figures))
        for file in files if self._leaves else files[:1]:
            # A copy: what is linked would change when the run goes on.
            copy = Path(self._opened.dir) / file.name
            shutil.copyfile(file, copy)
            self._opened.save(str(copy), base_path=self._opened.dir, policy="end")
        self._opened.finish(exit_code=int(failed))


def start(run: TrackedRun) -> WandbRun:
    """Open a run, or go on in that of a run folder that is resumed, under the same id."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    mode = os.environ.get("WANDB_MODE", "offline")
    wandb = load("wandb", extra="track")
    known = run.kept("wandb") or {"id": secrets.token_hex(4), "told": {}}
    make_folder(run.store)
    opened = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "fedkd"),
        name=run.title,
        group=run.name,
        config=dict(run.parameters),
        settings=wandb.Settings(
            mode=mode,
            root_dir=str(run.store.resolve()),
            run_id=known["id"],
            resume=None if mode == "offline" else "allow",
            reinit="create_new",
            silent=True,
            # What is told is told by us: no console, code, machine, host or user name.
            console="off",
            program="fedkd",
            host="",
            username="",
            disable_git=True,
            disable_code=True,
            save_code=False,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        ),
    )
    run.keep("wandb", known)
    return WandbRun(run, opened, known, local=mode == "offline")
