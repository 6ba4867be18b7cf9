"""What the shell completes: experiments, run folders, methods; without loading what runs them."""

import ast
from collections.abc import Callable
from pathlib import Path

from fedkd import configs as packaged

Choices = list[tuple[str, str]]
"""What may stand there, each with a word on it."""


def configs(incomplete: str) -> Choices:
    """Experiments that come with fedkd, and files of one's own."""
    return packaged_configs(incomplete) + _paths(incomplete, lambda path: path.suffix == ".toml")


def packaged_configs(incomplete: str) -> Choices:
    """Experiments that come with fedkd."""
    return [(n, packaged.about(n).about) for n in packaged.names() if n.startswith(incomplete)]


def runs(incomplete: str) -> Choices:
    """Run folders: those in the folder `runs` too, where nothing is written yet."""
    places = (incomplete,) if incomplete else ("", "runs/")
    found = [each for place in places for each in _paths(place, _is_run)]
    return [each for each in found if _is_run(Path(each[0]))] or found


def configs_or_runs(incomplete: str) -> Choices:
    """Both."""
    return list(dict.fromkeys(configs(incomplete) + runs(incomplete)))


def methods(incomplete: str) -> Choices:
    """Methods by name, after the last comma."""
    before, comma, last = incomplete.rpartition(",")
    return [(f"{before}{comma}{name}", "") for name in method_names() if name.startswith(last)]


def settings(incomplete: str) -> Choices:
    """Of `--set` the method, whose name is what is changed most."""
    key = "method.name="
    if key.startswith(incomplete):
        return [(key, "the federated method")]
    if not incomplete.startswith(key):
        return []
    found = methods(incomplete.removeprefix(key))
    return [(key + name, about) for name, about in found if "," not in name]


def method_names() -> list[str]:
    """The names of `fedkd.methods.BUILT_IN`, read and not run: importing it would load torch."""
    file = Path(__file__).parents[1] / "methods" / "__init__.py"
    for each in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "BUILT_IN":
            return list(ast.literal_eval(each.value))
    return []


def _is_run(path: Path) -> bool:
    return (path / "config.toml").is_file()


def _paths(incomplete: str, wanted: Callable[[Path], bool]) -> Choices:
    """What is wanted in the folder that the text leads to, and the folders in it."""
    folder, _, start = incomplete.rpartition("/")
    shown = f"{folder}/" if folder or incomplete.startswith("/") else ""
    try:
        inside = sorted(Path(shown or ".").iterdir())
    except OSError:
        return []
    found = [each for each in inside if each.name.startswith(start)]
    found = [each for each in found if start.startswith(".") or not each.name.startswith(".")]
    return [
        (shown + each.name + ("" if wanted(each) else "/"), "")
        for each in found
        if wanted(each) or each.is_dir()
    ]
