"""What the house promises of its own build: small rooms and files, one name a class, no circle."""

import ast
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1] / "fedkd"
FILES = sorted(HOUSE.rglob("*.py"))


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def module(file: Path) -> str:
    parts = file.relative_to(HOUSE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path, modules: set[str]) -> set[str]:
    """The modules of the house that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.ImportFrom) and node.module in modules:
            inner = {f"{node.module}.{each.name}" for each in node.names}
            found |= (inner & modules) or {node.module}
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names} & modules
    return found - {module(file)}


def test_no_folder_has_more_than_twenty_files():
    sizes = Counter(file.parent for file in FILES if file.name != "__init__.py")
    assert {str(folder): size for folder, size in sizes.items() if size > 20} == {}


def test_every_file_has_less_than_three_hundred_lines():
    lines = {str(file): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert {file: count for file, count in lines.items() if count >= 300} == {}


def test_public_class_names_are_unique():
    names = Counter(
        node.name
        for file in FILES
        for node in tree(file).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_imports_run_in_no_circle():
    modules = {module(file) for file in FILES}
    graph = {module(file): imports(file, modules) for file in FILES}
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(
    ("what", "without"),
    [
        ("fedkd.jobs.distil, fedkd.api.running", ("flwr", "grpc", "ray")),
        ("fedkd.cli", ("torch", "flwr", "pydantic", "matplotlib")),
    ],
)
def test_what_a_command_does_not_need_is_not_loaded(what, without):
    script = f"import sys, {what}; print(sorted({set(without)!r} & set(sys.modules)))"
    shown = subprocess.check_output([sys.executable, "-c", script], text=True)
    assert shown.strip() == "[]"


def test_the_constraints_pin_each_package_once():
    lines = (Path(__file__).parents[1] / "constraints.txt").read_text("utf-8").splitlines()
    pinned = [re.fullmatch(r"([A-Za-z0-9._-]+)==[^=\s]+", line) for line in lines]
    assert [line for line, pin in zip(lines, pinned, strict=True) if pin is None] == []
    names = [pin[1].lower().replace("_", "-") for pin in pinned if pin]
    assert len(names) == len(set(names))
