"""Data that many tests share."""

import gc
import importlib
import logging
import os
import pkgutil
import secrets
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tiny
import torch
from hypothesis import settings
from markupsafe import Markup
from same_keys import Keys

# Side by side, each process is told of a terminal of 80 columns, which a console takes for good.
for size in ("COLUMNS", "LINES"):
    os.environ.pop(size, None)

with warnings.catch_warnings():
    # typer < 0.21, which flwr 1.41 pins, imports what click 8.5 calls deprecated.
    warnings.filterwarnings("ignore", "'click", DeprecationWarning)
    import fedkd
    from fedkd import cli
    from fedkd.privacy import accountant

# Tests run side by side, one process a core. Left alone, each process would split every small sum
# among as many threads as there are cores, and they would wait for each other's: four times slower.
torch.set_num_threads(1)

# How long an example takes says how busy the machine is.
settings.register_profile("fedkd", deadline=None)
settings.load_profile("fedkd")


@contextmanager
def untraced() -> Iterator[None]:
    """Without coverage's tracer, which makes Python code run at a third of its speed.

    It is called at each line that is run, to find each time that the line is not ours.
    """
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Rewrite and import the tests untraced, what they import of ours being there already."""
    elsewhere = session.config.getoption("dist", "no") != "no"  # other processes collect
    if sys.gettrace() is None or elsewhere:
        return (yield)
    for module in pkgutil.walk_packages(fedkd.__path__, "fedkd."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
    with untraced():
        return (yield)


def pytest_collection_finish() -> None:
    """Have the garbage collector look at no module again: a tenth of the time that tests took."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def untraced_libraries() -> Iterator[None]:
    """Keep coverage's tracer out of imports and inner loops of libraries that we do not measure.

    None of them calls anything of ours but the model that an ONNX file is made of.
    """
    if sys.gettrace() is None:
        yield
        return
    from importlib.machinery import SourceFileLoader

    from dp_accounting.pld import privacy_loss_distribution as pld
    from dp_accounting.rdp import rdp_privacy_accountant as rdp
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    def quick(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            with untraced():
                return function(*arguments, **options)

        return call

    def exec_module(loader: SourceFileLoader, module: ModuleType) -> None:
        ours = module.__name__.partition(".")[0] == "fedkd"
        with nullcontext() if ours else untraced():
            execute(loader, module)

    execute = SourceFileLoader.exec_module
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SourceFileLoader, "exec_module", exec_module)
        for place, name in (
            (torch.onnx, "export"),
            (pld, "from_gaussian_mechanism"),
            (pld, "from_laplace_mechanism"),
            (rdp.RdpAccountant, "compose"),
            (rdp, "compute_epsilon"),
            (Figure, "add_subplot"),
            (FigureCanvasSVG, "print_svg"),
        ):
            patch.setattr(place, name, quick(getattr(place, name)))
        yield


@pytest.fixture(scope="module", autouse=True)
def cheap_runs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave out what takes most of a small run's time, where that is not what is tested.

    One look tells how fast a model is, and 100 steps who takes part in DP-SGD. Outside
    tests/privacy epsilon is counted on a grid ten times as wide: the figure is slightly larger, for
    a run and for what it is held against alike. Outside tests/reports each figure is made for a
    file's first two runs, and may fail, but for a desk alone, and matplotlib does not draw it.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    from fedkd.auditing import structure
    from fedkd.reports.charts import drawing
    from fedkd.runs import model_size

    real, made = drawing._svg, Counter[str]()

    def twice(name: str, draw: Callable[..., None], width: int, height: float) -> Markup:
        made[name] += 1
        wanted = width == drawing.WIDE and made[name] <= 2
        return real(name, draw, width, height) if wanted else Markup()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_size, "_REPEATS", 1)
        patch.setattr(structure, "_STEPS", 100)
        if "privacy" not in request.path.parts:
            patch.setattr(accountant, "_INTERVAL", 1e-3)
        if "reports" not in request.path.parts:
            patch.setattr(FigureCanvasSVG, "print_svg", empty_svg)
            patch.setattr(drawing, "_svg", twice)
        yield


def empty_svg(_canvas: Any, filename: Any, **_: Any) -> None:
    """In place of `FigureCanvasSVG.print_svg`: a picture of nothing."""
    filename.write('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"></svg>')


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .npz file of 240 rows of ten features in three classes."""
    return tiny.write_rows(tmp_path_factory.mktemp("data") / "rows.npz")


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .npz file of 240 grey images of 8x8 in three classes."""
    return tiny.write_images(tmp_path_factory.mktemp("data") / "squares.npz", side=8)


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """A network that a test makes without a generator starts alike, whatever tests ran before."""
    torch.manual_seed(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Noise is drawn under the same keys in each run: a threshold that holds once always holds.

    By the test's name, since what is named by such bits is to be named once.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "token_bytes", Keys(item.nodeid))
        return (yield)


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """What the library logs as a program finds it, whatever a command made of it before."""
    own = logging.getLogger("fedkd")
    handlers, own.propagate = own.handlers, True
    yield
    own.handlers = handlers


class _Collecting(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.said = []

    def emit(self, record):
        self.said.append(record.getMessage())


@pytest.fixture
def warned() -> Iterator[list[str]]:
    """What the library warns of; `caplog` hears nothing once a command has run in the process."""
    collecting, own = _Collecting(), logging.getLogger("fedkd")
    own.addHandler(collecting)
    yield collecting.said
    own.removeHandler(collecting)


@pytest.fixture(scope="session")
def built():
    """Builds the command once for all tests."""
    return cache(cli.command_of)


@pytest.fixture
def run(monkeypatch, capsys, built):
    """Run the command in this process: exit status, output, complaint."""
    monkeypatch.setattr(cli, "command_of", built)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("FEDKD_BESIDE", "")  # what a command sets here does not outlive the test

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["fedkd", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code or 0, *capsys.readouterr()

    return command


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path
