"""What fedkd uses of Flower: prints each name and, of a function, its parameters, as JSON."""

import ast
import importlib
import inspect
import json
import sys
from pathlib import Path
from types import ModuleType

import flwr


def used(folder: Path) -> set[str]:
    """Dotted names: what is imported, and what is read of a module that was imported."""
    names = set()
    for path in folder.rglob("*.py"):
        if "flwr" not in (text := path.read_text(encoding="utf-8")):
            continue
        tree, known = ast.parse(text), {}
        for node in ast.walk(tree):
            match node:
                case ast.ImportFrom(module=str(module)) if module.split(".")[0] == "flwr":
                    for name in node.names:
                        known[name.asname or name.name] = f"{module}.{name.name}"
                case ast.Assign(
                    targets=[ast.Name(id=name)],
                    value=ast.Call(func=ast.Name(id="import_module"), args=[ast.Constant(module)]),
                ):
                    known[name] = module
        names |= set(known.values())
        names |= {
            f"{known[node.value.id]}.{node.attr}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in known
            and isinstance(find(known[node.value.id]), ModuleType)
        }
    return names


def find(dotted: str) -> object:
    """The module, or what a module holds under a name.

    Raises:
        AttributeError, ImportError: there is none.
    """
    module, _, name = dotted.rpartition(".")
    holder = importlib.import_module(module)
    return getattr(holder, name) if hasattr(holder, name) else importlib.import_module(dotted)


def described(folder: Path) -> dict[str, list[str] | str | None]:
    """Each name that code in a folder uses: its parameters if it takes some, or what is missing."""
    about = {}
    for dotted in sorted(used(folder)):
        try:
            thing = find(dotted)
        except (AttributeError, ImportError) as error:
            about[dotted] = f"missing: {error}"
            continue
        try:
            about[dotted] = list(inspect.signature(thing).parameters)
        except (TypeError, ValueError):  # a module, a value, or a class of protobuf's
            about[dotted] = None
    return about


if __name__ == "__main__":
    told = {"folder": str(Path(flwr.__file__).parent), "names": described(Path(sys.argv[1]))}
    sys.stdout.write(json.dumps(told))
