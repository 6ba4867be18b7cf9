"""Runs the tutorials as the site is built, and shows what each cell printed.

A tutorial is a notebook kept as Markdown (jupytext's), so that it is read on its own and a change
of it is a change of text. All run in one kernel, which loads torch once, each in an empty folder of
its own and with no variable of another. An error in a cell ends the build. The executed notebook
goes beside the page.
"""

import logging
import os
import re
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import jupytext
import nbformat
from jupyter_client.manager import KernelManager
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbformat import NotebookNode

FOLDER = "tutorials/"
RUN = re.compile(r"^```(?:python|bash)$", re.MULTILINE)
"""What begins a cell that is run; other languages are for reading."""
KERNEL = """---
jupyter:
  kernelspec: {name: python3, display_name: Python 3, language: python}
---
"""
"""Without it a tutorial of commands alone is a notebook of a shell."""
AFRESH = """import logging, os
os.environ["FORCE_COLOR"] = ""  # a kernel sets it, and commands would draw as on a terminal
logging.getLogger("fedkd").propagate = False
%reset -f
%cd -q {folder}"""
"""What a cell that is not shown does first."""
QUIET = {"NO_COLOR": "1", "PYTHONWARNINGS": "ignore:IProgress not found"}
"""A page has no colours of a terminal, and no widgets, of which tqdm warns."""
SECONDS = 120
"""What one cell may take."""
log = logging.getLogger("mkdocs.hooks.notebooks")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put the executed tutorials in place of their sources. See mkdocs' events."""
    sources = [file for file in files.documentation_pages() if file.src_uri.startswith(FOLDER)]
    with tempfile.TemporaryDirectory(prefix="fedkd-") as folder, _kernel() as kernel:
        for file in sources:
            if RUN.search(file.content_string):
                log.info("Running %s", file.src_uri)
                files.remove(file)
                for each in _executed(file, config, kernel, Path(folder)):
                    files.append(each)
    return files


@contextmanager
def _kernel() -> Iterator[KernelManager]:
    manager = KernelManager(transport="ipc")  # by files of this user, and not by ports
    # `fedkd` in a cell is that of this environment, whether or not a shell has activated it.
    here = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)))
    manager.start_kernel(env={**os.environ, **QUIET, "PATH": here})
    try:
        yield manager
    finally:
        manager.shutdown_kernel(now=True)


def _executed(
    file: File, config: MkDocsConfig, kernel: KernelManager, folder: Path
) -> Iterator[File]:
    """The page of a tutorial with what its cells printed, its pictures and its notebook."""
    notebook = jupytext.reads(KERNEL + file.content_string, fmt="md")
    name = PurePosixPath(file.src_uri).stem
    _run(notebook, kernel, folder / name)
    exporter = MarkdownExporter()
    text, resources = exporter.from_notebook_node(
        notebook, {"unique_key": name, "output_files_dir": f"{name}_files"}
    )
    link = f"[The executed notebook]({name}.ipynb)\n"
    content = text.replace("```bash\n%%bash\n", "```bash\n") + "\n\n" + link
    yield File.generated(config, file.src_uri, content=content)
    yield File.generated(config, f"{FOLDER}{name}.ipynb", content=nbformat.writes(notebook))
    for picture, data in resources["outputs"].items():
        yield File.generated(config, f"{FOLDER}{picture}", content=data)


def _run(notebook: NotebookNode, kernel: KernelManager, folder: Path) -> None:
    """Fill in what the cells print, in a folder that is made.

    Raises:
        CellExecutionError: a cell failed.
    """
    folder.mkdir()
    notebook.cells.insert(0, nbformat.v4.new_code_cell(AFRESH.format(folder=folder)))
    client = NotebookClient(notebook, km=kernel, timeout=SECONDS, coalesce_streams=True)
    client.execute(cleanup_kc=False)
    del notebook.cells[0]
